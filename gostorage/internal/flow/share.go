package flow

import "sync"

// Total is something that transfers share: blocks of memory, or connections to a host.
//
// A transfer has at most an even share of it, the total divided by the transfers that want some. So none starves, one
// that came first gives back when another comes, and one that is left alone gets all.
type Total struct {
	mu     sync.Mutex
	units  int64
	each   int64 // what a transfer needs beside its share
	taken  int64
	shares int64 // that want some
}

// Share is one transfer's part of a total. Its zero value is of no use: see Total.Share.
type Share struct {
	total *Total
	mine  int64
	wants bool // whether it counts
}

// NewTotal makes a total of so many units. Each transfer needs some of them beside its share, so less is shared while
// many run, but never less than half.
func NewTotal(units, each int64) *Total { return &Total{units: units, each: each} }

// Set changes the total. What was taken stays taken.
func (t *Total) Set(units, each int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.units, t.each = units, each
}

// Units is the whole total.
func (t *Total) Units() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.units
}

// shared is how much all shares have together.
func (t *Total) shared() int64 { return max(t.units/2, t.units-t.each*t.shares) }

func (t *Total) even() int64 { return t.shared() / max(t.shares, 1) }

// Share begins a share. It counts from its first Take until End, and not while an earlier one has given all back.
func (t *Total) Share() *Share { return &Share{total: t} }

// Take takes n more units, if there are as many and the share stays even.
func (s *Share) Take(n int64) bool {
	t := s.total
	t.mu.Lock()
	defer t.mu.Unlock()
	if !s.wants {
		s.wants = true
		t.shares++
	}
	if t.taken+n > t.shared() || s.mine+n > t.even() {
		return false
	}
	t.taken += n
	s.mine += n
	return true
}

// Exceeds tells whether the transfer has more than its share, since others want some now.
func (s *Share) Exceeds() bool {
	t := s.total
	t.mu.Lock()
	defer t.mu.Unlock()
	return s.mine > 0 && s.mine > t.even()
}

// Even is how much the transfer has once all have given back what they have beyond their shares.
func (s *Share) Even() int64 {
	t := s.total
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.even()
}

// Give gives n units back.
func (s *Share) Give(n int64) {
	t := s.total
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken -= n
	if s.mine -= n; s.mine == 0 {
		s.leave()
	}
}

// End says that the transfer takes no more. What it has must still be given back.
func (s *Share) End() {
	s.total.mu.Lock()
	defer s.total.mu.Unlock()
	s.leave()
}

func (s *Share) leave() {
	if s.wants {
		s.wants = false
		s.total.shares--
	}
}
