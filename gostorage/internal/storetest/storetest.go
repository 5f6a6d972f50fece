// Package storetest is the contract of object.Store as clauses that any Store must pass. Each clause gives an error
// instead of failing a test, so that the suite itself can be tested against Stores that break a promise.
package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// Clause is one promise.
type Clause struct {
	Name  string
	Check func(object.Store) error
}

// Run checks every clause on a fresh Store.
func Run(t *testing.T, open func(*testing.T) object.Store) {
	t.Helper()
	for _, clause := range Clauses {
		t.Run(clause.Name, func(t *testing.T) {
			store := open(t)
			lent := buffers.Shared.Lent()
			if err := clause.Check(store); err != nil {
				t.Fatal(err)
			}
			if now := buffers.Shared.Lent(); now != lent {
				t.Fatalf("%d blocks were not given back", now-lent)
			}
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Clauses of the contract.
var Clauses = []Clause{
	{"round_trip", roundTrip},
	{"replaces_whole", replacesWhole},
	{"description_is_told", describes},
	{"failing_source_leaves_nothing", failingSource},
	{"expectations_hold_before_commit", expectations},
	{"cancel_leaves_nothing", cancelled},
	{"missing_is_not_found_at_open", missing},
	{"delete_is_idempotent", deletes},
	{"list_is_ordered_and_bounded", lists},
	{"walk_goes_on_in_the_order_of_keys", walks},
	{"nothing_is_unfinished_after_a_failure", nothingUnfinished},
	{"delete_many_deletes_what_is_there", deletesMany},
	{"one_of_many_creates", oneCreates},
	{"identical_create_is_success", identicalCreate},
	{"reader_survives_change", readerSurvives},
	{"check_is_fine", func(s object.Store) error { return s.Check(context.Background()) }},
}

// Sizes lie around every border of a block and of a pipe.
var Sizes = []int{
	0, 1, buffers.Size - 1, buffers.Size, buffers.Size + 1, 8*buffers.Size - 1, 8 * buffers.Size, 8*buffers.Size + 1, 25<<20 + 7,
}

// Bytes gives n bytes that differ with seed.
func Bytes(n int, seed byte) []byte {
	data := make([]byte, n)
	state := uint32(seed) + 1
	for i := range data {
		state = state*1664525 + 1013904223
		data[i] = byte(state >> 24)
	}
	return data
}

func sum(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}

var anything = digest.Expect{Size: -1}

var errSource = errors.New("the source failed")

// put pumps data into a Store; with failAt >= 0 the source fails after failAt bytes.
func put(ctx context.Context, s object.Store, key string, data []byte, expect digest.Expect, overwrite bool, failAt int) (object.Info, error) {
	return putAs(ctx, s, key, data, expect, object.PutOptions{Overwrite: overwrite}, failAt)
}

func putAs(
	ctx context.Context, s object.Store, key string, data []byte, expect digest.Expect, opts object.PutOptions, failAt int,
) (object.Info, error) {
	pipe := digest.NewPipe(buffers.Shared, expect)
	defer pipe.Close()
	stop := context.AfterFunc(ctx, func() { pipe.Fail(context.Cause(ctx)) })
	defer stop()
	go func() {
		send := data
		if failAt >= 0 {
			send = data[:failAt]
		}
		for len(send) > 0 {
			n, err := pipe.Write(send[:min(len(send), 100_003)], time.Second)
			if err != nil {
				return
			}
			send = send[n:]
		}
		if failAt >= 0 {
			pipe.Fail(errSource)
			return
		}
		pipe.CloseWrite()
	}()
	return s.Put(ctx, key, pipe, opts)
}

// putDescribed stores an object with a content type and metadata.
func putDescribed(s object.Store, key string, data []byte, contentType string, metadata map[string]string) error {
	pipe := digest.NewPipe(buffers.Shared, anything)
	defer pipe.Close()
	go func() {
		if _, err := pipe.Write(data, time.Second); err == nil {
			pipe.CloseWrite()
		}
	}()
	_, err := s.Put(context.Background(), key, pipe, object.PutOptions{
		Overwrite: true, ContentType: contentType, Metadata: metadata,
	})
	return err
}

func store(s object.Store, key string, data []byte) error {
	info, err := put(context.Background(), s, key, data, anything, true, -1)
	if err != nil {
		return err
	}
	if info.Key != key || info.Size != int64(len(data)) || info.SHA256 != sum(data) {
		return fmt.Errorf("put of %d bytes answers %+v", len(data), info)
	}
	return nil
}

func holds(s object.Store, key string, want []byte) error {
	opened, err := s.Get(context.Background(), key, object.Whole)
	if err != nil {
		return err
	}
	defer func() { _ = opened.Close() }()
	reader := digest.NewReader(opened, sum(want))
	got, err := readAll(reader)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%q holds %d bytes that are not the %d put", key, len(got), len(want))
	}
	return nil
}

// readAll reads an object from its start; a Store may be slow.
func readAll(from object.Reader) ([]byte, error) {
	data := make([]byte, from.Info().Size)
	for done := 0; done < len(data); {
		n, err := from.ReadAt(data[done:], int64(done))
		done += n
		if err != nil && err != object.ErrNotYet && (err != io.EOF || done < len(data)) {
			return nil, err
		}
	}
	return data, nil
}

func is(err error, code object.Code) error {
	if object.CodeOf(err) != code {
		return fmt.Errorf("the error is %v (%s), not %s", err, object.CodeOf(err), code)
	}
	return nil
}

func absent(s object.Store, key string) error {
	_, err := s.Stat(context.Background(), key)
	return is(err, object.NotFound)
}

func roundTrip(s object.Store) error {
	for i, size := range Sizes {
		data, key := Bytes(size, byte(i)), fmt.Sprintf("uploads/%d/ä %d", i, size)
		if err := errors.Join(store(s, key, data), holds(s, key, data)); err != nil {
			return err
		}
		info, err := s.Stat(context.Background(), key)
		if err != nil {
			return err
		}
		if info.Key != key || info.Size != int64(size) || (info.SHA256 != "" && info.SHA256 != sum(data)) {
			return fmt.Errorf("stat answers %+v", info)
		}
	}
	return nil
}

func replacesWhole(s object.Store) error {
	long, short := Bytes(600_000, 1), Bytes(10, 2)
	return errors.Join(store(s, "k", long), store(s, "k", short), holds(s, "k", short))
}

func failingSource(s object.Store) error {
	data := Bytes(5*buffers.Size, 1)
	for _, failAt := range []int{0, 1, buffers.Size, len(data)} {
		_, err := put(context.Background(), s, "a/new", data, anything, true, failAt)
		if !errors.Is(err, errSource) {
			return fmt.Errorf("a source that fails at %d gives %v", failAt, err)
		}
		if err := absent(s, "a/new"); err != nil {
			return err
		}
	}
	before := []byte("before")
	if err := store(s, "old", before); err != nil {
		return err
	}
	if _, err := put(context.Background(), s, "old", data, anything, true, buffers.Size+1); !errors.Is(err, errSource) {
		return fmt.Errorf("a failing replacement gives %v", err)
	}
	return holds(s, "old", before)
}

func describes(s object.Store) error {
	metadata := map[string]string{"by": "Zo\u00eb <\u2028>", "long": strings.Repeat("v", 1500)}
	if err := errors.Join(putDescribed(s, "k", []byte("x"), "text/plain", metadata), store(s, "plain", nil)); err != nil {
		return err
	}
	opened, err := s.Get(context.Background(), "k", object.Whole)
	if err != nil {
		return err
	}
	defer func() { _ = opened.Close() }()
	info, err := s.Stat(context.Background(), "k")
	if err != nil {
		return err
	}
	for _, info := range []object.Info{info, opened.Info()} {
		if info.ContentType != "text/plain" || !maps.Equal(info.Metadata, metadata) || info.Modified.IsZero() {
			return fmt.Errorf("the description is %+v", info)
		}
	}
	info, err = s.Stat(context.Background(), "plain")
	if info.ContentType != "" && info.ContentType != "application/octet-stream" || len(info.Metadata) > 0 {
		return fmt.Errorf("an object that nobody described is %+v", info)
	}
	return err
}

func expectations(s object.Store) error {
	data := Bytes(2*buffers.Size, 3)
	for _, expect := range []digest.Expect{
		{Size: int64(len(data)) - 1},
		{Size: int64(len(data)) + 1},
		{Size: 0},
		{Size: -1, SHA256: sum(data[1:])},
	} {
		_, err := put(context.Background(), s, "k", data, expect, true, -1)
		if err := errors.Join(is(err, object.Mismatch), absent(s, "k")); err != nil {
			return fmt.Errorf("%+v: %w", expect, err)
		}
	}
	_, err := put(context.Background(), s, "k", data, digest.Expect{Size: int64(len(data)), SHA256: sum(data)}, true, -1)
	return errors.Join(err, holds(s, "k", data))
}

func cancelled(s object.Store) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(object.Errorf(object.Cancelled, "cancelled"))
	_, err := put(ctx, s, "k", Bytes(3*buffers.Size, 1), anything, true, -1)
	return errors.Join(is(err, object.Cancelled), absent(s, "k"))
}

func missing(s object.Store) error {
	_, err := s.Get(context.Background(), "a/b", object.Whole)
	if err := is(err, object.NotFound); err != nil {
		return err
	}
	if err := store(s, "a/b/c", nil); err != nil {
		return err
	}
	_, err = s.Get(context.Background(), "a/b", object.Whole) // a folder is no object
	_, below := s.Get(context.Background(), "a/b/c/d", object.Whole)
	return errors.Join(is(err, object.NotFound), is(below, object.NotFound))
}

func deletes(s object.Store) error {
	err := errors.Join(store(s, "a/b", []byte("x")), s.Delete(context.Background(), "a/b"), absent(s, "a/b"))
	err = errors.Join(err, s.Delete(context.Background(), "a/b"), s.Delete(context.Background(), "never/was"))
	return errors.Join(err, store(s, "a", []byte("y")), holds(s, "a", []byte("y")))
}

func lists(s object.Store) error {
	var want []string
	for n := 1; n <= 30; n++ {
		key := fmt.Sprintf("session/%05d", 31-n)
		want = append([]string{key}, want...)
		if err := store(s, key, Bytes(n, byte(n))); err != nil {
			return err
		}
	}
	if err := errors.Join(store(s, "session2/00001", nil), store(s, "other", nil)); err != nil {
		return err
	}
	found, err := s.List(context.Background(), "session/")
	if err != nil {
		return err
	}
	var got []string
	for _, info := range found {
		got = append(got, info.Key)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		return fmt.Errorf("list gives %v", got)
	}
	none, err := s.List(context.Background(), "nothing/")
	if len(none) != 0 {
		return fmt.Errorf("an empty folder lists %v", none)
	}
	return err
}

func oneCreates(s object.Store) error {
	const writers = 16
	results := make([]error, writers)
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() {
			_, results[i] = put(context.Background(), s, "race/k", Bytes(50_000, byte(i)), anything, false, -1)
		})
	}
	group.Wait()
	winner := -1
	for i, err := range results {
		if err == nil && winner >= 0 {
			return fmt.Errorf("both %d and %d won", winner, i)
		}
		if err == nil {
			winner = i
		} else if err := is(err, object.Exists); err != nil {
			return err
		}
	}
	if winner < 0 {
		return errors.New("nobody won")
	}
	return holds(s, "race/k", Bytes(50_000, byte(winner)))
}

func identicalCreate(s object.Store) error {
	for range 2 {
		if _, err := put(context.Background(), s, "k", []byte("same"), anything, false, -1); err != nil {
			return err
		}
	}
	_, err := put(context.Background(), s, "k", []byte("diff"), anything, false, -1)
	_, second := putAs(context.Background(), s, "k", []byte("same"), anything, object.PutOptions{New: true}, -1)
	return errors.Join(is(err, object.Exists), is(second, object.Exists), holds(s, "k", []byte("same")))
}

func readerSurvives(s object.Store) error {
	old := Bytes(700_000, 1)
	if err := store(s, "k", old); err != nil {
		return err
	}
	opened, err := s.Get(context.Background(), "k", object.Whole)
	if err != nil {
		return err
	}
	defer func() { _ = opened.Close() }()
	if err := errors.Join(store(s, "k", []byte("new")), s.Delete(context.Background(), "k")); err != nil {
		return err
	}
	got, err := readAll(opened)
	if err == nil && !bytes.Equal(got, old) {
		err = errors.New("an open reader sees a later object")
	}
	return err
}

func walks(s object.Store) error {
	// The order of keys is not that of names in a folder: "a-b/1" comes before "a/1".
	keys := []string{
		"A/1", "a b/1", "a!/1", "a-b/1", "a-b/2", "a.b/1", "a/1", "a/2", "a/3/x", "a0/1", "b", "z/1", "\u00e9/1", "\U0001f600/1",
	}
	before := s.Now()
	for _, i := range []int{5, 0, 9, 1, 13, 7, 2, 11, 3, 8, 4, 10, 6, 12} {
		if err := store(s, keys[i], Bytes(i, 1)); err != nil {
			return err
		}
	}
	for i := -1; i < len(keys); i++ {
		after := ""
		if i >= 0 {
			after = keys[i]
		}
		if err := walksFrom(s, after, keys[i+1:], before); err != nil {
			return err
		}
	}
	if err := walksFrom(s, "a0", keys[9:], before); err != nil { // behind all of a/
		return err
	}
	for range s.Walk(context.Background(), "", "") {
		break
	}
	for prefix, want := range map[string][]string{
		"a":      {"a b/1", "a!/1", "a-b/1", "a-b/2", "a.b/1", "a/1", "a/2", "a/3/x", "a0/1"},
		"a/":     {"a/1", "a/2", "a/3/x"},
		"a/3":    {"a/3/x"},
		"a/3/x":  {"a/3/x"},
		"a-":     {"a-b/1", "a-b/2"},
		"b":      {"b"},
		"b/":     nil,
		"\u00e9": {"\u00e9/1"},
		"a/3/xx": nil, "c": nil, "/": nil, "../": nil, "a//": nil, "a/./": nil,
	} {
		if err := walksBelow(s, prefix, "", want, before); err != nil {
			return err
		}
		for i, key := range want {
			if err := walksBelow(s, prefix, key, want[i+1:], before); err != nil {
				return err
			}
		}
	}
	return nil
}

func walksFrom(s object.Store, after string, want []string, since time.Time) error {
	return walksBelow(s, "", after, want, since)
}

func walksBelow(s object.Store, prefix, after string, want []string, since time.Time) error {
	var found []string
	for info, err := range s.Walk(context.Background(), prefix, after) {
		if err != nil {
			return err
		}
		found = append(found, info.Key)
		if age := s.Now().Sub(info.Modified); age < -time.Second || age > s.Now().Sub(since)+2*time.Second {
			return fmt.Errorf("%q seems %v old", info.Key, age)
		}
	}
	if !slices.Equal(found, want) {
		return fmt.Errorf("below %q, after %q there are %q, not %q", prefix, after, found, want)
	}
	return nil
}

func nothingUnfinished(s object.Store) error {
	data := Bytes(12<<20, 1)
	if _, err := put(context.Background(), s, "k", data, anything, true, len(data)-1); err == nil {
		return errors.New("a put whose source failed succeeds")
	}
	for write, err := range s.Unfinished(context.Background(), "") {
		if err != nil {
			return err
		}
		return fmt.Errorf("%+v is left", write)
	}
	return nil
}

func deletesMany(s object.Store) error {
	keys := []string{"a/1", "missing/1", "a/missing", "b/1", "a/2"}
	for _, key := range []string{"a/1", "a/2", "a/3", "b/1"} {
		if err := store(s, key, Bytes(1, 1)); err != nil {
			return err
		}
	}
	for range 2 {
		if err := s.DeleteMany(context.Background(), keys); err != nil {
			return err
		}
	}
	return walksFrom(s, "", []string{"a/3"}, s.Now().Add(-time.Minute))
}
