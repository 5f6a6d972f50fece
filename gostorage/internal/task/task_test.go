package task

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var errEnough = errors.New("enough")

// happens waits for something.
func happens(t *testing.T, what string, channel <-chan struct{}) {
	t.Helper()
	select {
	case <-channel:
	case <-time.After(20 * time.Second):
		t.Fatal(what, "does not happen")
	}
}

func TestATaskAside(t *testing.T) {
	let, value := make(chan struct{}), 0
	task := New(t.Context(), func(ctx context.Context) {
		<-let
		value = 7
	})
	if polled(t, task) < 0 {
		t.Fatal("it has ended before it has begun")
	}
	for range 2 {
		task.Start(false)
	}
	task.Start(true) // it has begun
	fd := polled(t, task)
	if readable(t, fd) {
		t.Error("there is news of nothing")
	}
	task.Tell()
	if !readable(t, fd) || polled(t, task) != fd || readable(t, fd) {
		t.Error("what is told is not seen, or twice")
	}
	close(let)
	if finish(t, task); value != 7 {
		t.Error("what the work has written is not there")
	}
	if polled(t, task) >= 0 {
		t.Error("it goes on after its end")
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := task.signal.descriptor(); err != nil {
			break // it was given back, and there is no other
		}
		if time.Now().After(end) {
			t.Fatal("its descriptor is not given back")
		}
	}
}

func TestWorkThatWaitsForStartEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	for name, end := range map[string]func(*Task){
		"stopped":   func(task *Task) { task.Stop(errEnough) },
		"cancelled": func(task *Task) { task.Cancel(errEnough, func() {}) },
		"outside":   func(*Task) { cancel(errEnough) },
	} {
		var got error
		end, done := end, make(chan struct{})
		task := New(ctx, func(ctx context.Context) {
			got = context.Cause(ctx)
			close(done)
		})
		task.Later()
		end(task)
		happens(t, "the end of work that was "+name, done)
		if task.Start(true); got != errEnough {
			t.Errorf("%s: it ends with %v", name, got)
		}
		finish(t, task)
		ctx, cancel = context.WithCancelCause(t.Context())
	}
	cancel(nil)
	begun := make(chan struct{})
	task := New(t.Context(), func(context.Context) { close(begun) })
	task.Later()
	task.Start(false)
	happens(t, "the work", begun)
	finish(t, task)
}

// Cancel does not wait for an undo that takes long, but what is to come after it does.
func TestCancel(t *testing.T) {
	for _, long := range []bool{false, true} {
		let, after := make(chan struct{}), make(chan struct{})
		if !long {
			close(let)
		}
		ended := false
		task := New(t.Context(), func(ctx context.Context) {
			<-ctx.Done()
			<-let
			ended = true
		})
		task.Start(false)
		task.Cancel(errEnough, func() {
			if !ended {
				t.Error("after comes before the end")
			}
			close(after)
		})
		if long {
			select {
			case <-after:
				t.Error("the work has not ended")
			default:
			}
			close(let)
		}
		happens(t, "what comes after it", after)
	}
}

// Only its own thread ends inline work; of that which another cancels nothing is left once it comes again.
func TestInlineWorkThatAnotherThreadCancels(t *testing.T) {
	ends := pipe(t)
	before := runtime.NumGoroutine() - Waiting()
	after := make(chan struct{})
	var got error
	work := here(t, t.Context(), func(ctx context.Context) { _, got = ThreadOf(ctx).Wait(ends[0], unix.POLLIN, time.Second) })
	if polled(t, work) < 0 {
		t.Fatal("it did not wait")
	}
	done := make(chan struct{})
	go func() {
		work.Cancel(errEnough, func() { close(after) })
		close(done)
	}()
	<-done
	select {
	case <-after:
		t.Error("another thread has ended it")
	default:
	}
	next := New(t.Context(), func(context.Context) {})
	happens(t, "its end", after)
	if got != errEnough || left.count.Load() != 0 {
		t.Errorf("it ends with %v, %d are left", got, left.count.Load())
	}
	next.Start(false)
	finish(t, next)
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine()-Waiting() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines are left", runtime.NumGoroutine()-before)
		}
	}
}

func TestWithoutADescriptorTheWorkGoesOn(t *testing.T) {
	noDescriptors(t)
	let := make(chan struct{})
	task := New(t.Context(), func(context.Context) { <-let })
	task.Start(false)
	if fd, ended, err := task.Poll(); ended || err == nil {
		t.Errorf("without a descriptor there is %d, %t", fd, ended)
	}
	close(let)
	happens(t, "its end", task.done)
	if polled(t, task) >= 0 {
		t.Error("its end is not told")
	}
}
