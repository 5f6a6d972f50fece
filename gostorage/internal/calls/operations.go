package calls

import (
	"context"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/parts"
)

// Request holds the arguments of every operation; each uses some.
type Request struct {
	Key         string            `json:"-"`
	Prefix      string            `json:"prefix"`
	Size        *int64            `json:"size"` // expected, in bytes; absent or -1: not known
	SHA256      string            `json:"sha256"`
	Overwrite   *bool             `json:"overwrite"` // absent: it may
	New         bool              `json:"new"`       // with overwrite false: also the same bytes are in the way
	ContentType string            `json:"content_type"`
	Metadata    map[string]string `json:"metadata"`
	Start       int64             `json:"start"`  // start of the range to read
	Length      *int64            `json:"length"` // length of the range; absent: to the end
	TempStore   int64             `json:"temp_store"`
	Parts       []part            `json:"parts"`
	Sweep       parts.Sweep       `json:"sweep"`
	After       string            `json:"after"` // where a page begins: with the keys after this text
	Most        int               `json:"most"`  // objects of a page; 0: all objects of a folder are listed

	Aside   bool    `json:"aside"`   // the caller waits for the descriptor only, and nothing is done on its thread
	Carry   bool    `json:"carry"`   // a part: the digest of the whole is continued over it
	Temp    bool    `json:"temp"`    // a part: its sidecar is deleted with it
	Seconds float64 `json:"seconds"` // after which no other part is begun, or a URL expires

	Method      string `json:"method"`      // that a URL allows
	Disposition string `json:"disposition"` // of the answer to a URL
	NoCopy      bool   `json:"no_copy"`     // what a URL does not allow
	Upload      string `json:"upload"`      // that a URL is about
	Part        int32  `json:"part"`        // that a URL is about

	pipe     *digest.Pipe
	progress func() int64
	commit   *commit
	short    bool // it is one request, or a few
}

type part struct {
	Key    string `json:"key"`
	Size   *int64 `json:"size"`
	SHA256 string `json:"sha256"`
}

func (p part) wanted() parts.Wanted {
	return parts.Wanted{Key: p.Key, Expect: expected(p.Size, p.SHA256)}
}

type openedReader struct {
	object.Info
	whole   bool // the whole object was wanted, not a range
	borrows bool // Read can use memory for the bytes that follow
	filled  bool // all bytes are in the caller's room, and the reader is gone
	reader  *reader
}

// described is an object as the caller asked for it: with all that the store tells.
type described struct{ object.Info }

// description is what is told of an object beside its size and digest, in JSON and in the same form for all stores: names
// of metadata are in lower case, and an object whose content type nobody has told, or told in a form that is none, has
// the type that is true of any object. It is written by hand: encoding/json took a tenth of the time of a small read.
func description(info object.Info) (string, error) {
	contentType := info.ContentType
	if !visible(contentType) {
		contentType = "application/octet-stream"
	}
	modified, metadata := "null", []byte("{}")
	if at := micros(info.Modified); at != nil {
		modified = strconv.FormatInt(*at, 10)
	}
	if len(info.Metadata) > 0 {
		lower := make(map[string]string, len(info.Metadata))
		for name, value := range info.Metadata {
			lower[strings.ToLower(name)] = value
		}
		var err error
		if metadata, err = json.Marshal(lower); err != nil {
			return "", err
		}
	}
	quoted := strconv.Quote(contentType) // JSON has the same form for visible ASCII
	return `{"content_type":` + quoted + `,"modified":` + modified + `,"metadata":` + string(metadata) + `}`, nil
}

// micros gives a time in microseconds since 1970, or nil if it is not known, or is none that Python has.
func micros(at time.Time) *int64 {
	if at.IsZero() || at.UTC().Year() < 1 || at.UTC().Year() > 9999 {
		return nil
	}
	return new(at.UnixMicro())
}

// visible tells whether a text can be a content type: at most 255 characters of visible ASCII, with blanks only in
// between. storage.arguments.check_content_type takes no other.
func visible(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return text != "" && len(text) <= 255 && strings.Trim(text, " ") == text
}

// fills tells whether room now holds all that was wanted. An error that prevents it is given again by the reader.
func (o *openedReader) fills(room []byte) bool {
	if !o.whole || o.Size > int64(len(room)) {
		return false
	}
	n, err := o.reader.ReadAt(room[:o.Size], 0)
	return int64(n) == o.Size && (err == nil || err == io.EOF)
}

type listed struct {
	Objects []object.Info `json:"objects"`
}

// page is some objects of a listing, and whether there may be more after the last one.
type page struct {
	Objects []entry `json:"objects"`
	More    bool    `json:"more"`
}

type entry struct {
	object.Info
	Modified *int64 `json:"modified"`
}

// onePage gives the next objects of a listing. An error that comes after some of them is that of the next page.
func onePage(ctx context.Context, on object.Store, r *Request) (page, error) {
	found := page{Objects: []entry{}}
	for info, err := range on.Walk(ctx, r.Prefix, r.After) {
		if err != nil && len(found.Objects) == 0 {
			if known, ok := err.(*object.Error); ok && known.Key == "" {
				about := *known
				about.Key = info.Key
				err = &about
			}
			return page{}, err
		}
		if err != nil {
			found.More = true
			break
		}
		found.Objects = append(found.Objects, entry{info, micros(info.Modified)})
		if found.More = len(found.Objects) >= r.Most; found.More {
			break
		}
	}
	return found, nil
}

type examined struct {
	Findings []object.Finding `json:"findings"`
}

type assembled struct {
	object.Info
	parts.Figures
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
	return object.PutOptions{
		Overwrite: r.Overwrite == nil || *r.Overwrite, New: r.New, ContentType: r.ContentType, Metadata: r.Metadata,
	}
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
		r.progress = r.pipe.Moved
		if r.Carry {
			r.pipe.Carry()
			return func(ctx context.Context) (any, error) {
				return parts.Put(ctx, on.Store, &on.runs, r.Key, r.pipe, r.options())
			}, nil
		}
		r.short = true
		return func(ctx context.Context) (any, error) { return on.Put(ctx, r.Key, r.pipe, r.options()) }, nil
	case "assemble":
		temp, err := t.store(r.TempStore)
		if err != nil {
			return nil, err
		}
		return r.assemble(on, temp), nil
	case "describe":
		return func(ctx context.Context) (any, error) {
			found, err := parts.Describe(ctx, on.Store, r.wanted())
			return listed{found}, err
		}, nil
	case "copy":
		return func(ctx context.Context) (any, error) {
			return parts.Copy(ctx, on.Store, r.Parts[0].wanted(), r.Key, r.options().Overwrite)
		}, nil
	case "adopt":
		return func(ctx context.Context) (any, error) {
			return parts.Adopt(ctx, on.Store, parts.Wanted{Key: r.Key, Expect: expected(r.Size, r.SHA256)})
		}, nil
	case "url":
		linker, ok := on.Store.(object.Linker)
		if !ok {
			return nil, object.Errorf(object.Internal, "objects of this store have no URLs")
		}
		return func(ctx context.Context) (any, error) {
			return linker.Link(ctx, r.Key, object.Link{
				Method: r.Method, Expires: time.Duration(r.Seconds * float64(time.Second)),
				ContentType: r.ContentType, Disposition: r.Disposition, Size: expected(r.Size, "").Size,
				CreateOnly: r.New, NoCopy: r.NoCopy, Upload: r.Upload, Part: r.Part,
			})
		}, nil
	case "extend":
		return func(ctx context.Context) (any, error) {
			count, err := parts.Extend(ctx, on.Store, &on.runs, r.Prefix, time.Duration(r.Seconds*float64(time.Second)))
			return counted{count}, err
		}, nil
	case "get":
		r.short = true
		return func(ctx context.Context) (any, error) {
			opened, err := parts.Open(ctx, on, parts.Wanted{Key: r.Key, Expect: expected(r.Size, r.SHA256)}, r.hint())
			if err != nil {
				return nil, err
			}
			return &openedReader{
				Info: opened.Info(), whole: r.hint() == object.Whole, borrows: opened.Borrows(), reader: &reader{opened, id},
			}, nil
		}, nil
	case "stat":
		r.short = true
		return func(ctx context.Context) (any, error) {
			info, err := on.Stat(ctx, r.Key)
			return described{info}, err
		}, nil
	case "delete":
		r.short = true
		if r.Temp {
			return func(ctx context.Context) (any, error) { return struct{}{}, parts.Delete(ctx, on, r.Key) }, nil
		}
		return func(ctx context.Context) (any, error) { return struct{}{}, on.Delete(ctx, r.Key) }, nil
	case "list":
		if r.Most > 0 {
			return func(ctx context.Context) (any, error) { return onePage(ctx, on, r) }, nil
		}
		return func(ctx context.Context) (any, error) {
			found, err := on.List(ctx, r.Prefix)
			return listed{found}, err
		}, nil
	case "delete_all":
		return func(ctx context.Context) (any, error) {
			count, err := parts.DeleteAll(ctx, on.Store, r.Prefix)
			return counted{count}, err
		}, nil
	case "check":
		return func(ctx context.Context) (any, error) { return struct{}{}, on.Check(ctx) }, nil
	case "survey":
		return func(ctx context.Context) (any, error) { return r.Sweep.Survey(ctx, on.Store) }, nil
	case "sweep":
		return func(ctx context.Context) (any, error) { return r.Sweep.Run(ctx, on.Store) }, nil
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

func checkKeys(op string, r *Request) error {
	switch op {
	case "list", "delete_all", "probe", "extend":
		if r.Most > 0 { // the prefix ends anywhere, and no key is made of it
			return nil
		}
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

func (r *Request) wanted() []parts.Wanted {
	wanted := make([]parts.Wanted, len(r.Parts))
	for i, part := range r.Parts {
		wanted[i] = part.wanted()
	}
	return wanted
}

// assemble makes the work of joining parts. Its commit waits until the caller has seen the final figures.
func (r *Request) assemble(final, temp *store) func(context.Context) (any, error) {
	r.commit = newCommit()
	work := &parts.Assembly{
		Final: final.Store, Temp: temp.Store, Key: r.Key, Parts: r.wanted(), Expect: expected(r.Size, r.SHA256),
		Options: r.options(), Commit: r.commit.wait,
	}
	r.progress, r.commit.figures = work.Done, work.Figures
	return func(ctx context.Context) (any, error) {
		info, err := work.Run(ctx)
		return assembled{info, work.Figures()}, err
	}
}

// commit is the point between the last byte and the moment when an object appears. The assembly waits there until its
// caller lets it go on.
type commit struct {
	ready  chan struct{}
	agreed chan struct{}
	arrive func()
	agree  func()
	tell   func() // tells that the assembly is there

	figures func() parts.Figures

	leave, enter func() // called around the wait for the caller, or nil
}

func newCommit() *commit {
	c := &commit{ready: make(chan struct{}), agreed: make(chan struct{})}
	c.arrive = sync.OnceFunc(func() { close(c.ready); c.tell() })
	c.agree = sync.OnceFunc(func() { close(c.agreed) })
	return c
}

func (c *commit) wait(ctx context.Context) error {
	c.arrive()
	if c.leave != nil {
		c.leave()
		defer c.enter()
	}
	select {
	case <-c.agreed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
