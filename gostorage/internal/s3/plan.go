package s3

import "github.com/django-gostorage/django-gostorage/gostorage/internal/s3api"

const (
	leastPart = s3api.MinPartSize
	mostPart  = s3api.MaxPartSize
	mostParts = s3api.MaxParts
)

// span is a run of bytes of one source.
type span struct {
	source        int // its index
	start, length int64
}

// piece is one part of an upload that joins sources: one span that the server copies, or spans that are read here and
// sent.
type piece struct {
	spans  []span
	size   int64
	copied bool
}

// plan cuts sources of these sizes into the parts of an upload. There is always one part, even if it is empty; there
// may be more than an upload can have.
//
// A source that is too small to be a part is read, together with what follows until it is large enough. Of a large
// source that follows, only the missing bytes are read, if its rest is large enough. Everything else is copied.
func plan(sizes []int64) []piece {
	var c cutter
	last := len(sizes) - 1
	for last >= 0 && sizes[last] == 0 {
		last--
	}
	for source, size := range sizes {
		c.add(source, size, source == last)
	}
	if c.open.size > 0 || len(c.pieces) == 0 {
		c.shut()
	}
	return c.pieces
}

type cutter struct {
	pieces []piece
	open   piece // spans that are read, and not yet large enough
}

func (c *cutter) add(source int, size int64, last bool) {
	read := int64(0) // bytes of the source that complete what is open
	if c.open.size > 0 {
		read = leastPart - c.open.size
	}
	rest := size - read
	fits := rest >= leastPart
	if last {
		// S3 copies ranges only of sources that are larger than the least part.
		fits = fits || rest > 0 && (read == 0 || size > leastPart)
	}
	if !fits {
		read, rest = size, 0
	}
	if read > 0 {
		c.open.spans = append(c.open.spans, span{source, 0, read})
		c.open.size += read
	}
	if c.open.size >= leastPart {
		c.shut()
	}
	c.copy(source, read, rest)
}

func (c *cutter) shut() {
	c.pieces = append(c.pieces, c.open)
	c.open = piece{}
}

func (c *cutter) copy(source int, start, length int64) {
	for count := (length + mostPart - 1) / mostPart; count > 0; count-- {
		size := length / count
		c.pieces = append(c.pieces, piece{spans: []span{{source, start, size}}, size: size, copied: true})
		start, length = start+size, length-size
	}
}

// equal tells whether all parts but a smaller last one are of one size.
func equal(pieces []piece) bool {
	for i, piece := range pieces {
		if piece.size > pieces[0].size || piece.size < pieces[0].size && i < len(pieces)-1 {
			return false
		}
	}
	return true
}
