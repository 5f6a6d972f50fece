package task

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// waiting is the goroutine that waits in the kernel for the work that comes first, or nil (docs/decisions.md).
var waiting atomic.Pointer[waiter]

type waiter struct {
	fd   int
	work chan func() // has room for one: a waiter that was swapped out of waiting gets one, and then one wake-up
}

// offered and handed are called before a wake-up is waited for, and before it is sent; tests lose time there.
var offered, handed = func() {}, func() {}

// Go does work aside, as a go statement does, but on a thread that already waits for work if there is one. Nobody is
// told when the work ends. The work must not panic.
func Go(work func()) {
	if w := waiting.Swap(nil); w != nil {
		w.work <- work
		handed()
		raise(w.fd)
		return
	}
	go func() {
		work()
		wait()
	}()
}

// Waiting counts the goroutines that wait for work from Go: none or one.
func Waiting() int {
	if waiting.Load() == nil {
		return 0
	}
	return 1
}

// wait does the work that comes, unless another goroutine waits for it.
func wait() {
	if waiting.Load() != nil {
		return
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC) // it blocks
	if err != nil {
		return // go statements do the work then
	}
	defer func() { _ = unix.Close(fd) }()
	w := &waiter{fd: fd, work: make(chan func(), 1)}
	for waiting.CompareAndSwap(nil, w) {
		offered()
		lower(fd) // before the work is taken: a later wake-up would go to the next owner of the number
		(<-w.work)()
	}
}
