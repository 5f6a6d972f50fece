package digest

import (
	"hash"
	"runtime"
	"sync"
)

// pass is one hash over all blocks, in order, beside the Store's own work on them.
type pass struct {
	hash  hash.Hash
	queue queue
	see   func(*piece) // hashes a block
	end   func()       // what is done at the end, or nil

	mu      sync.Mutex
	dropped bool          // no run is continued: it wants no blocks
	begun   chan struct{} // closed once hash is there
	ended   chan struct{} // closed when the hash has seen its last byte, or has given up; nil: nobody is at it
}

func newPass() *pass {
	p := &pass{queue: queue{wake: make(chan struct{}, 1)}, begun: make(chan struct{})}
	p.see = func(one *piece) { p.hash.Write(one.data) }
	return p
}

// begin says what the hash continues; nil drops it.
func (p *pass) begin(from hash.Hash) {
	p.mu.Lock()
	p.hash, p.dropped = from, from == nil
	p.mu.Unlock()
	for p.dropped {
		one, _ := p.queue.pop(1)
		if one == nil {
			break
		}
		one.Release()
	}
	close(p.begun)
}

// push gives it a block; false if it wants none.
func (p *pass) push(one *piece) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dropped {
		return false
	}
	p.queue.push(one)
	return true
}

// start lets a goroutine carry it on from here. What fits in one block needs none.
func (p *pass) start(failed <-chan struct{}) {
	p.ended = make(chan struct{})
	go func() {
		defer close(p.ended)
		select {
		case <-p.begun:
		case <-failed:
			return
		}
		for !p.step() {
			select {
			case <-p.queue.wake:
			case <-failed:
				return
			}
		}
		if p.end != nil {
			p.end()
		}
	}()
}

// step hashes all that waits, and tells whether that was the end.
func (p *pass) step() bool {
	runtime.LockOSThread() // the longest work of all keeps its processor best where it keeps its thread
	defer runtime.UnlockOSThread()
	for {
		next, closed := p.queue.pop(1)
		if next == nil {
			return closed
		}
		p.see(next)
		next.Release()
	}
}

// finish waits until the hash has seen all, or sees to it. It must have begun, and no block may come any more.
func (p *pass) finish() {
	if p.ended != nil {
		<-p.ended
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.step()
}
