// Package digest moves bytes from the one who has them to a Store in one pass: copied once, and hashed beside the
// Store's own work on them.
package digest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// depth is how many blocks one transfer may have under way: enough that neither the hash nor the write waits for the
// other's jitter, few enough to stay in the last-level cache. A Store that keeps blocks longer says so by Hold.
const depth = 8

// Expect is what the caller says of the bytes: Size -1 and SHA256 "" mean that it does not say.
type Expect struct {
	Size   int64
	SHA256 string
}

// Pipe joins a pump (Write, then CloseWrite or Fail) to a Store (an object.Source).
//
// A block that the pump has filled goes to the Store and to the hash at once, and comes back when both are done with
// it. What fits in one block is hashed by the pump itself: a small object costs no extra goroutine.
type Pipe struct {
	pool   *buffers.Pool
	expect Expect

	mu      sync.Mutex // held by the pump while it touches current or blocks
	current *piece
	blocks  []*piece // every block of this transfer
	ended   bool     // CloseWrite, Fail or Close was called: no more bytes
	hasher  chan *piece
	store   queue
	free    queue
	moved   atomic.Int64
	need    atomic.Int64 // blocks that this transfer has in any case
	most    atomic.Int64 // blocks that it may have while the budget lasts

	checksum atomic.Pointer[func(uint64, []byte) uint64]

	failOnce sync.Once
	failed   chan struct{} // closed by the first error from any side
	err      error         // that error, readable once failed is closed

	hash    hash.Hash
	hashed  chan struct{} // closed when the hash has seen its last byte
	reading *piece        // the block that Read is giving away
	unread  []byte        // what is left of it
}

type piece struct {
	pipe  *Pipe
	block *buffers.Block
	data  []byte
	sum   uint64
	known bool // sum is that of data
	users atomic.Int32
}

// Bytes implements object.Block.
func (p *piece) Bytes() []byte { return p.data }

// Checksum implements object.Block.
func (p *piece) Checksum() (uint64, bool) { return p.sum, p.known }

// add copies from bytes and computes the checksum while they are in the cache.
func (p *piece) add(bytes []byte, checksum *func(uint64, []byte) uint64) int {
	start := len(p.data)
	n := copy(p.block.Bytes[start:], bytes)
	p.data = p.block.Bytes[:start+n]
	if start == 0 {
		p.sum, p.known = 0, checksum != nil
	}
	if p.known {
		p.sum = (*checksum)(p.sum, p.data[start:])
	}
	return n
}

// Release implements object.Block.
func (p *piece) Release() { p.pipe.release(p) }

// queue is a channel without a fixed size, for one that waits. A small object must not pay for what a large one needs.
type queue struct {
	mu     sync.Mutex
	pieces []*piece
	closed bool
	worth  int // pieces for which the one who waits is woken
	wake   chan struct{}
}

func (q *queue) push(one *piece) {
	q.mu.Lock()
	q.pieces = append(q.pieces, one)
	enough := len(q.pieces) >= q.worth
	q.mu.Unlock()
	if enough {
		q.signal()
	}
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// pop gives the oldest, or nil, and then whether none will come. Who waits after that is woken for so many.
func (q *queue) pop(worth int) (*piece, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.worth = worth
	if len(q.pieces) == 0 {
		return nil, q.closed
	}
	first := q.pieces[0]
	q.pieces = append(q.pieces[:0], q.pieces[1:]...)
	return first, false
}

// last gives the newest, which is still in a cache, or nil.
func (q *queue) last() *piece {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.pieces) == 0 {
		return nil
	}
	end := len(q.pieces) - 1
	newest := q.pieces[end]
	q.pieces = q.pieces[:end]
	return newest
}

// NewPipe makes a pipe that works in blocks of pool.
func NewPipe(pool *buffers.Pool, expect Expect) *Pipe {
	p := &Pipe{
		pool:   pool,
		expect: expect,
		store:  queue{wake: make(chan struct{}, 1)},
		free:   queue{wake: make(chan struct{}, 1)},
		failed: make(chan struct{}),
		hash:   sha256.New(),
		hashed: make(chan struct{}),
	}
	p.need.Store(1)
	p.most.Store(depth)
	return p
}

// Expected implements object.Source.
func (p *Pipe) Expected() (size int64, sha256 string) { return p.expect.Size, p.expect.SHA256 }

// Hold implements object.Source.
func (p *Pipe) Hold(need, most int64, checksum func(sum uint64, p []byte) uint64) {
	if checksum != nil {
		p.checksum.Store(&checksum)
	}
	blocks := func(size int64) int64 { return (size + buffers.Size - 1) / buffers.Size }
	p.need.Store(blocks(need))
	p.most.Store(max(blocks(most), depth))
}

// Write copies from p as much as there is room for within wait, and says how much that was. It gives the error of the
// Store as soon as there is one.
func (p *Pipe) Write(data []byte, wait time.Duration) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var timer *time.Timer
	written := 0
	for len(data) > 0 {
		select {
		case <-p.failed:
			return written, p.err
		default:
		}
		if p.ended {
			return written, object.Errorf(object.Closed, "the transfer has ended: it takes no more bytes")
		}
		if p.current == nil {
			if timer == nil {
				timer = time.NewTimer(wait)
				defer timer.Stop()
			}
			next, err := p.next(timer.C)
			if next == nil || err != nil {
				return written, err
			}
			p.current = next
		}
		n := p.current.add(data, p.checksum.Load())
		if size := p.expect.Size; size >= 0 && p.moved.Load()+int64(n) > size {
			p.fail(object.Errorf(object.Mismatch, "more than the expected %d bytes came", size))
			return written, p.err
		}
		p.moved.Add(int64(n))
		written += n
		data = data[n:]
		if len(p.current.data) == buffers.Size {
			p.send()
		}
	}
	return written, nil
}

// next gives an empty block: one that came back, a new one, or nil when neither was to be had in time.
func (p *Pipe) next(timeout <-chan time.Time) (*piece, error) {
	if free := p.free.last(); free != nil {
		return free, nil
	}
	if int64(len(p.blocks)) < p.need.Load() {
		block, err := p.pool.Get()
		if err != nil {
			err := object.Errorf(object.IO, "no memory for a buffer: %v", err)
			err.Retryable = true
			return nil, err
		}
		return p.own(block), nil
	}
	if int64(len(p.blocks)) < p.most.Load() {
		if block := p.pool.TryGet(); block != nil {
			return p.own(block), nil
		}
	}
	for {
		select {
		case <-p.free.wake:
			if free := p.free.last(); free != nil {
				return free, nil
			}
		case <-p.failed:
			return nil, p.err
		case <-timeout:
			return nil, nil
		}
	}
}

func (p *Pipe) own(block *buffers.Block) *piece {
	owned := &piece{pipe: p, block: block}
	p.blocks = append(p.blocks, owned)
	return owned
}

// send passes the current block on. The channel holds as many as there can be blocks: it does not wait for the hash.
func (p *Pipe) send() {
	current := p.current
	p.current = nil
	current.users.Store(2)
	if p.hasher == nil {
		p.hasher = make(chan *piece, p.need.Load()+buffers.DefaultBudget/buffers.Size)
		go p.hashAll(p.hasher)
	}
	p.hasher <- current
	p.store.push(current)
}

func (p *Pipe) hashAll(pieces <-chan *piece) {
	defer close(p.hashed)
	for piece := range pieces {
		p.hash.Write(piece.data)
		p.release(piece)
	}
}

func (p *Pipe) release(done *piece) {
	if done.users.Add(-1) == 0 {
		done.data = nil
		p.free.push(done)
	}
}

// CloseWrite says that all bytes have come.
func (p *Pipe) CloseWrite() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	if p.hasher == nil { // all of it is in one block
		if p.current != nil {
			p.hash.Write(p.current.data)
			p.current.users.Store(1)
			p.store.push(p.current)
			p.current = nil
		}
	} else if p.current != nil {
		p.send()
	}
	p.end()
}

func (p *Pipe) end() {
	p.ended = true
	p.store.close()
	if p.hasher != nil {
		close(p.hasher)
	} else {
		close(p.hashed)
	}
}

// Fail ends the transfer with err from whichever side; the first error stays. The Store gets it in place of the end.
func (p *Pipe) Fail(err error) {
	p.fail(err)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.end()
	}
}

func (p *Pipe) fail(err error) {
	p.failOnce.Do(func() {
		p.err = err
		close(p.failed)
	})
}

// Close gives the blocks back. The Store must have returned.
func (p *Pipe) Close() {
	p.Fail(object.Errorf(object.Closed, "the transfer has ended: it takes no more bytes"))
	<-p.hashed
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, piece := range p.blocks {
		p.pool.Put(piece.block)
	}
	p.blocks, p.current, p.reading = nil, nil, nil
}

// Moved tells how many bytes the pump has given.
func (p *Pipe) Moved() int64 { return p.moved.Load() }

// Next implements object.Source.
func (p *Pipe) Next(ctx context.Context, worth int64) (object.Block, error) {
	next, err := p.take(ctx, int((worth+buffers.Size-1)/buffers.Size))
	if err != nil {
		return nil, err
	}
	return next, nil
}

// take gives the next full block, or the error that stands at the end.
func (p *Pipe) take(ctx context.Context, worth int) (*piece, error) {
	select {
	case <-p.failed:
		return nil, p.err
	default:
	}
	for {
		next, closed := p.store.pop(worth)
		if next != nil {
			return next, nil
		}
		if closed {
			return nil, p.verify()
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-p.failed:
			return nil, p.err
		case <-p.store.wake:
		}
	}
}

// verify gives io.EOF, or what stands against calling it the end.
func (p *Pipe) verify() error {
	<-p.hashed
	select {
	case <-p.failed:
		return p.err
	default:
	}
	size, sum := p.Sum()
	if p.expect.Size >= 0 && size != p.expect.Size {
		p.fail(object.Errorf(object.Mismatch, "%d bytes came, %d were expected", size, p.expect.Size))
		return p.err
	}
	if p.expect.SHA256 != "" && sum != p.expect.SHA256 {
		p.fail(object.Errorf(object.Mismatch, "the bytes have SHA-256 %s, expected was %s", sum, p.expect.SHA256))
		return p.err
	}
	return io.EOF
}

// Sum gives size and SHA-256 of what passed; only after the end.
func (p *Pipe) Sum() (size int64, sha256 string) {
	<-p.hashed
	return p.moved.Load(), hex.EncodeToString(p.hash.Sum(nil))
}

// Record implements object.Source.
func (p *Pipe) Record() string { return "" }

// Read implements io.Reader.
func (p *Pipe) Read(into []byte) (int, error) {
	if len(into) == 0 {
		return 0, nil
	}
	if p.reading == nil {
		next, err := p.take(context.Background(), 1)
		if err != nil {
			return 0, err
		}
		p.reading, p.unread = next, next.data
	}
	n := copy(into, p.unread)
	p.unread = p.unread[n:]
	if len(p.unread) == 0 {
		p.release(p.reading)
		p.reading = nil
	}
	return n, nil
}

// WriteTo implements io.WriterTo: the blocks go to w without another copy.
func (p *Pipe) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		next, err := p.take(context.Background(), 1)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(next.data)
		total += int64(n)
		p.release(next)
		if err != nil {
			return total, err
		}
	}
}
