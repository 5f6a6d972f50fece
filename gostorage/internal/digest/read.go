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

// Borrower is a Reader that can have bytes ready before they are asked for, in memory that the caller lends.
type Borrower interface {
	// Borrows tells whether the Reader can use such memory.
	Borrows() bool

	// ReadAhead is ReadAt, and uses next, if it is on loan, for the bytes behind p. Whichever ReadAt wants these bytes
	// gets them from there. If it reads into that very memory, there is no copy.
	ReadAhead(p []byte, offset int64, next []byte, loan *buffers.Loan) (int, error)
}

// Reader reads an object and verifies it. If all of it was read in sequence and its digest is not the known one, a
// Mismatch takes the place of the last bytes. Each byte is hashed once, however often it is read.
type Reader struct {
	object.Reader
	known  object.Info
	mu     sync.Mutex
	hash   hash.Hash         // nil: there is nothing to compare with
	is     func([]byte) bool // whether a sum is the known one
	hashed int64             // bytes hashed, from the start
	wrong  bool              // the digest was compared, and differs
}

// NewReader wraps an opened object. sha256 is what the caller expects, or "": it counts if the store knows no digest.
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

// Info describes the object, with the digest that the reader compares with.
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

// ReadAhead implements Borrower: the bytes behind p come while p is hashed.
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
