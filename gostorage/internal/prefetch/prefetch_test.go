package prefetch

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/flow"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// away is an object on a line: each request has a speed of its own.
type away struct {
	data   []byte
	delay  time.Duration
	speed  int                                   // bytes a millisecond; 0: no limit
	fault  func(n int, from int64) (error, bool) // of the n-th request: an error instead of a body, or whether it is cut
	stalls func(from, until int64) bool          // whether nothing comes of a request
	asked  atomic.Int64
	open   atomic.Int64
	most   atomic.Int64 // that were open at once
	mu     sync.Mutex
	starts []int64
	line   Line
}

func (a *away) source() Source {
	return Source{Open: a.get, Size: int64(len(a.data)), Attempts: 3, Connections: flow.NewTotal(16, 1), Warm: func(context.Context, int) {}, Line: &a.line}
}

func (a *away) get(ctx context.Context, from, until int64) (io.ReadCloser, error) {
	n := int(a.asked.Add(1))
	a.mu.Lock()
	a.starts = append(a.starts, from)
	a.mu.Unlock()
	if err := pause(ctx, a.delay); err != nil {
		return nil, err
	}
	b := &body{ctx: ctx, away: a, data: a.data[from:until], stalls: a.stalls != nil && a.stalls(from, until)}
	if a.fault != nil {
		err, cut := a.fault(n, from)
		if err != nil {
			return nil, err
		}
		b.cut = cut
	}
	if now := a.open.Add(1); now > a.most.Load() {
		a.most.Store(now)
	}
	return b, nil
}

// body gives its bytes in pieces, as they come.
type body struct {
	ctx    context.Context
	away   *away
	data   []byte
	cut    bool
	stalls bool
	done   atomic.Bool
}

func (b *body) Read(p []byte) (int, error) {
	if b.stalls {
		<-b.ctx.Done()
		return 0, context.Cause(b.ctx)
	}
	if b.cut && len(b.data) < 100_000 {
		return 0, io.ErrUnexpectedEOF
	}
	if len(b.data) == 0 {
		return 0, io.EOF
	}
	if b.away.speed == 0 {
		n := copy(p, b.data)
		b.data = b.data[n:]
		return n, nil
	}
	n := copy(p[:min(len(p), 64<<10)], b.data)
	b.data = b.data[n:]
	return n, pause(b.ctx, time.Duration(n)*time.Millisecond/time.Duration(b.away.speed))
}

func (b *body) Close() error {
	if !b.done.Swap(true) {
		b.away.open.Add(-1)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func random(size int) []byte {
	data := make([]byte, size)
	source := rand.NewChaCha8([32]byte{})
	_, _ = source.Read(data)
	return data
}

// begin starts to fetch a part, by a body that has come already if it is the first.
func (a *away) begin(t *testing.T, part Part, jump bool) *Prefetcher {
	t.Helper()
	ctx, end := context.WithTimeout(t.Context(), time.Minute) // a test that fails does not hang
	t.Cleanup(end)
	fetch, cancel := context.WithCancelCause(ctx)
	var first io.ReadCloser
	if !jump {
		var err error
		if first, err = a.get(fetch, part.From, part.Until); err != nil {
			t.Fatal(err)
		}
	}
	p, err := Start(ctx, ctx, fetch, cancel, a.source(), first, part)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// read reads from a place until there are n bytes, or an error.
func read(p *Prefetcher, offset int64, n int) ([]byte, error) {
	into := make([]byte, n)
	for done := 0; done < n; {
		more, err := p.Read(into[done:], offset+int64(done))
		done += more
		if err != nil {
			return into[:done], err
		}
	}
	return into, nil
}

// nothingLeft looks whether the memory of before is back, and no body is open.
func nothingLeft(t *testing.T, a *away, lent int64) {
	t.Helper()
	if now := buffers.Shared.Lent(); now != lent {
		t.Errorf("%d blocks are lent, before there were %d", now, lent)
	}
	for until := time.Now().Add(10 * time.Second); a.open.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d bodies are open", a.open.Load())
		}
	}
}

// On a slow line several ranges come side by side. On a fast one there is one request, or a few on a busy machine.
func TestTheLineDecides(t *testing.T) {
	data := random(24 << 20)
	for _, line := range []struct {
		name  string
		speed int
		side  bool
	}{{"slow", 20_000, true}, {"fast", 0, false}} {
		t.Run(line.name, func(t *testing.T) {
			lent := buffers.Shared.Lent()
			a := &away{data: data, delay: time.Millisecond, speed: line.speed}
			p := a.begin(t, Part{Until: int64(len(data))}, false)
			got, err := read(p, 0, len(data))
			p.Close()
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if side := a.asked.Load() > 4 && a.most.Load() > 2; side != line.side {
				t.Errorf("%d requests, %d at once", a.asked.Load(), a.most.Load())
			}
			nothingLeft(t, a, lent)
		})
	}
}

// A server that gives no ranges is asked once, and the first request goes on.
func TestWithoutRanges(t *testing.T) {
	data := random(16 << 20)
	a := &away{data: data, speed: 20_000, fault: func(n int, _ int64) (error, bool) {
		if n > 1 {
			return object.Errorf(object.Refused, "no ranges"), false
		}
		return nil, false
	}}
	p := a.begin(t, Part{Until: int64(len(data))}, false)
	defer p.Close()
	if got, err := read(p, 0, len(data)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if a.asked.Load() != 2 {
		t.Errorf("%d requests", a.asked.Load())
	}
}

// The error of a range comes after all bytes before it, and again.
func TestAnErrorComesInItsPlace(t *testing.T) {
	data := random(24 << 20)
	broken := object.Errorf(object.Permission, "no more")
	var from atomic.Int64 // where the first range that fails begins
	from.Store(int64(len(data)))
	a := &away{data: data, delay: time.Millisecond, speed: 20_000, fault: func(n int, at int64) (error, bool) {
		if at > 8<<20 {
			for least := from.Load(); at < least && !from.CompareAndSwap(least, at); least = from.Load() {
			}
			return broken, false
		}
		return nil, false
	}}
	p := a.begin(t, Part{Until: int64(len(data))}, false)
	defer p.Close()
	got, err := read(p, 0, len(data))
	if !errors.Is(err, broken) || int64(len(got)) != from.Load() || !bytes.HasPrefix(data, got) {
		t.Errorf("%d bytes and %v, the range begins at %d", len(got), err, from.Load())
	}
	if _, again := p.Read(make([]byte, 1), int64(len(got))); !errors.Is(again, broken) {
		t.Errorf("then %v", again)
	}
}

// Ranges of which nothing comes are asked for again if others have come: neighbours one after the other, and the last.
func TestRangesThatStall(t *testing.T) {
	data := random(24 << 20)
	for name, stuck := range map[string]func(from, until int64) bool{
		"neighbours": func(from, _ int64) bool { return from >= 10<<20 && from < 18<<20 },
		"the last":   func(_, until int64) bool { return until == int64(len(data)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &away{data: data, delay: time.Millisecond, speed: 20_000}
			var stalled, again atomic.Int64
			known := sync.Map{}
			a.stalls = func(from, until int64) bool {
				if until-from > rangeSize { // the first request
					return false
				}
				if _, other := known.LoadOrStore(until, true); other {
					again.Add(1)
					return false
				}
				if !stuck(from, until) {
					return false
				}
				stalled.Add(1)
				return true
			}
			p := a.begin(t, Part{Until: int64(len(data))}, false)
			defer p.Close()
			if got, err := read(p, 0, len(data)); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if stalled.Load() == 0 || again.Load() != stalled.Load() {
				t.Errorf("%d requests have stalled, %d were made again", stalled.Load(), again.Load())
			}
		})
	}
}

// Whatever the line does and wherever the reader jumps, the bytes are right and nothing is left.
func TestReadersOnBadLines(t *testing.T) {
	data := random(20 << 20)
	lent := buffers.Shared.Lent()
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 0))
		a := &away{data: data, delay: time.Duration(r.IntN(5)) * time.Millisecond, speed: 10_000 + r.IntN(100_000)}
		a.fault = func(int, int64) (error, bool) {
			switch rand.N(20) {
			case 0:
				return object.Retryablef(object.Unavailable, "later"), false
			case 1:
				return nil, true
			}
			return nil, false
		}
		var p *Prefetcher
		size := int64(len(data))
		for offset, left := int64(0), 20; left > 0; left-- {
			if p == nil || !p.Reaches(offset) {
				if p != nil {
					p.Close()
				}
				p = a.begin(t, Part{From: offset, Until: size, Step: int64(r.IntN(2)) << 20}, true)
			}
			n := min(1+r.Int64N(4<<20), size-offset)
			got, err := read(p, offset, int(n))
			if err != nil || !bytes.Equal(got, data[offset:offset+n]) {
				t.Fatalf("seed %d: %d of %d bytes at %d, %v", seed, len(got), n, offset, err)
			}
			offset += n
			switch r.IntN(6) {
			case 0:
				offset = r.Int64N(size)
			case 1:
				offset += r.Int64N(5 << 20)
			}
			if offset >= size {
				offset = r.Int64N(size)
			}
		}
		p.Close()
		nothingLeft(t, a, lent)
	}
}
