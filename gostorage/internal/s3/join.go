package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/checksum"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/flow"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/s3api"
)

// mostCopied bounds, in bytes, a copy that is the commit, too. Whoever interrupts it cannot tell what becomes of it, so
// it must not last. It is what a server copies in a second.
const mostCopied = joinRate

// joining is one Join.
type joining struct {
	*object.Join
	store  *Store
	from   *Store
	pieces []piece
	sum    string
	upload *upload
	share  *buffers.Share
	lanes  *flow.Lanes   // of its copies, its reads and its parts
	beside chan struct{} // holds one while a part is in memory beside the budget
}

var _ object.Joiner = (*Store)(nil)

// Join implements object.Joiner. The server copies what is large enough to be a part of an upload; the rest is read and
// sent. The first part that a server is asked to copy shows what it can do.
func (s *Store) Join(ctx context.Context, join *object.Join) (object.Info, error) {
	from, ok := join.From.(*Store)
	if !ok || !from.bucket.SameStore(s.bucket) || s.copiesNot.Load() {
		return object.Info{}, object.ErrCannotJoin
	}
	s.bucket.Ref()
	defer s.bucket.Unref()
	sizes := make([]int64, len(join.Parts))
	for i, part := range join.Parts {
		sizes[i] = part.Size
	}
	pieces := plan(sizes)
	if len(pieces) > mostParts || (s.config.EqualParts || s.equalOnly.Load()) && !equal(pieces) {
		return object.Info{}, object.ErrCannotJoin
	}
	ranged := func(one piece) bool { return one.copied && one.size < sizes[one.spans[0].source] }
	if s.rangesNot.Load() && slices.ContainsFunc(pieces, ranged) {
		return object.Info{}, object.ErrCannotJoin
	}
	sum, err := join.SHA256(ctx)
	if err != nil {
		return object.Info{}, err
	}
	j := &joining{
		Join: join, store: s, from: from, pieces: pieces, sum: sum,
		share: buffers.Shared.Share(), lanes: object.Lanes(s, atATime), beside: make(chan struct{}, 1),
	}
	defer j.share.End()
	defer j.lanes.End()
	first := pieces[0]
	switch {
	case len(pieces) > 1:
		return j.inParts(ctx)
	case !first.copied:
		return j.putWhole(ctx, first)
	case join.Options.Overwrite && first.size <= mostCopied && s.copies.Load() != nil:
		return j.copyWhole(ctx, first)
	default:
		return j.inParts(ctx)
	}
}

// putWhole stores, in one request, an object that is all read.
func (j *joining) putWhole(ctx context.Context, only piece) (object.Info, error) {
	body, err := j.read(ctx, only)
	if err != nil {
		return object.Info{}, err
	}
	defer body.release()
	if err := j.commit(ctx, 0, only.size); err != nil {
		return object.Info{}, err
	}
	return j.store.putWhole(ctx, body, object.Info{Key: j.Key, Size: j.Size, SHA256: j.sum}, j.Options)
}

// copyWhole stores, in one request, an object that is all copied. A server that does not know copies would take that
// for a put of no bytes: this one has shown that it knows them.
func (j *joining) copyWhole(ctx context.Context, only piece) (object.Info, error) {
	s, source := j.store, j.Parts[only.spans[0].source]
	info := object.Info{Key: j.Key, Size: j.Size, SHA256: j.sum, Version: rand.Text()}
	order := s3api.Copy{
		Key: j.Key, From: j.from.bucket, Source: source.Key, IfMatch: source.ETag, Description: description(j.Options, info),
		Patience: s.patience(only.size),
	}
	if s.config.Checksum != checksumAuto {
		order.Algorithm = s.config.Checksum
	}
	if err := j.commit(ctx, only.size, 0); err != nil {
		return object.Info{}, err
	}
	copied, attempts, err := s.bucket.CopyObject(ctx, order)
	switch {
	case copied:
		return info, nil
	case err == nil, s3api.RefusedWith(err, cannotCopy...), s3api.RefusedWith(err, http.StatusBadRequest):
		return object.Info{}, object.ErrCannotJoin
	default:
		there, _, err := s.settle(ctx, blame(source, err), attempts, info, info.Version, j.Options)
		return there, err
	}
}

// commit is for an object that one request stores: all is in place when the request is sent.
func (j *joining) commit(ctx context.Context, copied, streamed int64) error {
	j.Done(copied, streamed)
	return j.Commit(ctx)
}

// errOnlyPlain is the error of a server that does not copy into an upload with checksums.
var errOnlyPlain = errors.New("no copies into an upload with checksums")

// inParts joins by a multipart upload.
func (j *joining) inParts(ctx context.Context) (object.Info, error) {
	algorithm := j.store.checksum()
	if known := j.store.copies.Load(); known != nil {
		algorithm = *known
	}
	info, err := j.tryParts(ctx, algorithm)
	if err == errOnlyPlain {
		info, err = j.tryParts(ctx, checksumSigned)
	}
	return info, err
}

func (j *joining) tryParts(ctx context.Context, algorithm string) (info object.Info, err error) {
	s := j.store
	up := s.newUpload(j.Key, s.summer(algorithm))
	if err := up.create(ctx, nil, j.sum, j.Options); err != nil {
		return up.end(ctx, info, j.Options, err)
	}
	j.upload = up
	if err := j.send(ctx); err != nil {
		return up.end(ctx, info, j.Options, err)
	}
	j.joinSums()
	if err := j.Commit(ctx); err != nil {
		return up.end(ctx, info, j.Options, err)
	}
	info, err = up.end(ctx, object.Info{Size: j.Size, SHA256: j.sum}, j.Options, nil)
	if s3api.RefusedWith(err, http.StatusBadRequest) { // it refuses these parts; a put makes others
		if !equal(j.pieces) {
			s.equalOnly.Store(true)
		}
		return object.Info{}, object.ErrCannotJoin
	}
	return info, err
}

// send puts the parts in place: some are copied while others are read and sent.
func (j *joining) send(ctx context.Context) error {
	j.upload.parts = make([]*s3api.Part, len(j.pieces))
	var copied, read []int
	for i, piece := range j.pieces {
		j.upload.parts[i] = &s3api.Part{Number: int32(i + 1), Sums: s3api.Sums{Algorithm: j.upload.sums.algorithm}}
		if piece.copied {
			copied = append(copied, i)
		} else {
			read = append(read, i)
		}
	}
	if known := j.store.copies.Load(); len(copied) > 0 && (known == nil || *known != j.upload.sums.algorithm) {
		if err := j.prove(ctx, copied[0]); err != nil {
			return err
		}
		copied = copied[1:]
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return object.Each(ctx, j.lanes, copied, j.copyPart) })
	group.Go(func() error {
		return object.Each(ctx, flow.NewLanes(nil, j.store.config.Concurrency), read, j.sendPart)
	})
	return group.Wait()
}

// prove copies the first part, and remembers what that shows.
func (j *joining) prove(ctx context.Context, first int) error {
	s, algorithm := j.store, j.upload.sums.algorithm
	err := j.copyPart(ctx, first)
	summed := algorithm != checksumOff && algorithm != checksumSigned
	switch {
	case err == nil:
		s.copies.Store(&algorithm)
	case err == object.ErrCannotJoin && !s.copiesNot.Load() && summed && s.config.Checksum == checksumAuto:
		return errOnlyPlain
	}
	return err
}

// copyPart lets the server copy one part of the upload.
func (j *joining) copyPart(ctx context.Context, i int) error {
	ctx, end := object.Unhurried(ctx, lateTime) // at work on a copy, a server may bring an aborted upload back
	defer end()
	s, up, piece := j.store, j.upload, j.pieces[i]
	span := piece.spans[0]
	source := j.Parts[span.source]
	order := s3api.CopyPart{
		From: j.from.bucket, Source: source.Key, IfMatch: source.ETag, Length: -1, Patience: s.patience(piece.size),
	}
	ranged := span.length < source.Size
	if ranged {
		order.Start, order.Length = span.start, span.length
	}
	part := up.parts[i]
	copied, err := s.bucket.CopyPart(ctx, up.at, part, order)
	switch {
	case copied:
		if ranged && !s.copiesRanges.Load() {
			if err := j.proveRange(ctx, part.Number, piece.size); err != nil {
				return err
			}
		}
		if part.Sums.Algorithm == s3api.SHA256 && part.Sums.Checksum == "" {
			return object.ErrCannotJoin // such an upload cannot end without the checksum of each part
		}
		j.Done(piece.size, 0)
		return nil
	case err == nil, s3api.RefusedWith(err, cannotCopy...): // without a result it took that for a part without bytes
		s.copiesNot.Store(true)
		return object.ErrCannotJoin
	case s3api.RefusedWith(err, http.StatusBadRequest):
		return object.ErrCannotJoin
	default:
		if ctx.Err() != nil || !s3api.Refused(err) {
			up.cut.Store(true)
		}
		return blame(source, err)
	}
}

// proveRange makes sure, once, that the server copies no more of a source than asked for: its answer has no size.
func (j *joining) proveRange(ctx context.Context, number int32, size int64) error {
	s := j.store
	// Listed from the first part on: MinIO knows no marker but the number of a part that is there.
	for part, err := range s.bucket.Parts(ctx, j.upload.at) {
		switch {
		case err != nil && err != s3api.ErrEndless && !s3api.Refused(err) && !s3api.RefusedWith(err, cannotCopy...):
			return err
		case err == nil && part.Number == number && part.Size == size:
			s.copiesRanges.Store(true)
			return nil
		}
	}
	s.rangesNot.Store(true) // it copied too much, or nobody can tell
	return object.ErrCannotJoin
}

// cannotCopy are the answers of a server that does not know copies.
var cannotCopy = []int{http.StatusNotImplemented, http.StatusMethodNotAllowed}

// sendPart reads one part of the upload and sends it.
func (j *joining) sendPart(ctx context.Context, i int) error {
	up, piece := j.upload, j.pieces[i]
	body, err := j.read(ctx, piece)
	if err != nil {
		return err
	}
	summer := j.store.summer(up.sums.algorithm)
	for _, block := range body.blocks {
		summer.add(block)
	}
	up.parts[i].Sums = summer.cut()
	if err := j.lanes.Enter(ctx); err != nil {
		body.release()
		return err
	}
	defer j.lanes.Leave()
	if err := up.part(ctx, body, up.parts[i]); err != nil {
		return err
	}
	j.Done(0, piece.size)
	return nil
}

// read reads the spans of a piece into memory, each to its own place.
func (j *joining) read(ctx context.Context, piece piece) (*part, error) {
	into, err := j.room(ctx, piece.size)
	if err != nil {
		return nil, err
	}
	places := make([]place, len(piece.spans))
	at := int64(0)
	for i, span := range piece.spans {
		places[i] = place{span, into, at}
		at += span.length
	}
	if err := object.Each(ctx, j.lanes, places, j.readSpan); err != nil {
		into.release()
		return nil, err
	}
	return into, nil
}

// place is where the bytes of a span belong.
type place struct {
	span
	part  *part
	start int64
}

// from gives the room, in one block, for what follows the first done bytes of the span.
func (p place) from(done int64) []byte {
	at := p.start + done
	room := p.part.blocks[at/object.BlockSize].Bytes()[at%object.BlockSize:]
	return room[:min(int64(len(room)), p.length-done)]
}

func (j *joining) readSpan(ctx context.Context, into place) error {
	source := j.Parts[into.source]
	sum, err := j.fetch(ctx, source, into.span, into.from)
	verified := into.length == source.Size && source.SHA256 != "" || j.from.bucket.Secure()
	if err == nil && !verified {
		err = j.fetchAgain(ctx, source, into.span, sum)
	}
	return blame(source, err)
}

// fetch reads a span and gives its checksum. The bytes after the first done bytes go to where room says. A whole part
// is compared with its digest.
func (j *joining) fetch(
	ctx context.Context, source object.Info, from span, room func(done int64) []byte,
) (sum uint64, err error) {
	opened, err := j.from.open(ctx, source, object.Range{Start: from.start, Length: from.length})
	if err != nil {
		return 0, err
	}
	defer func() { _ = opened.Close() }()
	if now := opened.Info(); now.Size != source.Size || !s3api.SameETag(now.ETag, source.ETag) && source.ETag != "" {
		return 0, errChanged // a server may not know conditions
	}
	if from.length == source.Size {
		opened = digest.NewReader(opened, source.SHA256)
	}
	for done := int64(0); done < from.length; {
		into := room(done)
		n, err := opened.ReadAt(into, from.start+done)
		sum = checksum.CRC64NVME.Update(sum, into[:n])
		done += int64(n)
		if err != nil && err != io.EOF && err != object.ErrNotYet {
			return 0, err
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
	}
	return sum, nil
}

// fetchAgain compares a span with another copy of it. The connection does not tell whether its bytes have changed on
// the way, nor does anything else: the server will get a checksum of what came.
func (j *joining) fetchAgain(ctx context.Context, source object.Info, from span, sum uint64) error {
	block, err := buffers.Shared.Get()
	if err != nil {
		return noMemory(err)
	}
	defer buffers.Shared.Put(block)
	again, err := j.fetch(ctx, source, from, func(done int64) []byte {
		return block.Bytes[:min(object.BlockSize, from.length-done)]
	})
	if err == nil && again != sum {
		err = object.Errorf(object.Mismatch, "the part was read twice, and other bytes came: the network changes them")
	}
	return err
}

func noMemory(err error) error {
	return object.Errorf(object.IO, "no memory for a buffer: %v", err)
}

var errChanged = object.Errorf(object.Mismatch, "the part has changed since it was described")

// blame says which part an error is about.
func blame(part object.Info, err error) error {
	known, ok := errors.AsType[*object.Error](err)
	if !ok || known.Key != "" || known.Code == object.Cancelled || known.Code == object.Closed {
		return err
	}
	about := *known
	about.Key = part.Key
	if about.Code == object.Exists { // it is not what the condition names
		about.Code, about.Message = errChanged.Code, errChanged.Message
	}
	return &about
}

// room gives memory for size bytes. It is of the budget or, for one part at a time, beside the budget, so that no join
// has to wait for other transfers.
func (j *joining) room(ctx context.Context, size int64) (*part, error) {
	if blocks := j.share.TryGetAll(size); blocks != nil {
		return partOf(blocks, size, nil), nil
	}
	select {
	case j.beside <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	blocks, err := buffers.Shared.GetAll(size)
	if err != nil {
		<-j.beside
		return nil, noMemory(err)
	}
	return partOf(blocks, size, func() { <-j.beside }), nil
}

// partOf makes a part of so many bytes, which lie in blocks. It calls after when they are given back.
func partOf(blocks []*buffers.Block, size int64, after func()) *part {
	p := &part{size: size, after: after}
	for i, block := range blocks {
		p.blocks = append(p.blocks, &lent{block, min(size-int64(i)*object.BlockSize, object.BlockSize)})
	}
	return p
}

// lent is memory of the pool, as a block of a part.
type lent struct {
	block *buffers.Block
	size  int64
}

// Bytes implements object.Block.
func (l *lent) Bytes() []byte { return l.block.Bytes[:l.size] }

// Checksum implements object.Block.
func (l *lent) Checksum() (uint64, bool) { return 0, false }

// Release implements object.Block.
func (l *lent) Release() { buffers.Shared.Put(l.block) }

// joinSums gives the upload the checksum of the whole. There is none if the checksum of a part was not told.
func (j *joining) joinSums() {
	up := j.upload
	if up.sums.crc == nil {
		return
	}
	for i, piece := range j.pieces {
		sum, ok := up.sums.crc.Value(up.parts[i].Sums.Checksum)
		if !ok {
			up.sums = newSummer(checksumOff)
			return
		}
		up.sums.whole = up.sums.crc.Join(up.sums.whole, sum, piece.size)
	}
}
