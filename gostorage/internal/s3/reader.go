package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/coroutine"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// afterSeek bounds the first request after a jump, in bytes; each that is read on from is four times as long.
const afterSeek = 1 << 20

// reader reads one object by requests for ranges of it, all of one ETag.
type reader struct {
	store  *Store
	info   object.Info
	etag   *string
	limit  int64 // where the caller means to stop
	mu     sync.Mutex
	stream *stream // what is fetched now, or nil
	step   int64   // bytes of the next request after a jump, or 0 for all
	closed bool
}

// Get implements object.Store: one request, whose body is the first that is read.
func (s *Store) Get(ctx context.Context, key string, hint object.Range) (object.Reader, error) {
	return s.open(ctx, object.Info{Key: key}, hint)
}

// open opens an object; if its ETag is known, only as long as that is its own. An object that was replaced is a Mismatch.
func (s *Store) open(ctx context.Context, known object.Info, hint object.Range) (object.Reader, error) {
	s.client.hold()
	r := &reader{store: s, info: object.Info{Key: known.Key}, etag: optional(known.ETag)}
	opened, err := r.open(ctx, hint)
	if err != nil {
		s.client.release()
		return nil, err
	}
	r.stream = opened
	return r, nil
}

// Info implements object.Reader.
func (r *reader) Info() object.Info { return r.info }

// open makes the first request and learns what the object is.
func (r *reader) open(ctx context.Context, hint object.Range) (*stream, error) {
	from, until := hint.Start, int64(-1)
	if hint.Length >= 0 {
		until = hint.Start + hint.Length
	}
	if hint.Length == 0 { // no range is empty
		return nil, r.stat(ctx)
	}
	fetch, cancel := context.WithCancelCause(r.store.ctx)
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	out, err := r.get(coroutine.Within(fetch, ctx), from, until)
	if !stop() && err == nil { // the call was cancelled at the last moment
		_ = out.Body.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		cancel(nil)
		if known, ok := errors.AsType[*object.Error](err); ok && known.Status == http.StatusRequestedRangeNotSatisfiable {
			return nil, r.stat(ctx) // it begins after the end, where there is nothing to read
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	r.info.Size = aws.ToInt64(out.ContentLength)
	if total, ok := totalSize(out.ContentRange); ok {
		r.info.Size = total
	} else {
		from = 0 // the server knows no ranges, and sends all
	}
	r.etag = out.ETag
	known(&r.info, out.ETag, out.Metadata)
	if out.ChecksumType == types.ChecksumTypeFullObject {
		r.info.CRC64NVME = aws.ToString(out.ChecksumCRC64NVME)
	}
	r.limit = r.info.Size
	if until >= 0 {
		r.limit = min(until, r.info.Size)
	}
	return r.start(ctx, fetch, cancel, out.Body, from, r.limit)
}

func (r *reader) stat(ctx context.Context) error {
	info, _, err := r.store.look(ctx, r.info.Key)
	r.info, r.limit = info, info.Size
	return err
}

// get asks for a range; until -1 is the end. The object must be the one that was opened. A server that refuses to be
// asked for checksums is not asked again.
func (r *reader) get(ctx context.Context, from, until int64) (*sdk.GetObjectOutput, error) {
	in := &sdk.GetObjectInput{Bucket: r.store.bucket(), Key: r.store.path(r.info.Key), IfMatch: r.etag}
	if algorithm := r.store.checksum(); r.etag == nil && algorithm != checksumOff && algorithm != checksumSigned {
		in.ChecksumMode = types.ChecksumModeEnabled
	}
	switch {
	case until >= 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", from, until-1))
	case from > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", from))
	}
	out, err := perform(ctx, &request{}, in, r.store.client.getObject)
	if unknown(err) && in.ChecksumMode != "" && r.store.config.Checksum == checksumAuto {
		in.ChecksumMode = ""
		out, err = perform(ctx, &request{}, in, r.store.client.getObject)
		if err == nil {
			r.store.refused.Store(true)
		}
	}
	if r.etag != nil && object.CodeOf(err) == object.Exists {
		err = object.Errorf(object.Mismatch, "the object was replaced while it was read")
	}
	return out, err
}

// totalSize reads the end of a Content-Range such as "bytes 0-9/10".
func totalSize(contentRange *string) (int64, bool) {
	_, total, ok := strings.Cut(aws.ToString(contentRange), "/")
	size, err := strconv.ParseInt(total, 10, 64)
	return size, ok && err == nil
}

// ReadAt implements object.Reader. It gives what is there, and waits for the first byte only.
func (r *reader) ReadAt(p []byte, offset int64) (int, error) { return r.ReadAhead(p, offset, nil, nil) }

// Borrows implements digest.Borrower: of what is fetched ahead anyway, only the copy would be spared.
func (r *reader) Borrows() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stream == nil {
		return false
	}
	r.stream.turn.Lock()
	defer r.stream.turn.Unlock()
	return r.stream.leaves()
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
	if r.stream == nil || !r.stream.reaches(offset) {
		if err := r.jump(offset); err != nil {
			return 0, err
		}
	}
	n, err := r.stream.read(p, offset)
	switch {
	case err != nil:
		r.leave()
		return 0, err
	case n == len(p):
		if loan != nil {
			r.stream.lend(next, loan)
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
	if r.stream != nil && offset == r.stream.until && r.step > 0 {
		r.step *= 4
	} else {
		r.step = afterSeek
	}
	until = min(until, offset+r.step)
	r.leave()
	fetch, cancel := context.WithCancelCause(r.store.ctx)
	stream, err := r.start(fetch, fetch, cancel, nil, offset, until)
	r.stream = stream
	return err
}

func (r *reader) leave() {
	if r.stream != nil {
		r.stream.close()
		r.stream = nil
	}
}

// Close implements object.Reader.
func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.closed = true
		r.leave()
		r.store.client.release()
	}
	return nil
}
