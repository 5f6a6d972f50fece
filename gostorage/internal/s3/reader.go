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
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/coroutine"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

const (
	// ahead is how many blocks a reader may have fetched before they are asked for.
	ahead = 8
	// afterSeek bounds the first request after a jump, in bytes; each that is read on from is four times as long.
	afterSeek = 1 << 20
	// readWait is how long a ReadAt waits for the first byte.
	readWait = 100 * time.Millisecond
	// awayAfter is how long nobody must have read before bytes that come in the clear are fetched ahead.
	awayAfter = 250 * time.Millisecond
)

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

// start begins to fetch [from, until) from a body. What fits in a block is fetched at once: its connection is free
// again before the caller has read a byte.
func (r *reader) start(
	ctx, fetch context.Context, cancel context.CancelCauseFunc, body io.ReadCloser, from, until int64,
) (*stream, error) {
	s := &stream{
		reader: r, ctx: fetch, cancel: cancel, at: from, next: from, until: until,
		filled: make(chan chunk, ahead+2), free: make(chan *buffers.Block, ahead+1), done: make(chan struct{}),
		asked: make(chan struct{}, 1), lent: make(chan room, 1),
	}
	block, err := buffers.Shared.Get()
	if err != nil {
		cancel(nil)
		_ = body.Close()
		return nil, object.Errorf(object.IO, "no memory for a buffer: %v", err)
	}
	s.blocks = append(s.blocks, block)
	s.free <- block
	came, _ := body.(*rest)
	if came != nil {
		came.detach()
	}
	switch {
	case until-from > object.BlockSize:
		s.direct = true
		s.here.Store(clock())
		s.adopt(body)
		go s.run(body)
	case came != nil && came.came():
		s.run(body)
	default:
		_, err = coroutine.Aside(ctx, func(context.Context) (struct{}, error) { s.run(body); return struct{}{}, nil }, nil)
	}
	if err != nil { // ctx has ended
		s.close()
		return nil, err
	}
	return s, nil
}

// ReadAt implements object.Reader. It gives what is there, and waits for the first byte only.
func (r *reader) ReadAt(p []byte, offset int64) (int, error) { return r.readAt(p, offset, nil, nil) }

// Borrows implements object.Borrower: of what is fetched ahead anyway, only the copy would be spared.
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

// ReadAhead implements object.Borrower.
func (r *reader) ReadAhead(p []byte, offset int64, next []byte, token int64) (int, error) {
	loan := buffers.Shared.Borrow(token)
	defer buffers.Shared.Return(loan)
	return r.readAt(p, offset, next, loan)
}

func (r *reader) readAt(p []byte, offset int64, next []byte, loan *buffers.Loan) (int, error) {
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

// stream fetches a range in the background, some blocks ahead of who reads it.
//
// Bytes that come in the clear it leaves to the reader, who takes them from the connection without a copy in between;
// meanwhile more of them come into the system's own buffer, or into memory that the reader lends for them. It fetches
// those ahead when the reader is away for a while, or asks for what does not come by itself.
type stream struct {
	reader *reader
	ctx    context.Context
	cancel context.CancelCauseFunc
	until  int64
	blocks []*buffers.Block
	filled chan chunk
	free   chan *buffers.Block
	done   chan struct{}
	asked  chan struct{} // the reader waits
	lent   chan room     // what is not being filled yet
	here   atomic.Int64  // when it has read last, by the clock
	direct bool          // it may take bytes itself

	turn   sync.Mutex // held by who takes bytes from the body
	next   int64      // the next byte to be fetched
	body   *rest      // what the reader may take bytes from, or nil
	broken error      // what came of that

	at       int64 // the next byte to be read
	current  chunk
	borrowed *buffers.Block // what was lent and is not given back: it is in lent, being filled, in filled or current
	err      error
}

var birth = time.Now()

// clock gives nanoseconds since the process began.
func clock() int64 { return int64(time.Since(birth)) }

func since(clocked int64) time.Duration { return time.Duration(clock() - clocked) }

// chunk is a block with bytes, or the error that stands in their place.
type chunk struct {
	block *buffers.Block
	data  []byte
	err   error
}

// room is a block for the bytes from an offset on. Memory of the reader is filled with no others: for those before them
// he may be using it himself.
type room struct {
	block *buffers.Block
	from  int64
}

// anywhere is where a block of our own is filled from.
const anywhere = -1

// reaches tells whether an offset is here or so near that reading on is cheaper than another request.
func (s *stream) reaches(offset int64) bool {
	return offset >= s.at && offset < s.until && offset-s.at <= ahead*object.BlockSize
}

func (s *stream) read(p []byte, offset int64) (int, error) {
	total, begun := 0, clock()
	s.here.Store(begun)
	for len(p) > 0 && s.at < s.until {
		n := 0
		switch {
		case len(s.current.data) > 0:
			if skip := min(offset-s.at, int64(len(s.current.data))); skip > 0 {
				s.consume(int(skip))
				s.at += skip
				continue
			}
			if n = min(len(p), len(s.current.data)); &p[0] != &s.current.data[0] {
				copy(p, s.current.data)
			}
			s.consume(n)
		case s.err != nil:
			if total > 0 {
				return total, nil // first what came before it
			}
			return 0, s.err
		case s.advance(0):
			continue
		default:
			var wait time.Duration
			if total == 0 {
				wait = readWait
			}
			if offset == s.at {
				n = s.take(p, wait)
			}
			if n > 0 {
				break
			}
			if total > 0 {
				return total, nil
			}
			if s.borrowed == nil {
				s.ask()
			}
			if !s.advance(wait - since(begun)) {
				return 0, nil
			}
			continue
		}
		p = p[n:]
		s.at += int64(n)
		offset += int64(n)
		total += n
	}
	return total, nil
}

// advance makes the next chunk the current one, and tells whether there is one in time.
func (s *stream) advance(wait time.Duration) bool {
	select {
	case s.current = <-s.filled:
	default:
		if wait <= 0 {
			return false
		}
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case s.current = <-s.filled:
		case <-timer.C:
			return false
		}
	}
	s.err = s.current.err
	s.consume(0)
	return true
}

// consume gives the current block back when all of it was read.
func (s *stream) consume(n int) {
	s.current.data = s.current.data[n:]
	if block := s.current.block; block != nil && len(s.current.data) == 0 {
		s.current = chunk{}
		if block.Lent() {
			s.giveBack()
		} else {
			s.free <- block
		}
	}
}

// lend has memory filled with what follows, unless that comes in another way.
func (s *stream) lend(memory []byte, loan *buffers.Loan) {
	if s.borrowed != nil || s.at == s.until || !s.turn.TryLock() {
		return
	}
	defer s.turn.Unlock()
	if !s.leaves() || s.at != s.next {
		return
	}
	memory = memory[:min(int64(len(memory)), s.until-s.at)]
	if s.borrowed = buffers.Shared.Lend(memory, loan, true); s.borrowed != nil {
		s.lent <- room{s.borrowed, s.at}
	}
}

// reclaim takes back memory that is not being filled yet.
func (s *stream) reclaim() bool {
	select {
	case <-s.lent:
		s.giveBack()
		return true
	default:
		return false
	}
}

func (s *stream) giveBack() {
	buffers.Shared.Put(s.borrowed)
	s.borrowed = nil
}

// ask has bytes fetched although the reader is here.
func (s *stream) ask() {
	select {
	case s.asked <- struct{}{}:
	default:
	}
}

// adopt lets the reader take bytes from a body, if it is in the clear and in one piece, so that what can be read can be
// had at once; nil ends that.
func (s *stream) adopt(body io.Reader) {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.body = nil
	if came, ok := body.(*rest); ok && s.direct && came.line.plain && came.size >= 0 {
		s.body = came
	}
}

// leaves tells who has the turn whether bytes are left to the reader.
func (s *stream) leaves() bool { return s.body != nil && s.broken == nil }

// take reads from the body what has come, if nobody else does. It waits for the first byte only.
func (s *stream) take(p []byte, wait time.Duration) (n int) {
	if s.borrowed != nil && !s.reclaim() || !s.turn.TryLock() {
		return 0
	}
	defer s.turn.Unlock()
	if !s.leaves() || len(s.filled) > 0 {
		return 0
	}
	select {
	case <-s.asked:
	default:
	}
	p = p[:min(int64(len(p)), s.until-s.next)]
	for n < len(p) && s.broken == nil && s.body.ready(wait) {
		var more int
		more, s.broken = s.body.Read(p[n:])
		n, wait = n+more, 0
	}
	s.next += int64(n)
	if s.next == s.until || s.broken != nil {
		s.ask()
	}
	return n
}

// close ends the fetching and gives the blocks back.
func (s *stream) close() {
	s.cancel(nil)
	<-s.done
	for _, block := range s.blocks {
		buffers.Shared.Put(block)
	}
	if s.borrowed != nil {
		s.giveBack()
	}
}

// run fetches all of the range. A connection that is cut is followed by a request for the rest.
func (s *stream) run(body io.ReadCloser) {
	defer close(s.done)
	defer s.cancel(nil)
	fruitless := 0
	for {
		s.turn.Lock()
		before := s.next
		s.turn.Unlock()
		var err error
		if body == nil {
			body, err = s.reopen()
		}
		if err == nil {
			err = s.fetch(body)
			_ = body.Close()
			body = nil
			if err == nil {
				return
			}
			if s.ctx.Err() == nil {
				err = network(err)
			}
		}
		if s.ctx.Err() != nil {
			s.fail(context.Cause(s.ctx))
			return
		}
		if fruitless++; s.next > before {
			fruitless = 0
		}
		failed, ok := errors.AsType[*object.Error](err)
		if !ok || !failed.Retryable || fruitless >= s.reader.store.config.MaxAttempts {
			s.fail(err)
			return
		}
		if err := pause(s.ctx, fruitless); err != nil {
			s.fail(err)
			return
		}
	}
}

func (s *stream) fail(err error) { s.filled <- chunk{err: err} }

// reopen asks for what is left. An object that was replaced meanwhile is another one.
func (s *stream) reopen() (io.ReadCloser, error) {
	r := s.reader
	out, err := r.get(s.ctx, s.next, s.until)
	if err != nil {
		return nil, err
	}
	if total, ok := totalSize(out.ContentRange); !ok || total != r.info.Size {
		_ = out.Body.Close()
		return nil, object.Errorf(object.Refused, "the server does not give a part of an object, only all of it")
	}
	return out.Body, nil
}

// fetch fills blocks from a body until the range ends, unless the reader takes the bytes itself.
func (s *stream) fetch(body io.Reader) (err error) {
	defer object.Rescue(&err)
	s.adopt(body)
	defer s.adopt(nil)
	for more := true; more; {
		into := s.leaveToReader()
		if into.block == nil {
			if into.block, err = s.block(); err != nil {
				return err
			}
		}
		if more, err = s.fill(into, body); err != nil {
			return err
		}
	}
	return nil
}

// leaveToReader waits until the reader is away, or asks, or lends memory: that it gives.
func (s *stream) leaveToReader() room {
	ours := room{from: anywhere}
	for {
		s.turn.Lock()
		all := s.body == nil
		s.turn.Unlock()
		left := awayAfter - since(s.here.Load())
		if all || left <= 0 {
			return ours
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
			continue
		case lent := <-s.lent:
			timer.Stop()
			return lent
		case <-s.asked:
		case <-s.ctx.Done():
		}
		timer.Stop()
		return ours
	}
}

// fill fills one block, and tells whether there are more to come.
func (s *stream) fill(into room, body io.Reader) (more bool, err error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	block := into.block
	if into.from != anywhere && into.from != s.next {
		s.filled <- chunk{block: block}
		return true, nil
	}
	want := block.Bytes[:min(int64(len(block.Bytes)), s.until-s.next)]
	n := 0
	if err, s.broken = s.broken, nil; err == nil {
		n, err = io.ReadFull(body, want)
	}
	if n == 0 && !block.Lent() {
		s.free <- block
	} else {
		s.next += int64(n)
		s.filled <- chunk{block: block, data: want[:n]}
	}
	if s.next < s.until {
		return err == nil, err
	}
	var end [1]byte
	_, _ = body.Read(end[:]) // past the end of the body, so that its connection can be used again
	return false, nil
}

// block gives one that came back, a new one while there is budget, or waits.
func (s *stream) block() (*buffers.Block, error) {
	select {
	case free := <-s.free:
		return free, nil
	default:
	}
	if len(s.blocks) < ahead {
		if block := buffers.Shared.TryGet(); block != nil {
			s.blocks = append(s.blocks, block)
			return block, nil
		}
	}
	select {
	case free := <-s.free:
		return free, nil
	case <-s.ctx.Done():
		return nil, context.Cause(s.ctx)
	}
}
