package task

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var losing atomic.Bool

func init() { offered, handed = lose, lose }

// lose is a pause of some length, while a test wants one.
func lose() {
	if losing.Load() {
		time.Sleep(rand.N(200 * time.Microsecond))
	}
}

func TestAllWorkIsDone(t *testing.T) {
	for range 200 {
		var done sync.WaitGroup
		for range 8 {
			done.Add(1)
			Go(done.Done)
		}
		done.Wait()
	}
}

func TestOneWaitsAndTakesTheNextWork(t *testing.T) {
	Go(func() {})
	for until := time.Now().Add(10 * time.Second); Waiting() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("nobody waits for work")
		}
	}
	begun, end := make(chan struct{}), make(chan struct{})
	Go(func() { close(begun); <-end })
	<-begun
	if Waiting() != 0 {
		t.Error("who is at work waits for more")
	}
	other := make(chan struct{})
	Go(func() { close(other) }) // while the first has not ended
	<-other
	close(end)
}

func TestNoWakeUpGoesToAnotherDescriptor(t *testing.T) {
	losing.Store(true)
	defer losing.Store(false)
	var callers, work sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			for range 500 {
				work.Add(1)
				Go(work.Done)
				if rand.N(4) == 0 {
					lose()
				}
			}
		})
	}
	end := make(chan struct{})
	go func() {
		callers.Wait()
		work.Wait()
		close(end)
	}()
	for open := true; open; {
		select {
		case <-end:
			open = false
		default:
		}
		var pipes [16][2]int
		for i := range pipes {
			if err := unix.Pipe2(pipes[i][:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
				t.Fatal(err)
			}
		}
		lose()
		for _, ends := range pipes {
			if n, _ := unix.Read(ends[0], make([]byte, 8)); n > 0 {
				t.Errorf("a pipe got %d bytes that were meant to wake a goroutine", n)
			}
			_, _ = unix.Close(ends[0]), unix.Close(ends[1])
		}
	}
}
