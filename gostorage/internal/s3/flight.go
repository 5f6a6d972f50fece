package s3

import (
	"context"
	"sync"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/flow"
)

// flight is the parts of an upload that are in flight: as many as the controller wants. One goroutine enters parts; each
// leaves from its own.
type flight struct {
	clock func() time.Duration
	left  chan struct{} // tells that a part has left

	mu      sync.Mutex
	control *flow.Controller
	lanes   *flow.Lanes
	count   int
}

// newFlight makes a flight of at most so many parts, all but one of them over connections of a total; nil: any number. It
// begins with so many parts as another one has found.
func newFlight(most, found int, connections *flow.Total, clock func() time.Duration) *flight {
	control := flow.New(most, clock())
	control.Begin(found)
	return &flight{
		clock: clock, left: make(chan struct{}, 1), control: control, lanes: flow.NewLanes(connections, most),
	}
}

// sinceNow is a clock.
func sinceNow() func() time.Duration {
	begun := time.Now()
	return func() time.Duration { return time.Since(begun) }
}

// fits says that there is memory for so many parts and no more.
func (f *flight) fits(parts int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.control.Refused(parts)
}

// enter waits until another part may be sent, and gives the time.
func (f *flight) enter(ctx context.Context) (time.Duration, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for waits := false; !f.room(); {
		if !waits {
			waits = true
			f.control.Waits(f.clock())
			defer func() { f.control.Resumes(f.clock()) }()
		}
		f.mu.Unlock()
		select {
		case <-f.left:
		case <-ctx.Done():
		}
		f.mu.Lock()
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
	}
	f.count++
	return f.clock(), nil
}

// room takes room for another part, if one is wanted and there is a connection for it.
func (f *flight) room() bool {
	if f.count >= f.control.Wants() {
		return false
	}
	if !f.lanes.TryEnter() {
		f.control.Refused(f.count)
		return false
	}
	return true
}

// leave is for a part that has entered at a time. It is told whether the part has ended well.
func (f *flight) leave(entered time.Duration, bytes int64, well bool) {
	f.lanes.Leave()
	f.mu.Lock()
	f.count--
	if now := f.clock(); well {
		f.control.Finished(now, bytes, now-entered)
	}
	f.mu.Unlock()
	select {
	case f.left <- struct{}{}:
	default:
	}
}

// end says that no more parts enter.
func (f *flight) end() { f.lanes.End() }

// wants is how many parts should be in flight.
func (f *flight) wants() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.control.Wants()
}

// found is how many are right for the line, or 0 if that is not known yet, and whether the store is near.
func (f *flight) found() (parts int, near bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.control.Found(), f.control.Near()
}
