package calls

import (
	"io"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

type reader struct {
	*digest.Reader
	store int64
}

// Read reads from an open reader as many bytes as there are now: 0 at the end, -1 if none have come yet. Unless token
// is 0, next is memory for the bytes that follow.
func (t *Table) Read(id, offset int64, into, next []byte, token int64) (int, error) {
	var loan *buffers.Loan
	if token != 0 {
		loan = buffers.Shared.Borrow(token)
		defer buffers.Shared.Return(loan)
	}
	t.mu.Lock()
	found, ok := t.readers[id]
	t.mu.Unlock()
	if !ok {
		return 0, object.Errorf(object.Closed, "the stream is closed, or its adapter was")
	}
	n, err := found.ReadAhead(into, offset, next, loan)
	if err == object.ErrNotYet {
		if n == 0 {
			return -1, nil
		}
		return n, nil
	}
	if err != nil && err != io.EOF {
		return 0, object.Wire("read", found.Info().Key, err)
	}
	return n, nil
}
