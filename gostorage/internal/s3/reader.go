package s3

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/checksum"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/prefetch"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/s3api"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/task"
)

// afterSeek bounds the first request after a jump, in bytes. Each request that reads on from there is four times as long.
const afterSeek = 1 << 20

// reader reads one object with requests for ranges of it, all of one ETag.
type reader struct {
	store      *Store
	ctx        context.Context // that of the store, with the thread of who has opened it
	info       object.Info
	etag       string      // "" until the first answer
	coded      string      // its Content-Encoding
	limit      int64       // where the caller means to stop
	ranged     atomic.Bool // the server has given a part
	mu         sync.Mutex
	prefetcher *prefetch.Prefetcher // what is fetched now, or nil
	closed     bool
}

// Get implements object.Store: one request, whose body is the first that is read.
func (s *Store) Get(ctx context.Context, key string, hint object.Range) (object.Reader, error) {
	return s.open(ctx, object.Info{Key: key}, hint)
}

// open opens an object. If its ETag is known, the object must still have it: one that was replaced is a Mismatch.
func (s *Store) open(ctx context.Context, known object.Info, hint object.Range) (object.Reader, error) {
	s.bucket.Ref()
	r := &reader{store: s, ctx: task.SharedAs(s.ctx, ctx), info: object.Info{Key: known.Key}, etag: known.ETag}
	opened, err := r.open(ctx, hint)
	if err != nil {
		s.bucket.Unref()
		return nil, err
	}
	r.prefetcher = opened
	return r, nil
}

// Info implements object.Reader.
func (r *reader) Info() object.Info { return r.info }

// open makes the first request and learns what the object is.
func (r *reader) open(ctx context.Context, hint object.Range) (*prefetch.Prefetcher, error) {
	from, until := hint.Start, int64(-1)
	if hint.Length >= 0 {
		until = hint.Start + hint.Length
	}
	if hint.Length == 0 { // no range is empty
		return nil, r.stat(ctx)
	}
	fetch, cancel := context.WithCancelCause(r.ctx)
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	out, err := r.first(task.Within(fetch, ctx), from, until)
	if !stop() && err == nil { // the call was cancelled at the last moment
		_ = out.Body.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		cancel(nil)
		if known, ok := errors.AsType[*object.Error](err); ok && known.Status == http.StatusRequestedRangeNotSatisfiable {
			return nil, r.stat(ctx) // the range begins after the end, where there is nothing to read
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	if !out.Ranged {
		from = 0 // all is sent
	}
	r.limit = r.info.Size
	if until >= 0 {
		r.limit = min(until, r.info.Size)
	}
	return prefetch.Start(ctx, r.ctx, fetch, cancel, r.source(), out.Body, prefetch.Part{From: from, Until: r.limit})
}

// first makes the first request, and another if the answer leaves open what the object is. It notes what it learns.
func (r *reader) first(ctx context.Context, from, until int64) (*s3api.Object, error) {
	out, err := r.get(ctx, from, until)
	switch asked := from > 0 || until >= 0; {
	case err != nil || out.Size >= 0 || out.Ranged:
	case asked: // all of it, or a part that does not say so
		_ = out.Body.Close()
		out, err = r.get(ctx, 0, -1)
	default: // only a range tells the size of a body that is sent in pieces
		_ = out.Body.Close()
		out, err = r.get(ctx, 0, s3api.ToEnd)
	}
	if err != nil {
		return nil, err
	}
	if err := r.learn(ctx, out, from, until); err != nil {
		_ = out.Body.Close()
		return nil, err
	}
	return out, nil
}

// learn notes what the object is. It asks again for what the answer leaves open, or what a proxy may have done.
func (r *reader) learn(ctx context.Context, out *s3api.Object, from, until int64) error {
	size, asked := out.Size, from > 0 || until >= 0
	r.etag, r.coded = out.ETag, out.Encoding
	known(&r.info, out)
	if r.coded == "identity" {
		r.coded = ""
	}
	if size < 0 || asked && !out.Ranged || r.coded != "" {
		head, err := r.store.bucket.HeadObject(ctx, r.info.Key, false)
		if err != nil {
			return err
		}
		switch {
		case !s3api.SameETag(head.ETag, out.ETag):
			return r.replaced()
		case head.Encoding != out.Encoding, size >= 0 && size != head.Size && !out.Ranged && r.coded != "":
			return object.Errorf(object.Refused,
				"a proxy in front of the store encodes objects on the way (%s): have it leave them as they are", s3api.Printable(r.coded))
		case size >= 0 && size != head.Size, out.Ranged && out.End > head.Size:
			return s3api.Unlike("another part of an object than was asked for")
		}
		size = head.Size
	}
	r.info.Size, r.info.Modified = size, out.Modified
	if !r.store.bucket.Traits.Miscounts.Load() {
		if _, ok := checksum.CRC64NVME.Value(out.CRC64NVME); ok {
			r.info.CRC64NVME = out.CRC64NVME
		}
	}
	return nil
}

func (r *reader) replaced() error {
	return object.Errorf(object.Mismatch, "the object was replaced while it was read")
}

func (r *reader) stat(ctx context.Context) error {
	info, _, err := r.store.look(ctx, r.info.Key)
	r.info, r.limit = info, info.Size
	return err
}

// get asks for a range; until -1 is the end. The object must be the one that was opened. A server that refuses to be
// asked for checksums is not asked again.
func (r *reader) get(ctx context.Context, from, until int64) (*s3api.Object, error) {
	algorithm := r.store.checksum()
	get := s3api.Get{
		Key: r.info.Key, From: from, Until: until, IfMatch: r.etag,
		Checksum: r.etag == "" && algorithm != checksumOff && algorithm != checksumSigned,
	}
	out, err := r.store.bucket.GetObject(ctx, get)
	if get.Checksum && r.store.maybeUnsupported(err) {
		get.Checksum = false
		out, err = r.store.bucket.GetObject(ctx, get)
		if err == nil {
			r.store.plainOnly.Store(true)
		}
	}
	if r.etag == "" {
		return out, err
	}
	if object.CodeOf(err) == object.Exists {
		return nil, r.replaced()
	}
	if err == nil && !s3api.SameETag(out.ETag, r.etag) { // the server does not know of conditions
		_ = out.Body.Close()
		return nil, r.replaced()
	}
	return out, err
}

// source is the opened object, for requests that go on where others ended.
func (r *reader) source() prefetch.Source {
	return prefetch.Source{
		Open: r.openPart, Size: r.info.Size, Attempts: r.store.config.MaxAttempts,
		Connections: r.store.bucket.Connections, Warm: r.store.bucket.Warm, Line: &r.store.line,
	}
}

// openPart asks for a part. If the object was replaced meanwhile, that would be a part of another one.
func (r *reader) openPart(ctx context.Context, from, until int64) (io.ReadCloser, error) {
	out, err := r.get(ctx, from, until)
	if err != nil {
		return nil, err
	}
	switch {
	case !out.Ranged && r.ranged.Load():
		err = s3api.Unlike("all of an object in place of a part")
	case !out.Ranged:
		err = object.Errorf(object.Refused, "the server does not give a part of an object, only all of it")
	case out.Size >= 0 && out.Size != r.info.Size || out.End != until:
		err = r.replaced()
	case out.Encoding != r.coded && r.coded+out.Encoding != "identity":
		err = s3api.Unlike("parts of an object in different encodings")
	default:
		r.ranged.Store(true)
		return out.Body, nil
	}
	_ = out.Body.Close()
	return nil, err
}

// ReadAt implements object.Reader. It gives what is there, and waits for the first byte only.
func (r *reader) ReadAt(p []byte, offset int64) (int, error) { return r.ReadAhead(p, offset, nil, nil) }

// Borrows implements digest.Borrower. For bytes that are fetched ahead anyway, lent memory would only spare the copy.
func (r *reader) Borrows() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.prefetcher != nil && r.prefetcher.Direct()
}

// ReadAhead implements digest.Borrower.
func (r *reader) ReadAhead(p []byte, offset int64, next []byte, loan *buffers.Loan) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, object.Errorf(object.Closed, "the stream is closed")
	}
	if offset >= r.info.Size {
		return 0, io.EOF
	}
	if r.prefetcher == nil || !r.prefetcher.Reaches(offset) {
		if err := r.jump(offset); err != nil {
			return 0, err
		}
	}
	n, err := r.prefetcher.Read(p, offset)
	switch {
	case err != nil:
		r.leave()
		return 0, err
	case n == len(p):
		if loan != nil {
			r.prefetcher.Lend(next, loan)
		}
		return n, nil
	case offset+int64(n) == r.info.Size:
		return n, io.EOF
	default:
		return n, object.ErrNotYet
	}
}

// jump goes on at another offset. Nothing that lies between is fetched.
func (r *reader) jump(offset int64) error {
	until := r.info.Size
	if offset < r.limit {
		until = r.limit
	}
	r.leave()
	ctx := r.ctx
	fetch, cancel := context.WithCancelCause(ctx)
	part := prefetch.Part{From: offset, Until: until, Step: afterSeek}
	prefetcher, err := prefetch.Start(ctx, ctx, fetch, cancel, r.source(), nil, part)
	r.prefetcher = prefetcher
	return err
}

func (r *reader) leave() {
	if r.prefetcher != nil {
		r.prefetcher.Close()
		r.prefetcher = nil
	}
}

// Close implements object.Reader.
func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.closed = true
		r.leave()
		r.store.bucket.Unref()
	}
	return nil
}
