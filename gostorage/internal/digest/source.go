package digest

import (
	"context"
	"io"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// Expected implements object.Source.
func (p *Pipe) Expected() (size int64, sha256 string) { return p.expect.Size, p.expect.SHA256 }

// Reserve implements object.Source.
func (p *Pipe) Reserve(need, most int64, checksum object.Checksum) {
	if checksum != nil {
		p.checksum.Store(&checksum)
	}
	blocks := func(size int64) int64 { return (size + buffers.Size - 1) / buffers.Size }
	p.need.Store(blocks(need))
	p.most.Store(max(blocks(most), depth))
	p.free.signal() // a pump that waits for room has some now
}

// Refused implements object.Source.
func (p *Pipe) Refused() int64 { return p.refused.Swap(0) * buffers.Size }

// Next implements object.Source.
func (p *Pipe) Next(ctx context.Context, worth int64) (object.Block, error) {
	next, err := p.pull(ctx, int((worth+buffers.Size-1)/buffers.Size))
	if err != nil {
		return nil, err
	}
	return next, nil
}

// pull gives the next full block, or the error that comes after the last one.
func (p *Pipe) pull(ctx context.Context, worth int) (*piece, error) {
	select {
	case <-p.failed:
		return nil, p.err
	default:
	}
	for {
		next, closed := p.store.pop(worth)
		if next != nil {
			return next, nil
		}
		if closed {
			return nil, p.verify()
		}
		if err := p.await(ctx); err != nil {
			return nil, err
		}
	}
}

func (p *Pipe) await(ctx context.Context) error {
	if p.leave != nil {
		p.leave()
		defer p.enter()
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.failed:
		return p.err
	case <-p.store.wake:
		return nil
	}
}

// verify gives io.EOF, or the error that keeps this from being the end.
func (p *Pipe) verify() error {
	size, sum := p.Sum()
	select {
	case <-p.failed:
		return p.err
	default:
	}
	if p.expect.Size >= 0 && size != p.expect.Size {
		p.fail(object.Errorf(object.Mismatch, "%d bytes came, %d were expected", size, p.expect.Size))
		return p.err
	}
	if p.expect.SHA256 != "" && sum != p.expect.SHA256 {
		p.fail(object.Errorf(object.Mismatch, "the bytes have SHA-256 %s, expected was %s", sum, p.expect.SHA256))
		return p.err
	}
	return io.EOF
}

// Sum gives size and SHA-256 of the bytes that passed. It may be called only after the end.
func (p *Pipe) Sum() (size int64, sha256 string) {
	p.own.finish()
	return p.moved.Load(), Sum(p.own.hash)
}

// Record implements object.Source. It is the record of the run of parts that ends with these bytes.
func (p *Pipe) Record() string {
	if p.carried == nil || p.before == nil {
		return ""
	}
	state := p.own.hash
	if p.before.Size > 0 {
		p.carried.finish()
		state = p.carried.hash
	}
	var info object.Info
	info.Size, info.SHA256 = p.Sum()
	run, ok := p.before.Add(info, state)
	if !ok {
		return ""
	}
	return run.String()
}

// Read implements io.Reader.
func (p *Pipe) Read(into []byte) (int, error) {
	if len(into) == 0 {
		return 0, nil
	}
	if p.reading == nil {
		next, err := p.pull(context.Background(), 1)
		if err != nil {
			return 0, err
		}
		p.reading, p.unread = next, next.data
	}
	n := copy(into, p.unread)
	p.unread = p.unread[n:]
	if len(p.unread) == 0 {
		p.release(p.reading)
		p.reading = nil
	}
	return n, nil
}

// WriteTo implements io.WriterTo: the blocks go to w without another copy.
func (p *Pipe) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		next, err := p.pull(context.Background(), 1)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(next.data)
		total += int64(n)
		p.release(next)
		if err != nil {
			return total, err
		}
	}
}
