package digest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
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
	pipe.Reserve(need, need, nil)
	piece := make([]byte, buffers.Size)
	for taken := 0; taken < need; taken += len(piece) {
		if n, err := pipe.Write(piece, time.Second); n != len(piece) || err != nil {
			t.Fatalf("after %d bytes it took %d: %v", taken, n, err)
		}
	}
}

// Blocks that are lent and bytes that are written come in the order in which they were given; a Store that asked for
// checksums has those of all but what came before it asked; and every token comes back once.
func TestLentBlocks(t *testing.T) {
	const blocks, parts = 40, 4
	checksum := func(h hash.Hash, p []byte) (sum uint64) {
		h.Write(p)
		for _, b := range p {
			sum = sum*31 + uint64(b)
		}
		return sum
	}
	for _, budget := range []int64{0, 3 * buffers.Size, buffers.DefaultBudget} {
		for _, sums := range []bool{false, true} {
			for _, tail := range []int{0, 1, buffers.Size - 1} {
				pool := buffers.NewPool(budget)
				pipe := NewPipe(pool, Expect{Size: -1})
				if sums {
					pipe.Reserve(parts*buffers.Size, parts*buffers.Size, checksum)
				} else {
					pipe.Reserve(parts*buffers.Size, parts*buffers.Size, nil)
				}
				data := someBytes(blocks*buffers.Size + tail)
				back := map[int64]int{}
				returned := func() {
					for token := pool.Returned(0); token != 0; token = pool.Returned(token) {
						back[token]++
					}
				}
				pumped := make(chan error, 1)
				tokens := int64(0)
				go func() {
					var err error
					for number := 0; number*buffers.Size < len(data) && err == nil; number++ {
						rest := data[number*buffers.Size:]
						if len(rest) < buffers.Size || number%5 == 3 { // what is no whole block is written, and others too
							for rest = rest[:min(len(rest), buffers.Size)]; len(rest) > 0 && err == nil; {
								var n int
								n, err = pipe.Write(rest, time.Second)
								rest = rest[n:]
							}
							continue
						}
						some := rest[:min(len(rest)/buffers.Size, 1+(7-number%5)%5)*buffers.Size] // up to such a one
						number += len(some)/buffers.Size - 1
						for len(some) > 0 && err == nil {
							tokens++
							loan, taken := pool.Borrow(tokens), 0
							taken, err = pipe.Lend(some, loan, time.Second)
							pool.Return(loan)
							some = some[taken:]
						}
					}
					pipe.CloseWrite()
					pumped <- err
				}()
				var got []byte
				var held []object.Block
				for {
					block, err := pipe.Next(t.Context(), buffers.Size)
					if err == io.EOF {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
					if sum, known := block.Checksum(); sums && (!known || sum != checksum(sha256.New(), block.Bytes())) {
						t.Fatalf("block %d has the checksum %d, known: %t", len(got)/buffers.Size, sum, known)
					}
					got = append(got, block.Bytes()...)
					if held = append(held, block); len(held) == parts { // as a part of an upload does
						for _, one := range held {
							one.Release()
						}
						held = nil
					}
				}
				for _, one := range held {
					one.Release()
				}
				if err := <-pumped; err != nil {
					t.Fatal(err)
				}
				want := sha256.Sum256(data)
				if _, sum := pipe.Sum(); !bytes.Equal(got, data) || sum != hex.EncodeToString(want[:]) {
					t.Fatalf("budget %d, checksums %t, tail %d: other bytes", budget, sums, tail)
				}
				pipe.Close()
				returned()
				for token := range tokens {
					if back[token+1] != 1 {
						t.Errorf("token %d came back %d times", token+1, back[token+1])
					}
				}
				if int64(len(back)) != tokens {
					t.Errorf("%d tokens came back of %d", len(back), tokens)
				}
				if pool.Lent() != 0 {
					t.Fatalf("%d blocks were not given back", pool.Lent())
				}
			}
		}
	}
}

func someBytes(size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i>>8 ^ i*7)
	}
	return data
}

// A pump that has filled all it may goes on at once when the Store says that it holds more.
func TestHoldMakesRoom(t *testing.T) {
	pipe := NewPipe(buffers.NewPool(buffers.DefaultBudget), Expect{Size: -1})
	data, pumped := someBytes((depth+5)*buffers.Size), make(chan int, 1)
	go func() {
		n, _ := pipe.Write(data, time.Minute)
		pumped <- n
	}()
	for pipe.Moved() < depth*buffers.Size {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond) // now it waits
	pipe.Reserve(int64(len(data)), int64(len(data)), nil)
	select {
	case n := <-pumped:
		if n != len(data) {
			t.Errorf("%d bytes of %d", n, len(data))
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for what nobody gives back")
	}
	pipe.Close()
}

// What a transfer needs is its own: blocks that it took of the budget before it said so do not count.
func TestWhatIsNeededComesBesideTheShare(t *testing.T) {
	pool := buffers.NewPool(buffers.DefaultBudget)
	pipe := NewPipe(pool, Expect{Size: -1})
	defer pipe.Close()
	fill(t, pipe)
	const need = 21
	pipe.Reserve(need*buffers.Size, 1000*buffers.Size, nil)
	fill(t, pipe)
	if count := int64(len(pipe.blocks)); count != need+pipe.share.Even() {
		t.Errorf("%d blocks, and not %d beside a share of %d", count, need, pipe.share.Even())
	}
}

// fill writes blocks until there is no room.
func fill(t *testing.T, pipe *Pipe) {
	t.Helper()
	for data := make([]byte, buffers.Size); ; {
		if n, err := pipe.Write(data, 50*time.Millisecond); err != nil {
			t.Fatal(err)
		} else if n == 0 {
			return
		}
	}
}

// A transfer that comes while another one has everything plans with its share, which it gets as soon as that gives back.
func TestARefusalTellsTheShare(t *testing.T) {
	pool := buffers.NewPool(buffers.DefaultBudget)
	first := pool.Share()
	taken := []*buffers.Block{}
	for block := first.TryGet(); block != nil; block = first.TryGet() {
		taken = append(taken, block)
	}
	pipe := NewPipe(pool, Expect{Size: -1})
	pipe.Reserve(buffers.Size, 1000*buffers.Size, nil)
	fill(t, pipe)
	if refused, share := pipe.Refused()/buffers.Size, int64(len(taken)/2); refused < share-10 || refused > share {
		t.Errorf("of %d blocks there will be %d", len(taken), refused)
	}
	for _, block := range taken {
		pool.Put(block)
	}
	first.End()
	pipe.Close()
}

// What a Store no longer uses, and what others are to have, goes back to the budget.
func TestBlocksGoBackToTheBudget(t *testing.T) {
	for _, others := range []bool{false, true} {
		pool := buffers.NewPool(buffers.DefaultBudget)
		pipe := NewPipe(pool, Expect{Size: -1})
		const need, most = 10 * buffers.Size, 1000 * buffers.Size
		pipe.Reserve(need, most, nil)
		data := make([]byte, buffers.Size)
		held := []object.Block{}
		for {
			n, err := pipe.Write(data, 50*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 { // there is no more
				break
			}
			block, err := pipe.Next(t.Context(), buffers.Size)
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, block)
		}
		count := int64(len(held))
		if refused := pipe.Refused(); refused != count*buffers.Size || pipe.Refused() != 0 {
			t.Errorf("%d blocks were all, told are %d bytes", count, refused)
		}
		want := int64(20)
		if others {
			pool.Share().Wants(1000)
			want = count/2 + 10 // half of the budget, with some that is left for each, and its own
		} else {
			pipe.Reserve(need, want*buffers.Size, nil)
		}
		for _, block := range held {
			block.Release()
		}
		held = nil
		for range 2 * count {
			if _, err := pipe.Write(data, time.Second); err != nil {
				t.Fatal(err)
			}
			block, err := pipe.Next(t.Context(), buffers.Size)
			if err != nil {
				t.Fatal(err)
			}
			block.Release()
		}
		if lent := pool.Lent(); lent > want {
			t.Errorf("others %v: of %d blocks are left %d, not %d", others, count, lent, want)
		}
		pipe.Close()
	}
}

// A transfer that fails gives back what was lent to it, and takes no more.
func TestLentBlocksOfATransferThatFails(t *testing.T) {
	pool := buffers.NewPool(buffers.DefaultBudget)
	pipe := NewPipe(pool, Expect{Size: -1})
	block := make([]byte, buffers.Size)
	for token := range int64(3) {
		loan := pool.Borrow(token + 1)
		if taken, err := pipe.Lend(block, loan, time.Second); taken != len(block) || err != nil {
			t.Fatal(taken, err)
		}
		pool.Return(loan)
	}
	if token := pool.Returned(0); token != 0 {
		t.Errorf("token %d came back too soon", token)
	}
	broken := errors.New("the disk is full")
	pipe.Fail(broken)
	if taken, err := pipe.Lend(block, pool.Borrow(4), time.Second); taken != 0 || !errors.Is(err, broken) {
		t.Error(taken, err)
	}
	pipe.Close()
	done := int64(0)
	for range 3 {
		if done = pool.Returned(done); done < 1 || done > 3 {
			t.Errorf("token %d came back", done)
		}
	}
	if token := pool.Returned(done); token != 0 || pool.Lent() != 0 {
		t.Errorf("token %d came back, %d blocks are lent", token, pool.Lent())
	}
}

// A source that is slow is left after a while, also where there is room for more.
func TestASlowSourceIsLeftInTime(t *testing.T) {
	pool := buffers.NewPool(buffers.DefaultBudget)
	pipe := NewPipe(pool, Expect{Size: -1})
	defer pipe.Close()
	reads := 0
	n, err := pipe.ReadFrom(func(into []byte) (int, error) {
		reads++
		time.Sleep(20 * time.Millisecond)
		return min(100, len(into)), nil
	}, 100_000, 10*time.Millisecond)
	if n != 100 || reads != 1 || err != nil {
		t.Errorf("%d bytes come of %d reads, %v", n, reads, err)
	}
}
