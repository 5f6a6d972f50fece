package digest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

func pumped(t *testing.T, pool *buffers.Pool, data []byte) *Pipe {
	t.Helper()
	pipe := NewPipe(pool, Expect{Size: int64(len(data))})
	go func() {
		for len(data) > 0 {
			n, err := pipe.Write(data, time.Second)
			if err != nil {
				return
			}
			data = data[n:]
		}
		pipe.CloseWrite()
	}()
	return pipe
}

func TestPipeGivesAndHashesEveryByteOnce(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 3*buffers.Size/16+1)
	want := sha256.Sum256(data)
	// Without a budget a transfer goes on with the one block that it owns.
	for _, budget := range []int64{0, buffers.Size, buffers.DefaultBudget} {
		pool := buffers.NewPool(budget)
		for name, read := range map[string]func(*Pipe) ([]byte, error){
			"Read":          func(p *Pipe) ([]byte, error) { return io.ReadAll(iotest.HalfReader(p)) },
			"single bytes":  func(p *Pipe) ([]byte, error) { return io.ReadAll(iotest.OneByteReader(p)) },
			"WriteTo":       func(p *Pipe) ([]byte, error) { var b bytes.Buffer; _, err := p.WriteTo(&b); return b.Bytes(), err },
			"data with EOF": func(p *Pipe) ([]byte, error) { return io.ReadAll(iotest.DataErrReader(p)) },
		} {
			pipe := pumped(t, pool, data)
			got, err := read(pipe)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%s, budget %d: %d bytes, %v", name, budget, len(got), err)
			}
			if size, sum := pipe.Sum(); size != int64(len(data)) || sum != hex.EncodeToString(want[:]) {
				t.Errorf("%s: %d %s", name, size, sum)
			}
			pipe.Close()
			if pool.Lent() != 0 {
				t.Fatalf("%d blocks were not given back", pool.Lent())
			}
		}
	}
}

func TestFullPipeWaitsNoLongerThanTold(t *testing.T) {
	pipe := NewPipe(buffers.NewPool(0), Expect{Size: -1})
	defer pipe.Close()
	n, err := pipe.Write(make([]byte, 3*buffers.Size), time.Millisecond)
	if n != buffers.Size || err != nil {
		t.Errorf("a pipe of one block that nobody reads took %d, %v", n, err)
	}
}

func TestErrorOfTheStoreReachesThePump(t *testing.T) {
	pipe := NewPipe(buffers.NewPool(0), Expect{Size: -1})
	defer pipe.Close()
	broken := errors.New("the disk is full")
	pipe.Fail(broken)
	if _, err := pipe.Write([]byte("x"), time.Second); !errors.Is(err, broken) {
		t.Error(err)
	}
	if _, err := pipe.Read(make([]byte, 1)); !errors.Is(err, broken) {
		t.Error(err)
	}
}

type damaged struct{ *bytes.Reader }

func (damaged) Close() error { return nil }

func (damaged) Info() object.Info {
	empty := sha256.Sum256(nil)
	return object.Info{Key: "k", Size: 10, SHA256: hex.EncodeToString(empty[:])}
}

func TestReaderWithholdsTheEndOfADamagedObject(t *testing.T) {
	reader := NewReader(damaged{bytes.NewReader([]byte("0123456789"))}, "")
	part := make([]byte, 6)
	if n, err := reader.ReadAt(part, 0); n != 6 || err != nil {
		t.Fatal(n, err)
	}
	for range 2 { // also when asked again
		if n, err := reader.ReadAt(part, 4); n != 0 || object.CodeOf(err) != object.Mismatch {
			t.Errorf("the last bytes: %d, %v", n, err)
		}
	}
}

type empty struct{ *bytes.Reader }

func (empty) Close() error { return nil }

func (empty) Info() object.Info { return object.Info{Key: "k"} }

func TestReaderComparesAnEmptyObjectToo(t *testing.T) {
	for data, code := range map[string]object.Code{"": "", "x": object.Mismatch} {
		wanted := sha256.Sum256([]byte(data))
		reader := NewReader(empty{bytes.NewReader(nil)}, hex.EncodeToString(wanted[:]))
		if _, err := reader.ReadAt(make([]byte, 1), 0); err != io.EOF && object.CodeOf(err) != code {
			t.Errorf("expected are %d bytes, and it gives %v", len(data), err)
		}
	}
}

func TestPipeHoldsWhatIsNeededAtOnce(t *testing.T) {
	const need = 2*buffers.DefaultBudget + 2*buffers.Size
	pipe := NewPipe(buffers.NewPool(0), Expect{Size: -1})
	defer pipe.Close()
	pipe.Hold(need, need, nil)
	piece := make([]byte, buffers.Size)
	for taken := 0; taken < need; taken += len(piece) {
		if n, err := pipe.Write(piece, time.Second); n != len(piece) || err != nil {
			t.Fatalf("after %d bytes it took %d: %v", taken, n, err)
		}
	}
}
