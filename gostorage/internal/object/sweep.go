package object

import (
	"context"
	"iter"
	"time"
)

// Unfinished is a write that has not come to its end: one under way, or what is left of one that was interrupted.
type Unfinished struct {
	Key      string // that it leads to; where the store does not know, a text that is no key
	ID       string // tells it from the others of its key
	Size     int64  // of what has arrived, in bytes: once it was inspected
	Modified time.Time
}

// Sweeper is what a sweep needs of a Store.
type Sweeper interface {
	// Walk gives the objects whose keys come after a text, in the order of their keys. Their digests may be unknown.
	Walk(ctx context.Context, after string) iter.Seq2[Info, error]

	// Unfinished gives the writes that have not ended, in the same way. Modified is when they began.
	Unfinished(ctx context.Context, after string) iter.Seq2[Unfinished, error]

	// Inspect finds out how much of a write has arrived, and when the last of it. One that has ended is NotFound.
	Inspect(ctx context.Context, write *Unfinished) error

	// Abandon ends a write and removes what has arrived of it. One that has ended is not an error.
	Abandon(ctx context.Context, write Unfinished) error

	// Now is the time by the clock that tells when things were modified, as far as earlier answers show it, or earlier.
	Now() time.Time
}
