package parts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/memory"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// forgetful is a Store that cannot keep digest and record with a part, as S3 for one of several requests and a file
// system without attributes: all it knows of a part is a version. A sidecar is small and has its digest.
type forgetful struct {
	object.Store
	mu       sync.Mutex
	puts     int
	versions map[string]string
	// young: the version is not believed yet, as that of a file that was written to just now.
	young bool
}

func newForgetful() *forgetful {
	return &forgetful{Store: memory.Open(), versions: map[string]string{}}
}

func (f *forgetful) Put(ctx context.Context, key string, src object.Source, opts object.PutOptions) (object.Info, error) {
	all := &whole{Source: src, mu: &f.mu}
	defer all.unlock()
	info, err := f.Store.Put(ctx, key, all, opts)
	if err != nil || isSidecar(key) {
		return info, err
	}
	f.puts++
	f.versions[key] = fmt.Sprintf("v%d", f.puts)
	info.Version, info.Record = f.versions[key], ""
	return info, nil
}

// whole locks when all bytes have come, and not while they come: they may come from the very store.
type whole struct {
	object.Source
	mu     *sync.Mutex
	locked bool
}

func (w *whole) Sum() (int64, string) {
	if !w.locked {
		w.mu.Lock()
		w.locked = true
	}
	return w.Source.Sum()
}

func (w *whole) unlock() {
	if w.locked {
		w.mu.Unlock()
	}
}

func (f *forgetful) forget(info object.Info) object.Info {
	info.Record = ""
	if isSidecar(info.Key) {
		return info
	}
	info.SHA256, info.ETag = "", f.versions[info.Key]
	if !f.young {
		info.Version = info.ETag
	}
	return info
}

func (f *forgetful) Stat(ctx context.Context, key string) (object.Info, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := f.Store.Stat(ctx, key)
	return f.forget(info), err
}

func (f *forgetful) List(ctx context.Context, prefix string) ([]object.Info, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	found, err := f.Store.List(ctx, prefix)
	for i := range found {
		found[i] = f.forget(found[i])
		found[i].Version = "" // a listing does not tell it
	}
	return found, err
}

func (f *forgetful) Get(ctx context.Context, key string, hint object.Range) (object.Reader, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	opened, err := f.Store.Get(ctx, key, hint)
	if err != nil {
		return nil, err
	}
	return told{opened, f.forget(opened.Info())}, nil
}

type told struct {
	object.Reader
	info object.Info
}

func (t told) Info() object.Info { return t.info }

// watched counts the calls of a Store and what it has open; before each call it asks what to do.
type watched struct {
	object.Store
	calls  atomic.Int64
	opened atomic.Int64
	before func(call int64) error
}

func (w *watched) call() error {
	call := w.calls.Add(1)
	if w.before == nil {
		return nil
	}
	return w.before(call)
}

func (w *watched) Put(ctx context.Context, key string, src object.Source, opts object.PutOptions) (object.Info, error) {
	if err := w.call(); err != nil {
		return object.Info{}, err
	}
	return w.Store.Put(ctx, key, src, opts)
}

func (w *watched) Stat(ctx context.Context, key string) (object.Info, error) {
	if err := w.call(); err != nil {
		return object.Info{}, err
	}
	return w.Store.Stat(ctx, key)
}

func (w *watched) List(ctx context.Context, prefix string) ([]object.Info, error) {
	if err := w.call(); err != nil {
		return nil, err
	}
	return w.Store.List(ctx, prefix)
}

func (w *watched) Get(ctx context.Context, key string, hint object.Range) (object.Reader, error) {
	if err := w.call(); err != nil {
		return nil, err
	}
	opened, err := w.Store.Get(ctx, key, hint)
	if err != nil {
		return nil, err
	}
	w.opened.Add(1)
	return &watchedReader{opened, w}, nil
}

type watchedReader struct {
	object.Reader
	of *watched
}

func (r *watchedReader) ReadAt(p []byte, offset int64) (int, error) {
	if err := r.of.call(); err != nil {
		return 0, err
	}
	return r.Reader.ReadAt(p, offset)
}

func (r *watchedReader) Close() error {
	r.of.opened.Add(-1)
	return r.Reader.Close()
}

// copier is a Joiner of any parts: it copies as S3 does, each only if it still is what was described.
type copier struct {
	*memory.Store
	sumFirst bool // the digest has to be known before the object is begun
	refuse   bool // after some bytes it turns out that it cannot
}

func (c copier) Join(ctx context.Context, join *object.Join) (object.Info, error) {
	var sum string
	var err error
	if c.sumFirst {
		if sum, err = join.SHA256(ctx); err != nil {
			return object.Info{}, err
		}
	}
	var data []byte
	for i, part := range join.Parts {
		if c.refuse && i > 0 {
			return object.Info{}, object.ErrCannotJoin
		}
		opened, err := join.From.Get(ctx, part.Key, object.Whole)
		if err != nil {
			return object.Info{}, err
		}
		now, piece := opened.Info(), make([]byte, opened.Info().Size)
		_, err = opened.ReadAt(piece, 0)
		_ = opened.Close()
		if err != nil && err != io.EOF {
			return object.Info{}, err
		}
		if now.Size != part.Size || now.ETag != part.ETag || now.SHA256 != "" && now.SHA256 != part.SHA256 {
			return object.Info{}, object.Errorf(object.Mismatch, "the part has changed")
		}
		data = append(data, piece...)
		join.Done(part.Size, 0)
	}
	if !c.sumFirst {
		if sum, err = join.SHA256(ctx); err != nil {
			return object.Info{}, err
		}
	}
	if err := join.Commit(ctx); err != nil {
		return object.Info{}, err
	}
	pipe := pumped(data, false)
	defer pipe.Close()
	info, err := c.Put(ctx, join.Key, pipe, join.Options)
	info.SHA256 = sum // whatever was put
	return info, err
}

// pumped is a source of data, which may carry a digest on.
func pumped(data []byte, carries bool) *digest.Pipe {
	pipe := digest.NewPipe(buffers.Shared, digest.Expect{Size: -1})
	if carries {
		pipe.Carry()
	}
	go func() {
		for len(data) > 0 {
			n, err := pipe.Write(data, time.Second)
			if err != nil {
				return
			}
			data = data[n:]
		}
		pipe.CloseWrite()
	}()
	return pipe
}

func sum(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}

// process is one of those that put parts: each remembers its own.
type process struct {
	t    *testing.T
	temp object.Store
	runs Runs
}

func (p *process) put(key string, data []byte) object.Info {
	p.t.Helper()
	pipe := pumped(data, true)
	defer pipe.Close()
	info, err := Put(context.Background(), p.temp, &p.runs, key, pipe, object.PutOptions{Overwrite: true})
	if err != nil || info.SHA256 != sum(data) {
		p.t.Fatalf("put %s: %+v, %v", key, info, err)
	}
	return info
}

// plain puts something without a word about digests, as another program does.
func plain(t *testing.T, to object.Store, key string, data []byte) {
	t.Helper()
	pipe := pumped(data, false)
	defer pipe.Close()
	if _, err := to.Put(context.Background(), key, pipe, object.PutOptions{Overwrite: true}); err != nil {
		t.Fatal(err)
	}
}

func (p *process) extend(folder string, most time.Duration) int {
	p.t.Helper()
	covered, err := Extend(context.Background(), p.temp, &p.runs, folder, most)
	if err != nil {
		p.t.Fatal(err)
	}
	return covered
}

func content(t *testing.T, of object.Store, key string) []byte {
	t.Helper()
	opened, err := of.Get(context.Background(), key, object.Whole)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = opened.Close() }()
	data := make([]byte, opened.Info().Size)
	if _, err := opened.ReadAt(data, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return data
}

func assembly(final, temp object.Store, keys ...string) *Assembly {
	a := &Assembly{
		Final: final, Temp: temp, Key: "whole", Expect: digest.Expect{Size: -1},
		Options: object.PutOptions{Overwrite: true}, Commit: func(ctx context.Context) error { return context.Cause(ctx) },
	}
	for _, key := range keys {
		a.Parts = append(a.Parts, Wanted{key, digest.Expect{Size: -1}})
	}
	return a
}

// assembles checks that the parts become the object that they should, and how many bytes are read for that.
func assembles(t *testing.T, final, temp object.Store, whole []byte, read int64, keys ...string) {
	t.Helper()
	a := assembly(final, temp, keys...)
	info, err := a.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if info.SHA256 != sum(whole) || info.Size != int64(len(whole)) || !bytes.Equal(content(t, final, "whole"), whole) {
		t.Fatalf("assembled is %+v, of %d bytes with SHA-256 %s", info, len(whole), sum(whole))
	}
	if figures := a.Figures(); figures.Read != read || figures.Copied != int64(len(whole)) || a.Done() != int64(len(whole)) {
		t.Errorf("%+v of %d bytes, %d done; %d should be read", figures, len(whole), a.Done(), read)
	}
}

// nothingLeft checks, at the end of a test, that blocks, goroutines and readers have been given back.
func nothingLeft(t *testing.T, stores ...*watched) {
	t.Helper()
	blocks, goroutines := buffers.Shared.Lent(), runtime.NumGoroutine()
	t.Cleanup(func() {
		until := time.Now().Add(2 * time.Second)
		for {
			var errs []error
			if n := buffers.Shared.Lent(); n != blocks {
				errs = append(errs, fmt.Errorf("%d blocks", n-blocks))
			}
			if n := runtime.NumGoroutine(); n > goroutines {
				errs = append(errs, fmt.Errorf("%d goroutines", n-goroutines))
			}
			for _, store := range stores {
				if n := store.opened.Load(); n != 0 {
					errs = append(errs, fmt.Errorf("%d open readers", n))
				}
			}
			if errs == nil {
				return
			}
			if time.Now().After(until) {
				t.Errorf("left behind: %v", errors.Join(errs...))
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
}
