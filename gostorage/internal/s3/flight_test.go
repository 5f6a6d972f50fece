package s3

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/flow"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// ticks is a clock on which each look is a moment later.
func ticks() func() time.Duration {
	var now atomic.Int64
	return func() time.Duration { return time.Duration(now.Add(int64(time.Millisecond))) }
}

// Parts enter and leave in any order; there are never more than are wanted, and none waits in vain.
func TestAFlightHoldsWhatIsWanted(t *testing.T) {
	const most, all = 8, 2000
	f := newFlight(most, 0, nil, ticks())
	var parts sync.WaitGroup
	var flying, highest atomic.Int64
	for range all {
		entered, err := f.enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		highest.Store(max(highest.Load(), flying.Add(1)))
		parts.Go(func() {
			for range rand.N(20) {
				runtime.Gosched()
			}
			flying.Add(-1)
			f.leave(entered, object.BlockSize, rand.N(10) > 0)
		})
	}
	parts.Wait()
	if highest.Load() < 2 || highest.Load() > most || f.count != 0 {
		t.Errorf("at most %d were in flight, %d are left", highest.Load(), f.count)
	}
}

func TestAFlightBeginsWithOneOrWhatWasFound(t *testing.T) {
	for _, one := range []struct{ most, found, begins int }{{16, 0, 1}, {16, 1, 1}, {16, 7, 7}, {4, 7, 4}} {
		f := newFlight(one.most, one.found, nil, ticks())
		for range one.begins {
			if _, err := f.enter(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("enough")
		cancel(enough)
		if _, err := f.enter(ctx); err != enough || f.count != one.begins {
			t.Errorf("%+v: after %d comes %v", one, f.count, err)
		}
	}
}

// Of connections that others have, a flight gets an even share, and always one.
func TestAFlightSharesConnections(t *testing.T) {
	total := flow.NewTotal(4, 1)
	others := flow.NewLanes(total, 8)
	for others.TryEnter() {
	}
	f := newFlight(16, 8, total, ticks())
	for n := range 4 {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		if _, err := f.enter(ctx); (err == nil) != (n == 0) {
			t.Errorf("part %d: %v", n, err)
		}
		cancel()
	}
	for range 4 {
		others.Leave()
	}
	others.End()
	f.leave(0, 1, true)
	if _, err := f.enter(t.Context()); err != nil || f.count != 1 {
		t.Errorf("%d are in flight, %v", f.count, err)
	}
}

// slow is a store on which each part takes a few milliseconds, so that many of them in flight help.
type slow struct {
	swallowing
	flying, highest int
	order           []string
	part            func(w http.ResponseWriter, n int) bool // is asked at the n-th part, and tells that it has answered
}

func (s *slow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPut {
		s.mu.Lock()
		s.order = append(s.order, r.URL.Query().Get("partNumber"))
		n := len(s.order)
		s.flying++
		s.highest = max(s.highest, s.flying)
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			s.flying--
			s.mu.Unlock()
		}()
		_, _ = io.Copy(io.Discard, r.Body)
		time.Sleep(5 * time.Millisecond)
		if s.part != nil && s.part(w, n) {
			return
		}
	}
	s.swallowing.ServeHTTP(w, r)
}

func far(t *testing.T, part func(w http.ResponseWriter, n int) bool) (*slow, *Store) {
	line := &slow{swallowing: swallowing{parts: map[int64]int{}}, part: part}
	server := httptest.NewServer(line)
	t.Cleanup(server.Close)
	store := open(t, server.URL, func(c *Config) { tiny(c); c.Concurrency, c.ReadTimeout, c.MaxAttempts = 0, 1, 4 })
	t.Cleanup(func() { _ = store.Close() })
	return line, store
}

// putBlocks stores so many blocks from a pipe.
func putBlocks(ctx context.Context, store *Store, blocks int) error {
	pipe := digest.NewPipe(buffers.Shared, digest.Expect{Size: -1})
	defer pipe.Close()
	go func() {
		data := make([]byte, buffers.Size)
		for range blocks {
			for rest := data; len(rest) > 0; {
				n, err := pipe.Write(rest, time.Second)
				if err != nil {
					return
				}
				rest = rest[n:]
			}
		}
		pipe.CloseWrite()
	}()
	_, err := store.Put(ctx, "k", pipe, object.PutOptions{Overwrite: true})
	return err
}

func TestPartsInFlightFollowTheLine(t *testing.T) {
	line, store := far(t, nil)
	for range 2 {
		if err := putBlocks(t.Context(), store, 200); err != nil {
			t.Fatal(err)
		}
	}
	line.mu.Lock()
	defer line.mu.Unlock()
	if line.highest < 4 || line.highest > defaultConcurrency || line.parts[0] != 400 {
		t.Errorf("at most %d parts were in flight, %d came", line.highest, line.parts[0])
	}
	if found := store.bucket.Traits.InFlight.Load(); found < 2 {
		t.Errorf("%d in flight were found to be right", found)
	}
}

// A fault in one of many parts in flight is that part's alone: it is sent again, and the others once.
func TestAFaultInOneOfManyParts(t *testing.T) {
	const bad, all = 60, 200
	for name, fault := range map[string]func(http.ResponseWriter){
		"cut":        func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"stall":      func(w http.ResponseWriter) { time.Sleep(1200 * time.Millisecond); panic(http.ErrAbortHandler) },
		"500":        func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
		"without it": func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) }, // no ETag
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			line, store := far(t, func(w http.ResponseWriter, n int) bool {
				if n == bad {
					fault(w)
				}
				return n == bad
			})
			if err := putBlocks(t.Context(), store, all); err != nil {
				t.Fatal(err)
			}
			line.mu.Lock()
			defer line.mu.Unlock()
			again := line.order[bad-1]
			slices.Sort(line.order)
			twice := len(line.order) == all+1
			line.order = slices.Compact(line.order)
			if !twice || len(line.order) != all || line.highest < 4 || line.joined != 1 {
				t.Errorf("part %s: %d parts came, at most %d in flight; joined %d", again, len(line.order), line.highest, line.joined)
			}
		})
	}
}

// One part that fails for good ends those beside it; a cancellation ends all.
func TestManyPartsInFlightEnd(t *testing.T) {
	for _, cancelled := range []bool{true, false} {
		stalled, release := make(chan struct{}, 100), make(chan struct{})
		line, store := far(t, func(w http.ResponseWriter, n int) bool {
			if n < 50 {
				return false
			}
			if stalled <- struct{}{}; !cancelled && len(stalled) == 4 {
				w.WriteHeader(http.StatusForbidden)
				return true
			}
			<-release
			return true
		})
		store.bucket.Traits.InFlight.Store(8)
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			for cancelled && len(stalled) < 4 {
				time.Sleep(time.Millisecond)
			}
			if cancelled {
				cancel(object.Errorf(object.Cancelled, "enough"))
			}
		}()
		lent := buffers.Shared.Lent()
		err := putBlocks(ctx, store, 1000)
		close(release)
		want := object.Cancelled
		if !cancelled {
			want = object.Permission
		}
		if _, joined, aborted := line.seen(); object.CodeOf(err) != want || aborted != 1 || joined != 0 {
			t.Errorf("the upload gives %v; aborted %d, joined %d", err, aborted, joined)
		}
		if now := buffers.Shared.Lent(); now != lent {
			t.Errorf("%d blocks are left", now-lent)
		}
		cancel(nil)
	}
}
