package task

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Shared work runs aside, but keeps no thread while it waits for a descriptor: one thread waits for the descriptors of
// all of it. Each wait costs two wake-ups more than one on a thread of its own, and hundreds of them cost no more
// threads. It is for the calls of an event loop, which come in hundreds.

type sharing struct{}

// Shared gives a context whose work is shared.
func Shared(ctx context.Context) context.Context { return context.WithValue(ctx, sharing{}, true) }

// SharedAs gives ctx, shared if the work of other is.
func SharedAs(ctx, other context.Context) context.Context {
	if shares(other) {
		return Shared(ctx)
	}
	return ctx
}

func shares(ctx context.Context) bool { return ctx.Value(sharing{}) != nil }

// watcher is the thread that waits for all shared work. It begins with the first wait, and stays.
var watcher struct {
	mu      sync.Mutex
	fd      int // of epoll; 0: it has not begun
	waiters map[int32]chan struct{}
}

// await waits until one of the events is there, or maybe a little less, but not for longer than most.
func await(fd int, events int16, most time.Duration) error {
	came := make(chan struct{}, 1)
	if err := watch(fd, events, came); err != nil {
		return err
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-came:
	case <-timer.C:
	}
	watcher.mu.Lock()
	defer watcher.mu.Unlock()
	delete(watcher.waiters, int32(fd))
	return unix.EpollCtl(watcher.fd, unix.EPOLL_CTL_DEL, fd, nil)
}

func watch(fd int, events int16, came chan struct{}) error {
	watcher.mu.Lock()
	defer watcher.mu.Unlock()
	if watcher.fd == 0 {
		made, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return err
		}
		watcher.fd, watcher.waiters = made, map[int32]chan struct{}{}
		go watchAll(made)
	}
	event := &unix.EpollEvent{Events: uint32(events) | unix.EPOLLONESHOT, Fd: int32(fd)} // the bits of poll
	if err := unix.EpollCtl(watcher.fd, unix.EPOLL_CTL_ADD, fd, event); err != nil {
		return err
	}
	watcher.waiters[int32(fd)] = came
	return nil
}

func watchAll(fd int) {
	var events [64]unix.EpollEvent
	for {
		n, _ := unix.EpollWait(fd, events[:], -1) // the only error is EINTR: the descriptor is never closed
		watcher.mu.Lock()
		for _, event := range events[:max(n, 0)] {
			if came := watcher.waiters[event.Fd]; came != nil {
				select {
				case came <- struct{}{}:
				default: // it was told already, perhaps of a descriptor that had this number before
				}
			}
		}
		watcher.mu.Unlock()
	}
}

// Watching counts the goroutines that wait for descriptors of shared work: none or one.
func Watching() int {
	watcher.mu.Lock()
	defer watcher.mu.Unlock()
	return min(watcher.fd, 1)
}

// most is how many calls of event loops are at once within the system's calls that block, such as those for files: each
// keeps a thread.
const most = 4

var slots = make(chan struct{}, most)

// Enter waits until one of few threads is free for shared work that blocks, and Leave frees it. Between Enter and Leave
// the work must wait for nothing that its caller does, nor for other such work.
func Enter() { slots <- struct{}{} }

// Leave ends what Enter has begun.
func Leave() { <-slots }
