package task

import (
	"sync"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// Signal tells of news by a descriptor that becomes readable. Who waits on it waits outside of Go: a thread that came
// from Python and blocked in here would have to hand its processor to another thread, which costs more than all else in
// a small call. Python's own poll sees signals too, at once.
type Signal struct {
	mu     sync.Mutex
	fd     int // -1: nobody has asked for it yet
	raised bool
	owners int // the call that runs, and the one who asked for it
}

func NewSignal() *Signal { return &Signal{fd: -1, owners: 2} }

// Descriptor gives the descriptor, which is made now if it was not before.
func (s *Signal) Descriptor() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		fd, err := Open()
		if err != nil {
			return -1, object.Retryablef(object.IO, "no descriptor for a call: %v", err)
		}
		s.fd = fd
		if s.raised {
			Raise(fd)
		}
	}
	return s.fd, nil
}

func (s *Signal) Raise() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raised = true
	if s.fd >= 0 {
		Raise(s.fd)
	}
}

func (s *Signal) Lower() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
}

func (s *Signal) clear() {
	if s.raised && s.fd >= 0 {
		Lower(s.fd)
	}
	s.raised = false
}

// Drop closes the descriptor when neither side needs it any more.
func (s *Signal) Drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owners--; s.owners == 0 && s.fd >= 0 {
		s.clear()
		Close(s.fd)
		s.fd = -1
	}
}
