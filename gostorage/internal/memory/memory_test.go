package memory_test

import (
	"context"
	"testing"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/memory"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/storetest"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) object.Store { return memory.Open() })
}

func put(t *testing.T, to object.Store, key, data string) object.Info {
	t.Helper()
	pipe := digest.NewPipe(buffers.Shared, digest.Expect{Size: -1})
	defer pipe.Close()
	if _, err := pipe.Write([]byte(data), time.Second); err != nil {
		t.Fatal(err)
	}
	pipe.CloseWrite()
	info, err := to.Put(context.Background(), key, pipe, object.PutOptions{Overwrite: true})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestJoinIsOfThePartsThatWereDescribed(t *testing.T) {
	temp, final := memory.Open(), memory.Open()
	one, two := put(t, temp, "s/1", "one"), put(t, temp, "s/2", "two")
	join := &object.Join{
		Key: "whole", From: temp, Parts: []object.Info{one, two}, Size: 6, Options: object.PutOptions{Overwrite: true},
		SHA256: func(context.Context) (string, error) { return "sum", nil },
		Done:   func(int64, int64) {},
		Commit: func(context.Context) error { return nil },
	}
	put(t, temp, "s/2", "TWO")
	for _, code := range []object.Code{object.Mismatch, object.NotFound, ""} {
		_, err := final.Join(context.Background(), join)
		if known, ok := err.(*object.Error); object.CodeOf(err) != code || ok && known.Key != "s/2" {
			t.Errorf("it gives %v, not %q", err, code)
		}
		if code == object.Mismatch {
			_ = temp.Delete(context.Background(), "s/2")
		} else {
			put(t, temp, "s/2", "two")
		}
	}
}
