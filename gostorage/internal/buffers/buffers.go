// Package buffers is the memory that transfers work in: blocks outside the Go heap, under one budget of the process.
//
// The peak is: one block for each transfer under way (two for an assembly), plus at most the budget.
package buffers

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// Size of a block in bytes.
const Size = object.BlockSize

// DefaultBudget in bytes bounds all read-ahead of the process.
const DefaultBudget = 64 << 20

// Block is memory of Size bytes.
type Block struct {
	Bytes    []byte
	budgeted bool
}

// Pool hands out blocks. The zero value is not usable; see NewPool.
type Pool struct {
	mu     sync.Mutex
	idle   []*Block
	budget int64 // blocks that may still be given by TryGet
	lent   atomic.Int64
	mapped atomic.Int64
}

// NewPool makes a pool with a budget in bytes.
func NewPool(budget int64) *Pool { return &Pool{budget: budget / Size} }

// Shared is the pool of the process.
var Shared = NewPool(DefaultBudget)

// Get gives the one block that a transfer always has of its own, outside the budget: it never waits.
func (p *Pool) Get() (*Block, error) { return p.take(false) }

// TryGet gives a block for read-ahead, or nil when the budget is spent.
func (p *Pool) TryGet() *Block {
	p.mu.Lock()
	if p.budget == 0 {
		p.mu.Unlock()
		return nil
	}
	p.budget--
	p.mu.Unlock()
	block, err := p.take(true)
	if err != nil {
		p.mu.Lock()
		p.budget++
		p.mu.Unlock()
		return nil
	}
	return block
}

func (p *Pool) take(budgeted bool) (*Block, error) {
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

// idleBlocks are kept mapped for the next transfer (4 MiB); what is over goes back to the system.
const idleBlocks = 16

// Put takes a block back.
func (p *Pool) Put(block *Block) {
	p.lent.Add(-1)
	p.mu.Lock()
	if block.budgeted {
		p.budget++
	}
	keep := len(p.idle) < idleBlocks
	if keep {
		p.idle = append(p.idle, block)
	}
	p.mu.Unlock()
	if !keep {
		p.mapped.Add(-1)
		_ = unix.Munmap(block.Bytes) // a mapping of our own, whole: it cannot fail
	}
}

// Lent counts the blocks in use; Mapped is the memory held, in bytes.
func (p *Pool) Lent() int64 { return p.lent.Load() }

// Mapped is the memory that the pool holds, in bytes.
func (p *Pool) Mapped() int64 { return p.mapped.Load() * Size }
