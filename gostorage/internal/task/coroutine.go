// Package coroutine runs a call on the thread that asks for it.
//
// A small request costs less than waking the threads that could make it. So its work begins on Python's own thread; where
// it would wait for a socket for long, it goes back to Python instead, which waits for the socket and comes again. The work is
// written as any other: what may take long beside its own sockets goes through Aside, and all is the same without a
// coroutine.
//
// A coroutine belongs to a thread of the system: Go ends the process if another one resumes it.
package task

import (
	"cmp"
	"context"
	"iter"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// Coroutine is work that can be left and gone on with. Once its context has ended it is not left any more: whoever resumes it
// then sees its end.
type Coroutine struct {
	ctx    context.Context
	thread int
	resume func() (int, bool)
	yield  func(int) bool
	signal func() (fd int, raise func(), err error)
	fd     int
	ended  bool
	until  time.Time // when it has waited on its thread for long enough
}

// patience is how long the work waits where it is before it goes back: most is over by then, and to go back and to come
// again takes longer than the work itself. Signals wait that long too.
const patience = time.Millisecond

var impatient atomic.Bool

// Impatient has all work go back as soon as it waits.
func Impatient() { impatient.Store(true) }

type key struct{}

// New makes a coroutine of work, which does not begin yet. signal gives a descriptor that raise makes readable.
func New(ctx context.Context, signal func() (fd int, raise func(), err error), work func(context.Context)) *Coroutine {
	c := &Coroutine{ctx: ctx, thread: unix.Gettid(), signal: signal}
	ctx = context.WithValue(ctx, key{}, c)
	c.resume, _ = iter.Pull(func(yield func(int) bool) {
		c.yield = yield
		grow()
		work(ctx)
	})
	return c
}

// grow makes the stack as large as a request needs it. By itself it would grow in four steps, and copy all each time.
//
//go:noinline
func grow() {
	var room [12 << 10]byte
	keep(&room)
}

//go:noinline
func keep(*[12 << 10]byte) {}

// Of gives the coroutine that work with ctx is in, or nil.
func Of(ctx context.Context) *Coroutine {
	c, _ := ctx.Value(key{}).(*Coroutine)
	return c
}

// Within makes ctx one of the coroutine that other is of.
func Within(ctx, other context.Context) context.Context {
	if c := Of(other); c != nil {
		return context.WithValue(ctx, key{}, c)
	}
	return ctx
}

// Mine tells whether this thread may resume it.
func (c *Coroutine) Mine() bool { return c.thread == unix.Gettid() }

// Resume goes on until the work has ended, or waits: then there is a descriptor that will be readable. The work stands
// being resumed before it is.
func (c *Coroutine) Resume() (fd int, ended bool) {
	if !c.ended {
		c.until = time.Now().Add(patience)
		fd, more := c.resume()
		c.fd, c.ended = fd, !more
	}
	return c.fd, c.ended
}

// Waits gives the descriptor that was waited for last.
func (c *Coroutine) Waits() int { return c.fd }

// Err tells why its context has ended, or nil.
func (c *Coroutine) Err() error {
	if c.ctx.Err() == nil {
		return nil
	}
	return context.Cause(c.ctx)
}

// leave leaves it, unless it is to end.
func (c *Coroutine) leave(fd int) {
	if c.ctx.Err() == nil {
		c.yield(fd)
	}
}

// Wait waits until fd is readable. If that takes long it leaves the coroutine until it is resumed, which should be when fd
// is readable: it tells whether that is known. With an Err it does not wait.
func (c *Coroutine) Wait(fd int) (ready bool) {
	if c.ctx.Err() != nil {
		return false
	}
	if left := time.Until(c.until); left > 0 && !impatient.Load() {
		timeout := unix.NsecToTimespec(int64(left))
		if n, err := unix.Ppoll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, &timeout, nil); n > 0 && err == nil {
			return true
		}
	}
	c.leave(fd)
	return false
}

// Aside does what may take long; in a coroutine that is elsewhere, so that its thread is not kept. If ctx ends first, it
// is not waited for: what it gives then goes to late, unless that is nil.
func Aside[T any](ctx context.Context, work func(context.Context) (T, error), late func(T)) (result T, err error) {
	c := Of(ctx)
	if c == nil {
		return work(ctx)
	}
	fd, raise, failed := c.signal() // without a descriptor it is not waited for either
	type results struct {
		value T
		err   error
	}
	done := make(chan results, 1)
	Go(func() {
		var r results
		defer raise()
		defer func() { done <- r }()
		defer object.Rescue(&r.err)
		r.value, r.err = work(context.WithValue(ctx, key{}, nil))
	})
	stop := context.AfterFunc(ctx, raise)
	defer stop()
	for {
		if failed == nil {
			c.leave(fd)
		}
		select {
		case r := <-done:
			return r.value, r.err
		default:
		}
		if err := cmp.Or(failed, context.Cause(ctx), c.Err()); err != nil {
			go func() {
				if r := <-done; r.err == nil && late != nil {
					late(r.value)
				}
			}()
			return result, err
		}
	}
}
