// Package buffers is the memory that transfers work in: blocks outside the Go heap, under one budget for the process.
//
// The peak is one block for each running transfer (two for an assembly), plus at most the budget. A process grows by no
// more: part of the budget is left for connections and for the heaps of Go and Python.
package buffers

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/flow"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// Size of a block in bytes.
const Size = object.BlockSize

// DefaultBudget in bytes bounds all read-ahead of the process, unless another budget is set.
const DefaultBudget = 64 << 20

// overhead in bytes is the most that a transfer takes of the budget beside its blocks: connections, and the heaps of Go
// and Python. Eight uploads to S3 grew a process by 20 to 26 MiB.
const overhead = 3<<20 + Size

// ballast is never touched, so it costs no memory. With it the collector of an otherwise tiny heap runs once for some
// hundred small requests, not once for a few dozen. The heap may hold as much garbage meanwhile.
var ballast = make([]byte, 5<<20)

func init() { runtime.KeepAlive(ballast) }

// Block is memory of Size bytes.
type Block struct {
	Bytes    []byte
	budgeted int64  // how many blocks it takes from the budget
	share    *Share // of the transfer that it takes them for
	loan     *Loan  // whose memory it is; nil: the pool's
}

// Shared tells whether the block is of the budget.
func (b *Block) Shared() bool { return b.share != nil }

// Lent tells whether the memory belongs to somebody else.
func (b *Block) Lent() bool { return b.loan != nil }

// Loan is somebody else's memory, which blocks are made of.
type Loan struct {
	token int64
	uses  int // one for each block, and one for whoever makes the blocks
}

// Pool hands out blocks. The zero value is not usable; see NewPool.
type Pool struct {
	mu     sync.Mutex
	idle   []*Block
	budget *flow.Total // in blocks
	lent   atomic.Int64
	mapped atomic.Int64
	// returned has the tokens of lent memory that is no longer needed.
	returned []int64

	trimming *time.Timer
}

// Share is what one transfer has of the budget.
type Share struct {
	pool *Pool
	part *flow.Share
}

// NewPool makes a pool with a budget in bytes.
func NewPool(budget int64) *Pool { return &Pool{budget: flow.NewTotal(budget/Size, overhead/Size)} }

// Shared is the pool of the process.
var Shared = NewPool(DefaultBudget)

// SetBudget changes the budget, in bytes. What was taken stays taken.
func (p *Pool) SetBudget(budget int64) { p.budget.Set(budget/Size, overhead/Size) }

// Budget is the budget in bytes.
func (p *Pool) Budget() int64 { return p.budget.Units() * Size }

// Get gives the one block that every transfer has for itself, outside the budget. It never waits.
func (p *Pool) Get() (*Block, error) { return p.take(nil) }

// Share begins the share of a transfer.
func (p *Pool) Share() *Share { return &Share{p, p.budget.Share()} }

// TryGet gives a block for read-ahead, or nil when the budget or the share is spent.
func (s *Share) TryGet() *Block {
	if !s.part.Take(1) {
		return nil
	}
	block, err := s.pool.take(s)
	if err != nil {
		s.part.Give(1)
		return nil
	}
	return block
}

// Wants says how many blocks of the budget the transfer will have if it can.
func (s *Share) Wants(blocks int64) { s.part.Wants(blocks) }

// TryGetAll gives blocks for so many bytes, or nil if TryGet would not give all of them.
func (s *Share) TryGetAll(size int64) []*Block {
	left := (size + Size - 1) / Size
	if !s.part.Take(left) {
		return nil
	}
	blocks := s.pool.all(size, func() *Block {
		block, err := s.pool.take(s)
		if err != nil {
			return nil
		}
		left--
		return block
	})
	if left > 0 {
		s.part.Give(left)
	}
	return blocks
}

// GetAll gives blocks for so many bytes, beside the budget. The error is the system's, if it has no memory.
func (p *Pool) GetAll(size int64) (blocks []*Block, err error) {
	blocks = p.all(size, func() (block *Block) {
		block, err = p.Get()
		return block
	})
	return blocks, err
}

// all gives blocks for so many bytes, or nil if one of them is not given.
func (p *Pool) all(size int64, take func() *Block) []*Block {
	blocks := make([]*Block, 0, (size+Size-1)/Size)
	for len(blocks) < cap(blocks) {
		block := take()
		if block == nil {
			for _, other := range blocks {
				p.Put(other)
			}
			return nil
		}
		blocks = append(blocks, block)
	}
	return blocks
}

// Even is how many blocks of the budget the transfer has once all have given back what they have beyond their shares.
func (s *Share) Even() int64 { return s.part.Even() }

// Exceeds tells whether the transfer has more blocks of the budget than its share, since others want some now.
func (s *Share) Exceeds() bool { return s.part.Exceeds() }

// End says that the transfer takes no more blocks. Those that it has must still be put back.
func (s *Share) End() { s.part.End() }

// Borrow begins a loan, and Return ends it. Returned gives the token once all blocks made of the loan are put back,
// too.
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

// Lend makes a block of lent memory, without a copy. It takes the place of a block from Get.
func (p *Pool) Lend(memory []byte, loan *Loan) *Block {
	p.mu.Lock()
	defer p.mu.Unlock()
	loan.uses++
	p.lent.Add(1)
	return &Block{Bytes: memory, loan: loan}
}

// Lend makes a block of lent memory that takes the place of blocks from TryGet. It is nil if there would be none.
func (s *Share) Lend(memory []byte, loan *Loan) *Block {
	cost := (int64(len(memory)) + Size - 1) / Size
	if !s.part.Take(cost) {
		return nil
	}
	block := s.pool.Lend(memory, loan)
	block.share, block.budgeted = s, cost
	return block
}

// Returned gives the token of lent memory that is no longer needed, or 0. A token is given again until it is passed as
// done.
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

// take gives a block, of a share if there is one.
func (p *Pool) take(share *Share) (*Block, error) {
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
	block.share, block.budgeted = share, 1
	p.lent.Add(1)
	return block, nil
}

// idleBlocks is how many free blocks stay mapped (4 MiB). A large transfer leaves more. They go back to the system when
// no transfer has put blocks back for idleTime; before that, the next transfer would only have to map them again.
const (
	idleBlocks = 16
	idleTime   = 3 * time.Second
)

// Put takes a block back.
func (p *Pool) Put(block *Block) {
	p.lent.Add(-1)
	if block.share != nil {
		block.share.part.Give(block.budgeted)
		block.share = nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
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

// Lent counts the blocks in use, those of lent memory too.
func (p *Pool) Lent() int64 { return p.lent.Load() }

// Mapped is the memory that the pool holds, in bytes.
func (p *Pool) Mapped() int64 { return p.mapped.Load() * Size }
