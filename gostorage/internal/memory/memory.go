// Package memory keeps objects in the memory of the process, for tests and throw-away data. The objects end with their
// Store.
package memory

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

type entry struct {
	info object.Info
	data []byte
}

// Store is an object.Store in memory.
type Store struct {
	mu      sync.RWMutex
	objects map[string]entry
}

var (
	_ object.Store  = (*Store)(nil)
	_ object.Joiner = (*Store)(nil)
	_ object.Keeper = (*Store)(nil)
)

// Open makes an empty Store.
func Open() *Store { return &Store{objects: map[string]entry{}} }

// Put implements object.Store.
func (s *Store) Put(ctx context.Context, key string, src object.Source, opts object.PutOptions) (object.Info, error) {
	var into growing
	if _, err := src.WriteTo(&into); err != nil {
		return object.Info{}, err
	}
	size, sum := src.Sum()
	info := object.Info{Key: key, Size: size, SHA256: sum, Record: src.Record()}
	return s.place(ctx, entry{info: info, data: into}, opts)
}

func (s *Store) place(ctx context.Context, stored entry, opts object.PutOptions) (object.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return object.Info{}, context.Cause(ctx)
	}
	if there, ok := s.objects[stored.info.Key]; ok && !opts.Overwrite {
		return opts.Same(there.info, stored.info)
	}
	stored.info.Modified, stored.info.ContentType, stored.info.Metadata = time.Now(), opts.ContentType, opts.Metadata
	s.objects[stored.info.Key] = stored
	return stored.info, nil
}

// Get implements object.Store.
func (s *Store) Get(_ context.Context, key string, _ object.Range) (object.Reader, error) {
	found, err := s.find(key)
	return reader(found), err
}

// Stat implements object.Store.
func (s *Store) Stat(_ context.Context, key string) (object.Info, error) {
	found, err := s.find(key)
	return found.info, err
}

func (s *Store) find(key string) (entry, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	found, ok := s.objects[key]
	if !ok {
		return entry{}, object.Errorf(object.NotFound, "there is no such object")
	}
	return found, nil
}

// Delete implements object.Store.
func (s *Store) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, key)
	return nil
}

// DeleteMany implements object.Store.
func (s *Store) DeleteMany(ctx context.Context, keys []string) error {
	return object.DeleteEach(ctx, s, keys)
}

// List implements object.Store.
func (s *Store) List(_ context.Context, prefix string) ([]object.Info, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []object.Info
	for key, entry := range s.objects {
		if strings.HasPrefix(key, prefix) {
			found = append(found, entry.info)
		}
	}
	slices.SortFunc(found, func(a, b object.Info) int { return strings.Compare(a.Key, b.Key) })
	return found, nil
}

// Join implements object.Joiner.
func (s *Store) Join(ctx context.Context, join *object.Join) (object.Info, error) {
	from, ok := join.From.(*Store)
	if !ok {
		return object.Info{}, object.ErrCannotJoin
	}
	data := make([]byte, 0, join.Size)
	for _, part := range join.Parts {
		there, err := from.find(part.Key)
		if err == nil && there.info.SHA256 != part.SHA256 {
			err = object.Errorf(object.Mismatch, "the part has changed")
		}
		if known, ok := errors.AsType[*object.Error](err); ok {
			known.Key = part.Key
			return object.Info{}, known
		}
		data = append(data, there.data...)
		join.Done(part.Size, 0)
	}
	sum, err := join.SHA256(ctx)
	if err != nil {
		return object.Info{}, err
	}
	if err := join.Commit(ctx); err != nil {
		return object.Info{}, err
	}
	return s.place(ctx, entry{
		info: object.Info{Key: join.Key, Size: join.Size, SHA256: sum}, data: data,
	}, join.Options)
}

// Keep implements object.Keeper.
func (s *Store) Keep(_ context.Context, described object.Info, record string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	there, ok := s.objects[described.Key]
	if ok && there.info.SHA256 == described.SHA256 {
		there.info.Record = record
		s.objects[described.Key] = there
	}
	return true, nil
}

// Check implements object.Store.
func (s *Store) Check(context.Context) error { return nil }

// Close implements object.Store.
func (s *Store) Close() error { return nil }

type growing []byte

func (g *growing) Write(p []byte) (int, error) {
	*g = append(*g, p...)
	return len(p), nil
}

type reader entry

func (r reader) Info() object.Info { return r.info }

func (r reader) Close() error { return nil }

func (r reader) ReadAt(p []byte, offset int64) (int, error) {
	if offset >= int64(len(r.data)) {
		return 0, io.EOF
	}
	n := copy(p, r.data[offset:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
