package flow

import (
	"slices"
	"sync"
)

// Total is something that transfers share: blocks of memory, or connections to a host.
//
// A transfer has what it wants, or as much as the others if there is not enough for all: what some do not want is shared
// by those that want more. So none starves, one that came first gives back when another comes, and one that is left
// alone gets all.
type Total struct {
	mu     sync.Mutex
	units  int64
	each   int64 // the most that a transfer needs beside its share
	taken  int64
	shares []*Share // that want some
}

// Share is one transfer's part of a total. Its zero value is of no use: see Total.Share.
type Share struct {
	total *Total
	mine  int64
	wants int64 // no less than mine while it counts, or 0
}

// NewTotal makes a total of so many units. Each transfer needs some of them beside its share, but no more than it wants;
// so less is shared while many run, but never less than half.
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
func (t *Total) shared() int64 {
	shared := t.units
	for _, share := range t.shares {
		shared -= min(t.each, share.wants)
	}
	return max(t.units/2, shared)
}

// even is the most that a share has.
func (t *Total) even() int64 {
	left, count, level := t.shared(), int64(len(t.shares)), int64(0)
	for count > 0 && level < left/count { // those that want less than that leave more to the others
		below := level
		level = left / count
		for _, share := range t.shares {
			if share.wants > below && share.wants <= level {
				left -= share.wants
				count--
			}
		}
	}
	return level
}

// Share begins a share. It counts from its first Take or Wants until End, or until it has given all back.
func (t *Total) Share() *Share { return &Share{total: t} }

// Wants says how many units the transfer will have if it can.
func (s *Share) Wants(units int64) {
	s.total.mu.Lock()
	defer s.total.mu.Unlock()
	s.count(units)
}

// Take takes n more units, if there are as many and the share stays even.
func (s *Share) Take(n int64) bool {
	t := s.total
	t.mu.Lock()
	defer t.mu.Unlock()
	s.count(max(s.wants, s.mine+n))
	if t.taken+n > t.shared() || s.mine+n > t.even() {
		return false
	}
	t.taken += n
	s.mine += n
	return true
}

// count has the share counted as one that wants so much.
func (s *Share) count(wants int64) {
	if s.wants == 0 {
		s.total.shares = append(s.total.shares, s)
	}
	s.wants = max(wants, s.mine, 1)
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
	if s.wants > 0 {
		s.wants = 0
		s.total.shares = slices.DeleteFunc(s.total.shares, func(other *Share) bool { return other == s })
	}
}
