package storetest

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/memory"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// A suite that accepts a broken Store proves nothing: each of these breaks one promise and must be found out.

type commitsOnError struct{ object.Store }

func (s commitsOnError) Put(ctx context.Context, key string, src object.Source, o object.PutOptions) (object.Info, error) {
	got, failed := io.ReadAll(src)
	if failed != nil {
		_, err := put(ctx, s.Store, key, got, anything, o.Overwrite, -1)
		return object.Info{}, errors.Join(failed, err)
	}
	return put(ctx, s.Store, key, got, anything, o.Overwrite, -1)
}

type forgetsTheDescription struct{ object.Store }

func (s forgetsTheDescription) Stat(ctx context.Context, key string) (object.Info, error) {
	info, err := s.Store.Stat(ctx, key)
	info.Metadata = nil
	return info, err
}

type lazyNotFound struct{ object.Store }

type nothing struct{}

func (nothing) Info() object.Info                 { return object.Info{} }
func (nothing) Close() error                      { return nil }
func (nothing) ReadAt([]byte, int64) (int, error) { return 0, errors.New("not found, too late") }

func (s lazyNotFound) Get(ctx context.Context, key string, hint object.Range) (object.Reader, error) {
	if opened, err := s.Store.Get(ctx, key, object.Whole); err == nil {
		return opened, nil
	}
	return nothing{}, nil
}

type alwaysOverwrites struct{ object.Store }

func (s alwaysOverwrites) Put(ctx context.Context, key string, src object.Source, o object.PutOptions) (object.Info, error) {
	o.Overwrite = true
	return s.Store.Put(ctx, key, src, o)
}

type keepsOld struct{ object.Store }

func (s keepsOld) Put(ctx context.Context, key string, src object.Source, o object.PutOptions) (object.Info, error) {
	o.Overwrite = false
	return s.Store.Put(ctx, key, src, o)
}

type deleteFailsTwice struct{ object.Store }

func (s deleteFailsTwice) Delete(ctx context.Context, key string) error {
	if _, err := s.Stat(ctx, key); err != nil {
		return err
	}
	return s.Store.Delete(ctx, key)
}

type listsNeighbours struct{ object.Store }

func (s listsNeighbours) List(ctx context.Context, prefix string) ([]object.Info, error) {
	return s.Store.List(ctx, prefix[:len(prefix)-1])
}

type walksFolders struct{ object.Store }

// Walk gives folder after folder by their names, as a file system would.
func (s walksFolders) Walk(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		var found []object.Info
		for info := range s.Store.Walk(ctx, prefix, after) {
			found = append(found, info)
		}
		slices.SortFunc(found, func(a, b object.Info) int {
			return slices.Compare(strings.Split(a.Key, "/"), strings.Split(b.Key, "/"))
		})
		for _, info := range found {
			if !yield(info, nil) {
				return
			}
		}
	}
}

type walksFromTheBeginning struct{ object.Store }

func (s walksFromTheBeginning) Walk(ctx context.Context, prefix, _ string) iter.Seq2[object.Info, error] {
	return s.Store.Walk(ctx, prefix, "")
}

type walksWholeFolders struct{ object.Store }

func (s walksWholeFolders) Walk(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return s.Store.Walk(ctx, prefix[:strings.LastIndexByte(prefix, '/')+1], after)
}

type deletesSome struct{ object.Store }

func (s deletesSome) DeleteMany(ctx context.Context, keys []string) error {
	for _, key := range keys {
		if _, err := s.Stat(ctx, key); err != nil {
			return nil
		}
		_ = s.Delete(ctx, key)
	}
	return nil
}

func TestSuiteRejectsBrokenStores(t *testing.T) {
	for name, broken := range map[string]struct {
		store  func(object.Store) object.Store
		clause string
	}{
		"no description":      {func(s object.Store) object.Store { return forgetsTheDescription{s} }, "description_is_told"},
		"commits on error":    {func(s object.Store) object.Store { return commitsOnError{s} }, "failing_source_leaves_nothing"},
		"lazy not found":      {func(s object.Store) object.Store { return lazyNotFound{s} }, "missing_is_not_found_at_open"},
		"always overwrites":   {func(s object.Store) object.Store { return alwaysOverwrites{s} }, "one_of_many_creates"},
		"keeps the old":       {func(s object.Store) object.Store { return keepsOld{s} }, "replaces_whole"},
		"delete of missing":   {func(s object.Store) object.Store { return deleteFailsTwice{s} }, "delete_is_idempotent"},
		"lists a neighbour":   {func(s object.Store) object.Store { return listsNeighbours{s} }, "list_is_ordered_and_bounded"},
		"walks by names":      {func(s object.Store) object.Store { return walksFolders{s} }, "walk_goes_on_in_the_order_of_keys"},
		"walks all again":     {func(s object.Store) object.Store { return walksFromTheBeginning{s} }, "walk_goes_on_in_the_order_of_keys"},
		"walks whole folders": {func(s object.Store) object.Store { return walksWholeFolders{s} }, "walk_goes_on_in_the_order_of_keys"},
		"deletes some":        {func(s object.Store) object.Store { return deletesSome{s} }, "delete_many_deletes_what_is_there"},
		"ignores a mismatch":  {func(s object.Store) object.Store { return commitsOnError{s} }, "expectations_hold_before_commit"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, clause := range Clauses {
				if clause.Name == broken.clause && clause.Check(broken.store(memory.Open())) == nil {
					t.Errorf("the clause %s accepts it", clause.Name)
				}
			}
		})
	}
}
