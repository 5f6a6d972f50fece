package flow

import (
	"math/rand/v2"
	"sync"
	"testing"
)

// One transfer gets nearly all; of several, each gets as much, and who came first gives back.
func TestSharesAreEven(t *testing.T) {
	total := NewTotal(64, 4)
	first := total.Share()
	for first.Take(5) {
	}
	if first.mine != 60 || first.Exceeds() {
		t.Errorf("one alone has %d of 64, too many: %v", first.mine, first.Exceeds())
	}
	second := total.Share()
	if second.Take(5) {
		t.Error("there was nothing left")
	}
	if !first.Exceeds() || second.Exceeds() || first.Even() != 28 || second.Even() != 28 {
		t.Error("the first has to give back")
	}
	for first.mine > 0 { // as its requests end, it goes on with fewer
		first.Give(5)
		first.Take(5)
		second.Take(5)
		if second.mine == first.mine {
			break
		}
	}
	if first.mine != 25 || second.mine != 25 || first.Exceeds() {
		t.Errorf("two have %d and %d", first.mine, second.mine)
	}
	first.End()
	for second.Take(5) {
	}
	if second.mine != 35 {
		t.Errorf("what is still taken leaves 35, not %d", second.mine)
	}
	first.Give(25)
	for second.Take(5) {
	}
	if second.mine != 60 {
		t.Errorf("the one that is left has %d", second.mine)
	}
}

// Whatever happens, no more is taken than there is, and all comes back.
func TestSharesOfManyHands(t *testing.T) {
	total := NewTotal(100, 1)
	var hands sync.WaitGroup
	for range 16 {
		hands.Go(func() {
			for range 50 {
				share := total.Share()
				for range rand.N(20) {
					if share.Take(1 + rand.Int64N(5)) {
						total.mu.Lock()
						if total.taken > 100 {
							t.Errorf("%d of 100 are taken", total.taken)
						}
						total.mu.Unlock()
					}
					if share.mine > 0 && rand.N(2) == 0 {
						share.Give(1 + rand.Int64N(share.mine))
					}
				}
				share.End()
				share.Give(share.mine)
			}
		})
	}
	hands.Wait()
	if total.taken != 0 || total.shares != 0 {
		t.Errorf("%d units and %d shares are left", total.taken, total.shares)
	}
}
