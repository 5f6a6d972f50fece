package task_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/task"
)

// call is what there is around the work of a coroutine: a descriptor that tells of news.
type call struct{ news int }

func newCall(t *testing.T) *call {
	t.Helper()
	runtime.LockOSThread() // as a thread from outside is while it is in here
	t.Cleanup(runtime.UnlockOSThread)
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return &call{fd}
}

func (c *call) signal() (int, func(), error) {
	return c.news, func() { _, _ = unix.Write(c.news, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }, nil
}

// finish resumes work whenever what it waits for is there.
func finish(t *testing.T, routine *task.Coroutine) (waits int) {
	t.Helper()
	for ; ; waits++ {
		fd, ended := routine.Resume()
		if ended {
			return waits
		}
		if fd != routine.Waits() {
			t.Errorf("it waits for %d and says %d", fd, routine.Waits())
		}
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000); n != 1 || err != nil {
			t.Fatal("nothing comes", err)
		}
	}
}

func TestWorkIsLeftWhereItWaits(t *testing.T) {
	call := newCall(t)
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = unix.Close(ends[0]), unix.Close(ends[1]) }()
	got := make([]byte, 4)
	thread := 0
	routine := task.New(t.Context(), call.signal, func(ctx context.Context) {
		thread = unix.Gettid()
		task.Of(ctx).Wait(ends[0])
		_, _ = unix.Read(ends[0], got)
	})
	if _, ended := routine.Resume(); ended || !routine.Mine() {
		t.Fatal("it did not wait")
	}
	go func() { _, _ = unix.Write(ends[1], []byte("some")) }()
	if finish(t, routine); string(got) != "some" || thread != unix.Gettid() {
		t.Errorf("got %q on thread %d of %d", got, thread, unix.Gettid())
	}
	if _, ended := routine.Resume(); !ended {
		t.Error("it goes on after its end")
	}
	come, waits := make(chan struct{}), 0
	quick := task.New(t.Context(), call.signal, func(ctx context.Context) {
		close(come)
		for ; !task.Of(ctx).Wait(ends[0]); waits++ {
		}
		_, _ = unix.Read(ends[0], got)
	})
	go func() { <-come; _, _ = unix.Write(ends[1], []byte("soon")) }()
	finish(t, quick)
	_, _ = unix.Write(ends[1], []byte("here"))
	there := task.New(t.Context(), call.signal, func(ctx context.Context) { task.Of(ctx).Wait(ends[0]) })
	if _, ended := there.Resume(); !ended || string(got) != "soon" || waits > 1 {
		t.Errorf("what is there is waited for: %q, %d", got, waits)
	}
	elsewhere := make(chan bool)
	go func() { elsewhere <- routine.Mine() }()
	if <-elsewhere {
		t.Error("another thread takes it for its own")
	}
}

func TestAside(t *testing.T) {
	call := newCall(t)
	var thread int
	var values []int
	var failed, burst error
	routine := task.New(t.Context(), call.signal, func(ctx context.Context) {
		for range 3 {
			value, err := task.Aside(ctx, func(ctx context.Context) (int, error) {
				thread = unix.Gettid()
				if task.Of(ctx) != nil {
					t.Error("what is done aside is not in the coroutine")
				}
				return 7, nil
			}, nil)
			values = append(values, value)
			failed = errors.Join(failed, err)
		}
		_, burst = task.Aside(ctx, func(context.Context) (*int, error) {
			var nowhere *int
			*nowhere = 1
			return nowhere, nil
		}, nil)
	})
	waits := finish(t, routine)
	if failed != nil || len(values) != 3 || values[2] != 7 || thread == unix.Gettid() || waits == 0 {
		t.Errorf("%v, %v, on thread %d of %d, waited %d times", values, failed, thread, unix.Gettid(), waits)
	}
	if burst == nil {
		t.Error("a panic aside is lost")
	}
	value, err := task.Aside(t.Context(), func(context.Context) (int, error) { return unix.Gettid(), nil }, nil)
	if value != unix.Gettid() || err != nil {
		t.Error("without a coroutine it is done elsewhere", err)
	}
}

// Who is cancelled does not wait for what is done aside; what that gives is not lost.
func TestAsideIsLeftWhenItIsCancelled(t *testing.T) {
	call := newCall(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	let, late := make(chan struct{}), make(chan int, 1)
	var got error
	routine := task.New(ctx, call.signal, func(ctx context.Context) {
		_, got = task.Aside(ctx, func(context.Context) (int, error) {
			<-let
			return 7, nil
		}, func(value int) { late <- value })
	})
	if _, ended := routine.Resume(); ended {
		t.Fatal("it did not wait")
	}
	cancel(enough)
	if finish(t, routine); got != enough {
		t.Errorf("it ends with %v", got)
	}
	close(let)
	select {
	case value := <-late:
		if value != 7 {
			t.Errorf("late came %d", value)
		}
	case <-time.After(10 * time.Second):
		t.Error("what came late is lost")
	}
}

// One that is cancelled is over when it is resumed, whatever its work would still wait for.
func TestACancelledCoroutineIsLeftNoMore(t *testing.T) {
	call := newCall(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	let := make(chan struct{})
	defer close(let)
	var got error
	routine := task.New(ctx, call.signal, func(ctx context.Context) {
		within := task.Of(ctx)
		for range 3 {
			within.Wait(call.news)
		}
		_, got = task.Aside(context.WithoutCancel(ctx), func(context.Context) (int, error) {
			<-let
			return 7, nil
		}, nil)
	})
	if _, ended := routine.Resume(); ended {
		t.Fatal("it did not wait")
	}
	cancel(enough)
	if _, ended := routine.Resume(); !ended || got != enough {
		t.Errorf("it goes on, or ends with %v", got)
	}
}

// Without a descriptor what is done aside is not waited for, and not lost: its end may be waited for elsewhere.
func TestAsideWithoutADescriptor(t *testing.T) {
	call := newCall(t)
	late, none := make(chan int, 1), errors.New("no descriptor")
	signal := func() (int, func(), error) {
		_, raise, _ := call.signal()
		return -1, raise, none
	}
	var got error
	routine := task.New(t.Context(), signal, func(ctx context.Context) {
		_, got = task.Aside(ctx, func(context.Context) (int, error) {
			time.Sleep(10 * time.Millisecond)
			return 7, nil
		}, func(value int) { late <- value })
	})
	if _, ended := routine.Resume(); !ended || got != none {
		t.Errorf("it goes on, or ends with %v", got)
	}
	select {
	case <-late:
	case <-time.After(10 * time.Second):
		t.Error("what came late is lost")
	}
}
