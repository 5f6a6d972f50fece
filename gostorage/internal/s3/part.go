package s3

import (
	"context"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// part is a run of the source's bytes that one request carries. Its blocks are given back when the request is done.
type part struct {
	blocks []object.Block
	size   int64
	after  func() // called when the blocks were given back, or nil
}

// collect takes blocks until there are size bytes, a multiple of a block, and tells whether the source has ended.
func collect(ctx context.Context, src object.Source, size int64, see func(object.Block)) (*part, bool, error) {
	return collectAfter(ctx, nil, src, size, see)
}

// collectAfter is collect that begins with a block taken before, or nil.
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

// release gives the blocks back.
func (p *part) release() {
	for _, block := range p.blocks {
		block.Release()
	}
	p.blocks = nil
	if p.after != nil {
		p.after()
		p.after = nil
	}
}

// bytes are the bytes of the part.
func (p *part) bytes() [][]byte {
	pieces := make([][]byte, len(p.blocks))
	for i, block := range p.blocks {
		pieces[i] = block.Bytes()
	}
	return pieces
}
