package calls

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// signal tells of news by a descriptor that becomes readable. Who waits on it waits outside of Go: a thread that came
// from Python and blocked in here would have to hand its processor to another thread, which costs more than all else in
// a small call. Python's own poll sees signals too, at once.
type signal struct {
	fd     int
	owners atomic.Int32 // the call that runs, and the one who asked for it
}

func newSignal() (*signal, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		failed := object.Errorf(object.IO, "no descriptor for a call: %v", err)
		failed.Retryable = true
		return nil, failed
	}
	s := &signal{fd: fd}
	s.owners.Store(2)
	return s, nil
}

var one = []byte{1, 0, 0, 0, 0, 0, 0, 0}

func (s *signal) raise() { _, _ = unix.Write(s.fd, one) }

func (s *signal) lower() {
	var count [8]byte
	_, _ = unix.Read(s.fd, count[:])
}

// drop closes the descriptor when neither side needs it any more.
func (s *signal) drop() {
	if s.owners.Add(-1) == 0 {
		_ = unix.Close(s.fd)
	}
}
