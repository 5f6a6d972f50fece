package task

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestSignalsChangeNothing(t *testing.T) {
	fd, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	interrupt(t, &write)
	interrupt(t, &read)
	Raise(fd)
	if !readable(t, fd) {
		t.Error("a descriptor that was raised while a signal came cannot be read")
	}
	Lower(fd)
	if readable(t, fd) {
		t.Error("a descriptor that was lowered while a signal came can be read")
	}
	Close(fd)
	kept, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	if kept != fd || readable(t, kept) {
		t.Errorf("after %d there is %d, which can be read: %t", fd, kept, readable(t, kept))
	}
	Close(kept)
}

// interrupt makes every other call end with EINTR, the first one too.
func interrupt(t *testing.T, call *func(int, []byte) (int, error)) {
	whole, calls := *call, 0
	t.Cleanup(func() { *call = whole })
	*call = func(fd int, bytes []byte) (int, error) {
		if calls++; calls%2 == 1 {
			return -1, unix.EINTR
		}
		return whole(fd, bytes)
	}
}

func readable(t *testing.T, fd int) bool {
	t.Helper()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}
