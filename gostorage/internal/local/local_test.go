package local_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
