package buffers

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// lose is a pause of some length at a place where another goroutine may come between.
func lose() {
	if rand.N(3) == 0 {
		time.Sleep(rand.N(50 * time.Microsecond))
	}
}

// Each loan comes back once, and only after the last block that was made of it.
func TestLoansComeBackOnceAndInTime(t *testing.T) {
	const callers, each = 16, 300
	pool := NewPool(8 * Size)
	pool.budget.Set(8, 0)
	used := make([]atomic.Int32, callers*each+1) // blocks of a loan that are in somebody's hands
	var work, users sync.WaitGroup
	memory := make([]byte, 2*Size)
	for caller := range callers {
		work.Go(func() {
			for n := range each {
				token := int64(caller*each + n + 1)
				loan, share := pool.Borrow(token), pool.Share()
				defer share.End()
				for range rand.N(4) {
					lose()
					used[token].Add(1)
					block := share.Lend(memory[:(1+rand.N(2))*Size], loan)
					if block == nil && rand.N(2) == 0 { // the budget is spent
						block = pool.Lend(memory[:Size], loan)
					}
					if block == nil {
						used[token].Add(-1)
						continue
					}
					users.Go(func() {
						lose()
						used[token].Add(-1)
						pool.Put(block)
					})
				}
				lose()
				pool.Return(loan)
			}
		})
	}
	stop, done := make(chan struct{}), make(chan []int64)
	go func() { // the one of Python, which says of each that it has heard
		var come []int64
		for last := int64(0); ; {
			last = pool.Returned(last)
			switch {
			case last != 0:
				if used[last].Load() != 0 {
					t.Errorf("loan %d is back while it is used", last)
				}
				come = append(come, last)
				lose()
			default:
				select {
				case <-stop:
					done <- come
					return
				default:
					time.Sleep(10 * time.Microsecond)
				}
			}
		}
	}()
	work.Wait()
	users.Wait()
	time.Sleep(time.Millisecond)
	close(stop)
	come := <-done
	slices.Sort(come)
	if len(come) != callers*each || len(slices.Compact(come)) != callers*each {
		t.Errorf("of %d loans came %d", callers*each, len(come))
	}
	if all := pool.Share(); pool.Lent() != 0 || !all.part.Take(8) {
		t.Errorf("%d blocks are lent, or the budget is not whole", pool.Lent())
	}
}

// What a signal interrupts between the telling of a token and its being heard is told again.
func TestATokenIsToldUntilItIsHeard(t *testing.T) {
	pool := NewPool(Size)
	for token := range int64(3) {
		pool.Return(pool.Borrow(token + 1))
	}
	first := pool.Returned(0)
	if again := pool.Returned(0); again != first {
		t.Errorf("%d was told, then %d", first, again)
	}
	told := map[int64]bool{}
	for token := pool.Returned(0); token != 0; token = pool.Returned(token) {
		if told[token] {
			t.Fatalf("%d was told after it was heard", token)
		}
		told[token] = true
	}
	if len(told) != 3 {
		t.Errorf("told were %v", told)
	}
}

// Blocks of many hands are nobody else's meanwhile, and what is idle goes back to the system.
func TestBlocksAreNobodyElses(t *testing.T) {
	pool := NewPool(32 * Size)
	pool.budget.Set(32, 0)
	var work sync.WaitGroup
	for caller := range 16 {
		work.Go(func() {
			share := pool.Share()
			defer share.End()
			for range 200 {
				block, err := share.TryGet(), error(nil)
				if block == nil {
					if block, err = pool.Get(); err != nil {
						t.Error(err)
						return
					}
				}
				mark := byte(caller + 1)
				block.Bytes[0], block.Bytes[Size-1] = mark, mark
				lose()
				if block.Bytes[0] != mark || block.Bytes[Size-1] != mark {
					t.Error("another has written to the block")
				}
				pool.Put(block)
			}
		})
	}
	work.Wait()
	if all := pool.Share(); pool.Lent() != 0 || !all.part.Take(32) {
		t.Errorf("%d blocks are lent, or the budget is not whole", pool.Lent())
	}
	pool.trim()
	if pool.Mapped() > idleBlocks*Size {
		t.Errorf("%d bytes are mapped", pool.Mapped())
	}
}
