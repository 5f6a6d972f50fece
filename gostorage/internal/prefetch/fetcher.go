package prefetch

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/httpconn"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/s3api"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/task"
)

const (
	// ahead is how many blocks of the only range may be fetched before they are asked for.
	ahead = 8
	// mostBlocks is how many a range has that is fetched beside others.
	mostBlocks = rangeSize / object.BlockSize
	// mostCuts is how often a range may be cut; each leastGain bytes that have come allow one more cut. So an object is
	// not read by a request for each of its bytes.
	mostCuts  = 16
	leastGain = 64 << 10
	// AwayAfter is how long nobody must have read before unencrypted bytes are fetched ahead.
	AwayAfter = 250 * time.Millisecond
)

// fetcher fetches one range. If a connection is cut, it asks for the rest. Its methods are called by one reader at a
// time.
//
// Unencrypted bytes of a range that is long are left to the reader, who takes them from the connection without a copy in
// between. Meanwhile more of them come into the system's own buffer, or into memory that the reader lends. They are
// fetched ahead only when the reader is away for a while, or asks for bytes that do not come by themselves.
type fetcher struct {
	source Source
	ctx    context.Context
	cancel context.CancelCauseFunc
	begun  int64 // where the range begins
	edge   sync.Mutex
	until  int64          // where it ends; the reader changes it, holding edge
	reach  int64          // the bytes before are here, or are being fetched; held by edge
	cutOff bool           // the range was made shorter: its body goes on behind it; held by edge
	share  *buffers.Share // for more blocks, or nil
	blocks []*buffers.Block
	filled chan chunk
	free   chan *buffers.Block
	done   chan struct{}
	cut    chan struct{} // closed once a body was cut
	asked  chan struct{} // the reader waits
	lent   chan room     // memory that is not being filled yet
	here   atomic.Int64  // when the reader has read last, by the clock
	direct bool          // the reader may take bytes itself
	opened atomic.Bool   // the server has begun to answer
	since  time.Duration // when the range was asked for, by the clock
	ended  atomic.Int64  // when all of it had come, by the clock, or 0
	moved  atomic.Int64  // when bytes have come last, by the clock
	again  bool          // it has taken the place of one that was stuck
	after  func()        // called when the connection is not needed any more, or nil
	left   bool          // whether the first body was left to the reader

	turn   sync.Mutex     // held by whoever takes bytes from the body
	next   int64          // the next byte to be fetched
	body   *httpconn.Body // what the reader may take bytes from, or nil
	broken error          // the error that came of it

	at       int64 // the next byte to be read
	current  chunk
	borrowed *buffers.Block // lent memory that is not given back: it is in lent, being filled, in filled or current
	err      error
	waited   time.Duration // how long the reader has waited in all
}

// newFetcher makes a fetcher of [from, until) that works in these blocks, and in more of a share if there is one. It
// goes on while ctx lasts, which cancel ends.
func newFetcher(
	ctx context.Context, cancel context.CancelCauseFunc, source Source, blocks []*buffers.Block, share *buffers.Share,
	from, until int64,
) *fetcher {
	s := &fetcher{
		source: source, ctx: ctx, cancel: cancel, blocks: blocks, share: share, at: from, next: from, begun: from, until: until,
		filled: make(chan chunk, mostBlocks+2), free: make(chan *buffers.Block, mostBlocks+1),
		done: make(chan struct{}), cut: make(chan struct{}),
		asked: make(chan struct{}, 1), lent: make(chan room, 1),
	}
	for _, block := range blocks {
		s.free <- block
	}
	now := clock()
	s.since = time.Duration(now)
	s.moved.Store(now)
	return s
}

// start begins to fetch from a body, or from one that it opens if body is nil. A range that fits in a block is fetched
// before start returns, as long as ctx lasts: its connection is free again before the caller has read a byte. The error
// is that of ctx.
func (s *fetcher) start(ctx context.Context, body io.ReadCloser) (err error) {
	came, _ := body.(*httpconn.Body)
	if came != nil {
		came.Detach()
	}
	switch {
	case s.until-s.begun > object.BlockSize:
		s.direct = true
		s.here.Store(clock())
		s.adopt(body)
		s.left = s.body != nil
		go s.run(body)
	case body == nil: // a jump, on Python's own thread
		go s.run(nil)
	case came != nil && came.Arrived():
		s.run(body)
	default:
		_, err = task.Aside(ctx, func(context.Context) (struct{}, error) {
			go s.run(body)
			select {
			case <-s.done:
			case <-s.cut: // the rest may take many requests, and more blocks than there are before somebody reads
			}
			return struct{}{}, nil
		}, nil)
	}
	return err
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

// room is a block for the bytes from an offset on. The reader's memory is filled with no others: the reader itself may
// be using it for the bytes before them.
type room struct {
	block *buffers.Block
	from  int64
}

// anywhere is the offset of a block of our own, which takes any bytes.
const anywhere = -1

// read gives bytes from an offset that is in the range. It waits only for the first byte, for at most patience: 0 without
// an error means that none came in time.
func (s *fetcher) read(p []byte, offset int64, patience time.Duration) (int, error) {
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
				wait = patience
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
			before := clock()
			there := s.advance(wait - since(begun))
			s.waited += since(before)
			if !there {
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

// advance makes the next chunk the current one, and tells whether there was one in time.
func (s *fetcher) advance(wait time.Duration) bool {
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
func (s *fetcher) consume(n int) {
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

// lend has memory filled with the bytes that follow, unless they come in another way.
func (s *fetcher) lend(memory []byte, loan *buffers.Loan) {
	if s.borrowed != nil || s.at == s.until || !s.turn.TryLock() {
		return
	}
	defer s.turn.Unlock()
	if !s.leaves() || s.at != s.next {
		return
	}
	memory = memory[:min(int64(len(memory)), s.until-s.at)]
	if s.borrowed = s.share.Lend(memory, loan); s.borrowed != nil {
		s.lent <- room{s.borrowed, s.at}
	}
}

// reclaim takes back memory that is not being filled yet.
func (s *fetcher) reclaim() bool {
	select {
	case <-s.lent:
		s.giveBack()
		return true
	default:
		return false
	}
}

func (s *fetcher) giveBack() {
	buffers.Shared.Put(s.borrowed)
	s.borrowed = nil
}

// ask has bytes fetched although the reader is not away.
func (s *fetcher) ask() {
	select {
	case s.asked <- struct{}{}:
	default:
	}
}

// adopt lets the reader take bytes from a body, if it is unencrypted and in one piece: then bytes that can be read are
// there at once. A nil body ends that.
func (s *fetcher) adopt(body io.Reader) {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.body = nil
	if came, ok := body.(*httpconn.Body); ok && s.direct && came.Plain() && came.Size() >= 0 {
		s.body = came
	}
}

// leaves tells the holder of the turn whether bytes are left to the reader.
func (s *fetcher) leaves() bool { return s.body != nil && s.broken == nil }

// take reads the bytes that have come from the body, if nobody else does. It waits for the first byte only.
func (s *fetcher) take(p []byte, wait time.Duration) (n int) {
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
	p = s.claim(p)
	for n < len(p) && s.broken == nil && s.ready(wait) {
		var more int
		more, s.broken = s.body.Read(p[n:])
		n, wait = n+more, 0
	}
	if n > 0 {
		s.moved.Store(clock())
	}
	s.came(n)
	if s.next == s.until || s.broken != nil {
		s.ask()
	}
	return n
}

// ready tells whether bytes of the body can be read, and waits for them for a while.
func (s *fetcher) ready(wait time.Duration) bool {
	if wait <= 0 {
		return s.body.Ready(0)
	}
	before := clock()
	there := s.body.Ready(wait)
	s.waited += since(before)
	return there
}

// claim gives as much of some memory as there are bytes to fetch into it.
func (s *fetcher) claim(memory []byte) []byte {
	s.edge.Lock()
	defer s.edge.Unlock()
	memory = memory[:min(int64(len(memory)), s.until-s.next)]
	s.reach = s.next + int64(len(memory))
	return memory
}

// came notes how many bytes have come into what was claimed.
func (s *fetcher) came(n int) {
	s.edge.Lock()
	defer s.edge.Unlock()
	s.next += int64(n)
	s.reach = s.next
}

// end is where the range ends, and whether its body ends there, too.
func (s *fetcher) end() (until int64, whole bool) {
	s.edge.Lock()
	defer s.edge.Unlock()
	return s.until, !s.cutOff
}

// shorten makes the range end earlier, unless bytes from there on have come or are coming. The connection is closed
// when its bytes until there have come.
func (s *fetcher) shorten(until int64) bool {
	s.edge.Lock()
	defer s.edge.Unlock()
	if s.reach > until {
		return false
	}
	s.until, s.cutOff = until, true
	return true
}

// stop ends the fetching, unless all was read: then nothing is left to wait for, and the connection can be used again.
func (s *fetcher) stop() {
	if s.at < s.until || s.err != nil {
		s.cancel(nil)
	}
}

// close ends the fetching and gives the blocks back.
func (s *fetcher) close() {
	s.stop()
	<-s.done
	for _, block := range s.blocks {
		buffers.Shared.Put(block)
	}
	if s.borrowed != nil {
		s.giveBack()
	}
}

// run fetches all of the range. If a connection is cut, it requests the rest.
func (s *fetcher) run(body io.ReadCloser) {
	defer close(s.done)
	defer s.cancel(nil)
	if s.after != nil {
		defer s.after()
	}
	fruitless, cuts := 0, int64(0)
	for {
		s.turn.Lock()
		before := s.next
		s.turn.Unlock()
		until, _ := s.end()
		var err error
		switch {
		case body != nil:
		case before == until: // the error came after the last byte
			return
		default:
			body, err = s.source.Open(s.ctx, before, until)
		}
		if err == nil {
			s.opened.Store(true)
			err = s.fetch(body)
			_ = body.Close()
			body = nil
			if err == nil {
				s.ended.Store(clock())
				return
			}
			if s.ctx.Err() == nil {
				err = s3api.BodyError(err)
			}
		}
		if s.ctx.Err() != nil {
			s.fail(context.Cause(s.ctx))
			return
		}
		if cuts++; cuts == 1 {
			close(s.cut)
		}
		if fruitless++; s.next > before {
			fruitless = 0
		}
		failed, ok := errors.AsType[*object.Error](err)
		crumbs := cuts > mostCuts+(s.next-s.begun)/leastGain
		if !ok || !failed.Retryable || crumbs || fruitless >= s.source.Attempts {
			s.fail(err)
			return
		}
		if err := s3api.Pause(s.ctx, fruitless); err != nil {
			s.fail(err)
			return
		}
	}
}

func (s *fetcher) fail(err error) { s.filled <- chunk{err: err} }

// fetch fills blocks from a body until the range ends, unless the reader takes the bytes itself.
func (s *fetcher) fetch(body io.Reader) (err error) {
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

// leaveToReader waits until the reader is away, or asks, or lends memory. It gives the lent memory.
func (s *fetcher) leaveToReader() room {
	ours := room{from: anywhere}
	for {
		s.turn.Lock()
		all := s.body == nil
		s.turn.Unlock()
		left := AwayAfter - since(s.here.Load())
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

// fill fills one block, and tells whether there are more bytes to come.
func (s *fetcher) fill(into room, body io.Reader) (more bool, err error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	block := into.block
	if into.from != anywhere && into.from != s.next {
		s.filled <- chunk{block: block}
		return true, nil
	}
	want := s.claim(block.Bytes)
	n := 0
	if err, s.broken = s.broken, nil; err == nil {
		n, err = io.ReadFull(body, want)
	}
	until, whole := s.end()
	more = s.next+int64(n) < until
	if !more && whole {
		// Read past the end of the body, so that its connection can be used again.
		if err = s.finish(body, until); err != nil {
			n = 0 // what has come is not what was announced
		}
	}
	s.came(n)
	if n == 0 && !block.Lent() {
		s.free <- block
	} else {
		s.moved.Store(clock())
		s.filled <- chunk{block: block, data: want[:n]}
	}
	return more && err == nil, err
}

// finish reads the end of a body. Nothing may come after the last byte of an object.
func (s *fetcher) finish(body io.Reader, until int64) error {
	var extra [1]byte
	came, ok := body.(*httpconn.Body)
	if ok {
		came.Hurry()
	}
	if n, _ := body.Read(extra[:]); n > 0 && ok && came.Size() < 0 && until == s.source.Size {
		return s3api.Unlike("more of an object than it has")
	}
	return nil
}

// block gives a block that came back, or a new one while there is budget; else it waits for one.
func (s *fetcher) block() (*buffers.Block, error) {
	select {
	case free := <-s.free:
		return free, nil
	default:
	}
	if s.share != nil && len(s.blocks) < ahead {
		if block := s.share.TryGet(); block != nil {
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
