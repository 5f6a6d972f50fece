package flow

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

// However many calls there are, each has a lane, and together they have no more than that and the total.
func TestEveryCallHasALane(t *testing.T) {
	const calls, most = 20, 8
	total := NewTotal(16, 1)
	var all []*Lanes
	used := 0
	for range calls {
		lanes := NewLanes(total, most)
		all = append(all, lanes)
		if !lanes.TryEnter() {
			t.Fatal("a call has no lane")
		}
		for used++; lanes.TryEnter(); used++ {
			if lanes.used > most {
				t.Fatalf("a call has %d lanes", lanes.used)
			}
		}
	}
	if used > calls+16 {
		t.Errorf("%d calls have %d lanes", calls, used)
	}
	for _, lanes := range all {
		for lanes.used > 0 {
			lanes.Leave()
		}
		lanes.End()
	}
	if total.taken != 0 || len(total.shares) != 0 {
		t.Errorf("%d units and %d shares are left", total.taken, len(total.shares))
	}
}

// Who waits for a lane gets the one that is left, and stops waiting when its context ends.
func TestWaitingForALane(t *testing.T) {
	for _, total := range []*Total{nil, NewTotal(1, 1), NewTotal(3, 1)} {
		lanes := NewLanes(total, 3)
		var at, ran atomic.Int64
		var hands sync.WaitGroup
		for range 8 {
			hands.Go(func() {
				for range 200 {
					if err := lanes.Enter(t.Context()); err != nil {
						t.Error(err)
						return
					}
					if n := at.Add(1); n > 3 {
						t.Errorf("%d lanes are used", n)
					}
					ran.Add(1)
					at.Add(-1)
					lanes.Leave()
				}
			})
		}
		hands.Wait()
		if ran.Load() != 1600 {
			t.Errorf("%d of 1600 have run", ran.Load())
		}
		for lanes.TryEnter() {
		}
		ctx, stop := context.WithCancelCause(t.Context())
		why := errors.New("why")
		hands.Go(func() {
			if err := lanes.Enter(ctx); err != why {
				t.Errorf("a wait that was ended gives %v", err)
			}
		})
		stop(why)
		hands.Wait()
		lanes.End()
	}
}
