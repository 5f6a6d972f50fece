package standby

import (
	"sync"
	"testing"
	"time"
)

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
