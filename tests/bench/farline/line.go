//go:build linux

package main

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	quantum = 64 * 1024
	// slack is what a direction holds beyond what is under way: room for goroutines that wake late.
	slack = 4 * quantum
)

// Line carries connections to one server.
type Line struct {
	upstream  string
	bandwidth float64 // bytes a second of a connection, in each direction
	delay     time.Duration
	loss      int64 // bytes
	passed    atomic.Int64
	up, down  ceiling
}

// NewLine takes bytes and bytes a second; without a ceiling or loss they are 0.
func NewLine(upstream string, bandwidth float64, delay time.Duration, limit float64, loss int64) *Line {
	return &Line{
		upstream: upstream, bandwidth: bandwidth, delay: delay, loss: loss,
		up: ceiling{rate: limit}, down: ceiling{rate: limit},
	}
}

// Serve takes connections until the listener fails.
func (l *Line) Serve(listener net.Listener) error {
	for {
		client, err := listener.Accept()
		if err != nil {
			return err
		}
		go l.connect(client.(*net.TCPConn))
	}
}

// connect makes a connection and carries it until its end. The kernel has let the client in at once, so the round trip
// that this takes is waited for here, before the first byte leaves.
func (l *Line) connect(client *net.TCPConn) {
	made := time.Now().Add(l.delay)
	clock := newAlarm()
	clock.wait(made)
	clock.close()
	conn, err := net.Dial("tcp", l.upstream)
	if err != nil {
		reset(client)
		return
	}
	server := conn.(*net.TCPConn)
	var both sync.WaitGroup
	both.Go(func() { l.carry(client, server, &l.up) })
	both.Go(func() { l.carry(server, client, &l.down) })
	both.Wait()
	client.Close()
	server.Close()
}

func reset(conns ...*net.TCPConn) {
	for _, conn := range conns {
		conn.SetLinger(0)
		conn.Close()
	}
}

// carry is one direction of a connection, until the end of its bytes has passed or it is lost.
//
// Times are computed, not measured: a goroutine that wakes late makes no byte late that follows, for it catches up.
// Only a pause of the sender, or of a receiver behind a full line, is not made up for.
func (l *Line) carry(from, to *net.TCPConn, all *ceiling) {
	// Large buffers of the kernel would take far more from a sender than the line holds.
	from.SetReadBuffer(slack)
	to.SetWriteBuffer(slack)
	underWay := newQueue(int(l.bandwidth*l.delay.Seconds()) + slack)
	var delivered sync.WaitGroup
	defer delivered.Wait()
	delivered.Go(func() { l.deliver(underWay, from, to) })
	clock := newAlarm()
	defer clock.close()
	free := time.Now() // when the last byte so far has left
	for {
		buffer := buffers.Get().(*[quantum]byte)
		n, waited, err := read(from, buffer[:])
		if err != nil {
			if err != io.EOF {
				reset(from, to)
			}
			underWay.put(piece{due: later(free, time.Now()).Add(l.delay / 2)})
			return
		}
		if waited {
			free = later(free, time.Now())
		}
		free = later(free.Add(lasts(n, l.bandwidth)), all.take(n, free))
		waited, open := underWay.put(piece{buffer, n, free.Add(l.delay / 2)})
		if !open {
			return
		}
		if waited {
			free = later(free, time.Now())
		}
		clock.wait(free)
	}
}

// deliver writes each piece when it is due.
func (l *Line) deliver(underWay *queue, from, to *net.TCPConn) {
	defer underWay.close()
	clock := newAlarm()
	defer clock.close()
	for {
		p := underWay.first()
		clock.wait(p.due)
		if p.buffer == nil {
			to.CloseWrite()
			return
		}
		if l.loses(p.n) {
			reset(from, to)
			return
		}
		if _, err := to.Write(p.buffer[:p.n]); err != nil {
			reset(from, to)
			return
		}
		underWay.remove()
		buffers.Put(p.buffer)
	}
}

func (l *Line) loses(n int) bool {
	if l.loss == 0 {
		return false
	}
	passed := l.passed.Add(int64(n))
	return passed/l.loss != (passed-int64(n))/l.loss
}

// read is a Read that says whether it had to wait for the sender.
func read(conn *net.TCPConn, buffer []byte) (n int, waited bool, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, false, err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, failed = syscall.Read(int(fd), buffer)
			if failed != syscall.EINTR {
				break
			}
		}
		if failed == syscall.EAGAIN {
			waited = true
			return false
		}
		return true
	})
	switch {
	case err != nil:
		return 0, waited, err
	case failed != nil:
		return 0, waited, failed
	case n == 0:
		return 0, waited, io.EOF
	}
	return n, waited, nil
}

// ceiling is the rate of all connections together. They take their turns quantum by quantum.
type ceiling struct {
	rate float64 // bytes a second; 0 is no ceiling
	mu   sync.Mutex
	free time.Time
}

// take says when n bytes have left that may leave from `start` on.
func (c *ceiling) take(n int, start time.Time) time.Time {
	if c.rate == 0 {
		return start
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.free = later(c.free, start).Add(lasts(n, c.rate))
	return c.free
}

func lasts(n int, rate float64) time.Duration {
	return time.Duration(float64(n) / rate * float64(time.Second))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// piece is what one read has given. Without a buffer it is the end.
type piece struct {
	buffer *[quantum]byte
	n      int
	due    time.Time
}

var buffers = sync.Pool{New: func() any { return new([quantum]byte) }}

// queue holds what is under way, up to a limit of bytes.
type queue struct {
	limit   int
	mu      sync.Mutex
	changed sync.Cond
	pieces  []piece
	bytes   int
	closed  bool
}

func newQueue(limit int) *queue {
	q := &queue{limit: limit}
	q.changed.L = &q.mu
	return q
}

// put waits for room. It says whether it had to, and whether the queue is still open.
func (q *queue) put(p piece) (waited, open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed && q.bytes+p.n > q.limit {
		waited = true
		q.changed.Wait()
	}
	q.pieces = append(q.pieces, p)
	q.bytes += p.n
	q.changed.Broadcast()
	return waited, !q.closed
}

// first waits for a piece, which stays in the queue.
func (q *queue) first() piece {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.pieces) == 0 {
		q.changed.Wait()
	}
	return q.pieces[0]
}

func (q *queue) remove() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= q.pieces[0].n
	q.pieces = q.pieces[1:]
	q.changed.Broadcast()
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}
