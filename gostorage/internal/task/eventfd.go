package task

import (
	"encoding/binary"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// An eventfd wakes those who wait in the kernel. What makes a small call cheap is that nobody waits inside of Go: to wake
// one who does, threads have to be woken that look for him. This is what is written to one.
var one = binary.NativeEndian.AppendUint64(nil, 1)

// spare is a descriptor for the next one who wants it, plus one: to make and to close one takes longer than to use it.
var spare atomic.Int64

// create is the system's; tests have it fail.
var create = unix.Eventfd

// open gives a descriptor that does not block, and cannot be read yet.
func open() (int, error) {
	if kept := spare.Swap(0); kept > 0 {
		return int(kept - 1), nil
	}
	return create(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
}

// shut takes one back that nobody waits on any more, and that is not raised.
func shut(fd int) {
	if !spare.CompareAndSwap(0, int64(fd)+1) {
		_ = unix.Close(fd)
	}
}

// raise makes a descriptor readable.
func raise(fd int) { again(unix.Write, fd, one) } // it would have to be raised 2^64 times to refuse

// lower makes it not readable; one that blocks is waited for.
func lower(fd int) {
	var count [8]byte
	again(unix.Read, fd, count[:])
}

// again repeats what a signal interrupts: else a wake-up would be lost, or seen by the next owner of a descriptor.
func again(call func(int, []byte) (int, error), fd int, p []byte) {
	for {
		if _, err := call(fd, p); err != unix.EINTR {
			return
		}
	}
}
