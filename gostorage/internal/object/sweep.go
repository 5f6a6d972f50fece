package object

import (
	"context"
	"iter"
	"time"
)

// Unfinished is a write that has not ended: a running one, or what is left of an interrupted one.
type Unfinished struct {
	Key      string    // the key that it is for; a text that is no key if the store does not know
	ID       string    // tells it from the others of its key
	Size     int64     // bytes that have arrived; known after Inspect
	Modified time.Time // zero if the store does not tell: it may be young
}

// Unseen is the error of a Store that cannot list something, or must not.
type Unseen struct {
	What string
	Why  error
}

func (u *Unseen) Error() string { return u.What + ": " + u.Why.Error() }

func (u *Unseen) Unwrap() error { return u.Why }

// Sweeper is what a sweep needs of a Store.
type Sweeper interface {
	// Unfinished gives the writes that have not ended, as Walk gives objects. Modified is when they began. A
	// store that has no list of them gives Unseen.
	Unfinished(ctx context.Context, after string) iter.Seq2[Unfinished, error]

	// Inspect finds out how much of a write has arrived, and when the last byte came. A write that has ended is
	// NotFound; if the store cannot tell, the error is Unseen.
	Inspect(ctx context.Context, write *Unfinished) error

	// Abandon ends a write and removes what has arrived of it. A write that has ended is no error.
	Abandon(ctx context.Context, write Unfinished) error

	// Now is the time of the clock by which things were modified, as far as earlier answers show it, or an earlier
	// time.
	Now() time.Time
}
