// The simulated lines take twenty times as long with the race detector, and no goroutine is in this package.

//go:build !race

package flow

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

const (
	rangeSize = 2 * mib
	partSize  = 5 * mib
	// hashing is what a reader takes and a source gives, as fast as SHA-256 goes.
	hashing = 1.6e9
)

// scene is a number of equal transfers over a line.
type scene struct {
	name   string
	line   line
	up     bool
	piece  float64
	peer   float64
	count  int
	budget int
	hold   float64
}

// course is what became of a scene.
type course struct {
	took     time.Duration
	whole    float64 // bytes a second, from beginning to end
	late     float64 // from the middle on, without the end
	unread   float64 // the most bytes that had come and were not read
	numbers  []int   // of the first transfer in the second half, each time it has changed
	inFlight float64 // its mean in the second half
	highest  int     // the largest number at any time
	fair     float64 // the shortest time of a transfer, as a share of the longest
}

// run plays a scene, each transfer of so many bytes. change is called before each tick.
func (s scene) run(size float64, seed uint64, make func() policy, change func(*world)) (c course) {
	w := &world{line: s.line, budget: s.budget, hold: s.hold, random: rand.New(rand.NewPCG(seed, 0))}
	for range s.count {
		w.transfers = append(w.transfers, &transfer{policy: make(), up: s.up, size: size, piece: s.piece, peer: s.peer})
	}
	var half, end time.Duration
	var atHalf, atEnd, ticks float64
	all := size * float64(s.count)
	for more := true; more; more = w.step() {
		if change != nil {
			change(w)
		}
		moved := 0.0
		for _, t := range w.transfers {
			moved += t.moved
			c.unread = max(c.unread, t.unread())
			c.highest = max(c.highest, t.policy.Wants())
		}
		if moved >= all/2 && half == 0 {
			half, atHalf = w.now, moved
		}
		if moved >= 0.9*all && end == 0 {
			end, atEnd = w.now, moved
		}
		if half > 0 && end == 0 {
			wants := w.transfers[0].policy.Wants()
			if len(c.numbers) == 0 || c.numbers[len(c.numbers)-1] != wants {
				c.numbers = append(c.numbers, wants)
			}
			ticks++
			c.inFlight += float64(len(w.transfers[0].open))
		}
	}
	c.took = w.now
	c.whole = all / w.now.Seconds()
	c.late = (atEnd - atHalf) / (end - half).Seconds()
	c.inFlight /= ticks
	shortest := slices.MinFunc(w.transfers, func(a, b *transfer) int { return int(a.ended - b.ended) }).ended
	c.fair = float64(shortest) / float64(w.now)
	return c
}

// best gives the speed of the best number that does not change.
func (s scene) best(size float64) (whole float64) {
	for _, number := range []int{1, 2, 4, 8, 12, 16} {
		whole = max(whole, s.run(size, 0, func() policy { return fixed(number) }, nil).whole)
	}
	return whole
}

func ours() policy { return New(16, 0) }

// On each line 512 MiB come at three quarters of the best speed and more, the beginning included, and what comes later
// at nine tenths. "little ahead" leaves what is more than 8 MiB unread in the connections.
func TestLines(t *testing.T) {
	var scenes []scene
	for _, one := range []struct {
		name string
		line line
	}{
		{"50 MB/s, 20 ms", line{each: 50e6, trip: 20 * time.Millisecond}},
		{"50 MB/s, 80 ms", line{each: 50e6, trip: 80 * time.Millisecond}},
		{"20 MB/s, 80 ms", line{each: 20e6, trip: 80 * time.Millisecond}},
		{"200 MB/s, 5 ms", line{each: 200e6, trip: 5 * time.Millisecond}},
		{"ceiling", line{each: 50e6, trip: 20 * time.Millisecond, ceiling: 300e6}},
	} {
		scenes = append(scenes,
			scene{name: one.name + ", down", line: one.line, piece: rangeSize, peer: hashing, count: 1},
			scene{name: one.name + ", down, little ahead", line: one.line, piece: mib, peer: hashing, count: 1, hold: 8 * mib},
			scene{name: one.name + ", up", line: one.line, up: true, piece: partSize, peer: hashing, count: 1, budget: 12},
		)
	}
	ceiling := line{each: 50e6, trip: 20 * time.Millisecond, ceiling: 300e6}
	scenes = append(scenes,
		scene{name: "ceiling, eight down", line: ceiling, piece: rangeSize, peer: hashing, count: 8, budget: 16},
		scene{name: "ceiling, eight up", line: ceiling, up: true, piece: partSize, peer: hashing, count: 8, budget: 16},
	)
	for _, s := range scenes {
		t.Run(s.name, func(t *testing.T) {
			for _, jitter := range []float64{0.05, 0.3} {
				s.line.jitter = jitter
				short, long := s.best(512*mib/float64(s.count)), s.best(2048*mib/float64(s.count))
				for seed := range uint64(2) {
					whole := s.run(512*mib/float64(s.count), seed, ours, nil)
					late := s.run(2048*mib/float64(s.count), seed, ours, nil)
					report := fmt.Sprintf("jitter %.2f: %.0f %% of %.0f MB/s, later %.0f %% of %.0f MB/s, unread %.1f MiB, fair %.2f, "+
						"in flight %.1f, numbers %v", jitter, 100*whole.whole/short, short/1e6, 100*late.late/long, long/1e6,
						late.unread/mib, late.fair, late.inFlight, late.numbers)
					t.Log(report)
					if whole.whole < 0.75*short || late.late < 0.9*long {
						t.Error("too slow: " + report)
					}
					unread := 15 * s.piece
					if s.hold > 0 {
						unread = s.hold + mib/2 // with what 16 connections bring in a tick
					}
					if !s.up && late.unread > unread {
						t.Error("too much in vain: " + report)
					}
					if len(late.numbers) > 12 {
						t.Error("unsteady: " + report)
					}
					if late.fair < 0.75 {
						t.Error("unfair: " + report)
					}
				}
			}
		})
	}
}

// A store that answers at once gets one request at a time.
func TestNearStore(t *testing.T) {
	for _, s := range []scene{
		{name: "down", piece: rangeSize, peer: hashing},
		{name: "up", up: true, piece: partSize, peer: hashing},
		{name: "slow reader", piece: rangeSize, peer: 5e6},
	} {
		s.line, s.count = line{each: 1e9, trip: tick, jitter: 0.3}, 1
		for seed := range uint64(2) {
			if c := s.run(256*mib, seed, ours, nil); c.highest != 1 {
				t.Errorf("%s: %d in flight", s.name, c.highest)
			}
		}
	}
}

// A reader or source that is slower than the line gets its own speed, and not many requests.
func TestSlowReader(t *testing.T) {
	for _, one := range []struct {
		peer          float64
		highest, late int
	}{
		{5e6, 4, 1},
		{20e6, 16, 2},
		{100e6, 16, 6},
	} {
		for _, trip := range []time.Duration{20 * time.Millisecond, 80 * time.Millisecond} {
			for _, up := range []bool{false, true} {
				s := scene{line: line{each: 50e6, trip: trip, jitter: 0.3}, up: up, piece: rangeSize, peer: one.peer, count: 1}
				most := one.late
				if trip > 50*time.Millisecond {
					most *= 2
				}
				for seed := range uint64(2) {
					c := s.run(100*one.peer, seed, ours, nil)
					report := fmt.Sprintf("%.0f MB/s, %v, up %v: %.1f MB/s, unread %.1f MiB, at most %d, numbers %v",
						one.peer/1e6, trip, up, c.late/1e6, c.unread/mib, c.highest, c.numbers)
					t.Log(report)
					if c.late < (1-waits)*one.peer || c.highest > one.highest || slices.Max(c.numbers) > most || len(c.numbers) > 8 {
						t.Error(report)
					}
				}
			}
		}
	}
}

// A line that becomes another, and a reader that was away, get what they need now.
func TestChanges(t *testing.T) {
	far := line{each: 50e6, trip: 20 * time.Millisecond}
	near := line{each: 1e9, trip: tick}
	narrow, wide := far, far
	narrow.ceiling, wide.ceiling = 100e6, 300e6
	for _, one := range []struct {
		name          string
		before, after line
		highest       int // in the second half
	}{
		{"slower connections", far, line{each: 20e6, trip: 80 * time.Millisecond}, 16},
		{"faster connections", far, line{each: 100e6, trip: 10 * time.Millisecond}, 16},
		{"lower ceiling", wide, narrow, 13},
		{"higher ceiling", narrow, wide, 16},
		{"farther", near, far, 16},
		{"nearer", far, near, 1},
		{"the same after a pause", far, far, 16},
	} {
		t.Run(one.name, func(t *testing.T) {
			one.before.jitter, one.after.jitter = 0.1, 0.1
			for _, up := range []bool{false, true} {
				s := scene{line: one.before, up: up, piece: rangeSize, peer: hashing, count: 1}
				next := s
				next.line = one.after
				best := next.best(512 * mib)
				if one.after.each > fast {
					best = one.after.each // with one connection
				}
				for seed := range uint64(2) {
					const size = 4096 * mib
					changed := time.Duration(0)
					c := s.run(size, seed, ours, func(w *world) {
						w.transfers[0].peer = hashing
						switch {
						case changed == 0 && w.transfers[0].moved > size/4:
							w.line, changed = one.after, w.now
						case changed > 0 && one.before == one.after && w.now < changed+5*time.Second:
							w.transfers[0].peer = 1
						}
					})
					report := fmt.Sprintf("up %v: %.0f of %.0f MB/s, numbers %v", up, c.late/1e6, best/1e6, c.numbers)
					t.Log(report)
					if c.late < 0.8*best || slices.Max(c.numbers) > one.highest {
						t.Error(report)
					}
				}
			}
		})
	}
}

// One that comes first gives others their share, and one that is left alone gets theirs.
func TestOthersComeAndGo(t *testing.T) {
	for seed := range uint64(2) {
		for _, up := range []bool{false, true} {
			w := &world{
				line: line{each: 50e6, trip: 20 * time.Millisecond, jitter: 0.1}, budget: 16,
				random: rand.New(rand.NewPCG(seed, 0)),
			}
			for i := range 8 {
				one := &transfer{policy: ours(), up: up, size: 128 * mib, piece: rangeSize, peer: hashing, from: 2 * time.Second}
				if i == 0 {
					one.size, one.from = 4096*mib, 0
				} else {
					one.policy = New(16, one.from)
				}
				w.transfers = append(w.transfers, one)
			}
			first := w.transfers[0]
			alone, together, again, others := 0, 0, 0, time.Duration(0)
			for w.step() {
				gone := !slices.ContainsFunc(w.transfers[1:], func(t *transfer) bool { return !t.done() })
				switch {
				case w.now < 2*time.Second:
					alone = max(alone, len(first.open))
				case !gone:
					others = w.now
					if w.now > 2500*time.Millisecond {
						together = max(together, len(first.open))
					}
				case w.now < others+4*time.Second:
					again = len(first.open)
				}
			}
			if t.Logf("%d, %d, %d", alone, together, again); alone < 14 || together > 2 || again < 8 {
				t.Errorf("up %v: %d alone, %d with others, %d alone again", up, alone, together, again)
			}
		}
	}
}

// Whatever it is told, the number stays within its bounds.
func TestAnything(t *testing.T) {
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 0))
		most := random.IntN(20) - 1
		c := New(most, time.Duration(random.Int64N(1000)))
		var at time.Duration
		for range 500 {
			at += time.Duration(random.Int64N(1 << random.IntN(40)))
			switch random.IntN(9) {
			case 8:
				c.Begin(random.IntN(30) - 5)
			case 0:
				c.Waits(at)
			case 1:
				c.Resumes(at)
			case 2:
				c.Refused(random.IntN(20) - 2)
			case 3:
				odd := random.Int64() - random.Int64()
				c.Finished(at-time.Duration(random.Int64()), odd, time.Duration(odd))
			default:
				c.Finished(at, random.Int64N(1<<random.IntN(40)), time.Duration(random.Int64N(1<<random.IntN(40))))
			}
			if n := c.Wants(); n < 1 || n > max(most, 1) || c.Found() < 0 || c.Found() > max(most, 1) {
				t.Fatalf("seed %d: %d in flight of at most %d", seed, n, most)
			}
		}
	}
}

// Any line carries any transfers to their end, within all bounds.
func TestAnyLine(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 1))
		s := scene{
			line: line{
				each: 1e6 * float64(1+random.IntN(300)), trip: time.Duration(random.IntN(200)) * time.Millisecond,
				jitter: random.Float64(),
			},
			up: random.IntN(2) == 0, piece: float64(1+random.IntN(8)) * mib, peer: 1e6 * float64(1+random.IntN(1600)),
			count: 1 + random.IntN(8), budget: random.IntN(40),
		}
		if random.IntN(2) == 0 {
			s.line.ceiling = 1e6 * float64(10+random.IntN(500))
		}
		if c := s.run(64*mib, seed, ours, nil); c.highest > 16 || c.took > time.Hour {
			t.Errorf("%+v: %+v", s, c)
		}
	}
}

// A transfer that begins with what the one before has found has no climb to make, and finds out if the line has changed.
func TestBeginning(t *testing.T) {
	far := scene{
		line: line{each: 50e6, trip: 20 * time.Millisecond, jitter: 0.1}, up: true, piece: partSize, peer: hashing, count: 1,
	}
	for seed := range uint64(2) {
		first := New(16, 0)
		cold := far.run(128*mib, seed, func() policy { return first }, nil)
		found := first.Found()
		warm := far.run(128*mib, seed, func() policy {
			c := New(16, 0)
			c.Begin(found)
			return c
		}, nil)
		slow := far
		slow.line.each, slow.peer = 100e6, 20e6
		last := New(16, 0)
		last.Begin(found)
		slow.run(512*mib, seed, func() policy { return last }, nil)
		report := fmt.Sprintf("found %d, then %d; %v, then %v", found, last.Found(), cold.took, warm.took)
		t.Log(report)
		if found < 12 || float64(warm.took) > 0.75*float64(cold.took) || last.Found() != 1 {
			t.Error(report)
		}
	}
}

// What a near store pays: a few additions for each range and each wait.
func TestNoAllocation(t *testing.T) {
	c, at := New(16, 0), time.Duration(0)
	if n := testing.AllocsPerRun(1000, func() {
		c.Waits(at)
		at += time.Millisecond
		c.Resumes(at)
		c.Finished(at, 2*mib, time.Millisecond)
		c.Refused(c.Wants() - 1)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkFinished(b *testing.B) {
	c, at := New(16, 0), time.Duration(0)
	for b.Loop() {
		at += time.Millisecond
		c.Finished(at, 2*mib, time.Millisecond)
	}
}
