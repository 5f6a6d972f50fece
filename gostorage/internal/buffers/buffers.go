// Package buffers is the memory that transfers work in: blocks outside the Go heap, under one budget of the process.
//
// The peak is: one block for each transfer under way (two for an assembly), plus at most the budget. That is what a
// process grows by: some of the budget is left for connections and the heaps of Go and Python.
package buffers

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// Size of a block in bytes.
const Size = object.BlockSize

// DefaultBudget in bytes bounds all read-ahead of the process.
const DefaultBudget = 64 << 20

// overhead in bytes is the part of the budget that is no memory of blocks: what else a process grows by, as measured
// with eight uploads to S3 at once. The rest is what one of them can use.
const overhead = 30 << 20

// ballast is never touched and so costs no memory. It makes the collector of an otherwise tiny heap run once for some
// hundred small requests, not for each few dozen; the heap may hold as much garbage meanwhile.
var ballast = make([]byte, 5<<20)

func init() { runtime.KeepAlive(ballast) }

// Block is memory of Size bytes.
type Block struct {
	Bytes    []byte
	budgeted int64 // what it takes of the budget, in blocks
	loan     *Loan // what the memory is of, if it is not the pool's
}

// Lent tells whether the memory is somebody else's.
func (b *Block) Lent() bool { return b.loan != nil }

// Loan is memory of somebody else, of which blocks are made.
type Loan struct {
	token int64
	uses  int // by blocks, and by who makes them
}

// Pool hands out blocks. The zero value is not usable; see NewPool.
type Pool struct {
	mu     sync.Mutex
	idle   []*Block
	budget int64 // blocks that may still be given by TryGet
	lent   atomic.Int64
	mapped atomic.Int64
	// returned are the tokens of memory that was lent and is not needed any more.
	returned []int64

	trimming *time.Timer
}

// NewPool makes a pool with a budget in bytes.
func NewPool(budget int64) *Pool { return &Pool{budget: budget / Size} }

// Shared is the pool of the process.
var Shared = NewPool(DefaultBudget - overhead)

// Get gives the one block that a transfer always has of its own, outside the budget: it never waits.
func (p *Pool) Get() (*Block, error) { return p.take(0) }

// TryGet gives a block for read-ahead, or nil when the budget is spent.
func (p *Pool) TryGet() *Block {
	if !p.spend(1) {
		return nil
	}
	block, err := p.take(1)
	if err != nil {
		p.mu.Lock()
		p.budget++
		p.mu.Unlock()
		return nil
	}
	return block
}

// spend takes so many blocks off the budget, if there are as many.
func (p *Pool) spend(blocks int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.budget < blocks {
		return false
	}
	p.budget -= blocks
	return true
}

// Borrow begins a loan. Return ends it; once the blocks that were made of it are put back as well its token is among the
// Returned.
func (p *Pool) Borrow(token int64) *Loan { return &Loan{token: token, uses: 1} }

// Return says that no more blocks are made of a loan.
func (p *Pool) Return(loan *Loan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.less(loan)
}

func (p *Pool) less(loan *Loan) {
	if loan.uses--; loan.uses == 0 {
		p.returned = append(p.returned, loan.token)
	}
}

// Lend makes a block of memory that stays where it is, in place of one that Get would give or, with ahead, TryGet: then
// it is nil when the budget is spent.
func (p *Pool) Lend(memory []byte, loan *Loan, ahead bool) *Block {
	var cost int64
	if ahead {
		cost = (int64(len(memory)) + Size - 1) / Size
	}
	if !p.spend(cost) {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	loan.uses++
	p.lent.Add(1)
	return &Block{Bytes: memory, loan: loan, budgeted: cost}
}

// Returned gives the token of memory that is not needed any more, or 0. It is given again until it is said to be done with.
func (p *Pool) Returned(done int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := slices.Index(p.returned, done); at >= 0 {
		p.returned = slices.Delete(p.returned, at, at+1)
	}
	if len(p.returned) == 0 {
		return 0
	}
	return p.returned[len(p.returned)-1]
}

func (p *Pool) take(budgeted int64) (*Block, error) {
	p.mu.Lock()
	var block *Block
	if n := len(p.idle); n > 0 {
		block, p.idle = p.idle[n-1], p.idle[:n-1]
	}
	p.mu.Unlock()
	if block == nil {
		bytes, err := unix.Mmap(-1, 0, Size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return nil, err
		}
		p.mapped.Add(1)
		block = &Block{Bytes: bytes}
	}
	block.budgeted = budgeted
	p.lent.Add(1)
	return block, nil
}

// idleBlocks are kept mapped (4 MiB). What a large transfer leaves over goes back to the system when no transfer has
// given blocks back for idleTime: the next one would only have to fetch it again.
const (
	idleBlocks = 16
	idleTime   = 3 * time.Second
)

// Put takes a block back.
func (p *Pool) Put(block *Block) {
	p.lent.Add(-1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.budget += block.budgeted
	if block.Lent() {
		p.less(block.loan)
		return
	}
	p.idle = append(p.idle, block)
	switch {
	case len(p.idle) <= idleBlocks:
	case p.trimming == nil:
		p.trimming = time.AfterFunc(idleTime, p.trim)
	default:
		p.trimming.Reset(idleTime)
	}
}

func (p *Pool) trim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) > idleBlocks {
		last := len(p.idle) - 1
		p.mapped.Add(-1)
		_ = unix.Munmap(p.idle[last].Bytes) // a mapping of our own, whole: it cannot fail
		p.idle = p.idle[:last]
	}
}

// Lent counts the blocks in use, those of others' memory too; Mapped is the memory held, in bytes.
func (p *Pool) Lent() int64 { return p.lent.Load() }

// Mapped is the memory that the pool holds, in bytes.
func (p *Pool) Mapped() int64 { return p.mapped.Load() * Size }
