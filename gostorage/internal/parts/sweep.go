package parts

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// Sweep is a step of a sweep: as much of a store as one call does.
type Sweep struct {
	After     string  `json:"after"`      // the place to begin at: "", or the last of another step
	Until     string  `json:"until"`      // the place to end at, unless the step ends before
	OlderThan float64 `json:"older_than"` // seconds
	// Parts says that the store holds the parts of sessions, which go with their session; else only unfinished writes
	// go.
	Parts bool `json:"parts"`
	// Sessions are the sessions that may go; nil is for all.
	Sessions *[]string `json:"sessions"`
	DryRun   bool      `json:"dry_run"`
	// Enough objects, or unfinished writes, end the step with their folder.
	Enough int `json:"enough"`

	unseen string
	failed error // about something that cannot be looked at: it stays, but nothing else does
}

// Surveyed is what a sweep would remove, in order, and the place where it would go on, or "".
type Surveyed struct {
	Sessions []Session `json:"sessions"`
	Others   int       `json:"others"` // unfinished writes of no session
	Failed   bool      `json:"failed"` // something cannot be looked at: the error comes after the rest is removed
	Last     string    `json:"last"`
	Unseen   string    `json:"unseen"` // what the store does not let a sweep look at, and why, or ""
}

// Session is a session that may go.
type Session struct {
	ID   string `json:"id"`
	Last string `json:"last"` // the place behind it
}

// Swept counts what was removed. Sessions are those with parts; Size is in bytes.
type Swept struct {
	Sessions int    `json:"sessions"`
	Parts    int    `json:"parts"`
	Uploads  int    `json:"uploads"`
	Size     int64  `json:"size"`
	Last     string `json:"last"`
	Unseen   string `json:"unseen"` // as in Surveyed
}

// mostInFolder is more than a session has: 10,000 parts, and what is kept beside them.
const mostInFolder = 30_000

// litter is what goes together: a session, or an unfinished write that belongs to none.
type litter struct {
	session string // or ""
	last    string // the place behind it
	newest  time.Time
	objects int      // below it
	keys    []string // of parts and what is kept beside them
	parts   int
	size    int64
	writes  []*object.Unfinished
}

// seen notes when something of it was modified. Without a time, it may be young.
func (l *litter) seen(modified time.Time) {
	if modified.IsZero() {
		modified = someday
	}
	if modified.After(l.newest) {
		l.newest = modified
	}
}

// someday is later than any limit of a sweep.
var someday = time.Unix(math.MaxInt32, 0)

// Survey tells what Run would remove, so that somebody can be asked about it.
func (s *Sweep) Survey(ctx context.Context, in object.Store) (Surveyed, error) {
	found, last, err := s.litter(ctx, in)
	old := Surveyed{Sessions: []Session{}, Failed: s.failed != nil, Last: last, Unseen: s.unseen}
	for _, one := range found {
		if one.session == "" {
			old.Others++
			continue
		}
		old.Sessions = append(old.Sessions, Session{one.session, one.last})
	}
	return old, err
}

// Run removes what is old. Something that cannot be looked at, or removed, does not keep the rest from being removed.
func (s *Sweep) Run(ctx context.Context, in object.Store) (Swept, error) {
	found, last, err := s.litter(ctx, in)
	if err != nil {
		return Swept{}, err
	}
	if s.Sessions != nil {
		found = slices.DeleteFunc(found, func(one *litter) bool {
			return one.session != "" && !slices.Contains(*s.Sessions, one.session)
		})
	}
	if !s.DryRun {
		err = removeAll(ctx, in, found)
	}
	done := Swept{Last: last, Unseen: s.unseen}
	for _, one := range found {
		done.Parts += one.parts
		done.Uploads += len(one.writes)
		done.Size += one.size
		if one.parts > 0 {
			done.Sessions++
		}
	}
	if err == nil {
		err = s.failed
	}
	return done, err
}

func removeAll(ctx context.Context, in object.Store, all []*litter) error {
	var keys []string
	var writes []*object.Unfinished
	for _, one := range all {
		keys = append(keys, one.keys...)
		writes = append(writes, one.writes...)
	}
	failed := eachWrite(ctx, in, writes, func(ctx context.Context, write *object.Unfinished) error {
		return in.Abandon(ctx, *write)
	})
	if err := in.DeleteMany(ctx, keys); err != nil {
		return err
	}
	return failed
}

// eachWrite calls do for every write, some at a time, and gives the first error.
func eachWrite(
	ctx context.Context, in object.Store, writes []*object.Unfinished,
	do func(context.Context, *object.Unfinished) error,
) error {
	var once sync.Once
	var first error
	lanes := object.Lanes(in, atOnce)
	defer lanes.End()
	err := object.Each(ctx, lanes, writes, func(ctx context.Context, write *object.Unfinished) error {
		if err := do(ctx, write); err != nil {
			once.Do(func() { first = named(write.Key, err) })
		}
		return nil
	})
	return cmp.Or(err, first)
}

// litter gives what is old, from After to the end of a folder. last is the place of that end, or "" at the end of all.
//
// It lists unfinished writes before objects: a write that ends in between shows as a young object.
func (s *Sweep) litter(ctx context.Context, in object.Store) (old []*litter, last string, err error) {
	writes, last, err := take(
		s, in.Unfinished(ctx, s.After), func(one object.Unfinished) string { return one.Key }, s.Until, math.MaxInt,
	)
	if s.sees(err) != nil {
		return nil, "", err
	}
	if err != nil {
		writes, last = nil, s.Until
	}
	var objects []object.Info
	if s.Parts {
		objects, last, err = take(
			s, in.Walk(ctx, "", s.After), func(one object.Info) string { return one.Key }, last, mostInFolder,
		)
		if err != nil {
			return nil, "", err
		}
	}
	limit := in.Now().Add(-time.Duration(s.OlderThan * float64(time.Second)))
	young := func(one *litter) bool { return one.newest.After(limit) }
	all := slices.DeleteFunc(s.sort(objects, writes, last), young)
	if err := s.inspect(ctx, in, all, limit); err != nil {
		return nil, "", err
	}
	return slices.DeleteFunc(all, young), last, nil
}

// sees notes what the store does not let us look at, and gives all other errors back.
func (s *Sweep) sees(err error) error {
	if unseen, ok := errors.AsType[*object.Unseen](err); ok {
		s.unseen = unseen.Error()
		return nil
	}
	return err
}

// behind is the place behind all keys of a key's folder: 0 is the character after a slash. If there are no sessions, it
// is the key itself.
func (s *Sweep) behind(key string) string {
	if folder, _, below := strings.Cut(key, "/"); below && s.Parts {
		return folder + "0"
	}
	return key
}

// take takes from a walk what lies before the place until ("": all), or enough of it, and gives the place that it came
// to. From a folder it takes at most one more than most. It also takes what cannot be looked at: that may be young.
func take[T any](
	s *Sweep, walk iter.Seq2[T, error], keyOf func(T) string, until string, most int,
) (taken []T, last string, err error) {
	begun := 0 // where the folder begins in taken
	for one, err := range walk {
		key := keyOf(one)
		if err != nil && key == "" {
			return nil, "", err
		}
		if err != nil && s.failed == nil {
			s.failed = named(strings.TrimSuffix(key, "/"), err)
		}
		place := s.behind(key)
		if until != "" && place > until {
			break
		}
		if place != last {
			if len(taken) >= s.Enough {
				return taken, last, nil
			}
			begun, last = len(taken), place
		}
		taken = append(taken, one)
		if len(taken)-begun > most {
			return taken, last, nil
		}
	}
	return taken, until, nil
}

// sort groups what belongs together. Objects that are not ours make their session younger, and do nothing else.
func (s *Sweep) sort(objects []object.Info, writes []object.Unfinished, last string) []*litter {
	var all []*litter
	sessions := map[string]*litter{}
	of := func(key string, modified time.Time) *litter {
		session, _, below := strings.Cut(key, "/")
		if !below || !s.Parts || object.CheckKey(strings.TrimSuffix(key, "/")) != nil {
			session = ""
		}
		one, ok := sessions[session]
		if !ok || session == "" {
			one = &litter{session: session, last: s.behind(key)}
			all = append(all, one)
			sessions[session] = one
		}
		one.seen(modified)
		return one
	}
	for i, write := range writes {
		if last == "" || s.behind(write.Key) <= last {
			one := of(write.Key, write.Modified)
			one.writes = append(one.writes, &writes[i])
		}
	}
	for _, info := range objects {
		one := of(info.Key, info.Modified)
		one.objects++
		part, beside := ours(info.Key)
		if part {
			one.parts++
			one.size += info.Size
		}
		if part || beside {
			one.keys = append(one.keys, info.Key)
		}
	}
	all = slices.DeleteFunc(all, func(one *litter) bool {
		return len(one.keys)+len(one.writes) == 0 || one.objects > mostInFolder // nothing of ours
	})
	slices.SortStableFunc(all, func(a, b *litter) int { return strings.Compare(a.last, b.last) })
	return all
}

// ours tells whether a key of the temp store is that of a part, or of its sidecar.
func ours(key string) (part, beside bool) {
	_, name, _ := strings.Cut(key, "/")
	number := strings.TrimSuffix(name, suffix)
	if len(number) != 5 || strings.Trim(number, "0123456789") != "" || number == "00000" || number > "10000" {
		return false, false
	}
	return !isSidecar(key), isSidecar(key)
}

// inspect finds out when the last byte of each unfinished write arrived. A write that has ended meanwhile has made
// something young. A write that cannot be looked at stays.
func (s *Sweep) inspect(ctx context.Context, in object.Store, all []*litter, limit time.Time) error {
	var writes []*object.Unfinished
	for _, one := range all {
		writes = append(writes, one.writes...)
	}
	var mu sync.Mutex
	hidden := map[*object.Unfinished]bool{}
	err := eachWrite(ctx, in, writes, func(ctx context.Context, write *object.Unfinished) error {
		err := in.Inspect(ctx, write)
		if object.CodeOf(err) == object.NotFound {
			write.Modified = limit.Add(1)
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if failed := s.sees(err); failed != nil || err == nil {
			return failed
		}
		hidden[write] = true
		return nil
	})
	for _, one := range all {
		one.writes = slices.DeleteFunc(one.writes, func(write *object.Unfinished) bool { return hidden[write] })
		for _, write := range one.writes {
			one.size += write.Size
			one.seen(write.Modified)
		}
	}
	return err
}
