package task

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestSignalsChangeNothing(t *testing.T) {
	fd, err := open()
	if err != nil {
		t.Fatal(err)
	}
	again(interrupted(unix.Write), fd, one)
	if !readable(t, fd) {
		t.Error("a descriptor that was raised while a signal came cannot be read")
	}
	again(interrupted(unix.Read), fd, make([]byte, 8))
	if readable(t, fd) {
		t.Error("a descriptor that was lowered while a signal came can be read")
	}
	shut(fd)
	kept, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if kept != fd || readable(t, kept) {
		t.Errorf("after %d there is %d, which can be read: %t", fd, kept, readable(t, kept))
	}
	shut(kept)
}

// interrupted is a call that ends with EINTR every other time, the first one too.
func interrupted(call func(int, []byte) (int, error)) func(int, []byte) (int, error) {
	calls := 0
	return func(fd int, bytes []byte) (int, error) {
		if calls++; calls%2 == 1 {
			return -1, unix.EINTR
		}
		return call(fd, bytes)
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
