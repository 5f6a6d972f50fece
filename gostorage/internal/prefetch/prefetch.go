// Package prefetch fetches a part of an object in the background, ahead of its reader.
//
// It begins with one request for all of it. If the reader waits for the line, ranges are fetched side by side: how many
// is decided by package flow. The first of them proves that the server gives ranges; only then is the long request cut
// off where that range begins. Once one request is enough again, the next one asks for all of the rest.
//
// What is fetched and never read is bounded: see Prefetcher.mayBeUnread.
package prefetch

import (
	"context"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/flow"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

const (
	// rangeSize in bytes is the size of ranges that are fetched side by side. 512 MiB came at 460, 470 and 350 MB/s with
	// ranges of 3, 4 and 6 MiB at 50 MB/s a connection and 20 ms, and at 265, 288 and 238 MB/s with 80 ms: the budget has
	// room for fifteen of 4 MiB.
	rangeSize = 4 << 20
	// sample in bytes is what is read of the first request before the controller is told of it.
	sample = 2 << 20
	// least and always, in bytes: a reader that has read the least may have so much unread, however little it has read.
	least  = 1 << 20
	always = 8 << 20
	// fewest is how many requests side by side are better than one for all: each range costs a round trip.
	fewest = 3
	// readWait is how long a read waits for the first byte.
	readWait = 100 * time.Millisecond
	// stuckAfter is for how long nothing must have come of a range that others overtake, before it is asked for again;
	// patience is the least multiple of the time of another range.
	stuckAfter = time.Second
	patience   = 4
)

// Source is the object that is read.
type Source struct {
	Open     func(ctx context.Context, from, until int64) (io.ReadCloser, error) // asks for these bytes of it, and no others
	Size     int64                                                               // in bytes
	Attempts int                                                                 // how many in a row may fail without a byte

	Connections *flow.Total                                // to its host, beside the first one of each transfer
	Warm        func(ctx context.Context, connections int) // makes connections to it ahead of need
	Line        *Line
}

// Line is what readers have found out about the line to a store, for those after them.
type Line struct {
	ranged atomic.Bool  // the store gives ranges
	number atomic.Int32 // how many requests side by side were right for the last reader; 0: not known
}

// Prefetcher fetches a part of an object. Its methods are called by one reader at a time.
type Prefetcher struct {
	source Source
	ctx    context.Context
	begun  int64
	next   int64 // the first byte that is not asked for
	until  int64
	step   int64 // bytes of the next request if it is the only one, or 0 for all that is left

	ranges []*fetcher // in order; the first is being read
	proof  *fetcher   // a range ahead while it is not known whether the server gives ranges, or nil

	control     *flow.Controller // nil: one request at a time
	memory      *buffers.Share
	connections *flow.Share
	at          time.Duration // the latest time that control was told
	told        int64         // how far the reader was then
	took        time.Duration // how long the range took that has ended last
}

// Part says what to fetch: the bytes [From, Until). Step bounds the first request, in bytes, and each next one is four
// times as long; 0: no bound.
type Part struct{ From, Until, Step int64 }

// Start begins to fetch a part of an object from a body, which came while fetch lasts, or from one that it opens if body
// is nil. Later requests are made while ctx lasts. What fits in a block is fetched before Start returns, as long as call
// lasts. After an error, both the body and fetch are ended.
func Start(
	call, ctx, fetch context.Context, cancel context.CancelCauseFunc, source Source, body io.ReadCloser, part Part,
) (*Prefetcher, error) {
	p := &Prefetcher{
		source: source, ctx: ctx, begun: part.From, next: part.From, until: part.Until, step: part.Step, told: part.From,
	}
	if p.until-p.begun > object.BlockSize {
		p.memory = buffers.Shared.Share()
	}
	if p.until-p.begun > rangeSize {
		p.at = time.Duration(clock())
		p.connections = source.Connections.Share()
		p.control = flow.New(int(source.Connections.Units()), p.at)
		p.control.Begin(int(source.Line.number.Load()))
	}
	first, err := p.alone(fetch, cancel)
	if err != nil {
		cancel(nil)
		if body != nil {
			_ = body.Close()
		}
		return nil, err
	}
	if err := first.start(call, body); err != nil { // call has ended
		p.Close()
		return nil, err
	}
	return p, nil
}

// alone makes a fetcher that has its own block, for all that is left or the next step. It is not started yet.
func (p *Prefetcher) alone(ctx context.Context, cancel context.CancelCauseFunc) (*fetcher, error) {
	until := p.until
	if p.step > 0 {
		until = min(until, p.next+p.step)
		p.step *= 4
	}
	if p.control != nil && p.control.Wants() > 1 && p.next > p.begun {
		until = min(until, p.next+rangeSize)
	}
	made, err := p.fetcher(ctx, cancel, p.next, until)
	if err == nil {
		p.next = until
		p.ranges = append(p.ranges, made)
	}
	return made, err
}

func (p *Prefetcher) fetcher(
	ctx context.Context, cancel context.CancelCauseFunc, from, until int64,
) (*fetcher, error) {
	block, err := buffers.Shared.Get()
	if err != nil {
		return nil, object.Errorf(object.IO, "no memory for a buffer: %v", err)
	}
	return newFetcher(ctx, cancel, p.source, []*buffers.Block{block}, p.memory, from, until), nil
}

// Reaches tells whether an offset is here, or under way, or so near that reading on is cheaper than another request.
func (p *Prefetcher) Reaches(offset int64) bool {
	near := p.position() + ahead*object.BlockSize
	if len(p.ranges) > 1 {
		near = max(near, p.next)
	}
	return offset >= p.position() && offset < p.until && offset <= min(near, p.next)
}

// position is the next byte to be read.
func (p *Prefetcher) position() int64 {
	if len(p.ranges) > 0 {
		return p.ranges[0].at
	}
	return p.next
}

// Read gives bytes from an offset that it reaches. It waits only for the first byte, and not for long: 0 without an
// error means that none came in time.
func (p *Prefetcher) Read(into []byte, offset int64) (int, error) {
	total, wait := 0, readWait
	for total < len(into) && offset < p.until {
		if len(p.ranges) == 0 {
			ctx, cancel := context.WithCancelCause(p.ctx)
			next, err := p.alone(ctx, cancel)
			if err != nil {
				cancel(nil)
				return total, err
			}
			_ = next.start(p.ctx, nil)
		}
		first := p.ranges[0]
		if offset >= first.until {
			p.drop()
			continue
		}
		waited := first.waited
		n, err := first.read(into[total:], offset, wait)
		if err != nil {
			if total > 0 {
				err = nil // it comes again, after these bytes
			}
			return total, err
		}
		total, offset = total+n, offset+int64(n)
		if p.control != nil {
			p.observe(first, first.waited-waited)
		}
		if first.at < first.until {
			break
		}
		p.drop()
		wait = 0
	}
	if p.control != nil {
		p.extend()
		if total == 0 {
			return 0, p.hurry()
		}
	}
	return total, nil
}

// drop ends with the range that was read.
func (p *Prefetcher) drop() {
	first := p.ranges[0]
	p.ranges = append(p.ranges[:0], p.ranges[1:]...)
	first.close()
	if p.control != nil {
		p.tell(first)
		p.told = p.position()
	}
}

// observe tells the controller how long the reader has waited just now, and which ranges have come.
func (p *Prefetcher) observe(first *fetcher, waited time.Duration) {
	now := time.Duration(clock())
	if waited > 0 {
		p.control.Waits(max(p.at, now-waited))
		p.control.Resumes(now)
	}
	switch whole := int64(2 * rangeSize); {
	case first.until-first.begun <= whole:
	case first.at-p.told >= sample: // it stands for as many ranges as it has
		p.control.Finished(now, first.at-p.told, now-max(p.at, first.since))
		p.told, p.at = first.at, now
	}
	for _, each := range p.ranges {
		p.tell(each)
	}
}

// tell tells the controller of a range that has come, once.
func (p *Prefetcher) tell(one *fetcher) {
	ended := time.Duration(one.ended.Load())
	if ended == 0 || one.since == 0 || one.until-one.begun > 2*rangeSize {
		return
	}
	p.took = ended - one.since
	p.at = max(p.at, ended)
	p.control.Finished(p.at, one.until-one.begun, p.took)
	one.since = 0
}

// extend asks for further ranges while the controller wants them.
func (p *Prefetcher) extend() {
	wants := p.control.Wants()
	if len(p.ranges) == 0 || wants == 1 && p.proof == nil {
		return
	}
	if first := p.ranges[0]; p.proof != nil || len(p.ranges) == 1 && first.until-first.at > 2*rangeSize {
		if p.mayBeUnread() == 0 || !p.divide(first, wants) {
			return
		}
	}
	for len(p.ranges) < wants && p.next < p.until {
		until := min(p.until, p.next+rangeSize)
		if until-p.position() > p.mayBeUnread() {
			return
		}
		next := p.ahead(p.next, until)
		if next == nil {
			return
		}
		p.next = until
		p.ranges = append(p.ranges, next)
	}
}

// divide makes the long request that is under way the first of some ranges, and tells whether it is.
func (p *Prefetcher) divide(long *fetcher, wants int) bool {
	if p.proof != nil {
		return p.prove(long, wants)
	}
	if !p.connections.Take(fewest - 1) {
		p.control.Refused(1)
		return false
	}
	p.connections.Give(fewest - 1)
	if !p.source.Line.ranged.Load() {
		return p.prove(long, wants)
	}
	from := long.at + rangeSize
	next := p.ahead(from, from+rangeSize)
	return next != nil && p.cutOff(long, next)
}

// cutOff ends a long request where a range ahead begins, unless the reader is there already.
func (p *Prefetcher) cutOff(long, next *fetcher) bool {
	if !long.shorten(next.begun) {
		next.close()
		return false
	}
	p.source.Warm(p.ctx, p.control.Wants()) // the long request's is lost: a range would wait for another, with those behind it
	p.next = next.until
	p.ranges = append(p.ranges, next)
	return true
}

// prove has a range fetched beside a long request that is under way, and cuts that off where the range begins. It tells
// whether that is done. A server that does not give the range gets no other request.
func (p *Prefetcher) prove(long *fetcher, wants int) bool {
	if p.proof == nil {
		from := long.at + max(rangeSize, p.mayBeUnread()-rangeSize)
		if wants > 1 && from+rangeSize < long.until {
			p.proof = p.ahead(from, from+rangeSize)
		}
		return false
	}
	proof := p.proof
	refused := false
	select {
	case <-proof.done:
		refused = !proof.opened.Load()
	default:
	}
	if wants > 1 && !refused && !proof.opened.Load() && long.at < proof.begun {
		return false
	}
	p.proof = nil
	switch {
	case refused:
		p.control = nil
	case wants > 1 && proof.opened.Load():
		p.source.Line.ranged.Store(true)
		return p.cutOff(long, proof)
	}
	proof.close() // it is not needed, or the reader was sooner there
	return false
}

// mayBeUnread is how many bytes may be here or under way: at first none, then 8 MiB, and later twice as much as was read.
// So a reader that looks at the beginning costs one request, and one that stops early has fetched little in vain. With as
// much as was read, 512 MiB come at 360 MB/s in place of 430 over 50 MB/s a connection and 20 ms.
func (p *Prefetcher) mayBeUnread() int64 {
	read := p.position() - p.begun
	if read < least {
		return 0
	}
	return max(always, 2*read)
}

// ahead begins to fetch a range before it is asked for. It gives nil if there is no memory or no connection for it.
func (p *Prefetcher) ahead(from, until int64) *fetcher {
	if !p.connections.Take(1) {
		p.control.Refused(len(p.ranges))
		return nil
	}
	blocks := p.memory.TryGetAll(until - from)
	if blocks == nil {
		p.connections.Give(1)
		p.control.Refused(len(p.ranges))
		return nil
	}
	ctx, cancel := context.WithCancelCause(p.ctx)
	made := newFetcher(ctx, cancel, p.source, blocks, nil, from, until)
	made.after = func() { p.connections.Give(1) }
	go made.run(nil) // none of its bytes are left to the reader
	return made
}

// hurry asks again for the range that the reader waits for, once, if nothing comes of it while others have come: over
// another connection.
func (p *Prefetcher) hurry() error {
	if len(p.ranges) == 0 {
		return nil
	}
	first := p.ranges[0]
	if first.again || !p.overtaken() || since(first.moved.Load()) < max(stuckAfter, patience*p.took) {
		return nil
	}
	ctx, cancel := context.WithCancelCause(p.ctx)
	again, err := p.fetcher(ctx, cancel, first.at, first.until)
	if err != nil {
		cancel(nil)
		return err
	}
	first.close()
	again.again = true
	go again.run(nil)
	p.ranges[0] = again
	return nil
}

// overtaken tells whether a range behind the first has come, or all before it, if it is the last of those side by side.
func (p *Prefetcher) overtaken() bool {
	first, behind := p.ranges[0], p.ranges[1:]
	if len(behind) == 0 {
		return first.after != nil && p.next == p.until
	}
	return slices.ContainsFunc(behind, func(one *fetcher) bool { return one.ended.Load() > 0 })
}

// Direct tells whether the reader takes bytes from the connection itself.
func (p *Prefetcher) Direct() bool { return len(p.ranges) > 0 && p.ranges[0].left }

// Lend has memory filled with the bytes that follow, unless they come in another way.
func (p *Prefetcher) Lend(memory []byte, loan *buffers.Loan) {
	if len(p.ranges) > 0 {
		p.ranges[0].lend(memory, loan)
	}
}

// Close ends the fetching and gives the memory back.
func (p *Prefetcher) Close() {
	if p.control != nil {
		if found := p.control.Found(); found > 0 {
			p.source.Line.number.Store(int32(found))
		}
	}
	if p.proof != nil {
		p.ranges = append(p.ranges, p.proof)
	}
	for _, each := range p.ranges {
		each.stop()
	}
	for _, each := range p.ranges {
		each.close()
	}
	if p.memory != nil {
		p.memory.End()
	}
	if p.connections != nil {
		p.connections.End()
	}
}
