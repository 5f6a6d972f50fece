package flow

import (
	"context"
	"sync"
)

// Lanes are the requests that a call has under way side by side. A call always has one lane, so it never waits for
// another call. Each further lane is a unit of what calls share.
type Lanes struct {
	mu    sync.Mutex
	left  sync.Cond // a lane was left
	share *Share    // nil: nothing is shared
	most  int
	used  int
}

// NewLanes makes up to most lanes, all but one of them from a total. Without a total, nothing is shared.
func NewLanes(total *Total, most int) *Lanes {
	l := &Lanes{most: most}
	l.left.L = &l.mu
	if total != nil {
		l.share = total.Share()
	}
	return l
}

// TryEnter takes a lane if there is one. Leave gives it back.
func (l *Lanes) TryEnter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.take()
}

// Enter takes a lane, and waits for one while ctx lasts: some lane of this very call is in use then, and will be left.
func (l *Lanes) Enter(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.take() {
		return nil
	}
	stop := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.left.Broadcast()
	})
	defer stop()
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		l.left.Wait()
		if l.take() {
			return nil
		}
	}
}

func (l *Lanes) take() bool {
	if l.used >= l.most || l.used > 0 && l.share != nil && !l.share.Take(1) {
		return false
	}
	l.used++
	return true
}

// Leave gives a lane back.
func (l *Lanes) Leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used--
	if l.used > 0 && l.share != nil {
		l.share.Give(1)
	}
	l.left.Broadcast()
}

// End says that the call takes no more lanes. What it has taken must still be left.
func (l *Lanes) End() {
	if l.share != nil {
		l.share.End()
	}
}
