package task

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// inline is work on the thread that asks for it. It is a coroutine, which is left where it waits and resumed later.
// Once its context has ended it is not left any more: whoever resumes it then sees its end.
//
// It belongs to its thread: Go ends the process if another thread resumes it.
type inline struct {
	task   *Task
	thread int
	next   func() (int, bool)
	yield  func(int) bool
	waits  int // the descriptor that was waited for last
	ended  bool
	until  time.Time // when it has waited on its thread for long enough
}

// patience is how long the work waits on its thread before it goes back. Most waits are over by then, and to go back
// and to come again takes longer than the work itself. Signals wait that long, too.
const patience = time.Millisecond

var impatient atomic.Bool

// Impatient makes all inline work go back as soon as it waits, from now on: the thread has other work then.
func Impatient() { impatient.Store(true) }

type key struct{}

func newInline(t *Task) *inline {
	w := &inline{task: t, thread: unix.Gettid()}
	ctx := context.WithValue(t.ctx, key{}, w)
	w.next, _ = iter.Pull(func(yield func(int) bool) {
		w.yield = yield
		grow()
		t.run(ctx)
	})
	return w
}

// grow makes the stack as large as a request needs it. Else it would grow in four steps, and copy everything each time.
//
//go:noinline
func grow() {
	var room [12 << 10]byte
	keep(&room)
}

//go:noinline
func keep(*[12 << 10]byte) {}

func inlineOf(ctx context.Context) *inline {
	w, _ := ctx.Value(key{}).(*inline)
	return w
}

// mine tells whether this thread may resume the work.
func (w *inline) mine() bool { return w.thread == unix.Gettid() }

// resume goes on until the work has ended, or waits for a descriptor. The work may be resumed before the descriptor is
// readable.
func (w *inline) resume() {
	if !w.ended {
		w.until = time.Now().Add(patience)
		fd, more := w.next()
		w.waits, w.ended = fd, !more
	}
}

// err tells why the context of the work has ended, or nil.
func (w *inline) err() error {
	if w.task.ctx.Err() == nil {
		return nil
	}
	return context.Cause(w.task.ctx)
}

// leave leaves the work, unless it has to end.
func (w *inline) leave(fd int) {
	if w.task.ctx.Err() == nil {
		w.yield(fd)
	}
}

// left has the work that was cancelled by another thread than its own.
var left struct {
	mu    sync.Mutex
	work  []*inline
	count atomic.Int32
}

// end resumes cancelled work, which ends it. Another thread than the work's own leaves that to the work's own thread.
func (w *inline) end() {
	if w.mine() {
		w.resume()
		return
	}
	left.mu.Lock()
	defer left.mu.Unlock()
	left.work = append(left.work, w)
	left.count.Add(1)
}

// endLeft ends the work that was left to this thread. If a thread comes no more, its work stays as it is, with a
// goroutine and perhaps a descriptor: no other thread may resume it.
func endLeft() {
	if left.count.Load() == 0 {
		return
	}
	var mine []*inline
	left.mu.Lock()
	left.work = slices.DeleteFunc(left.work, func(w *inline) bool {
		if !w.mine() {
			return false
		}
		mine = append(mine, w)
		return true
	})
	left.count.Store(int32(len(left.work)))
	left.mu.Unlock()
	for _, w := range mine {
		w.resume()
	}
}

// Thread is the thread that work runs on: the work's own thread, which it may keep, or one that it must not keep: that of
// the caller, or one that is shared. The zero Thread is the work's own.
type Thread struct {
	work   *inline
	shared bool
}

// ThreadOf gives the thread of the work that has this context, or a parent of it.
func ThreadOf(ctx context.Context) Thread { return Thread{inlineOf(ctx), shares(ctx)} }

// Own tells whether the work may keep its thread: then it waits there, by calls that block.
func (t Thread) Own() bool { return t.work == nil && !t.shared }

// Shared tells whether the thread is shared: there a short wait, too, is made by Wait.
func (t Thread) Shared() bool { return t.work == nil && t.shared }

// Detached is the thread of what outlives the work.
func (t Thread) Detached() Thread { return Thread{shared: t.shared} }

// Wait waits for a descriptor, which may take long. It waits for events of poll, and gives those that are there. If it
// takes long, the thread is left until it comes again: then Wait gives no events, and its caller looks. An error means that
// nobody waits for the work any more, or (a unix.Errno) that it cannot wait. On a thread of its own it returns at once. On
// a shared thread it gives no events, and waits no longer than most.
func (t Thread) Wait(fd int, events int16, most time.Duration) (there int16, err error) {
	w := t.work
	if w == nil {
		if t.shared {
			err = await(fd, events, most)
		}
		return 0, err
	}
	if err := w.err(); err != nil {
		return 0, err
	}
	if left := time.Until(w.until); left > 0 && !impatient.Load() {
		timeout, asked := unix.NsecToTimespec(int64(left)), []unix.PollFd{{Fd: int32(fd), Events: events}}
		if n, err := unix.Ppoll(asked, &timeout, nil); n > 0 && err == nil {
			return asked[0].Revents, w.err()
		}
	}
	if events != unix.POLLIN { // the caller of Poll waits until something can be read
		watching, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return 0, err
		}
		defer func() { _ = unix.Close(watching) }()
		event := &unix.EpollEvent{Events: uint32(events)} // the same bits as those of poll
		if err := unix.EpollCtl(watching, unix.EPOLL_CTL_ADD, fd, event); err != nil {
			return 0, err
		}
		fd = watching
	}
	w.leave(fd)
	return 0, w.err()
}

// Within gives ctx the thread of other, for something that begins in a task and outlives it. Once the task ends, the
// thread of ctx must not be used any more.
func Within(ctx, other context.Context) context.Context {
	if w := inlineOf(other); w != nil {
		return context.WithValue(ctx, key{}, w)
	}
	return ctx
}

// Aside does work that may take long, and waits for it. Inline work lets another thread do it meanwhile: there it is
// not inline, and its panic is an error. If ctx ends first, inline work does not wait for it: its result then goes to
// late, unless that is nil.
func Aside[T any](ctx context.Context, work func(context.Context) (T, error), late func(T)) (result T, err error) {
	w := inlineOf(ctx)
	if w == nil {
		return work(ctx)
	}
	fd, failed := w.task.signal.descriptor() // without one, nothing is waited for either
	type results struct {
		value T
		err   error
	}
	done := make(chan results, 1)
	Go(func() {
		var r results
		defer w.task.signal.raise()
		defer func() { done <- r }()
		defer object.Rescue(&r.err)
		r.value, r.err = work(context.WithValue(ctx, key{}, nil))
	})
	stop := context.AfterFunc(ctx, w.task.signal.raise)
	defer stop()
	for {
		if failed == nil {
			w.leave(fd)
		}
		select {
		case r := <-done:
			return r.value, r.err
		default:
		}
		if err := cmp.Or(failed, context.Cause(ctx), w.err()); err != nil {
			go func() {
				if r := <-done; r.err == nil && late != nil {
					late(r.value)
				}
			}()
			return result, err
		}
	}
}
