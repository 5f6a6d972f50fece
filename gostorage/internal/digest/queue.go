package digest

import (
	"sync"
)

// queue is a channel without a fixed size, for one waiter. A small object must not pay for what a large one needs.
type queue struct {
	mu     sync.Mutex
	pieces []*piece
	closed bool
	worth  int // number of pieces at which the waiter is woken
	wake   chan struct{}
	told   func() // called with each wake-up, or nil
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
	if q.told != nil {
		q.told()
	}
}

// pop gives the oldest piece, or nil and whether no more will come. After that the waiter is woken for worth pieces.
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

// last gives the newest piece, which is still in a cache, or nil. After that the waiter is woken for worth pieces.
func (q *queue) last(worth int) *piece {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.worth = worth
	if len(q.pieces) == 0 {
		return nil
	}
	end := len(q.pieces) - 1
	newest := q.pieces[end]
	q.pieces = q.pieces[:end]
	return newest
}
