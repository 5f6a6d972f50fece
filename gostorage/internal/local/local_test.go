package local_test

import (
	"context"
	"os"
	"path/filepath"
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
