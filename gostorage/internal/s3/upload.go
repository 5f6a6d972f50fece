package s3

import (
	"context"
	"crypto/rand"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/checksum"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/s3api"
)

const (
	// defaultConcurrency is how many parts an upload has in flight at most.
	defaultConcurrency = 16
	// defaultPart is the size of parts: as small as there can be, so that as many as possible are in flight in the budget.
	defaultPart = leastPart
	// nearPart is the size of parts where one at a time is enough: on a near store larger parts cost 5 % less than the
	// smallest. An object of this size, if that is known in time, is put in one request: a multipart upload takes three
	// round trips more.
	nearPart = 8 << 20
	// growAfter is the part after which an object of unknown size gets parts growBy times as large.
	growAfter = mostParts / 4
	growBy    = 4
)

// mostGrown bounds the parts of large objects: every part in flight grows, and the budget is shared.
func mostGrown() int64 { return buffers.Shared.Budget() / 4 / object.BlockSize * object.BlockSize }

// joinRate, in bytes a second, is the least rate at which a server copies and joins parts before it answers. (S3 itself
// begins to answer at once.)
const joinRate = 16 << 20

// patience is the time for an answer that comes when the server has written size bytes.
func (s *Store) patience(size int64) time.Duration {
	return s3api.Seconds(s.config.ReadTimeout + float64(size)/joinRate)
}

func isEnd(err error) bool { return err == io.EOF }

// wholeBlocks rounds a size up to whole blocks.
func wholeBlocks(size int64) int64 {
	return (size + object.BlockSize - 1) / object.BlockSize * object.BlockSize
}

// partSize plans an upload of size bytes, -1 if unknown.
func (s *Store) partSize(size int64) (int64, error) {
	part := wholeBlocks(s.config.PartSize)
	switch {
	case part > 0:
	case s.bucket.Traits.Near.Load(), s.config.EqualParts && size < 0, size >= 0 && size <= nearPart:
		part = nearPart
	default:
		part = defaultPart
	}
	if size > object.MaxSize {
		return 0, object.Errorf(object.Refused, "an object has at most %d bytes", int64(object.MaxSize))
	}
	if size > part*mostParts {
		most := max(mostGrown(), part)
		part = wholeBlocks((size + mostParts - 1) / mostParts)
		if part > most {
			return 0, object.Errorf(object.Refused,
				"an object of %d bytes in %d parts needs part_size of at least %d bytes", size, mostParts, part)
		}
	}
	return part, nil
}

// upload is one multipart upload.
type upload struct {
	store   *Store
	key     string
	nonce   string
	at      s3api.Upload // without an ID it has not begun, or has ended
	started time.Time    // of the first attempt to create it
	orphans bool         // an attempt may have created an upload that we know nothing of
	cut     atomic.Bool
	plain   atomic.Pointer[error] // why the server gets no checksums any more, or nil
	sums    *summer
	parts   []*s3api.Part
}

// putParts stores an object. first, and next if there is one, were already taken from src.
func (s *Store) putParts(
	ctx context.Context, key string, first *part, next object.Block, sums *summer, src object.Source,
	opts object.PutOptions,
) (info object.Info, err error) {
	up := s.newUpload(key, sums)
	_, expected := src.Expected()
	if parts := s.inFlight(); parts > 1 {
		s.bucket.Warm(ctx, parts)
	}
	if err := up.create(ctx, first.blocks, expected, opts); err != nil {
		first.release()
		return up.end(ctx, info, opts, err)
	}
	if err := up.send(ctx, first, next, src); err != nil {
		return up.end(ctx, info, opts, err)
	}
	info.Size, info.SHA256 = src.Sum()
	return up.end(ctx, info, opts, nil)
}

func (s *Store) newUpload(key string, sums *summer) *upload {
	return &upload{store: s, key: key, nonce: rand.Text(), sums: sums}
}

// end commits the upload if nothing has failed before. It leaves nothing of the upload but the object.
func (u *upload) end(ctx context.Context, info object.Info, opts object.PutOptions, err error) (object.Info, error) {
	if err == nil {
		info.Key, info.Version = u.key, u.nonce
		info, err = u.complete(ctx, info, opts)
	}
	u.undo(ctx)
	return info, err
}

// create begins the upload. The blocks given were summed already. A server that refuses checksums is not asked for
// them again.
func (u *upload) create(ctx context.Context, summed []object.Block, sum string, opts object.PutOptions) error {
	s := u.store
	if err := s.createsOnly(ctx, opts, byUpload); err != nil {
		return err
	}
	in := s3api.Create{
		Key: u.key, Description: description(opts, object.Info{SHA256: sum, Version: u.nonce}), Algorithm: u.sums.algorithm,
	}
	u.started = time.Now()
	ctx, end := object.Unhurried(ctx, lateTime)
	defer end()
	begun, attempts, err := s.bucket.CreateUpload(ctx, in)
	if u.sums.crc != nil && s.maybeUnsupported(err) {
		u.sums = newSummer(checksumSigned)
		for _, block := range summed {
			u.sums.add(block)
		}
		in.Algorithm = ""
		if begun, attempts, err = s.bucket.CreateUpload(ctx, in); err == nil {
			s.plainOnly.Store(true)
		}
	}
	u.orphans = attempts > 1 || err != nil && !s3api.Refused(err)
	u.at = begun
	return err
}

// send uploads the parts, as many at once as help.
func (u *upload) send(ctx context.Context, current *part, next object.Block, src object.Source) error {
	s := u.store
	ctx, stop := context.WithCancelCause(ctx)
	group, ctx := errgroup.WithContext(ctx)
	flight := newFlight(s.config.Concurrency, s.inFlight(), s.bucket.Connections, sinceNow())
	defer flight.end()
	known, _ := src.Expected()
	size, wants := current.size, 0
	defer func() {
		if found, near := flight.found(); found > 0 {
			s.bucket.Traits.InFlight.Store(int32(found))
			s.bucket.Traits.Near.Store(near)
		}
	}()
	fail := func(err error) error {
		stop(err)
		_ = group.Wait() // if a part failed, it has ended ctx, and err is its error already
		return err
	}
	defer stop(nil)
	for number := int32(1); ; number++ {
		if memory := src.Refused(); memory > 0 {
			flight.fits(int(memory / size))
		}
		entered, err := flight.enter(ctx)
		if err != nil {
			current.release()
			return fail(err)
		}
		sending, done := current, &s3api.Part{Number: number, Sums: u.sums.cut()}
		u.parts = append(u.parts, done)
		group.Go(func() (err error) {
			defer func() { flight.leave(entered, sending.size, err == nil) }()
			defer object.Rescue(&err)
			return u.part(ctx, sending, done)
		})
		grows := known < 0 && number == growAfter && !s.config.EqualParts && size < mostGrown()
		if grows {
			size = min(growBy*size, mostGrown())
		}
		if now := flight.wants(); grows || now != wants {
			wants = now
			s.reserve(src, size, wants, u.sums.crc)
		}
		var ended bool
		current, ended, err = collectAfter(ctx, next, src, size, u.sums.add)
		next = nil
		switch {
		case err != nil:
			return fail(err)
		case current.size == 0 && ended:
			return group.Wait()
		case number == mostParts:
			current.release()
			return fail(object.Errorf(object.Refused,
				"the stream is longer than %d parts: tell its length by size=, or set a larger part_size", mostParts))
		}
	}
}

// part uploads one part and notes what the server says of it.
func (u *upload) part(ctx context.Context, p *part, done *s3api.Part) error {
	defer p.release()
	s := u.store
	err := s.bucket.UploadPart(ctx, u.at, done, p.bytes())
	if done.Sums.Algorithm == s3api.CRC64NVME && s.maybeUnsupported(err) {
		again := newSummer(checksumSigned)
		for _, block := range p.blocks {
			again.add(block)
		}
		u.plain.CompareAndSwap(nil, new(err))
		done.Sums = again.cut()
		err = s.bucket.UploadPart(ctx, u.at, done, p.bytes())
	}
	if err != nil {
		u.cut.Store(true)
	}
	return err
}

// complete joins the parts: this is the commit.
func (u *upload) complete(ctx context.Context, info object.Info, opts object.PutOptions) (object.Info, error) {
	if ctx.Err() != nil {
		return object.Info{}, context.Cause(ctx)
	}
	s := u.store
	end := s3api.Complete{
		Upload: u.at, Parts: make([]s3api.Part, len(u.parts)), Sums: u.sums.complete(), CreateOnly: s.createOnly(opts),
		Patience: s.patience(info.Size),
	}
	for i, part := range u.parts {
		end.Parts[i] = *part
	}
	withoutSums := func() {
		end.Sums = s3api.Sums{}
		for i := range end.Parts {
			end.Parts[i].Sums = s3api.Sums{}
		}
	}
	if u.plain.Load() != nil {
		withoutSums()
	}
	there, done, err := s.looksFirst(ctx, info, opts)
	if done {
		return there, err
	}
	told, attempts, err := s.bucket.CompleteUpload(ctx, end)
	if u.sums.algorithm == s3api.CRC64NVME && s.maybeUnsupported(err) && u.plain.CompareAndSwap(nil, new(err)) {
		withoutSums()
		var more int
		told, more, err = s.bucket.CompleteUpload(ctx, end)
		attempts += more
	}
	if why := u.plain.Load(); why != nil {
		if err == nil {
			s.plainOnly.Store(true)
		} else if s.maybeUnsupported(err) {
			err = *why // leaving the checksums out did not help
		}
	}
	if err == nil {
		u.at.ID = "" // it has ended
		return info, u.judge(ctx, info, told)
	}
	there, _, err = s.settle(ctx, err, attempts, info, u.nonce, opts)
	return there, err
}

// judge compares the server's checksum of the object with ours, since readers rely on it. If they differ, the server's is
// nonsense, and readers must not rely on it, or it is that of other bytes: reading the object decides.
func (u *upload) judge(ctx context.Context, info object.Info, told string) error {
	s := u.store
	if u.sums.crc != checksum.CRC64NVME || u.plain.Load() != nil {
		return nil
	}
	if told == "" && !s.bucket.Traits.Judged.Swap(true) {
		if head, err := s.bucket.HeadObject(ctx, u.key, true); err == nil {
			told = head.CRC64NVME
		}
	}
	if sum, ok := checksum.CRC64NVME.Value(told); !ok || sum == u.sums.whole {
		return nil
	}
	there, err := s.digest(ctx, u.key)
	if err == nil && there.SHA256 != info.SHA256 {
		_ = s.Delete(ctx, u.key)
		err = object.Errorf(object.Mismatch, "the server has stored other bytes than were sent")
	}
	if err == nil {
		s.bucket.Traits.Miscounts.Store(true)
	}
	return err
}

// undo aborts what there is of the upload. It goes on after the transfer was cancelled, for a short time of its own.
func (u *upload) undo(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if u.at.ID != "" {
		u.abort(ctx, u.at)
	}
	if u.orphans {
		u.reap(ctx)
	}
}

// mostAborts bounds how often a server is told of the end of an upload. If it does not hear, a sweep finds the upload.
const mostAborts = 5

// abort ends an upload. A part that the server was at work on may bring it back: then it is told until it knows none.
func (u *upload) abort(ctx context.Context, it s3api.Upload) {
	for attempt := range mostAborts {
		err := u.store.bucket.AbortUpload(ctx, it)
		if s3api.Refused(err) || err == nil && !u.cut.Load() || s3api.Pause(ctx, attempt) != nil {
			return
		}
	}
}

// reap aborts uploads that were created by an attempt whose answer was lost: those with our key, of our time and
// without a part.
func (u *upload) reap(ctx context.Context) {
	path := u.store.bucket.Path(u.key)
	listed, err := u.store.bucket.ListUploads(ctx, path, "")
	if err != nil {
		return
	}
	for _, other := range listed.Found {
		if other.Key != path || other.Modified.Before(u.started.Add(-time.Minute)) {
			continue
		}
		it, empty := s3api.Upload{Key: u.key, ID: other.ID}, true
		for range u.store.bucket.Parts(ctx, it) { // a part, or no answer
			empty = false
			break
		}
		if empty {
			u.abort(ctx, it)
		}
	}
}
