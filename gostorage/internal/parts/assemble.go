package parts

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// writeWait bounds a wait for room in a pipe, after which the context is checked.
const writeWait = 100 * time.Millisecond

// Assembly makes one object of parts, in the order given.
type Assembly struct {
	Final, Temp object.Store
	Key         string
	Parts       []Wanted
	Expect      digest.Expect
	Options     object.PutOptions
	// Commit is called when all bytes are in place and nothing is visible yet. It may wait; an error undoes everything.
	Commit func(context.Context) error

	copied, streamed, read atomic.Int64
	there                  atomic.Int64 // bytes that were in place before
}

// Done tells how many bytes are in place.
func (a *Assembly) Done() int64 { return a.there.Load() + a.copied.Load() + a.streamed.Load() }

// Figures of an assembly, in bytes. Copied did not pass this process. Read was read by it, for the digest or to send it
// on.
type Figures struct {
	Copied int64 `json:"copied"`
	Read   int64 `json:"read"`
}

// Figures so far.
func (a *Assembly) Figures() Figures { return Figures{a.copied.Load(), a.read.Load()} }

// Run carries out the assembly. It copies nothing before it knows that all parts are what is expected.
func (a *Assembly) Run(ctx context.Context) (object.Info, error) {
	all, err := Describe(ctx, a.Temp, a.Parts)
	if err != nil {
		return object.Info{}, err
	}
	return a.of(ctx, all)
}

// of makes the object of parts that were described.
func (a *Assembly) of(ctx context.Context, all []object.Info) (object.Info, error) {
	var size int64
	for _, part := range all {
		size += part.Size
	}
	if a.Expect.Size >= 0 && a.Expect.Size != size {
		return object.Info{}, object.Errorf(object.Mismatch, "the parts have %d bytes, %d were expected", size, a.Expect.Size)
	}
	known := wholly(all)
	if known.sum != "" && a.Expect.SHA256 != "" && known.sum != a.Expect.SHA256 {
		return object.Info{}, differs(known.sum, a.Expect.SHA256)
	}
	if !a.Options.Overwrite {
		if there, done, err := a.look(ctx, known, size); done {
			return there, err
		}
	}
	if joiner, ok := a.Final.(object.Joiner); ok {
		info, err := a.join(ctx, joiner, known, all, size)
		if err != object.ErrCannotJoin {
			return info, err
		}
	}
	expect := a.Expect
	if expect.SHA256 == "" {
		expect.SHA256 = known.sum
	}
	return a.stream(ctx, all, expect)
}

// look compares the assembly with an object that is there already, and settles it at once if it can: an assembly that
// is tried again after its answer was lost copies nothing.
func (a *Assembly) look(ctx context.Context, known knowledge, size int64) (there object.Info, done bool, err error) {
	there, err = a.Final.Stat(ctx, a.Key)
	switch {
	case err != nil || there.Size == size && (there.SHA256 == "" || known.sum == ""):
		return there, false, nil
	case a.Options.New:
		return object.Info{}, true, object.Errorf(object.Exists, "an object is already there")
	case there.Size != size || there.SHA256 != known.sum:
		return object.Info{}, true, object.Errorf(object.Exists, "a different object is already there")
	}
	a.there.Store(size)
	return there, true, a.Commit(ctx)
}

// knowledge is what is known for the digest of the whole, without reading.
type knowledge struct {
	run     digest.Record
	covered int    // number of parts in the run
	sum     string // the digest of the whole, or ""
}

func wholly(all []object.Info) knowledge {
	run, covered := longest(all)
	known := knowledge{run: run, covered: covered}
	switch {
	case covered == len(all):
		known.sum = run.SHA256()
	case len(all) == 1:
		known.sum = all[0].SHA256
	}
	return known
}

func differs(is, expected string) error {
	return object.Errorf(object.Mismatch, "the parts have SHA-256 %s, expected was %s", is, expected)
}

// join lets the store copy the parts.
func (a *Assembly) join(
	ctx context.Context, joiner object.Joiner, known knowledge, all []object.Info, size int64,
) (object.Info, error) {
	ctx, stop := context.WithCancelCause(ctx)
	sum := a.summing(ctx, stop, known, all)
	defer sum.end()
	defer stop(nil)
	return joiner.Join(ctx, &object.Join{
		Key: a.Key, From: a.Temp, Parts: all, Size: size, Options: a.Options,
		SHA256: func(ctx context.Context) (string, error) {
			if a.Expect.SHA256 != "" {
				return a.Expect.SHA256, nil // it is compared before the commit
			}
			return sum.wait(ctx)
		},
		Done: func(copied, streamed int64) {
			a.copied.Add(copied)
			a.streamed.Add(streamed)
			a.read.Add(streamed)
		},
		Commit: func(ctx context.Context) error {
			is, err := sum.wait(ctx)
			if err != nil {
				return err
			}
			if a.Expect.SHA256 != "" && is != a.Expect.SHA256 {
				return differs(is, a.Expect.SHA256)
			}
			return a.Commit(ctx)
		},
	})
}

// summing computes the digest of the whole while parts are copied. It reads the parts that no record covers.
type summing struct {
	sum  string
	err  error
	done chan struct{}
}

func (a *Assembly) summing(
	ctx context.Context, stop context.CancelCauseFunc, known knowledge, all []object.Info,
) *summing {
	s := &summing{sum: known.sum, done: make(chan struct{})}
	if s.sum != "" {
		close(s.done)
		return s
	}
	go func() {
		defer close(s.done)
		defer object.Rescue(&s.err)
		state, _ := known.run.Hash()
		for part, err := range opened(ctx, a.Temp, all[known.covered:], a.Parts[known.covered:]) {
			if err == nil {
				err = part.each(ctx, func(p []byte) error {
					a.read.Add(int64(len(p)))
					_, err := state.Write(p)
					return err
				})
			}
			if err != nil {
				s.err = named(part.info.Key, err)
				stop(s.err)
				return
			}
		}
		s.sum = digest.Sum(state)
	}()
	return s
}

func (s *summing) wait(ctx context.Context) (string, error) {
	select {
	case <-s.done:
		return s.sum, s.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// end waits until nothing is read any more.
func (s *summing) end() { <-s.done }

// stream puts the object like any other, from the bytes of the parts.
func (a *Assembly) stream(ctx context.Context, all []object.Info, expect digest.Expect) (object.Info, error) {
	a.copied.Store(0)
	a.streamed.Store(0)
	pipe := digest.NewPipe(buffers.Shared, expect)
	var pumping sync.WaitGroup
	defer pumping.Wait()
	defer pipe.Close()
	stop := context.AfterFunc(ctx, func() { pipe.Fail(context.Cause(ctx)) })
	defer stop()
	pumping.Go(func() {
		if err := a.pump(ctx, all, pipe); err != nil {
			pipe.Fail(err)
			return
		}
		pipe.CloseWrite()
	})
	info, err := a.Final.Put(ctx, a.Key, pipe, a.Options)
	if err != nil {
		pipe.Fail(err)
	}
	return info, err
}

func (a *Assembly) pump(ctx context.Context, all []object.Info, into *digest.Pipe) (err error) {
	defer object.Rescue(&err)
	for part, err := range opened(ctx, a.Temp, all, a.Parts) {
		if err == nil {
			err = part.each(ctx, func(p []byte) error {
				for len(p) > 0 {
					n, err := into.Write(p, writeWait)
					if err != nil {
						return err
					}
					a.read.Add(int64(n))
					a.streamed.Add(int64(n))
					p = p[n:]
				}
				return nil
			})
		}
		if err != nil {
			return named(part.info.Key, err)
		}
	}
	return a.Commit(ctx)
}
