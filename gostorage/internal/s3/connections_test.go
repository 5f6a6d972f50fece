package s3

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/s3api"
)

// deleting is a server that deletes. It answers once so many requests are there together.
type deleting struct {
	together int64
	single   bool // it knows no requests for many keys
	fails    map[string]bool

	mu      sync.Mutex
	deleted []string
	now     atomic.Int64
	most    int64
	once    sync.Once
	all     chan struct{}
}

func (d *deleting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if d.single && r.Method == http.MethodPost {
		fail(w, http.StatusNotImplemented, "NotImplemented")
		return
	}
	now := d.now.Add(1)
	defer d.now.Add(-1)
	d.mu.Lock()
	d.most = max(d.most, now)
	d.mu.Unlock()
	if now == d.together {
		d.once.Do(func() { close(d.all) })
	}
	select {
	case <-d.all:
	case <-time.After(5 * time.Second): // then the test sees how many there were
	}
	if r.Method == http.MethodPost {
		var asked struct {
			Object []struct{ Key string }
		}
		text, _ := io.ReadAll(r.Body)
		if err := xml.Unmarshal(text, &asked); err != nil {
			fail(w, http.StatusBadRequest, "MalformedXML")
			return
		}
		var told bytes.Buffer
		for _, one := range asked.Object {
			if d.note(one.Key); d.fails[one.Key] {
				fmt.Fprintf(&told, "<Error><Key>%s</Key><Code>AccessDenied</Code></Error>", one.Key)
			} else {
				fmt.Fprintf(&told, "<Deleted><Key>%s</Key></Deleted>", one.Key)
			}
		}
		w.Header().Set("Content-Type", "application/xml")
		_, _ = fmt.Fprintf(w, "<DeleteResult>%s</DeleteResult>", &told)
	} else {
		d.note(r.URL.Path)
		w.WriteHeader(http.StatusNoContent)
	}
}

func (d *deleting) note(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deleted = append(d.deleted, key)
}

// known tells how many keys were deleted, and how many requests were there together at most.
func (d *deleting) known() (keys int, most int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	slices.Sort(d.deleted)
	return len(slices.Compact(d.deleted)), d.most
}

func keysOf(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("s/%05d", i))
	}
	return keys
}

// Batches of deletions run side by side, as many as there are connections; so do deletions one by one.
func TestDeletionsSideBySide(t *testing.T) {
	for name, one := range map[string]struct {
		keys, connections, together int
		single                      bool
	}{
		"batches":                    {keys: 4*s3api.MaxDeleted + 1, connections: 16, together: 5},
		"batches, three connections": {keys: 4*s3api.MaxDeleted + 1, connections: 3, together: 3},
		"batches, one connection":    {keys: 2 * s3api.MaxDeleted, connections: 1, together: 1},
		"one batch":                  {keys: 2, connections: 16, together: 1},
		"one by one":                 {keys: 40, connections: 16, together: 16, single: true},
	} {
		t.Run(name, func(t *testing.T) {
			d := &deleting{together: int64(one.together), single: one.single, all: make(chan struct{})}
			server := httptest.NewServer(d)
			defer server.Close()
			store := open(t, server.URL, func(c *Config) { c.Prefix, c.MaxConnections = "", one.connections })
			defer func() { _ = store.Close() }()
			if err := store.DeleteMany(t.Context(), keysOf(one.keys)); err != nil {
				t.Fatal(err)
			}
			if deleted, most := d.known(); deleted != one.keys || most != int64(one.together) {
				t.Errorf("%d of %d were deleted, %d at a time, not %d", deleted, one.keys, most, one.together)
			}
		})
	}
}

// What cannot be deleted is told, and all else is deleted.
func TestDeletionsThatAreRefused(t *testing.T) {
	keys := keysOf(3*s3api.MaxDeleted + 7)
	refused := keys[s3api.MaxDeleted+3]
	d := &deleting{together: 4, all: make(chan struct{}), fails: map[string]bool{refused: true}}
	server := httptest.NewServer(d)
	defer server.Close()
	store := open(t, server.URL, func(c *Config) { c.Prefix = "" })
	defer func() { _ = store.Close() }()
	err := store.DeleteMany(t.Context(), keys)
	if known, ok := err.(*object.Error); !ok || known.Code != object.Permission || known.Key != refused {
		t.Errorf("one that is refused gives %v", err)
	}
	if n, _ := d.known(); n != len(keys) {
		t.Errorf("%d of %d were asked for", n, len(keys))
	}
}

// Streams that nobody reads keep no call waiting, however many they are.
func TestOpenStreamsBlockNothing(t *testing.T) {
	large := bytes.Repeat([]byte("large"), 1<<20)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"e"`)
		if r.Method == http.MethodPut {
			_, _ = io.Copy(io.Discard, r.Body)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(large)))
		_, _ = w.Write(large)
	}))
	defer server.CloseClientConnections()
	store := open(t, server.URL, func(c *Config) { c.MaxConnections = 2 })
	defer func() { _ = store.Close() }()
	for range 5 {
		reader, err := store.Get(t.Context(), "k", object.Whole)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = reader.Close() }()
	}
	if _, err := store.Stat(t.Context(), "k"); err != nil {
		t.Error(err)
	}
	source := &endless{left: 1, size: object.BlockSize, bytes: make([]byte, object.BlockSize)}
	if _, err := store.Put(t.Context(), "k", source, object.PutOptions{Overwrite: true}); err != nil {
		t.Error(err)
	}
}
