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
	second.Wants(64)
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

// What some do not want is shared by the others. Where there is not enough for all, each has as much.
func TestSharesThatWantALittle(t *testing.T) {
	total := NewTotal(100, 10)
	large := total.Share()
	for large.Take(1) {
	}
	little := make([]*Share, 4)
	for i := range little {
		little[i] = total.Share()
		little[i].Wants(5)
	}
	if large.mine != 90 || !large.Exceeds() || large.Even() != 50 {
		t.Errorf("the large one has %d, and keeps %d", large.mine, large.Even())
	}
	large.Give(40)
	for _, one := range little {
		for range 5 {
			if !one.Take(1) {
				t.Fatal("each gets the little that it wants")
			}
		}
	}
	if large.Exceeds() || large.Take(1) {
		t.Error("the large one has the rest, and no more")
	}
	if little[0].Wants(50); large.Even() != 25 {
		t.Errorf("two that want much have the rest, each %d", large.Even())
	}
	for range 20 {
		total.Share().Wants(5)
	}
	if even := large.Even(); even != 2 {
		t.Errorf("of 50 each of 25 has %d", even)
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
	if total.taken != 0 || len(total.shares) != 0 {
		t.Errorf("%d units and %d shares are left", total.taken, len(total.shares))
	}
}
