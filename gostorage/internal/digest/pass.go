package digest

import (
	"hash"
	"runtime"
	"sync"
)

// pass is one hash over all blocks, in order, while the Store does its own work on them.
type pass struct {
	hash  hash.Hash
	queue queue
	see   func(*piece) // hashes a block
	end   func()       // called at the end, or nil
	many  bool         // one of many, which keep no thread

	mu      sync.Mutex
	dropped bool          // there is no run to continue: it wants no blocks
	begun   chan struct{} // closed once hash is set
	ended   chan struct{} // closed when the hash has seen its last byte, or has given up; nil: no goroutine hashes
}

func newPass() *pass {
	p := &pass{queue: queue{wake: make(chan struct{}, 1)}, begun: make(chan struct{})}
	p.see = func(one *piece) { p.hash.Write(one.data) }
	return p
}

// begin sets the hash to continue; nil drops the pass.
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

// push gives the pass a block; false if it wants none.
func (p *pass) push(one *piece) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dropped {
		return false
	}
	p.queue.push(one)
	return true
}

// start lets a goroutine hash from here on. Bytes that fit in one block need none.
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

// step hashes all waiting blocks, and tells whether the end was reached.
func (p *pass) step() bool {
	if !p.many {
		runtime.LockOSThread() // the longest work of all stays on one processor best if it stays on one thread
		defer runtime.UnlockOSThread()
	}
	for {
		next, closed := p.queue.pop(1)
		if next == nil {
			return closed
		}
		p.see(next)
		next.Release()
	}
}

// finish waits until the hash has seen all bytes, or hashes them itself. The pass must have begun, and no block may
// come after that.
func (p *pass) finish() {
	if p.ended != nil {
		<-p.ended
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.step()
}
