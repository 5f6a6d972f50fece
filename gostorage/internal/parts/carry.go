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

// Runs remembers the records of the latest parts that this process has put, and of those that it is putting: the next
// part is likely to come here, too. It also remembers where looks for other parts were in vain.
type Runs struct {
	mu     sync.Mutex
	byKey  map[string]digest.Record
	latest []string // keys, oldest first
	coming map[string]*coming
	vain   map[string]*vain // by folder
}

// coming is a part that is being put.
type coming struct {
	whole  bool          // all its bytes are here, so its record will be known soon
	known  chan struct{} // closed when record is known
	record *digest.Record
}

// vain counts looks in a folder that found no run to continue.
type vain struct {
	pause int // how many parts get no look after one in vain: 1, 2, 4 …
	left  int // of these parts
}

// mostPause bounds the parts of a session that get no look.
const mostPause = 64

// begin notes that a part is being put.
func (r *Runs) begin(key string, whole bool) *coming {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.coming == nil {
		r.coming = map[string]*coming{}
	}
	c := &coming{whole: whole, known: make(chan struct{})}
	r.coming[key] = c
	return c
}

// end notes that a part is not being put any more.
func (r *Runs) end(key string, c *coming) {
	c.tell("")
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.coming[key] == c {
		delete(r.coming, key)
	}
}

// tell says which record a part will have. What is said first counts.
func (c *coming) tell(record string) {
	select {
	case <-c.known:
		return
	default:
	}
	if carried, ok := digest.ParseRecord(record); ok {
		c.record = &carried
	}
	close(c.known)
}

// telling is a source that tells its record as soon as the store asks for it: before the part is stored.
type telling struct {
	*digest.Pipe
	coming *coming
}

// Record implements object.Source.
func (t telling) Record() string {
	record := t.Pipe.Record()
	t.coming.tell(record)
	return record
}

// near gives the record of a part that this process has put or is putting. If it is being put and its bytes are here,
// near waits for the record. there tells whether this process knows that a look would find no other.
func (r *Runs) near(ctx context.Context, key string) (record *digest.Record, there bool) {
	r.mu.Lock()
	c := r.coming[key]
	found, ok := r.byKey[key]
	r.mu.Unlock()
	if c != nil && c.whole {
		timer := time.NewTimer(lookWait)
		defer timer.Stop()
		select {
		case <-c.known:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if c != nil {
		select {
		case <-c.known:
			return c.record, true
		default:
		}
	}
	if ok {
		return &found, true
	}
	return nil, c != nil
}

// looks tells whether to look for the part before one of a folder. After looks in vain, few are made: parts come out of
// order, and none of them continues a run.
func (r *Runs) looks(folder string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.vain[folder]
	if v == nil || v.left == 0 {
		return true
	}
	v.left--
	return false
}

// looked notes what came of a look.
func (r *Runs) looked(folder string, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if found {
		delete(r.vain, folder)
		return
	}
	v := r.vain[folder]
	if v == nil {
		if r.vain == nil || len(r.vain) >= mostRuns {
			r.vain = map[string]*vain{}
		}
		v = &vain{}
		r.vain[folder] = v
	}
	v.pause = min(max(1, 2*v.pause), mostPause)
	v.left = v.pause
}

// mostRuns bounds the records that are remembered: some 250 bytes each.
const mostRuns = 256

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
	coming := runs.begin(key, src.Ended())
	defer runs.end(key, coming)
	src.Continue(before(ctx, to, runs, key))
	info, err := to.Put(ctx, key, telling{src, coming}, opts)
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
	if record, there := runs.near(ctx, previous); there || !runs.looks(folder) {
		return record
	}
	found := look(ctx, in, previous)
	runs.looked(folder, found != nil)
	if found == nil {
		found, _ = runs.near(ctx, previous) // it may have come meanwhile
	}
	return found
}

// look asks the store for the record of a part.
func look(ctx context.Context, in object.Store, key string) *digest.Record {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	info, err := in.Stat(ctx, key)
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
