package calls

import (
	"context"
	"io"
	"strings"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// Request holds the arguments of every operation; each uses some.
type Request struct {
	Key         string            `json:"key"`
	Prefix      string            `json:"prefix"`
	Size        *int64            `json:"size"` // expected, in bytes; absent or -1: not known
	SHA256      string            `json:"sha256"`
	Overwrite   bool              `json:"overwrite"`
	ContentType string            `json:"content_type"`
	Metadata    map[string]string `json:"metadata"`
	Start       int64             `json:"start"`  // of the range to be read
	Length      *int64            `json:"length"` // of it; absent: to the end
	TempStore   int64             `json:"temp_store"`
	Parts       []part            `json:"parts"`
	Sweep       sweep             `json:"sweep"`

	pipe   *digest.Pipe
	moved  chan struct{}
	signal *signal
}

type part struct {
	Key    string `json:"key"`
	Size   *int64 `json:"size"`
	SHA256 string `json:"sha256"`
}

type openedReader struct {
	object.Info
	reader *reader `json:"-"`
}

type listed struct {
	Objects []object.Info `json:"objects"`
}

type examined struct {
	Findings []object.Finding `json:"findings"`
}

type counted struct {
	Count int `json:"count"`
}

func expected(size *int64, sha256 string) digest.Expect {
	if size == nil {
		return digest.Expect{Size: -1, SHA256: sha256}
	}
	return digest.Expect{Size: *size, SHA256: sha256}
}

func (r *Request) options() object.PutOptions {
	return object.PutOptions{Overwrite: r.Overwrite, ContentType: r.ContentType, Metadata: r.Metadata}
}

func (r *Request) hint() object.Range {
	if r.Length == nil {
		return object.Range{Start: r.Start, Length: -1}
	}
	return object.Range{Start: r.Start, Length: *r.Length}
}

// plan checks a request and gives the work to be done.
func (t *Table) plan(on *store, id int64, op string, r *Request) (func(context.Context) (any, error), error) {
	if err := checkKeys(op, r); err != nil {
		return nil, err
	}
	switch op {
	case "put":
		r.pipe = digest.NewPipe(buffers.Shared, expected(r.Size, r.SHA256))
		return func(ctx context.Context) (any, error) { return on.Put(ctx, r.Key, r.pipe, r.options()) }, nil
	case "assemble":
		temp, err := t.store(r.TempStore)
		if err != nil {
			return nil, err
		}
		r.pipe, r.moved = digest.NewPipe(buffers.Shared, expected(r.Size, r.SHA256)), make(chan struct{})
		return func(ctx context.Context) (any, error) { return assemble(ctx, on, temp, r) }, nil
	case "get":
		return func(ctx context.Context) (any, error) {
			opened, err := open(ctx, on, part{r.Key, r.Size, r.SHA256}, r.hint())
			if err != nil {
				return nil, err
			}
			return &openedReader{Info: opened.Info(), reader: &reader{opened, id}}, nil
		}, nil
	case "stat":
		return func(ctx context.Context) (any, error) { return on.Stat(ctx, r.Key) }, nil
	case "delete":
		return func(ctx context.Context) (any, error) { return struct{}{}, on.Delete(ctx, r.Key) }, nil
	case "list":
		return func(ctx context.Context) (any, error) {
			found, err := on.List(ctx, r.Prefix)
			return listed{found}, err
		}, nil
	case "delete_all":
		return func(ctx context.Context) (any, error) {
			count, err := deleteAll(ctx, on, r.Prefix)
			return counted{count}, err
		}, nil
	case "check":
		return func(ctx context.Context) (any, error) { return struct{}{}, on.Check(ctx) }, nil
	case "survey":
		return func(ctx context.Context) (any, error) { return survey(ctx, on, &r.Sweep) }, nil
	case "sweep":
		return func(ctx context.Context) (any, error) { return remove(ctx, on, &r.Sweep) }, nil
	case "probe":
		prober, ok := on.Store.(object.Prober)
		return func(ctx context.Context) (any, error) {
			if !ok {
				return examined{}, nil
			}
			found, err := prober.Probe(ctx, r.Prefix)
			return examined{found}, err
		}, nil
	default:
		return nil, object.Errorf(object.Internal, "there is no operation %q", op)
	}
}

// deleteAll removes all objects below a folder and tells how many there were.
func deleteAll(ctx context.Context, on *store, prefix string) (int, error) {
	found, err := on.List(ctx, prefix)
	if err != nil {
		return 0, err
	}
	keys := make([]string, len(found))
	for i, info := range found {
		keys[i] = info.Key
	}
	return len(keys), on.DeleteMany(ctx, keys)
}

func checkKeys(op string, r *Request) error {
	switch op {
	case "list", "delete_all", "probe":
		return object.CheckKey(strings.TrimSuffix(r.Prefix, "/"))
	case "check", "survey", "sweep":
		return nil
	}
	for _, part := range r.Parts {
		if err := object.CheckKey(part.Key); err != nil {
			return err
		}
	}
	return object.CheckKey(r.Key)
}

// open opens an object that must be what the caller expects, as far as the store knows.
func open(ctx context.Context, on *store, want part, hint object.Range) (*digest.Reader, error) {
	opened, err := on.Get(ctx, want.Key, hint)
	if err != nil {
		return nil, err
	}
	info, expect := opened.Info(), expected(want.Size, want.SHA256)
	differs := expect.Size >= 0 && info.Size != expect.Size
	differs = differs || expect.SHA256 != "" && info.SHA256 != "" && info.SHA256 != expect.SHA256
	if differs {
		_ = opened.Close()
		return nil, object.Errorf(object.Mismatch, "the object has changed: it has another size or SHA-256 than expected")
	}
	return digest.NewReader(opened, expect.SHA256), nil
}

// assemble streams the parts, in the order given, into one object.
func assemble(ctx context.Context, final, temp *store, r *Request) (any, error) {
	pumped := make(chan struct{})
	go func() {
		defer close(pumped)
		if err := pump(ctx, temp, r); err != nil {
			r.pipe.Fail(err)
			return
		}
		close(r.moved) // the caller sees the final figure before it lets the commit begin
		r.signal.raise()
	}()
	info, err := final.Put(ctx, r.Key, r.pipe, r.options())
	if err != nil {
		r.pipe.Fail(err)
	}
	<-pumped // it holds a part open until it has seen the failure
	return info, err
}

func pump(ctx context.Context, temp *store, r *Request) (err error) {
	defer object.Rescue(&err)
	block, err := buffers.Shared.Get()
	if err != nil {
		return err
	}
	defer buffers.Shared.Put(block)
	for _, part := range r.Parts {
		if err := pumpPart(ctx, temp, part, r.pipe, block.Bytes); err != nil {
			return named(part.Key, err)
		}
	}
	return nil
}

func pumpPart(ctx context.Context, temp *store, part part, into *digest.Pipe, block []byte) error {
	opened, err := open(ctx, temp, part, object.Whole)
	if err != nil {
		return err
	}
	defer func() { _ = opened.Close() }()
	from := io.NewSectionReader(opened, 0, opened.Info().Size)
	for {
		n, err := from.Read(block)
		if err == io.EOF {
			return nil
		}
		if err != nil && err != object.ErrNotYet {
			return err
		}
		for rest := block[:n]; len(rest) > 0; {
			written, err := into.Write(rest, writeWait)
			if err != nil {
				return err
			}
			rest = rest[written:]
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// named tells which part an error is about.
func named(key string, err error) error {
	if known, ok := err.(*object.Error); ok && known.Key == "" && known.Code != object.Cancelled {
		about := *known
		about.Key = key
		return &about
	}
	return err
}
