// The simulated lines take twenty times as long with the race detector, and no goroutine is in this package.

//go:build !race

package flow

import (
	"math/rand/v2"
	"time"
)

const (
	mib  = 1 << 20
	tick = 100 * time.Microsecond
)

// line is a simulated line to a store. Rates are in bytes a second.
type line struct {
	each    float64       // of one connection
	trip    time.Duration // from a request to its first byte; of a part: from its last byte to the answer
	ceiling float64       // of all connections together; 0: none
	jitter  float64       // by how much of itself a trip or rate may be more or less
}

// policy is a Controller, or a fixed number to compare it with.
type policy interface {
	Wants() int
	Waits(at time.Duration)
	Resumes(at time.Duration)
	Finished(at time.Duration, bytes int64, took time.Duration)
	Refused(inFlight int)
}

type fixed int

func (f fixed) Wants() int                                 { return int(f) }
func (fixed) Waits(time.Duration)                          {}
func (fixed) Resumes(time.Duration)                        {}
func (fixed) Finished(time.Duration, int64, time.Duration) {}
func (fixed) Refused(int)                                  {}

// request is a part under way, or a range until its reader has taken it.
type request struct {
	begun, first time.Duration
	length       float64
	rate         float64
	came, taken  float64
	ended        bool
}

// transfer is a download by a sequential reader, or an upload from a source.
type transfer struct {
	policy policy
	up     bool
	size   float64
	piece  float64 // of a range or part
	peer   float64 // bytes a second that the reader takes, or the source gives
	from   time.Duration

	open   []*request // in the order of their bytes
	asked  float64    // bytes that requests were made for
	ready  float64    // bytes of the next part
	moved  float64    // bytes that the reader has taken, or that were answered
	ended  time.Duration
	goesOn bool // the next range is the rest of an answer that is being read: no trip
}

func (t *transfer) done() bool { return t.moved > t.size-1 }

// unread is how many bytes have come that the reader has not taken.
func (t *transfer) unread() (bytes float64) {
	for _, r := range t.open {
		bytes += r.came - r.taken
	}
	return bytes
}

// world moves transfers over a line, tick by tick.
type world struct {
	line      line
	transfers []*transfer
	budget    int     // requests of all together; each transfer may always have one; 0: no limit
	hold      float64 // how many unread bytes are taken from the connections; 0: all
	random    *rand.Rand
	now       time.Duration
}

func (w *world) vary(value float64) float64 {
	return value * (1 + w.line.jitter*(2*w.random.Float64()-1))
}

func (w *world) running(t *transfer) bool { return !t.done() && w.now >= t.from }

// step moves the world by a tick, and tells whether there is more to do.
func (w *world) step() bool {
	active := 0
	for _, t := range w.transfers {
		if w.running(t) {
			w.ask(t)
		}
		for _, r := range t.open {
			if !r.ended && r.first <= w.now {
				active++
			}
		}
	}
	share := w.line.ceiling / float64(max(active, 1))
	w.now += tick
	more := false
	for _, t := range w.transfers {
		if t.done() {
			continue
		}
		more = true
		if !w.running(t) {
			continue
		}
		w.carry(t, share)
		if t.up {
			w.answer(t)
		} else {
			w.read(t)
		}
		if t.done() {
			t.ended = w.now
		}
	}
	return more
}

// ask makes as many requests as the policy wants and the budget grants.
func (w *world) ask(t *transfer) {
	for t.asked < t.size && len(t.open) < t.policy.Wants() {
		length := min(t.piece, t.size-t.asked)
		if t.up && t.ready < length {
			return
		}
		if !w.grants(t) {
			t.policy.Refused(len(t.open))
			return
		}
		r := &request{begun: w.now, first: w.now, length: length, rate: w.vary(w.line.each)}
		if !t.goesOn {
			r.first += time.Duration(w.vary(float64(w.line.trip)))
		}
		t.goesOn = false
		t.asked += length
		t.ready = 0
		t.open = append(t.open, r)
	}
}

// grants shares the budget as the package asks for.
func (w *world) grants(t *transfer) bool {
	if w.budget == 0 || len(t.open) == 0 {
		return true
	}
	open, running := 0, 0
	for _, other := range w.transfers {
		open += len(other.open)
		if w.running(other) {
			running++
		}
	}
	return open < w.budget && len(t.open) < w.budget/running
}

// carry moves bytes over the line.
func (w *world) carry(t *transfer, share float64) {
	unread := t.unread()
	for i, r := range t.open {
		held := i > 0 && !t.up && w.hold > 0 && unread >= w.hold
		if r.ended || r.first >= w.now || held {
			continue
		}
		rate := r.rate
		if w.line.ceiling > 0 {
			rate = min(rate, share)
		}
		if r.came += rate * tick.Seconds(); r.came >= r.length {
			r.came, r.ended = r.length, true
			t.policy.Finished(w.now, int64(r.length), w.now-r.begun)
		}
	}
}

// read takes what the reader takes in a tick.
func (w *world) read(t *transfer) {
	most := t.peer * tick.Seconds()
	left := most
	for left > 0 && len(t.open) > 0 {
		r := t.open[0]
		bytes := min(left, r.came-r.taken)
		r.taken += bytes
		t.moved += bytes
		left -= bytes
		if !r.ended || r.taken < r.came-0.5 {
			break
		}
		t.open = t.open[1:]
		t.goesOn = t.policy.Wants() == 1
	}
	if left > 0 && !t.done() {
		t.policy.Waits(w.now - time.Duration(left/most*float64(tick)))
		t.policy.Resumes(w.now)
	}
}

// answer ends the parts that have arrived, and takes from the source.
func (w *world) answer(t *transfer) {
	open := t.open[:0]
	for _, r := range t.open {
		if r.ended {
			t.moved += r.length
		} else {
			open = append(open, r)
		}
	}
	t.open = open
	length := min(t.piece, t.size-t.asked)
	t.ready = min(t.ready+t.peer*tick.Seconds(), length)
	if length > 0 && t.ready == length && len(t.open) >= t.policy.Wants() {
		t.policy.Waits(w.now - tick)
		t.policy.Resumes(w.now)
	}
}
