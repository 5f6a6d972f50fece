// Package digest moves bytes from their owner to a Store in one pass. They are copied once, and hashed while the Store
// does its own work on them.
package digest

import (
	"crypto/sha256"
	"hash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// depth is how many blocks one transfer may have under way: enough that the hash and the write do not wait for each
// other's jitter, few enough to stay in the last-level cache. A Store that keeps blocks longer says so with Reserve.
const depth = 8

// Expect is what the caller expects of the bytes. Size -1 and SHA256 "" mean that it expects nothing.
type Expect struct {
	Size   int64
	SHA256 string
}

// Pipe joins a pump (Write, then CloseWrite or Fail) to a Store (an object.Source).
//
// A block that the pump has filled goes to the Store and to the hash at once, and comes back when both are done with
// it. If the Store wants a checksum, the block goes first to the hash, which computes both in one pass where it can,
// and from there to the Store; so do all later blocks. The pump itself hashes bytes that fit in one block: a small
// object costs no extra goroutine.
type Pipe struct {
	pool   *buffers.Pool
	share  *buffers.Share
	expect Expect

	mu      sync.Mutex // held by the pump while it touches current or blocks
	current *piece
	blocks  []*piece // every block of this transfer
	ended   bool     // CloseWrite, Fail or Close was called: no more bytes
	behind  bool     // blocks come to the Store through the hash
	store   queue
	free    queue
	moved   atomic.Int64
	need    atomic.Int64 // blocks that this transfer may have in any case
	most    atomic.Int64 // blocks that it may have while the budget lasts
	refused atomic.Int64 // how many blocks it may have, if the budget did not last; else 0

	checksum atomic.Pointer[object.Checksum]

	leave, enter func() // called around a wait of the Store for bytes, or nil

	failOnce sync.Once
	failed   chan struct{} // closed by the first error from any side
	err      error         // that error, readable once failed is closed

	own     *pass   // the hash of these bytes
	carried *pass   // the hash of the run of parts that they continue, or nil
	before  *Record // that run; nil if there is none to continue
	reading *piece  // the block that Read is giving away
	unread  []byte  // the rest of that block
}

type piece struct {
	pipe   *Pipe
	block  *buffers.Block
	data   []byte
	sum    uint64
	known  bool // sum belongs to data
	behind bool // the Store gets it from the hash
	users  atomic.Int32
}

// Bytes implements object.Block.
func (p *piece) Bytes() []byte { return p.data }

// Checksum implements object.Block.
func (p *piece) Checksum() (uint64, bool) { return p.sum, p.known }

// grow lets read put bytes behind those that are in the block.
func (p *piece) grow(read func([]byte) (int, error)) (int, error) {
	start := len(p.data)
	n, err := read(p.block.Bytes[start:])
	p.data = p.block.Bytes[:start+n]
	return n, err
}

// Release implements object.Block.
func (p *piece) Release() { p.pipe.release(p) }

// NewPipe makes a pipe that works in blocks of pool.
func NewPipe(pool *buffers.Pool, expect Expect) *Pipe {
	p := &Pipe{
		pool:   pool,
		share:  pool.Share(),
		expect: expect,
		store:  queue{wake: make(chan struct{}, 1)},
		free:   queue{wake: make(chan struct{}, 1)},
		failed: make(chan struct{}),
		own:    newPass(),
	}
	p.own.begin(sha256.New())
	p.own.see, p.own.end = p.hash, p.store.close
	p.need.Store(1)
	p.most.Store(depth)
	return p
}

// Many says that this is one of many pipes of a pump that does not wait: tell is called when there is room for bytes
// again. It precedes all bytes.
func (p *Pipe) Many(tell func()) {
	p.free.told = tell
	for _, pass := range p.passes() {
		pass.many = true
	}
}

// Around has functions called before and after each wait of the Store for bytes. It precedes all bytes.
func (p *Pipe) Around(leave, enter func()) { p.leave, p.enter = leave, enter }

// Carry makes room for the hash of a run of parts that these bytes continue. Continue must name the run before the
// Store asks for the end.
func (p *Pipe) Carry() { p.carried = newPass() }

// Continue says which run of parts these bytes continue; nil: none.
func (p *Pipe) Continue(run *Record) {
	p.before = run
	var from hash.Hash
	if run != nil && run.Size > 0 { // the run of a first part is its own
		if resumed, ok := run.Hash(); ok {
			from = resumed
		} else {
			p.before = nil
		}
	}
	p.carried.begin(from)
}

// Write copies bytes of data while there is room, for at most wait, and says how many it copied. It gives the error of
// the Store as soon as there is one.
func (p *Pipe) Write(data []byte, wait time.Duration) (int, error) {
	copied := func(room []byte) (int, error) {
		n := copy(room, data)
		data = data[n:]
		return n, nil
	}
	return p.ReadFrom(copied, len(data), wait)
}

// ReadFrom is a Write of at most most bytes, which read puts in place. The error of read, io.EOF too, is given only if
// no byte came before it.
func (p *Pipe) ReadFrom(read func([]byte) (int, error), most int, wait time.Duration) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var timer *time.Timer
	taken, end := 0, time.Now().Add(wait)
	for taken < most && (taken == 0 || time.Now().Before(end)) { // the source may be slow, too
		if err := p.takes(0); err != nil {
			return taken, err
		}
		if p.current == nil {
			if timer == nil {
				timer = time.NewTimer(time.Until(end))
				defer timer.Stop()
			}
			next, err := p.next(timer.C)
			if next == nil || err != nil {
				return taken, err
			}
			p.current = next
		}
		n, err := p.current.grow(read)
		if err := p.takes(n); err != nil {
			return taken, err
		}
		p.moved.Add(int64(n))
		taken += n
		if len(p.current.data) == buffers.Size {
			p.send()
		}
		if err != nil {
			if taken > 0 {
				err = nil
			}
			return taken, err
		}
	}
	return taken, nil
}

// Lend is a Write of whole blocks without a copy: they stay where they are until the pool gives the loan back.
func (p *Pipe) Lend(data []byte, loan *buffers.Loan, wait time.Duration) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	taken := 0
	for ; taken < len(data); taken += buffers.Size {
		if err := p.takes(buffers.Size); err != nil {
			return taken, err
		}
		block := data[taken : taken+buffers.Size]
		lend := func(ahead bool) (*buffers.Block, error) {
			if ahead {
				return p.share.Lend(block, loan), nil
			}
			return p.pool.Lend(block, loan), nil
		}
		next, err := p.place(timer.C, true, lend)
		if next == nil || err != nil {
			return taken, err
		}
		next.data = block
		p.moved.Add(buffers.Size)
		p.current = next
		p.send()
	}
	return taken, nil
}

// Aligned tells whether the next byte begins a block.
func (p *Pipe) Aligned() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current == nil
}

// Ended tells whether all bytes have come.
func (p *Pipe) Ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// takes gives the error that stands against n more bytes, or nil.
func (p *Pipe) takes(n int) error {
	select {
	case <-p.failed:
		return p.err
	default:
	}
	if p.ended {
		return object.Errorf(object.Closed, "the transfer has ended: it takes no more bytes")
	}
	if size := p.expect.Size; size >= 0 && p.moved.Load()+int64(n) > size {
		p.fail(object.Errorf(object.Mismatch, "more than the expected %d bytes came", size))
		return p.err
	}
	return nil
}

// next gives an empty block, one that came back or a new one, or nil if there was neither in time.
func (p *Pipe) next(timeout <-chan time.Time) (*piece, error) {
	return p.place(timeout, false, func(ahead bool) (*buffers.Block, error) {
		if ahead {
			p.share.Wants(p.most.Load() - p.need.Load())
			return p.share.TryGet(), nil
		}
		block, err := p.pool.Get()
		if err != nil {
			return nil, object.Retryablef(object.IO, "no memory for a buffer: %v", err)
		}
		return block, nil
	})
}

// place gives a piece that nobody uses: one that came back and can be filled again, or a new one if another is allowed.
// With fresh it gives only new ones. Lent memory goes back to its owner.
func (p *Pipe) place(
	timeout <-chan time.Time, fresh bool, made func(ahead bool) (*buffers.Block, error),
) (*piece, error) {
	for {
		worth := p.worth()
		for free := p.free.last(worth); free != nil; free = p.free.last(worth) {
			if !fresh && !free.block.Lent() && !p.exceeds(free) {
				return free, nil
			}
			p.drop(free)
		}
		if ahead := p.owned() >= p.need.Load(); !ahead || int64(len(p.blocks)) < p.most.Load() {
			if block, err := made(ahead); err != nil {
				return nil, err
			} else if block != nil {
				added := &piece{pipe: p, block: block}
				p.blocks = append(p.blocks, added)
				return added, nil
			}
			p.refused.Store(p.need.Load() + p.share.Even())
		}
		select {
		case <-p.free.wake:
		case <-p.failed:
			return nil, p.err
		case <-timeout:
			return nil, nil
		}
	}
}

// owned is how many blocks there are that are not of the budget.
func (p *Pipe) owned() (count int64) {
	for _, piece := range p.blocks {
		if !piece.block.Shared() {
			count++
		}
	}
	return count
}

// mostWorth is the most free blocks that the pump waits for before it is woken.
const mostWorth = 16

// worth is how many it waits for: to wake it for each block costs more than to wait for some. So many come back without
// the pump, since a Store holds no more than it needs.
func (p *Pipe) worth() int {
	return int(max(1, min(mostWorth, (int64(len(p.blocks))-p.need.Load())/2)))
}

// exceeds tells whether a free block goes back to the budget: the Store needs fewer now, or other transfers want some.
func (p *Pipe) exceeds(free *piece) bool {
	return free.block.Shared() && (int64(len(p.blocks)) > p.most.Load() || p.share.Exceeds())
}

func (p *Pipe) drop(one *piece) {
	p.pool.Put(one.block)
	p.blocks = slices.DeleteFunc(p.blocks, func(other *piece) bool { return other == one })
}

// passes are the hashes that are computed.
func (p *Pipe) passes() []*pass {
	if p.carried == nil {
		return []*pass{p.own}
	}
	return []*pass{p.own, p.carried}
}

// send passes the current block on. Other blocks follow, or came before.
func (p *Pipe) send() {
	passes := p.passes()
	for _, pass := range passes {
		if pass.ended == nil {
			pass.start(p.failed)
		}
	}
	p.give(passes)
}

// give gives the current block to the Store, and to the hashes named.
func (p *Pipe) give(passes []*pass) {
	current := p.current
	p.current = nil
	current.known = false
	current.users.Store(1 + int32(len(passes)))
	p.behind = len(passes) > 0 && passes[0] == p.own && (p.behind || p.checksum.Load() != nil)
	if current.behind = p.behind; !p.behind {
		p.store.push(current)
	}
	for _, pass := range passes {
		if !pass.push(current) {
			p.release(current)
		}
	}
}

// hash hashes a block, and then gives it to the Store if the Store gets it from the hash.
func (p *Pipe) hash(one *piece) {
	if checksum := p.checksum.Load(); one.behind && checksum != nil {
		one.sum, one.known = (*checksum)(p.own.hash, one.data), true
	} else {
		p.own.hash.Write(one.data)
	}
	if one.behind {
		p.store.push(one)
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
	switch {
	case p.current == nil:
	case p.own.ended != nil:
		p.send()
	default: // all of it is in one block
		p.own.hash.Write(p.current.data)
		p.give(p.passes()[1:])
	}
	p.end()
}

func (p *Pipe) end() {
	p.ended = true
	if !p.behind {
		p.store.close()
	}
	for _, pass := range p.passes() {
		pass.queue.close()
	}
}

// Fail ends the transfer with err, from either side. The first error stays. The Store gets it instead of the end.
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
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pass := range p.passes() {
		if pass.ended != nil {
			<-pass.ended
		}
	}
	for _, piece := range p.blocks {
		p.pool.Put(piece.block)
	}
	p.share.End()
	p.blocks, p.current, p.reading = nil, nil, nil
}

// Moved tells how many bytes the pump has given.
func (p *Pipe) Moved() int64 { return p.moved.Load() }
