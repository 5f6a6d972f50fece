// Package flow decides how many requests of a transfer are in flight: ranges of a download ahead of its reader, parts
// of an upload. It has no clock, no goroutine and no connection: its caller tells what happens, and when.
//
// # The rule
//
// A transfer begins with one request in flight, or with the number that the one before it has found. After some requests
// the controller looks back at them (a window):
//
//   - A number in flight brings that number times the bytes a second of one request. Requests that began before the
//     number was set do not count.
//   - If each request alone is fast, the store is near, and one is enough.
//   - If the reader has hardly waited, the line is not what is slow. Then as many are enough as were busy, and some to
//     spare. (For "reader" read "uploader with a part ready and no room for it", if the transfer is an upload.)
//   - If the reader waits, the number climbs: four times as many, until the most allowed. A larger number is better if
//     it brings a worthwhile share of what it would bring on an empty line. The best one is kept.
//   - From then on, half as many again and a third fewer are tried in turn, by the same measure. A try that is better
//     stands, and goes on in its direction. One that is not is taken back, and the pauses between tries grow.
//   - If the bytes a second change while the number does not, the line has changed, and the number climbs again.
//
// This is hill climbing on what arrives, as the .NET thread pool does for its threads. A quick climb and then small
// steps up and down are the shape of BBR congestion control (draft-cardwell-iccrg-bbr-congestion-control). Two other
// ways do not fit. Limits by latency (TCP Vegas, Netflix's concurrency-limits) compare with an idle line, which a
// transfer that joins others never sees. The AWS Common Runtime opens connections for a target, 10 Gbit/s unless it is
// set: we want no setting.
//
// # Many transfers
//
// A controller knows its own transfer only. What transfers share is divided where they ask for it, at the memory budget
// and at the limit of connections to a host. Each always grants a transfer its first request, and otherwise no more
// than an even share: the total divided by the transfers that run. A controller that is refused makes do with what is in
// flight, and asks again after a pause. So none starves, one that came first gives back, and one that is left alone
// gets what the others had. Without shares, one of eight equal transfers took up to 1.7 times as long as another.
//
// # What was fetched in vain
//
// The controller counts requests. A reader that stops leaves up to all but one of them unread, and as a reader in order
// makes ranges end together, it does happen: 15 of 16. A smaller bound is the caller's. It may leave bytes in their
// connections while too many are unread: the controller finds the number that suits that, too.
package flow

import (
	"math"
	"time"
)

// Speeds below are those of the lines of the test, six seeds each, as a share of the best number that does not change.
const (
	// fast, in bytes a second, is a request that needs no other beside it. A connection to AWS gives 50 to 90 MB/s, one
	// on the loopback interface more than 1 GB/s, and a core hashes 1.6 GB/s.
	fast = 300e6
	// growth is the factor of the climb. With 2, as in TCP's slow start, 512 MiB came at 74 % at the least and 87 % in the
	// mean; with 4, at 82 and 91 %.
	growth = 4
	// worthwhile is the share of the greatest possible gain that a larger number must bring. BBR asks for 0.25: then a
	// line with a ceiling gave 83 % at the least. With 0.1 it was 92 %, with 0.05 90 %: there noise decides.
	worthwhile = 0.1
	// changed is the factor by which another line shows, the one by which BBR tells whether a pipe is full.
	changed = 1.25
	// A reader that waits more than this share of the time gets more requests, and one that hardly waits may get fewer.
	// The two are far apart, so that a number that is right stays.
	waits  = 1.0 / 8
	hardly = 1.0 / 32
	// spare is for the ranges that are done and wait for a slower one before them.
	spare = 1.25
	// leastCount is how many requests a window has at least, after the climb. Fewer are too noisy.
	leastCount = 6
	// leastPause and mostPause, in windows, are between tries. BBR tries every eight round trips.
	leastPause = 4
	mostPause  = 16
)

// Controller decides how many requests of one transfer are in flight. Its methods are called by one goroutine at a
// time, with times of one clock that does not go back.
type Controller struct {
	most, number int
	judged, near bool // whether there was a window, and whether each request of the last one was fast
	window       window
	waiting      bool
	waitsSince   time.Duration

	climbing bool
	base     level // the best number so far, to which a try goes back
	down     bool  // whether fewer are tried next
	hold     int   // windows before the next try
	pause    int   // windows between that and the one after it
}

// level is a number of requests in flight and the bytes a second that they bring.
type level struct {
	number int
	rate   float64 // 0: not known yet
}

// window is what has happened since the number was looked at.
type window struct {
	since  time.Duration
	waited time.Duration
	busy   time.Duration // all requests that ended, added up
	count  int           // of requests that also began in the window
	bytes  int64
	took   time.Duration
}

// New gives a controller for a transfer that begins at a time and may have at most so many requests in flight. A reader
// that jumps begins another: nobody knows how much it will read there.
func New(most int, at time.Duration) *Controller {
	return &Controller{most: max(most, 1), number: 1, window: window{since: at}, climbing: true, pause: leastPause}
}

// Begin has the climb begin with a number that Found gave for another transfer over the same line.
func (c *Controller) Begin(number int) { c.number = min(max(number, 1), c.most) }

// Found is the number that is right for the line as far as is known, or 0 if nothing is, or the climb is not over.
func (c *Controller) Found() int {
	switch {
	case !c.judged || c.climbing && c.number > 1:
		return 0
	case c.base.number > 0: // a try is no finding
		return c.base.number
	default:
		return c.number
	}
}

// Near tells whether the store has shown to be so near that one request is enough.
func (c *Controller) Near() bool { return c.near }

// Wants is how many requests should be in flight. A range counts until its reader has taken it, a part until it is
// answered.
func (c *Controller) Wants() int { return c.number }

// Waits tells that the reader waits for bytes from now on, or the uploader for room while it has a part ready.
func (c *Controller) Waits(at time.Duration) { c.waiting, c.waitsSince = true, at }

// Resumes tells that the wait is over.
func (c *Controller) Resumes(at time.Duration) {
	c.addWait(at)
	c.waiting = false
}

// addWait adds a wait that goes on to the window.
func (c *Controller) addWait(at time.Duration) {
	if c.waiting {
		c.window.waited += at - c.waitsSince
		c.waitsSince = at
	}
}

// Refused tells that another request was wanted and not granted beside those in flight.
func (c *Controller) Refused(inFlight int) {
	if inFlight = max(inFlight, 1); inFlight >= c.number {
		return
	}
	c.number, c.climbing = inFlight, false
	c.base = level{number: inFlight}
	c.down, c.pause = false, leastPause
	c.turn()
}

// Finished tells that a request of so many bytes has ended well, and how long it took from its start, attempts that
// failed included. Of a request for many ranges each is told: then took goes from the end of the one before.
func (c *Controller) Finished(at time.Duration, bytes int64, took time.Duration) {
	w := &c.window
	w.busy += took
	if at-took >= w.since {
		w.count++
		w.bytes += bytes
		w.took += took
	}
	enough := max(2*c.number, leastCount)
	if c.climbing { // quickly: its steps are large, so that noise matters less
		enough = (c.number + 1) / 2
	}
	if w.count < enough {
		return
	}
	c.addWait(at)
	c.judge(at)
	c.window = window{since: at}
}

// judge sets the number by what has happened in the window.
func (c *Controller) judge(at time.Duration) {
	w := &c.window
	elapsed := float64(at - w.since)
	each := float64(w.bytes) / w.took.Seconds()
	now := level{c.number, each * float64(c.number)}
	c.judged, c.near = true, each >= fast
	switch waited := float64(w.waited) / elapsed; {
	case c.near:
		c.number, c.climbing, c.base = 1, true, level{}
	case waited < waits:
		c.content(now, waited < hardly, float64(w.busy)/elapsed)
	case c.climbing:
		c.climb(now)
	default:
		c.try(now)
	}
}

// content is for a reader that gets what it wants, or nearly.
func (c *Controller) content(now level, surely bool, busy float64) {
	c.base = now
	switch needed := max(int(math.Ceil(spare*busy)), (c.number+1)/2); {
	case c.climbing && c.number > 1: // a longer window will tell how many are needed
		c.settle()
	case surely && needed < c.number:
		c.number, c.base = needed, level{number: needed}
		c.climbing = needed == 1
	}
}

// climb goes through ever larger numbers, and then back to the best.
func (c *Controller) climb(now level) {
	if worth(c.base, now) {
		c.base = now
	}
	if c.number < c.most {
		c.number = min(growth*c.number, c.most)
		return
	}
	c.settle()
}

// settle ends the climb.
func (c *Controller) settle() {
	c.number, c.climbing = c.base.number, false
	c.down, c.hold, c.pause = false, 0, leastPause
	if c.number == c.most {
		c.down, c.hold = true, leastPause
	}
}

// try compares the number with the base if they differ, and begins the next try if it is time.
func (c *Controller) try(now level) {
	switch more := now.number > c.base.number; {
	case now.number == c.base.number:
		c.rest(now)
	case more && worth(c.base, now), !more && !worth(now, c.base):
		c.base = now
		c.step()
	default:
		c.number = c.base.number
		c.turn()
	}
}

// rest is a window without a try.
func (c *Controller) rest(now level) {
	if c.base.rate == 0 {
		c.base = now
	}
	if now.rate > changed*c.base.rate || now.rate < c.base.rate/changed {
		c.climbing, c.base = true, level{}
		c.climb(now)
		return
	}
	c.base.rate = (c.base.rate + now.rate) / 2
	if c.hold--; c.hold < 0 {
		c.step()
	}
}

// step begins a try.
func (c *Controller) step() {
	if c.down {
		c.number -= max(c.number/3, 1)
	} else {
		c.number += max(c.number/2, 1)
	}
	c.number = min(max(c.number, 1), c.most)
	if c.number == c.base.number {
		c.turn()
	}
}

// turn has the other direction tried after a pause.
func (c *Controller) turn() {
	c.down, c.hold, c.pause = !c.down, c.pause, min(2*c.pause, mostPause)
}

// worth tells whether the larger number brings so much more that it is better.
func worth(few, many level) bool {
	if few.number == 0 {
		return true
	}
	gain := float64(many.number)/float64(few.number) - 1
	return many.rate >= few.rate*(1+worthwhile*gain)
}
