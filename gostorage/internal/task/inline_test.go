package task

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// here makes a task and lets it begin inline, on a thread that stays.
func here(t *testing.T, ctx context.Context, work func(context.Context)) *Task {
	t.Helper()
	runtime.LockOSThread() // as a thread from outside is while it is in here
	t.Cleanup(runtime.UnlockOSThread)
	made := New(ctx, work)
	made.Start(true)
	return made
}

// polled tells what Poll does of a task that has not ended, -1 for one that has.
func polled(t *testing.T, task *Task) int {
	t.Helper()
	fd, ended, err := task.Poll()
	if err != nil || ended != (fd < 0) {
		t.Fatalf("Poll gives %d, %t, %v", fd, ended, err)
	}
	return fd
}

// finish polls whenever there is news.
func finish(t *testing.T, task *Task) (waits int) {
	t.Helper()
	for fd := polled(t, task); fd >= 0; fd = polled(t, task) {
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000); n != 1 || err != nil {
			t.Fatal("nothing comes", err)
		}
		waits++
	}
	return waits
}

// comes waits until something can be read, and tells how many times it has waited.
func comes(ctx context.Context, fd int) (waits int) {
	for there := int16(0); there == 0; waits++ {
		there, _ = ThreadOf(ctx).Wait(fd, unix.POLLIN, time.Second)
	}
	return waits
}

func pipe(t *testing.T) (ends [2]int) {
	t.Helper()
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.Close(ends[0]), unix.Close(ends[1]) })
	return ends
}

func TestWorkIsLeftWhereItWaits(t *testing.T) {
	ends := pipe(t)
	got := make([]byte, 4)
	thread := 0
	slow := here(t, t.Context(), func(ctx context.Context) {
		thread = unix.Gettid()
		comes(ctx, ends[0])
		_, _ = unix.Read(ends[0], got)
	})
	if thread != 0 {
		t.Error("it has begun before it is polled")
	}
	if fd := polled(t, slow); fd != ends[0] {
		t.Fatal("it did not wait, or for something else", fd)
	}
	elsewhere := make(chan int)
	go func() {
		fd, _, _ := slow.Poll()
		elsewhere <- fd
	}()
	if fd := <-elsewhere; fd < 0 || fd == ends[0] {
		t.Error("another thread has nothing to wait for", fd)
	}
	go func() { _, _ = unix.Write(ends[1], []byte("some")) }()
	if finish(t, slow); string(got) != "some" || thread != unix.Gettid() {
		t.Errorf("got %q on thread %d of %d", got, thread, unix.Gettid())
	}
	if fd := polled(t, slow); fd >= 0 {
		t.Error("it goes on after its end")
	}
	come, waits := make(chan struct{}), 0
	quick := here(t, t.Context(), func(ctx context.Context) {
		close(come)
		waits = comes(ctx, ends[0])
		_, _ = unix.Read(ends[0], got)
	})
	go func() { <-come; _, _ = unix.Write(ends[1], []byte("soon")) }()
	finish(t, quick)
	_, _ = unix.Write(ends[1], []byte("here"))
	there := here(t, t.Context(), func(ctx context.Context) { comes(ctx, ends[0]) })
	if fd := polled(t, there); fd >= 0 || string(got) != "soon" || waits > 2 {
		t.Errorf("what is there is waited for: %q, %d", got, waits)
	}
}

func TestWaitingForRoom(t *testing.T) {
	ends := pipe(t)
	for err := error(nil); err == nil; _, err = unix.Write(ends[1], make([]byte, 1<<12)) {
	}
	writes := here(t, t.Context(), func(ctx context.Context) {
		if there, err := ThreadOf(ctx).Wait(ends[1], unix.POLLOUT, time.Second); there != 0 || err != nil {
			t.Errorf("where there is no room there is %d, %v", there, err)
		}
		there, err := int16(0), error(nil)
		for there == 0 && err == nil {
			there, err = ThreadOf(ctx).Wait(ends[1], unix.POLLOUT, time.Second)
		}
		if there != unix.POLLOUT || err != nil {
			t.Errorf("where there is room there is %d, %v", there, err)
		}
	})
	if polled(t, writes) < 0 {
		t.Fatal("it did not wait")
	}
	go func() { _, _ = unix.Read(ends[0], make([]byte, 1<<20)) }()
	finish(t, writes)
}

func TestAside(t *testing.T) {
	var thread int
	var values []int
	var failed, burst error
	work := here(t, t.Context(), func(ctx context.Context) {
		if ThreadOf(ctx).Own() {
			t.Error("the thread of who asks may be kept")
		}
		for range 3 {
			value, err := Aside(ctx, func(ctx context.Context) (int, error) {
				thread = unix.Gettid()
				if !ThreadOf(ctx).Own() {
					t.Error("what is done aside must not keep its thread")
				}
				return 7, nil
			}, nil)
			values = append(values, value)
			failed = errors.Join(failed, err)
		}
		_, burst = Aside(ctx, func(context.Context) (*int, error) {
			var nowhere *int
			*nowhere = 1
			return nowhere, nil
		}, nil)
	})
	waits := finish(t, work)
	if failed != nil || len(values) != 3 || values[2] != 7 || thread == unix.Gettid() || waits == 0 {
		t.Errorf("%v, %v, on thread %d of %d, waited %d times", values, failed, thread, unix.Gettid(), waits)
	}
	if burst == nil {
		t.Error("a panic aside is lost")
	}
	value, err := Aside(t.Context(), func(context.Context) (int, error) { return unix.Gettid(), nil }, nil)
	if value != unix.Gettid() || err != nil {
		t.Error("what may keep its thread is done elsewhere", err)
	}
}

// Who is cancelled does not wait for what is done aside; what that gives is not lost.
func TestAsideIsLeftWhenItIsCancelled(t *testing.T) {
	enough := errors.New("enough")
	let, late := make(chan struct{}), make(chan int, 1)
	var got error
	work := here(t, t.Context(), func(ctx context.Context) {
		_, got = Aside(ctx, func(context.Context) (int, error) {
			<-let
			return 7, nil
		}, func(value int) { late <- value })
	})
	if polled(t, work) < 0 {
		t.Fatal("it did not wait")
	}
	work.Stop(enough)
	if finish(t, work); got != enough {
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

// One that is stopped is over when it is polled, whatever its work would still wait for.
func TestStoppedWorkIsLeftNoMore(t *testing.T) {
	ends := pipe(t)
	enough := errors.New("enough")
	let := make(chan struct{})
	defer close(let)
	var got error
	work := here(t, t.Context(), func(ctx context.Context) {
		for range 3 {
			_, got = ThreadOf(ctx).Wait(ends[0], unix.POLLIN, time.Second)
		}
		_, err := Aside(context.WithoutCancel(ctx), func(context.Context) (int, error) {
			<-let
			return 7, nil
		}, nil)
		got = errors.Join(got, err)
	})
	if polled(t, work) < 0 {
		t.Fatal("it did not wait")
	}
	work.Stop(enough)
	if polled(t, work) >= 0 || got == nil || got.Error() != "enough\nenough" {
		t.Errorf("it goes on, or ends with %v", got)
	}
}

// Without a descriptor what is done aside is not waited for, and not lost: its end may be waited for elsewhere.
func TestAsideWithoutADescriptor(t *testing.T) {
	noDescriptors(t)
	late := make(chan int, 1)
	var got error
	work := here(t, t.Context(), func(ctx context.Context) {
		_, got = Aside(ctx, func(context.Context) (int, error) {
			time.Sleep(10 * time.Millisecond)
			return 7, nil
		}, func(value int) { late <- value })
	})
	if polled(t, work) >= 0 || got == nil {
		t.Errorf("it goes on, or ends with %v", got)
	}
	select {
	case <-late:
	case <-time.After(10 * time.Second):
		t.Error("what came late is lost")
	}
}

// noDescriptors has none left for signals.
func noDescriptors(t *testing.T) {
	t.Helper()
	if kept := spare.Swap(0); kept > 0 {
		_ = unix.Close(int(kept - 1))
	}
	whole := create
	t.Cleanup(func() { create = whole })
	create = func(uint, int) (int, error) { return -1, unix.EMFILE }
}
