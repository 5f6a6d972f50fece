package parts

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// enough objects for a step of the tests.
const enough = 800

func TestWhatIsOurs(t *testing.T) {
	for key, want := range map[string]string{
		"s/00001": "part", "s/10000": "part", "s/00001.digest": "beside", "s/00000": "", "s/00000.digest": "", "s/1": "",
		"s/000001": "", "s/00001.txt": "", "s/0000a": "", "s/x/00001": "", "s/00001/x": "", "00001": "", "s/00001.digest.digest": "",
		"s/+0001": "", "s/.digest": "", "s/٠٠٠٠١": "",
	} {
		part, beside := ours(key)
		if part != (want == "part") || beside != (want == "beside") {
			t.Errorf("%q: %v %v, want %q", key, part, beside, want)
		}
	}
}

// sweepable is a store of things that were made a while ago; those removed are noted.
type sweepable struct {
	object.Store
	objects map[string]time.Duration
	writes  map[string]time.Duration
	ended   string // the key of a write that ends before it can be looked at
	mu      sync.Mutex
	removed []string
	now     time.Time
}

func (s *sweepable) Now() time.Time { return s.now }

func after[T any](from map[string]time.Duration, after string, of func(key string) T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var keys []string
		for key := range from {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		for _, key := range keys {
			if key > after && !yield(of(key), nil) {
				return
			}
		}
	}
}

func (s *sweepable) Walk(_ context.Context, _, from string) iter.Seq2[object.Info, error] {
	return after(s.objects, from, func(key string) object.Info {
		return object.Info{Key: key, Size: 1, Modified: s.now.Add(-s.objects[key])}
	})
}

func (s *sweepable) Unfinished(_ context.Context, from string) iter.Seq2[object.Unfinished, error] {
	return after(s.writes, from, func(key string) object.Unfinished {
		return object.Unfinished{Key: key, ID: key, Modified: s.now.Add(-time.Hour)}
	})
}

func (s *sweepable) Inspect(_ context.Context, write *object.Unfinished) error {
	if write.Key == s.ended {
		return object.Errorf(object.NotFound, "it has ended")
	}
	write.Size, write.Modified = 10, s.now.Add(-s.writes[write.Key])
	return nil
}

func (s *sweepable) Abandon(_ context.Context, write object.Unfinished) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed = append(s.removed, "upload "+write.Key)
	return nil
}

func (s *sweepable) DeleteMany(_ context.Context, keys []string) error {
	s.removed = append(s.removed, keys...)
	return nil
}

func TestSweepGoesByTheNewestOfASession(t *testing.T) {
	const old, young = 50 * time.Minute, 10 * time.Minute
	on := &sweepable{
		now: time.Now(), ended: "ended/00002",
		objects: map[string]time.Duration{
			"old/00001": old, "old/00001.digest": old, "old/00002": old,
			"sidecars/00001.digest": old,
			"young part/00001":      old, "young part/00002": young,
			"young sidecar/00001": old, "young sidecar/00001.digest": young,
			"young stranger/00001": old, "young stranger/a/b": young,
			"young upload/00001": old, "old upload/00001": old,
			"ended/00001":         old,
			"strangers/notes.txt": old, "stranger": old, "00001": old,
			"not asked/00001": old,
		},
		writes: map[string]time.Duration{
			"young upload/00002": young, "old upload/00002": old, "only upload/00001": old, "ended/00002": old,
			"young part/00003": old, "no session": old, "illegal//key": old, "not asked/00002": old, "young": young,
		},
	}
	sessions := []string{
		"ended", "old", "old upload", "only upload", "sidecars", "strangers", "young part", "young sidecar", "young stranger",
		"young upload",
	}
	r := &Sweep{Enough: enough, OlderThan: 1800, Parts: true}
	surveyed, err := r.Survey(context.Background(), on)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, session := range surveyed.Sessions {
		found = append(found, session.ID)
	}
	if want := []string{"not asked", "old upload", "old", "only upload", "sidecars"}; !slices.Equal(found, want) {
		t.Errorf("to be removed: %q, want %q", found, want)
	}
	if surveyed.Others != 2 || surveyed.Last != "" {
		t.Errorf("%+v", surveyed)
	}
	r.Sessions = &sessions
	want := Swept{Sessions: 2, Parts: 3, Uploads: 4, Size: 43}
	for _, r.DryRun = range []bool{true, false} {
		if done, err := r.Run(context.Background(), on); err != nil || done != want {
			t.Errorf("%+v %v, want %+v", done, err, want)
		}
		if r.DryRun && len(on.removed) > 0 {
			t.Errorf("a dry run removed %q", on.removed)
		}
	}
	removed := []string{
		"old upload/00001", "old/00001", "old/00001.digest", "old/00002", "sidecars/00001.digest",
		"upload illegal//key", "upload no session", "upload old upload/00002", "upload only upload/00001",
	}
	slices.Sort(on.removed)
	if !slices.Equal(on.removed, removed) {
		t.Errorf("removed: %q", on.removed)
	}
}

func TestSweepOfTheFinalAreaLeavesObjects(t *testing.T) {
	on := &sweepable{
		now:     time.Now(),
		objects: map[string]time.Duration{"a/00001": time.Hour},
		writes:  map[string]time.Duration{"a/00001": time.Hour, "a/00002": time.Minute, "b/c": time.Hour},
	}
	done, err := (&Sweep{Enough: enough, OlderThan: 1800}).Run(context.Background(), on)
	if want := (Swept{Uploads: 2, Size: 20}); err != nil || done != want {
		t.Errorf("%+v %v", done, err)
	}
	if slices.Sort(on.removed); !slices.Equal(on.removed, []string{"upload a/00001", "upload b/c"}) {
		t.Errorf("removed: %q", on.removed)
	}
}

func TestSweepGoesOnAtFolders(t *testing.T) {
	on := &sweepable{now: time.Now(), objects: map[string]time.Duration{}, writes: map[string]time.Duration{}}
	for session, parts := range map[string]int{"a": 500, "a-b": 700, "a0": 1, "b": 2 * enough, "c": 1, "d": 300} {
		for n := range parts {
			on.objects[fmt.Sprintf("%s/%05d", session, n+1)] = time.Hour
		}
	}
	for n := range 2 * enough {
		on.writes[fmt.Sprintf("c/%05d", n+1)] = time.Hour
	}
	on.writes["e"] = time.Hour
	r := &Sweep{Enough: enough, Parts: true}
	var found []Swept
	for {
		done, err := r.Run(context.Background(), on)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, done)
		if r.After = done.Last; r.After == "" {
			break
		}
	}
	want := []Swept{
		{Sessions: 2, Parts: 1200, Size: 1200, Last: "a0"}, {Sessions: 2, Parts: 1 + 2*enough, Size: 1 + 2*enough, Last: "b0"},
		{Sessions: 1, Parts: 1, Uploads: 2 * enough, Size: 1 + 20*enough, Last: "c0"},
		{Sessions: 1, Parts: 300, Uploads: 1, Size: 310},
	}
	if !slices.Equal(found, want) {
		t.Errorf("%+v\nwant %+v", found, want)
	}
}

func TestAFolderOfMoreThanASessionIsPassedOver(t *testing.T) {
	on := &sweepable{
		now:     time.Now(),
		objects: map[string]time.Duration{"a/00001": time.Hour, "z/00001": time.Hour},
		writes:  map[string]time.Duration{"m/00001": time.Hour},
	}
	for n := range mostInFolder + 1000 {
		on.objects[fmt.Sprintf("m/%05d", n+1)] = time.Hour
	}
	r := &Sweep{Enough: enough, Parts: true}
	for range 3 {
		done, err := r.Run(context.Background(), on)
		if err != nil {
			t.Fatal(err)
		}
		if r.After = done.Last; r.After == "" {
			break
		}
	}
	if !slices.Equal(on.removed, []string{"a/00001", "z/00001"}) {
		t.Errorf("removed: %d", len(on.removed))
	}
}

func TestTakeGivesTheErrorOfAWalk(t *testing.T) {
	failed := errors.New("failed")
	walk := func(yield func(string, error) bool) { _ = yield("a", nil) && yield("", failed) }
	if taken, _, err := take(&Sweep{Enough: enough}, walk, strings.Clone, "", math.MaxInt); taken != nil || err != failed {
		t.Error(taken, err)
	}
}

func TestTakeKeepsTheErrorOfOneThing(t *testing.T) {
	failed := errors.New("failed")
	walk := func(yield func(string, error) bool) { _ = yield("a/", failed) && yield("b", nil) }
	s := &Sweep{Enough: enough}
	taken, _, err := take(s, walk, strings.Clone, "", math.MaxInt)
	if !slices.Equal(taken, []string{"a/", "b"}) || err != nil || s.failed != failed {
		t.Error(taken, err, s.failed)
	}
}
