package parts

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// lookWait bounds the search for the run that a part continues: the bytes of the part wait meanwhile.
const lookWait = 2 * time.Second

// Runs remembers the records of the latest parts that this process has put: the next part is likely to come here, too.
type Runs struct {
	mu     sync.Mutex
	byKey  map[string]digest.Record
	latest []string // keys, oldest first
}

// mostRuns bounds the records that are remembered: some 250 bytes each.
const mostRuns = 256

func (r *Runs) get(key string) (digest.Record, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	found, ok := r.byKey[key]
	return found, ok
}

func (r *Runs) set(key string, record digest.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byKey == nil {
		r.byKey = map[string]digest.Record{}
	}
	if _, ok := r.byKey[key]; !ok {
		if r.latest = append(r.latest, key); len(r.latest) > mostRuns {
			delete(r.byKey, r.latest[0])
			r.latest = r.latest[1:]
		}
	}
	r.byKey[key] = record
}

// forget drops the record of a part when it is no longer true.
func (r *Runs) forget(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.byKey[key]; ok {
		delete(r.byKey, key)
		r.latest = slices.DeleteFunc(r.latest, func(one string) bool { return one == key })
	}
}

// Put stores a part. While parts come in order, it continues the digest of the whole over the part.
func Put(
	ctx context.Context, to object.Store, runs *Runs, key string, src *digest.Pipe, opts object.PutOptions,
) (object.Info, error) {
	src.Continue(before(ctx, to, runs, key))
	info, err := to.Put(ctx, key, src, opts)
	if err != nil {
		return info, err
	}
	record := src.Record()
	if carried, ok := digest.ParseRecord(record); ok {
		runs.set(key, carried)
	} else {
		runs.forget(key)
	}
	if info.Record == "" && (record != "" || info.Version != "") {
		// The part is stored whatever becomes of the note. Without the note, it has to be read again.
		_ = writeNote(ctx, to, key, note{info.Version, info.Size, info.SHA256, record})
	}
	return info, nil
}

// before gives the record of the run that a part continues, or nil. It may be out of date: then what continues it is of
// no use, and does no harm.
func before(ctx context.Context, in object.Store, runs *Runs, key string) *digest.Record {
	folder, name := path.Split(key)
	number, err := strconv.Atoi(name)
	if err != nil {
		return nil
	}
	if number == 1 {
		start := digest.Start()
		return &start
	}
	previous := partKey(folder, number-1)
	if record, ok := runs.get(previous); ok {
		return &record
	}
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	info, err := in.Stat(ctx, previous)
	if err == nil && info.Record == "" {
		err = addNote(ctx, in, &info)
	}
	if err != nil {
		return nil
	}
	if found := records(info); len(found) > 0 {
		return &found[len(found)-1]
	}
	return nil
}

func partKey(folder string, number int) string { return fmt.Sprintf("%s%05d", folder, number) }
