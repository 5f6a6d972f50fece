package s3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// part is a run of the source's bytes that one request carries: blocks that are given back when it is done.
type part struct {
	number int32
	blocks []object.Block
	size   int64
	sums   sums
	after  func() // called when the blocks were given back, or nil

	using  sync.RWMutex // held for reading by whoever looks at the blocks
	closed bool
}

// collect takes blocks until there are size bytes, a multiple of a block, and tells whether the source has ended.
func collect(ctx context.Context, src object.Source, size int64, see func(object.Block)) (*part, bool, error) {
	return collectAfter(ctx, nil, src, size, see)
}

// collectAfter is collect with a block that was taken before, or nil.
func collectAfter(
	ctx context.Context, block object.Block, src object.Source, size int64, see func(object.Block),
) (_ *part, ended bool, err error) {
	p := &part{}
	for {
		if block != nil {
			p.blocks = append(p.blocks, block)
			p.size += int64(len(block.Bytes()))
			see(block)
		}
		if p.size >= size {
			return p, false, nil
		}
		block, err = src.Next(ctx, size-p.size)
		if isEnd(err) {
			return p, true, nil
		}
		if err != nil {
			p.release()
			return nil, false, err
		}
	}
}

// release gives the blocks back, once nobody looks at them: the HTTP client may do so after it has answered.
func (p *part) release() {
	p.using.Lock()
	defer p.using.Unlock()
	p.closed = true
	for _, block := range p.blocks {
		block.Release()
	}
	p.blocks = nil
	if p.after != nil {
		p.after()
		p.after = nil
	}
}

// body reads the part for one attempt. What is small is copied, into a form that net/http sends together with the
// headers.
func (p *part) body() io.ReadCloser {
	if p.size > writeBuffer/2 {
		return &body{part: p}
	}
	return io.NopCloser(bytes.NewReader(bytes.Clone(p.blocks[0].Bytes())))
}

var errReleased = errors.New("the request has ended")

// body reads a part for one attempt.
type body struct {
	part   *part
	index  int // of the block that is being read
	offset int // in it
}

// Read implements io.Reader.
func (b *body) Read(into []byte) (int, error) {
	b.part.using.RLock()
	defer b.part.using.RUnlock()
	if b.part.closed {
		return 0, errReleased
	}
	if b.index == len(b.part.blocks) {
		return 0, io.EOF
	}
	data := b.part.blocks[b.index].Bytes()
	n := copy(into, data[b.offset:])
	if b.offset += n; b.offset == len(data) {
		b.index, b.offset = b.index+1, 0
	}
	return n, nil
}

// atOnce is how many blocks one write may take: fewer writes are cheaper, but each must end before the stall timer does.
const atOnce = 4

// writeTo writes up to limit bytes, some blocks at once.
func (b *body) writeTo(c *conn, limit int64) (written int64, err error) {
	b.part.using.RLock()
	defer b.part.using.RUnlock()
	for written < limit && err == nil {
		if b.part.closed {
			return written, errReleased
		}
		var next net.Buffers
		left := limit - written
		for index, offset := b.index, b.offset; len(next) < atOnce && index < len(b.part.blocks) && left > 0; index++ {
			data := b.part.blocks[index].Bytes()[offset:]
			data = data[:min(int64(len(data)), left)]
			next, left, offset = append(next, data), left-int64(len(data)), 0
		}
		if len(next) == 0 {
			return written, io.ErrUnexpectedEOF
		}
		var n int64
		n, err = c.writeAll(next)
		written += n
		b.skip(n)
	}
	return written, err
}

// skip goes on by n bytes.
func (b *body) skip(n int64) {
	for n > 0 {
		rest := int64(len(b.part.blocks[b.index].Bytes()) - b.offset)
		if n < rest {
			b.offset += int(n)
			return
		}
		n -= rest
		b.index, b.offset = b.index+1, 0
	}
}

// Close implements io.Closer; the part stays for another attempt.
func (b *body) Close() error { return nil }

// seekable is what the SDK sees of a part: it only asks whether it could be sent again.
type seekable struct{ size int64 }

func (s seekable) Read([]byte) (int, error) { return 0, io.EOF }

func (s seekable) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekEnd:
		return s.size + offset, nil
	default:
		return offset, nil
	}
}
