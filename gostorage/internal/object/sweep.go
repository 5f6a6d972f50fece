package object

import (
	"context"
	"iter"
	"time"
)

// Unfinished is a write that has not come to its end: one under way, or what is left of one that was interrupted.
type Unfinished struct {
	Key      string    // that it leads to; where the store does not know, a text that is no key
	ID       string    // tells it from the others of its key
	Size     int64     // of what has arrived, in bytes: once it was inspected
	Modified time.Time // zero where the store does not tell: it may be young
}

// Unseen is the error of a Store that cannot list something, or is not let to.
type Unseen struct {
	What string
	Why  error
}

func (u *Unseen) Error() string { return u.What + ": " + u.Why.Error() }

func (u *Unseen) Unwrap() error { return u.Why }

// Sweeper is what a sweep needs of a Store.
type Sweeper interface {
	// Walk gives the objects whose keys come after a text, in the order of their keys. Their digests may be unknown, and the
	// time when they were modified, which is zero then: they may be young. An error with a key is about what lies there, or
	// below it where it ends in a slash: the rest comes after it.
	Walk(ctx context.Context, after string) iter.Seq2[Info, error]

	// Unfinished gives the writes that have not ended, in the same way. Modified is when they began. A
	// store that has no list of them gives Unseen.
	Unfinished(ctx context.Context, after string) iter.Seq2[Unfinished, error]

	// Inspect finds out how much of a write has arrived, and when the last of it. One that has ended is NotFound, one of
	// which that cannot be told Unseen.
	Inspect(ctx context.Context, write *Unfinished) error

	// Abandon ends a write and removes what has arrived of it. One that has ended is not an error.
	Abandon(ctx context.Context, write Unfinished) error

	// Now is the time by the clock that tells when things were modified, as far as earlier answers show it, or earlier.
	Now() time.Time
}
