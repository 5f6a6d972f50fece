package object

import (
	"context"
	"sync"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/flow"
)

// Connected is a Store that is reached over connections. What runs at a time shares them.
type Connected interface {
	Store
	Connections() *flow.Total
}

// Lanes are for requests to a store that run side by side, at most most of them.
func Lanes(of Store, most int) *flow.Lanes {
	if connected, ok := of.(Connected); ok {
		return flow.NewLanes(connected.Connections(), most)
	}
	return flow.NewLanes(nil, most)
}

// Each calls do for all elements until there is an error, which it gives. It begins with them in order, each in a lane of
// its own.
func Each[T any](ctx context.Context, lanes *flow.Lanes, all []T, do func(context.Context, T) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var group sync.WaitGroup
	var once sync.Once
	var failed error
	fail := func(err error) {
		once.Do(func() {
			failed = err
			stop(err)
		})
	}
	for _, one := range all {
		if err := lanes.Enter(ctx); err != nil {
			fail(err)
			break
		}
		group.Go(func() {
			defer lanes.Leave()
			if err := rescued(ctx, one, do); err != nil {
				fail(err)
			}
		})
	}
	group.Wait()
	return failed
}

// Unhurried is a context that ends a while after another one: for what had better come to its end.
func Unhurried(other context.Context, while time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(other))
	stop := context.AfterFunc(other, func() {
		select {
		case <-time.After(while):
			cancel(context.Cause(other))
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

func rescued[T any](ctx context.Context, one T, do func(context.Context, T) error) (err error) {
	defer Rescue(&err)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return do(ctx, one)
}
