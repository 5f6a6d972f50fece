package fileread

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// file makes one of the test's directory, which is on a disk or in memory as the system has it.
func file(t *testing.T, size int) (*os.File, []byte) {
	t.Helper()
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	opened, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = opened.Close() })
	return opened, data
}

// nothingLent waits for all blocks to come back.
func nothingLent(t *testing.T) {
	t.Helper()
	for until := time.Now().Add(10 * time.Second); buffers.Shared.Lent() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d blocks are still lent", buffers.Shared.Lent())
		}
	}
}

func TestReadsInAnyWayAreTheSame(t *testing.T) {
	opened, data := file(t, 3*buffers.Size+17)
	for name, how := range map[string]way{"cached": cached, "aside": aside, "in memory": inMemory} {
		t.Run(name, func(t *testing.T) {
			r := &Reader{how: how}
			defer r.Close()
			for range 100 {
				offset := rand.N(int64(len(data) + 10))
				into := make([]byte, rand.N(2*buffers.Size))
				done, err := 0, error(nil)
				for done < len(into) && err != io.EOF {
					var n int
					n, err = r.ReadAt(int(opened.Fd()), into[done:], offset+int64(done))
					if err != nil && err != io.EOF && err != object.ErrNotYet {
						t.Fatal(err)
					}
					if rand.N(4) == 0 && n < len(into)-done { // one that changes its mind reads elsewhere
						_, _ = r.ReadAt(int(opened.Fd()), make([]byte, 10), rand.N(int64(len(data))))
					}
					done += n
				}
				want := data[min(offset, int64(len(data))):]
				if want = want[:min(len(want), len(into))]; !bytes.Equal(into[:done], want) {
					t.Fatalf("at %d came %d bytes of %d, or others", offset, done, len(want))
				}
				if done < len(into) != (err == io.EOF) {
					t.Fatalf("%d of %d bytes came with %v", done, len(into), err)
				}
			}
		})
	}
	nothingLent(t)
}

func TestAReadThatIsGivenUpLeavesNothing(t *testing.T) {
	opened, _ := file(t, buffers.Size)
	for range 200 {
		r := &Reader{how: aside}
		if err := r.begin(int(opened.Fd()), buffers.Size, 0); err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	nothingLent(t)
}

func TestWhatADiskRefusesIsAnError(t *testing.T) {
	for name, how := range map[string]way{"cached": cached, "aside": aside, "in memory": inMemory} {
		folder, err := os.Open(t.TempDir()) // it can be opened, and not be read
		if err != nil {
			t.Fatal(err)
		}
		r := &Reader{how: how}
		if n, err := r.ReadAt(int(folder.Fd()), make([]byte, 10), 0); n != 0 || err == nil || err == io.EOF || err == object.ErrNotYet {
			t.Errorf("%s: %d bytes and %v", name, n, err)
		}
		r.Close()
		_ = folder.Close()
	}
	nothingLent(t)
}
