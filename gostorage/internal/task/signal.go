package task

import (
	"sync"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// signal tells of news by a descriptor that becomes readable.
type signal struct {
	mu     sync.Mutex
	fd     int // -1: nobody has asked for it yet
	raised bool
	users  side
}

// side is one of the two users of a signal.
type side int

const (
	worker side = 1 << iota
	asker
)

func newSignal() signal { return signal{fd: -1, users: worker | asker} }

// descriptor gives the descriptor, and makes it if there is none.
func (s *signal) descriptor() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == 0 {
		return -1, object.Errorf(object.Closed, "the transfer has ended")
	}
	if s.fd < 0 {
		fd, err := open()
		if err != nil {
			return -1, object.Retryablef(object.IO, "no descriptor for a call: %v", err)
		}
		s.fd = fd
		if s.raised {
			raise(fd)
		}
	}
	return s.fd, nil
}

func (s *signal) raise() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raised = true
	if s.fd >= 0 {
		raise(s.fd)
	}
}

func (s *signal) lower() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
}

func (s *signal) clear() {
	if s.raised && s.fd >= 0 {
		lower(s.fd)
	}
	s.raised = false
}

// drop closes the descriptor when neither side uses it any more.
func (s *signal) drop(by side) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users &^= by; s.users == 0 && s.fd >= 0 {
		s.clear()
		shut(s.fd)
		s.fd = -1
	}
}
