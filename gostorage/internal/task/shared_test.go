package task

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func threads(t *testing.T) int {
	t.Helper()
	found, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

func TestSharedWorkWaitsOnOneThread(t *testing.T) {
	const many = 200
	thread := ThreadOf(Shared(context.Background()))
	if thread.Own() || !thread.Shared() || !thread.Detached().Shared() {
		t.Fatal("the thread is not shared")
	}
	before := threads(t)
	var waiting sync.WaitGroup
	ends := make([][2]int, many)
	for i := range ends {
		ends[i] = pipe(t)
		waiting.Go(func() {
			if there, err := thread.Wait(ends[i][0], unix.POLLIN, time.Minute); there != 0 || err != nil {
				t.Errorf("a wait gives %d, %v", there, err)
			}
			if !readable(t, ends[i][0]) {
				t.Error("a wait is over before there is something to read")
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	if more := threads(t) - before; more > many/10 {
		t.Errorf("%d waits need %d threads", many, more)
	}
	for _, pair := range ends {
		raise(pair[1])
	}
	waiting.Wait()
}

func TestASharedWaitIsBounded(t *testing.T) {
	ends := pipe(t)
	thread := ThreadOf(SharedAs(context.Background(), Shared(context.Background())))
	for range 2 { // the first one leaves nothing behind
		if _, err := thread.Wait(ends[0], unix.POLLIN, time.Millisecond); err != nil {
			t.Error(err)
		}
	}
	if ThreadOf(SharedAs(context.Background(), context.Background())).Shared() {
		t.Error("work is shared that was not to be")
	}
}
