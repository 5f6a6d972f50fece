package task

import (
	"encoding/binary"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// An eventfd wakes those who wait in the kernel. A small call is cheap because nobody waits inside Go: to wake a waiter
// there, Go has to wake threads that look for it. one is what is written to an eventfd.
var one = binary.NativeEndian.AppendUint64(nil, 1)

// spare is a descriptor for the next user, plus one: to make and to close a descriptor takes longer than to use it.
var spare atomic.Int64

// create is the system call; tests make it fail.
var create = unix.Eventfd

// open gives a descriptor that does not block, and is not readable yet.
func open() (int, error) {
	if kept := spare.Swap(0); kept > 0 {
		return int(kept - 1), nil
	}
	return create(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
}

// shut takes back a descriptor that nobody waits on any more, and that is not raised.
func shut(fd int) {
	if !spare.CompareAndSwap(0, int64(fd)+1) {
		_ = unix.Close(fd)
	}
}

// raise makes a descriptor readable.
func raise(fd int) { again(unix.Write, fd, one) } // it would have to be raised 2^64 times to refuse

// lower makes a descriptor unreadable. On a descriptor that blocks, it waits until it is readable.
func lower(fd int) {
	var count [8]byte
	again(unix.Read, fd, count[:])
}

// again repeats a call that a signal interrupts: else a wake-up would be lost, or seen by the descriptor's next owner.
func again(call func(int, []byte) (int, error), fd int, p []byte) {
	for {
		if _, err := call(fd, p); err != unix.EINTR {
			return
		}
	}
}
