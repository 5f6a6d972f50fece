// Package task carries out work on the thread that asks for it, or aside, and tells its caller of news.
//
// New makes a task, and Start starts it. Poll tells whether it has ended; if not, it gives a descriptor that becomes
// readable once there is news: then the caller polls again. Cancel gives the task up. The caller waits outside Go: a
// thread that came from Python and blocked in here would have to hand its processor to another thread, which costs more
// than everything else in a small call. Python's own poll also sees signals, at once.
//
// Aside, the work runs on another thread, and may block that as it likes (standby.go). The descriptor is one that is
// raised at the end, or by Tell (signal.go, eventfd.go).
//
// Inline, the work runs within Poll, on the thread that called Start (inline.go). A small request costs less than
// waking the threads that could make it. But the work must not keep that thread. It waits for a socket by Thread.Wait,
// and does everything else that may take long by Aside. In both cases Poll returns, and gives the socket as the
// descriptor, or the descriptor of the signal; the next Poll goes on from there.
//
// The work is written once for both: aside, Wait has no effect, and Aside is a mere call.
package task

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// undoWait bounds one Cancel: Python must see a signal within 250 ms.
const undoWait = 40 * time.Millisecond

// Task is work that somebody waits for.
type Task struct {
	ctx       context.Context
	cancel    context.CancelCauseFunc
	work      func(context.Context)
	begin     sync.Once
	stopLater func() bool            // undoes Later, or nil
	inline    atomic.Pointer[inline] // nil: the work is aside, or has not begun
	done      chan struct{}          // closed at its end
	signal    signal
}

// New makes a task of work, which does not begin yet: Start or Later has to follow. The context of the work ends with ctx,
// by Stop and Cancel, and when the work has ended. The work must not panic.
func New(ctx context.Context, work func(context.Context)) *Task {
	endLeft()
	t := &Task{work: work, done: make(chan struct{}), signal: newSignal()}
	t.ctx, t.cancel = context.WithCancelCause(ctx)
	return t
}

// Start lets the work begin: aside, or inline, if this thread will Poll. Inline, nothing is done before the first Poll.
// If the work has begun already, nothing changes.
func (t *Task) Start(inline bool) {
	t.begin.Do(func() {
		if t.stopLater != nil {
			t.stopLater()
		}
		if inline {
			t.inline.Store(newInline(t))
		} else {
			t.aside()
		}
	})
}

// Later lets the work wait for Start, but not for longer than its context. If the context ends first, the work begins
// aside, and sees that. Later is called before Start, at most once.
func (t *Task) Later() {
	t.stopLater = context.AfterFunc(t.ctx, func() { t.begin.Do(t.aside) })
}

func (t *Task) aside() { Go(func() { t.run(t.ctx) }) }

func (t *Task) run(ctx context.Context) {
	defer func() {
		t.cancel(nil)
		close(t.done)
		t.signal.raise()
		t.signal.drop(worker)
	}()
	t.work(ctx)
}

// Poll tells whether the work has ended: then its results can be read, and there is no descriptor any more. Before
// that, fd becomes readable once there is news, and Poll is to be called again: fd may be another after each Poll. With
// an error nothing tells of news, but the work goes on. If this is the thread of inline work, Poll goes on with it.
func (t *Task) Poll() (fd int, ended bool, err error) {
	endLeft()
	t.signal.lower() // before anything is looked at: later news raises it again
	work := t.inline.Load()
	here := work != nil && work.mine()
	if here {
		work.resume()
	}
	switch {
	case t.over():
		t.signal.drop(asker)
		return -1, true, nil
	case here:
		return work.waits, false, nil
	default:
		fd, err = t.signal.descriptor()
		return fd, false, err
	}
}

func (t *Task) over() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

// Tell makes the descriptor of work aside readable: the caller of Poll has something else to look at.
func (t *Task) Tell() { t.signal.raise() }

// Stop ends the context of the work with a cause. The caller of Poll sees the end of the work.
func (t *Task) Stop(cause error) { t.cancel(cause) }

// Cancel is Stop for a task that nobody will Poll any more. Nobody may wait for its descriptor then. after is called
// when the work has ended: before Cancel returns, or in the background if that takes longer than 40 ms.
func (t *Task) Cancel(cause error, after func()) {
	t.signal.drop(asker)
	t.cancel(cause)
	if work := t.inline.Load(); work != nil && !t.over() {
		work.end()
	}
	if t.endsWithin(undoWait) {
		after()
		return
	}
	go func() {
		<-t.done
		after()
	}()
}

func (t *Task) endsWithin(wait time.Duration) bool {
	if t.over() {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-t.done:
		return true
	case <-timer.C:
		return false
	}
}
