package digest

import (
	"cmp"
	"context"
	stdsha256 "crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"io"
	"sync"

	"github.com/minio/crc64nvme"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// Borrower is a Reader that can have bytes ready before they are asked for, in memory of who will ask.
type Borrower interface {
	// Borrows tells whether it has use for such memory.
	Borrows() bool

	// ReadAhead is ReadAt, and makes use of next, if it is on loan, for the bytes behind p. What has come into it is read
	// from there by whichever ReadAt wants it; by one into that very memory without a copy.
	ReadAhead(p []byte, offset int64, next []byte, loan *buffers.Loan) (int, error)
}

// Reader reads an object and verifies it: once all of it was read in sequence, a digest that differs from the one
// known is a Mismatch in place of the last bytes. Each byte is hashed once, however often it is read.
type Reader struct {
	object.Reader
	known  object.Info
	mu     sync.Mutex
	hash   hash.Hash         // nil: there is nothing to compare with
	is     func([]byte) bool // whether a sum is the known one
	hashed int64             // how far from the start the hash has come
	wrong  bool              // the digest was compared, and differs
}

// NewReader wraps an opened object; sha256 is what the caller expects where the store does not know it, or "".
func NewReader(opened object.Reader, sha256 string) *Reader {
	known := opened.Info()
	if known.SHA256 == "" {
		known.SHA256 = sha256
	}
	r := &Reader{Reader: opened, known: known}
	sum := cmp.Or(known.SHA256, known.Stored)
	switch {
	case sum != "":
		r.hash = stdsha256.New()
		r.is = func(is []byte) bool { return hex.EncodeToString(is) == sum }
	case known.CRC64NVME != "":
		r.hash = crc64nvme.New()
		r.is = func(sum []byte) bool { return base64.StdEncoding.EncodeToString(sum) == known.CRC64NVME }
	}
	r.wrong = known.Size == 0 && r.hash != nil && !r.is(r.hash.Sum(nil))
	return r
}

// Info tells what the reader compares with.
func (r *Reader) Info() object.Info { return r.known }

// ReadAt implements io.ReaderAt.
func (r *Reader) ReadAt(p []byte, offset int64) (int, error) {
	return r.ReadAhead(p, offset, nil, nil)
}

// Borrows implements Borrower.
func (r *Reader) Borrows() bool {
	inner, ok := r.Reader.(Borrower)
	return ok && inner.Borrows()
}

// ReadAhead implements Borrower: what follows comes while p is hashed.
func (r *Reader) ReadAhead(p []byte, offset int64, next []byte, loan *buffers.Loan) (n int, err error) {
	info := r.known
	if inner, ok := r.Reader.(Borrower); ok {
		n, err = inner.ReadAhead(p, offset, next, loan)
	} else {
		n, err = r.Reader.ReadAt(p, offset)
	}
	if err != nil && err != io.EOF && err != object.ErrNotYet {
		return n, err
	}
	end := offset + int64(n)
	if n < len(p) && end < info.Size && err != object.ErrNotYet {
		return 0, object.Errorf(object.Mismatch, "the object ends after %d of %d bytes", end, info.Size)
	}
	if r.hash == nil {
		return n, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if offset <= r.hashed && end > r.hashed {
		r.hash.Write(p[r.hashed-offset : n])
		r.hashed = end
		if r.hashed >= info.Size {
			r.wrong = r.hashed != info.Size || !r.is(r.hash.Sum(nil))
		}
	}
	if r.wrong && end >= info.Size {
		return 0, object.Errorf(object.Mismatch, "the object does not have the digest that was stored with it")
	}
	return n, err
}

// SHA256 reads all of an object and gives its digest.
func SHA256(ctx context.Context, from object.Reader) (string, error) {
	block, err := buffers.Shared.Get()
	if err != nil {
		return "", err
	}
	defer buffers.Shared.Put(block)
	sum := stdsha256.New()
	for offset := int64(0); ; {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		n, err := from.ReadAt(block.Bytes, offset)
		sum.Write(block.Bytes[:n])
		offset += int64(n)
		if err == object.ErrNotYet {
			continue
		}
		if err == io.EOF {
			return Sum(sum), nil
		}
		if err != nil {
			return "", err
		}
	}
}
