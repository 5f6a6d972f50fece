package calls

import (
	"sync"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/task"
)

// signal tells of news by a descriptor that becomes readable. Who waits on it waits outside of Go: a thread that came
// from Python and blocked in here would have to hand its processor to another thread, which costs more than all else in
// a small call. Python's own poll sees signals too, at once.
type signal struct {
	mu     sync.Mutex
	fd     int // -1: nobody has asked for it yet
	raised bool
	owners int // the call that runs, and the one who asked for it
}

func newSignal() *signal { return &signal{fd: -1, owners: 2} }

// descriptor gives the descriptor, which is made now if it was not before.
func (s *signal) descriptor() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		fd, err := task.Open()
		if err != nil {
			return -1, object.Retryablef(object.IO, "no descriptor for a call: %v", err)
		}
		s.fd = fd
		if s.raised {
			task.Raise(fd)
		}
	}
	return s.fd, nil
}

func (s *signal) raise() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raised = true
	if s.fd >= 0 {
		task.Raise(s.fd)
	}
}

func (s *signal) lower() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
}

func (s *signal) clear() {
	if s.raised && s.fd >= 0 {
		task.Lower(s.fd)
	}
	s.raised = false
}

// drop closes the descriptor when neither side needs it any more.
func (s *signal) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owners--; s.owners == 0 && s.fd >= 0 {
		s.clear()
		task.Close(s.fd)
		s.fd = -1
	}
}
