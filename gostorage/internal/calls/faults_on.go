//go:build faults

package calls

import (
	"context"
	"io"
	"strings"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// faulty gives a store the defects that its keys ask for. Only the build for the tests of panics has it.
func faulty(made object.Store) object.Store { return defective{made} }

type defective struct{ object.Store }

func burst(key, where string) {
	if strings.Contains(key, "burst in "+where) {
		var nowhere *int64
		*nowhere = 1
	}
}

func (s defective) Put(
	ctx context.Context, key string, src object.Source, opts object.PutOptions,
) (object.Info, error) {
	return s.Store.Put(ctx, key, burstingSource{src, key}, opts)
}

type burstingSource struct {
	object.Source
	key string
}

func (s burstingSource) WriteTo(w io.Writer) (int64, error) {
	return s.Source.WriteTo(burstingWriter{w, s.key})
}

type burstingWriter struct {
	io.Writer
	key string
}

func (w burstingWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	burst(w.key, "put")
	return n, err
}

func (s defective) Get(ctx context.Context, key string, hint object.Range) (object.Reader, error) {
	burst(key, "get")
	opened, err := s.Store.Get(ctx, key, hint)
	return burstingReader{opened, key}, err
}

type burstingReader struct {
	object.Reader
	key string
}

func (r burstingReader) ReadAt(p []byte, offset int64) (int, error) {
	burst(r.key, "read")
	return r.Reader.ReadAt(p, offset)
}

func (s defective) Stat(ctx context.Context, key string) (object.Info, error) {
	burst(key, "stat")
	return s.Store.Stat(ctx, key)
}
