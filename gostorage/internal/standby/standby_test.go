package standby

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWakeUpsGoToNobodyElse has descriptors come and go beside the work: none of them gets the eight bytes of a wake-up.
func TestWakeUpsGoToNobodyElse(t *testing.T) {
	var done sync.WaitGroup
	stop := make(chan struct{})
	foreign := make(chan int, 1)
	done.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			var pipe [2]int
			if unix.Pipe2(pipe[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
				continue
			}
			time.Sleep(20 * time.Microsecond)
			if n, _ := unix.Read(pipe[0], make([]byte, 8)); n > 0 {
				select {
				case foreign <- n:
				default:
				}
			}
			_ = unix.Close(pipe[0])
			_ = unix.Close(pipe[1])
		}
	})
	var ran sync.WaitGroup
	for range 8 {
		done.Go(func() {
			for range 500 {
				ran.Add(1)
				Go(ran.Done)
			}
		})
	}
	ran.Add(1)
	Go(ran.Done)
	ran.Wait()
	close(stop)
	done.Wait()
	ran.Wait()
	select {
	case n := <-foreign:
		t.Errorf("%d bytes came to another descriptor", n)
	default:
	}
	if n := Waiting(); n > 1 {
		t.Errorf("%d wait", n)
	}
}
