package parts

import (
	"cmp"
	"context"
	"crypto/sha256"
	"io"
	"slices"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// keepEvery is how often progress is noted: a crash loses no more than that.
const keepEvery = 5 * time.Second

// Extend continues the digest of the whole over the parts of a session that are there without a gap, and tells how many
// it covers. If a part is to be read, it reads at least one; after the time most it begins no other.
func Extend(ctx context.Context, in object.Store, runs *Runs, folder string, most time.Duration) (int, error) {
	began := time.Now()
	all, err := inOrder(ctx, in, folder)
	if err != nil {
		return 0, err
	}
	run, covered := longest(all)
	state, ok := run.Hash()
	if !ok {
		return 0, object.Errorf(object.Internal, "a record that cannot be carried on")
	}
	kept, noted := covered, time.Now()
	note := func() error {
		if kept == covered {
			return nil
		}
		kept, noted = covered, time.Now()
		last := all[covered-1]
		runs.set(last.Key, run)
		return keep(ctx, in, last, run)
	}
	first, rest := covered, all[covered:]
	// Of some parts nothing could tell later that these were their bytes.
	if last := slices.IndexFunc(rest, func(part object.Info) bool { return part.SHA256 == "" && part.Version == "" }); last >= 0 {
		rest = rest[:last]
	}
	for opened, err := range opened(ctx, in, rest, make([]Wanted, len(rest))) {
		if covered > first && time.Since(began) >= most {
			break
		}
		part := opened.info
		if err == nil {
			part.SHA256, err = opened.sum(ctx, state)
		}
		if err != nil {
			_ = note()
			return 0, named(part.Key, err)
		}
		if run, ok = run.Add(part, state); !ok {
			return 0, object.Errorf(object.Internal, "a digest that is none")
		}
		own := all[covered].SHA256 == ""
		all[covered] = part
		covered++
		if own || time.Since(noted) > keepEvery {
			if err := note(); err != nil {
				return 0, err
			}
		}
	}
	return covered, note()
}

// inOrder describes the parts 1, 2, 3 … of a session, up to the first gap.
func inOrder(ctx context.Context, in object.Store, folder string) ([]object.Info, error) {
	listed, err := in.List(ctx, folder)
	if err != nil {
		return nil, err
	}
	var wanted []Wanted
	for _, info := range listed {
		if info.Key == partKey(folder, len(wanted)+1) {
			wanted = append(wanted, Wanted{info.Key, digest.Expect{Size: -1}})
		}
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	return describeListed(ctx, in, wanted, byKey(listed))
}

// sum reads a part into a hash. It gives the part's own digest.
func (p *openPart) sum(ctx context.Context, whole io.Writer) (string, error) {
	own := sha256.New()
	err := p.each(ctx, func(piece []byte) error {
		if p.info.SHA256 == "" {
			own.Write(piece)
		}
		_, err := whole.Write(piece)
		return err
	})
	if p.info.SHA256 != "" {
		return p.info.SHA256, err // which the reader has verified
	}
	return digest.Sum(own), err
}

// openAs opens a part that must be as it was described. Reading verifies the digest that is known, else the one
// expected, which may be "".
func openAs(ctx context.Context, in object.Store, part object.Info, expected string) (*digest.Reader, error) {
	opened, err := in.Get(ctx, part.Key, object.Whole)
	if err != nil {
		return nil, err
	}
	if !opened.Info().Same(part) {
		_ = opened.Close()
		return nil, errChanged
	}
	return digest.NewReader(opened, cmp.Or(part.SHA256, expected)), nil
}

// each gives all bytes of an opened part, in pieces. If somebody wrote to it meanwhile, it is not what was described.
func each(ctx context.Context, opened *digest.Reader, block []byte, give func([]byte) error) error {
	if err := eachPiece(ctx, opened, block, give); err != nil {
		return err
	}
	if mutable, ok := opened.Reader.(object.Mutable); ok && !mutable.Unchanged() {
		return errChanged
	}
	return nil
}

func eachPiece(ctx context.Context, opened *digest.Reader, block []byte, give func([]byte) error) error {
	for offset, size := int64(0), opened.Info().Size; ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := opened.ReadAt(block, offset)
		if err != nil && err != io.EOF && err != object.ErrNotYet {
			return err
		}
		if n > 0 {
			if err := give(block[:n]); err != nil {
				return err
			}
		}
		if offset += int64(n); offset >= size {
			return nil
		}
		if err == io.EOF {
			return object.Errorf(object.Mismatch, "the object ends after %d of %d bytes", offset, size)
		}
	}
}
