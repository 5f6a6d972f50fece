package calls

import (
	"context"
	"io"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

type reader struct {
	*digest.Reader
	store int64
}

// Fetch starts a call that fills memory from an open reader, from an offset to the end at most. It answers as Wait does:
// in the end with how many bytes have come. The memory is on loan until Returned gives the token.
func (t *Table) Fetch(id, number, offset int64, into []byte, token int64) (string, error) {
	loan := buffers.Shared.Borrow(token)
	found, on, err := t.reader(id)
	if err != nil {
		buffers.Shared.Return(loan)
		return "", err
	}
	started := &call{op: "read", key: found.Info().Key, aside: true}
	t.begin(on, number, started, onFewThreads(on, started, func(ctx context.Context) (any, error) {
		defer buffers.Shared.Return(loan)
		return found.fill(ctx, into, offset)
	}))
	started.task.Start(false)
	return t.answer(number, started, nil)
}

func (t *Table) reader(id int64) (*reader, *store, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	found, ok := t.readers[id]
	if !ok {
		return nil, nil, object.Errorf(object.Closed, "the stream is closed, or its adapter was")
	}
	return found, t.stores[found.store], nil
}

// fill reads until the memory is full, or the end.
func (r *reader) fill(ctx context.Context, into []byte, offset int64) (counted, error) {
	done := 0
	for done < len(into) {
		if ctx.Err() != nil {
			return counted{}, context.Cause(ctx)
		}
		n, err := r.ReadAhead(into[done:], offset+int64(done), nil, nil)
		if err != nil && err != io.EOF && err != object.ErrNotYet {
			return counted{}, err
		}
		done += n
		if err == io.EOF {
			break
		}
	}
	return counted{done}, nil
}

// Read reads from an open reader as many bytes as there are now: 0 at the end, -1 if none have come yet. Unless token
// is 0, next is memory for the bytes that follow.
func (t *Table) Read(id, offset int64, into, next []byte, token int64) (int, error) {
	var loan *buffers.Loan
	if token != 0 {
		loan = buffers.Shared.Borrow(token)
		defer buffers.Shared.Return(loan)
	}
	found, _, err := t.reader(id)
	if err != nil {
		return 0, err
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
