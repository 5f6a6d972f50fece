// Package parts is about the temp parts of a session: what is known of them, the digest of the whole that continues
// from one to the next, and how they become one object.
package parts

import (
	"context"
	"maps"
	"path"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// atOnce is how many requests about parts run at a time, if the store has connections for them.
const atOnce = 16

// Wanted is a part with what the caller expects of it: Size -1 and SHA256 "" if it expects nothing.
type Wanted struct {
	Key    string
	Expect digest.Expect
}

// fits tells whether a part can be what is expected, as far as the store knows.
func (w Wanted) fits(info object.Info) bool {
	return (w.Expect.Size < 0 || info.Size == w.Expect.Size) &&
		(w.Expect.SHA256 == "" || info.SHA256 == "" || info.SHA256 == w.Expect.SHA256)
}

var errChanged = object.Errorf(object.Mismatch, "the object has changed: it has another size or SHA-256 than expected")

// Open opens an object that must be what the caller expects, as far as the store knows. Its bytes are verified when
// read.
func Open(ctx context.Context, from object.Store, want Wanted, hint object.Range) (*digest.Reader, error) {
	opened, err := from.Get(ctx, want.Key, hint)
	if err != nil {
		return nil, err
	}
	if !want.fits(opened.Info()) {
		_ = opened.Close()
		return nil, errChanged
	}
	return digest.NewReader(opened, want.Expect.SHA256), nil
}

// Describe tells what is there now of each part, with what its sidecar says.
func Describe(ctx context.Context, from object.Store, wanted []Wanted) ([]object.Info, error) {
	known, err := list(ctx, from, wanted)
	if err != nil {
		return nil, err
	}
	return describeListed(ctx, from, wanted, known)
}

// describeListed is Describe with the result of a listing.
func describeListed(
	ctx context.Context, from object.Store, wanted []Wanted, known map[string]object.Info,
) ([]object.Info, error) {
	found := make([]object.Info, len(wanted))
	var unknown []int
	for i, want := range wanted {
		info, there := known[want.Key]
		if !there {
			return nil, named(want.Key, object.Errorf(object.NotFound, "there is no such part"))
		}
		found[i] = info
		if _, noted := known[sidecar(want.Key)]; noted || info.SHA256 == "" {
			unknown = append(unknown, i)
		}
	}
	lanes := object.Lanes(from, atOnce)
	defer lanes.End()
	err := object.Each(ctx, lanes, unknown, func(ctx context.Context, i int) (err error) {
		key := wanted[i].Key
		_, noted := known[sidecar(key)]
		found[i], err = stat(ctx, from, key, noted)
		return named(key, err)
	})
	if err != nil {
		return nil, err
	}
	for i, want := range wanted {
		if !want.fits(found[i]) {
			return nil, named(want.Key, errChanged)
		}
	}
	return found, nil
}

// list gives all that lies in the folders of the parts: one request for a thousand of them, not one each.
func list(ctx context.Context, from object.Store, wanted []Wanted) (map[string]object.Info, error) {
	known := map[string]object.Info{}
	seen := map[string]bool{}
	for _, want := range wanted {
		folder := path.Dir(want.Key)
		if seen[folder] {
			continue
		}
		seen[folder] = true
		if folder == "." { // parts do not lie here
			info, err := from.Stat(ctx, want.Key)
			if err != nil && object.CodeOf(err) != object.NotFound {
				return nil, err
			}
			if err == nil {
				known[want.Key] = info
			}
			delete(seen, folder)
			continue
		}
		listed, err := from.List(ctx, folder+"/")
		if err != nil {
			return nil, err
		}
		maps.Copy(known, byKey(listed))
	}
	return known, nil
}

func byKey(listed []object.Info) map[string]object.Info {
	known := make(map[string]object.Info, len(listed))
	for _, info := range listed {
		known[info.Key] = info
	}
	return known
}

// stat describes a part. It adds what the sidecar says if that is about these bytes.
func stat(ctx context.Context, from object.Store, key string, noted bool) (object.Info, error) {
	info, err := from.Stat(ctx, key)
	if err == nil && noted {
		err = addNote(ctx, from, &info)
	}
	return info, err
}

func addNote(ctx context.Context, from object.Store, part *object.Info) error {
	note, err := readNote(ctx, from, part.Key)
	if err == nil {
		note.about(part)
	}
	return err
}

// longest gives the record of the longest run of parts from the first one on that has a record, and the number of
// parts.
func longest(all []object.Info) (digest.Record, int) {
	best, covered := digest.Start(), 0
	var chain digest.Chain
	var size int64
	for i, part := range all {
		next, ok := chain.Add(part)
		if !ok {
			break
		}
		chain, size = next, size+part.Size
		for _, record := range records(part) {
			if record.Chain == chain && record.Size == size {
				best, covered = record, i+1
			}
		}
	}
	return best, covered
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
