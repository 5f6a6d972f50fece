package memory

import (
	"context"
	"iter"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// Walk implements object.Store.
func (s *Store) Walk(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		all, _ := s.List(ctx, prefix) // never fails
		for _, info := range all {
			if info.Key > after && !yield(info, nil) {
				return
			}
		}
	}
}

// Unfinished implements object.Sweeper. A write is in no store before it is finished.
func (s *Store) Unfinished(context.Context, string) iter.Seq2[object.Unfinished, error] {
	return func(func(object.Unfinished, error) bool) {}
}

// Inspect implements object.Sweeper.
func (s *Store) Inspect(context.Context, *object.Unfinished) error {
	return object.Errorf(object.NotFound, "there is no such write")
}

// Abandon implements object.Sweeper.
func (s *Store) Abandon(context.Context, object.Unfinished) error { return nil }

// Now implements object.Sweeper.
func (s *Store) Now() time.Time { return time.Now() }
