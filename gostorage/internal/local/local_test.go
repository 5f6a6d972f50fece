package local_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/local"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/storetest"
)

func config(root string) local.Config {
	return local.Config{Root: root, Durable: true, FileMode: 0o640, DirectoryMode: 0o750}
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) object.Store {
		root := filepath.Join(t.TempDir(), "made", "later")
		t.Cleanup(func() { nothingStaged(t, root) })
		return local.Open(config(root))
	})
}

func nothingStaged(t *testing.T, root string) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(root, local.StagingName))
	if err != nil || len(left) > 0 {
		t.Errorf("left in the staging folder: %v (%v)", left, err)
	}
}

func TestSymbolicLinkCannotLeadOut(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "way")); err != nil {
		t.Fatal(err)
	}
	store := local.Open(config(root))
	defer func() { _ = store.Close() }()
	if _, err := store.Get(context.Background(), "way/secret", object.Whole); object.CodeOf(err) != object.Permission {
		t.Errorf("a link out of the store gives %v", err)
	}
	if err := store.Delete(context.Background(), "way/secret"); object.CodeOf(err) != object.Permission {
		t.Errorf("deleting through a link gives %v", err)
	}
	if _, err := os.Stat(filepath.Join(outside, "secret")); err != nil {
		t.Error(err)
	}
}

// copied is a Join of parts that were put before; told of each piece that is in place.
func copied(t *testing.T, from object.Store, told func(), keys ...string) *object.Join {
	t.Helper()
	join := &object.Join{
		Key: "whole", From: from, Options: object.PutOptions{Overwrite: true},
		SHA256: func(context.Context) (string, error) { return strings.Repeat("0", 64), nil },
		Done:   func(int64, int64) { told() },
		Commit: func(context.Context) error { return nil },
	}
	for _, key := range keys {
		info, err := from.Stat(context.Background(), key)
		if err != nil {
			t.Fatal(err)
		}
		join.Parts = append(join.Parts, info)
		join.Size += info.Size
	}
	return join
}

func put(t *testing.T, to object.Store, key, data string) {
	t.Helper()
	pipe := digest.NewPipe(buffers.Shared, digest.Expect{Size: -1})
	defer pipe.Close()
	if _, err := pipe.Write([]byte(data), time.Second); err != nil {
		t.Fatal(err)
	}
	pipe.CloseWrite()
	if _, err := to.Put(context.Background(), key, pipe, object.PutOptions{Overwrite: true}); err != nil {
		t.Fatal(err)
	}
}

func TestPartsThatAreWrittenToWhileTheyAreCopied(t *testing.T) {
	temp, root := t.TempDir(), t.TempDir()
	from, store := local.Open(config(temp)), local.Open(config(root))
	defer func() { _ = from.Close(); _ = store.Close() }()
	put(t, from, "s/1", "one")
	put(t, from, "s/2", "two")
	part := filepath.Join(temp, "s", "2")
	times := 0
	join := copied(t, from, func() {
		if times++; times == 2 { // as it is being copied
			later := time.Now().Add(time.Hour)
			if err := errors.Join(os.WriteFile(part, []byte("TWO"), 0o600), os.Chtimes(part, later, later)); err != nil {
				t.Fatal(err)
			}
		}
	}, "s/1", "s/2")
	_, err := store.Join(context.Background(), join)
	if known, ok := err.(*object.Error); !ok || known.Code != object.Mismatch || known.Key != "s/2" {
		t.Errorf("a part that was written to gives %v", err)
	}
	if _, err := store.Join(context.Background(), join); object.CodeOf(err) != object.Mismatch {
		t.Errorf("a part that was written to before gives %v", err)
	}
	if _, err := store.Stat(context.Background(), "whole"); object.CodeOf(err) != object.NotFound {
		t.Errorf("the object: %v", err)
	}
	nothingStaged(t, root)
}

// The copying of one part ends because another one cannot be read: the error is about that.
func TestWhatEndsAJoinKeepsItsName(t *testing.T) {
	from, store := local.Open(config(t.TempDir())), local.Open(config(t.TempDir()))
	defer func() { _ = from.Close(); _ = store.Close() }()
	put(t, from, "s/1", "one")
	put(t, from, "s/2", "two")
	ctx, stop := context.WithCancelCause(context.Background())
	stop(&object.Error{Code: object.Mismatch, Key: "s/2"})
	_, err := store.Join(ctx, copied(t, from, func() {}, "s/1", "s/2"))
	if known, ok := err.(*object.Error); !ok || known.Code != object.Mismatch || known.Key != "s/2" {
		t.Errorf("it is %+v", err)
	}
}

func TestRecordsAreKeptWithWhatTheyWereMadeFor(t *testing.T) {
	store := local.Open(config(t.TempDir()))
	defer func() { _ = store.Close() }()
	put(t, store, "s/1", "one")
	before, _ := store.Stat(context.Background(), "s/1")
	for _, replace := range []func(){
		func() { put(t, store, "s/1", "two") },
		func() { _ = store.Delete(context.Background(), "s/1") },
	} {
		replace()
		if kept, err := store.Keep(context.Background(), before, "record"); !kept || err != nil {
			t.Error("it would be kept beside the part that is there now")
		}
		if now, _ := store.Stat(context.Background(), "s/1"); now.Record != "" {
			t.Errorf("%q is kept with another part", now.Record)
		}
	}
	put(t, store, "s/1", "one")
	if kept, err := store.Keep(context.Background(), before, "record"); !kept || err != nil {
		t.Error(kept, err)
	}
	if now, _ := store.Stat(context.Background(), "s/1"); now.Record != "record" { // the same bytes
		t.Errorf("kept is %q", now.Record)
	}
}

func TestRemovedRootIsMadeAgain(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	store := local.Open(config(root))
	defer func() { _ = store.Close() }()
	for range 2 {
		if err := store.Check(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnfinishedAreTheFilesInStaging(t *testing.T) {
	root, ctx := t.TempDir(), context.Background()
	store := local.Open(config(root))
	defer func() { _ = store.Close() }()
	if err := store.Check(ctx); err != nil {
		t.Fatal(err)
	}
	name := strings.Repeat("0a", 16)
	for _, name := range []string{name, "theirs", strings.Repeat("0a", 15)} {
		if err := os.WriteFile(filepath.Join(root, local.StagingName, name), []byte("some"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var found []object.Unfinished
	for write, err := range store.Unfinished(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, write)
	}
	if len(found) != 1 || found[0].ID != name || object.CheckKey(found[0].Key) == nil {
		t.Fatalf("unfinished: %+v", found)
	}
	write := found[0]
	if err := store.Inspect(ctx, &write); err != nil || write.Size != 4 {
		t.Errorf("%+v %v", write, err)
	}
	for range store.Unfinished(ctx, write.Key) {
		t.Error("one comes after itself")
	}
	for range 2 {
		if err := store.Abandon(ctx, write); err != nil {
			t.Error(err)
		}
	}
	if err := store.Inspect(ctx, &write); object.CodeOf(err) != object.NotFound {
		t.Error(err)
	}
}

// A folder of more names than are held is read several times, and each of its objects is given once.
func TestWalkOfALargeFolder(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "f"), 0o700); err != nil {
		t.Fatal(err)
	}
	const count = 40_000
	for i := range count {
		name := filepath.Join(root, "f", fmt.Sprintf("%05d", i*7919%count)) // in another order than that of keys
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	store := local.Open(config(root))
	defer func() { _ = store.Close() }()
	for _, from := range []int{0, 39_990} {
		next := from
		for info, err := range store.Walk(context.Background(), "f/", fmt.Sprintf("f/%05d", from-1)) {
			if want := fmt.Sprintf("f/%05d", next); err != nil || info.Key != want {
				t.Fatalf("%q, %v in place of %q", info.Key, err, want)
			}
			next++
		}
		if next != count {
			t.Errorf("%d objects", next)
		}
	}
}
