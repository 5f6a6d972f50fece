package httpconn

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/task"
)

// connections counts those open in the process, for tests that look for leaks.
var connections atomic.Int64

// Connections tells how many connections are open in the process.
func Connections() int64 { return connections.Load() }

// conn is a connection whose calls block their thread. The goroutine that makes a request writes it and reads the
// answer itself. With Go's poller, each wait would end by waking another thread.
//
// It ends when no byte has moved for a while in either direction: no other timeout fits an upload of hours. A byte has
// moved when the system has sent it and the other end has taken it: on a slow line the system's buffers take bytes long
// before that. This is checked only a few times within a while.
type conn struct {
	fd            int
	local, remote net.Addr
	stall         time.Duration
	patience      time.Duration // how long nothing may move while the server works on a request, else 0
	until         time.Time     // when a read ends that no byte comes for; zero: the stall timer ends it
	deadline      time.Time     // when reading ends, however many bytes come, or zero
	bytes         int64         // bytes that we have read and written
	out           []byte        // bytes that TLS and proxies have written and that are not sent
	stuck         bool          // out was to be sent, and could not be

	thread task.Thread // the thread of whoever makes the request: unless it is the request's own, it must not be kept

	mu     sync.Mutex
	closed bool
}

// looks is how often progress is checked within the time of the stall timer.
const looks = 4

var (
	errStalled = &net.OpError{Op: "wait", Err: os.ErrDeadlineExceeded}
	// errHeard: there is no room to write more, and there is something to read.
	errHeard = errors.New("the server says something")
)

// blocking takes over a connection that Go has made.
func blocking(opened net.Conn, stall time.Duration) (*conn, error) {
	defer func() { _ = opened.Close() }()
	raw, err := opened.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	failed := raw.Control(func(of uintptr) { fd, err = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(failed, err); err != nil {
		return nil, err
	}
	connections.Add(1)
	return &conn{fd: fd, local: opened.LocalAddr(), remote: opened.RemoteAddr(), stall: stall}, nil
}

// keepAlive is how long a connection is idle before the system asks whether the other end is still there.
const keepAlive = 30 * time.Second

// connecting begins a connection to an address. Without a lookup it needs neither Go's poller nor another thread.
func connecting(to netip.AddrPort, stall time.Duration) (*conn, error) {
	family, address := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
	if ip := to.Addr().Unmap(); ip.Is4() {
		family, address = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: ip.As4()}
	}
	c := &conn{local: &net.TCPAddr{}, remote: net.TCPAddrFromAddrPort(to), stall: stall}
	var err error
	if c.fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, c.failed(err)
	}
	connections.Add(1)
	seconds := int(keepAlive / time.Second)
	err = errors.Join(
		unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
		unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds),
		unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds/2),
	)
	if err == nil {
		err = unix.Connect(c.fd, address)
	}
	if err != nil && err != unix.EINPROGRESS && err != unix.EINTR {
		_ = c.Close()
		return nil, c.failed(err)
	}
	return c, nil
}

// connected waits until the connection is made, and then makes its calls block.
func (c *conn) connected(ctx context.Context) error {
	for {
		ready, err := c.await(unix.POLLOUT, time.Second) // when ctx ends, so does the connection
		switch {
		case err != nil:
			return err
		case ready != 0:
			return c.begin(ctx)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
}

// begin makes the calls of a connection block once it is made, or tells why it is not.
func (c *conn) begin(ctx context.Context) error {
	if number, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || number != 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return c.failed(cmp.Or(err, error(unix.Errno(number))))
	}
	reads, writes := unix.NsecToTimeval(int64(c.look())), unix.NsecToTimeval(int64(min(c.look(), listens)))
	return errors.Join(
		unix.SetNonblock(c.fd, false),
		unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &reads),
		unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &writes),
	)
}

func (c *conn) failed(err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: c.remote, Err: err}
}

func (c *conn) look() time.Duration { return max(c.stall/looks, time.Millisecond) }

// watch is what one waiting call has seen.
type watch struct {
	moved int64
	since time.Time
}

// again tells whether a call that has waited for the time of one look goes on waiting.
func (c *conn) again(w *watch) bool {
	if !c.until.IsZero() || c.late() {
		return false
	}
	now, moved := time.Now(), c.moved()
	switch {
	case w.since.IsZero() && c.thread.Own():
		w.since = now.Add(-c.look())
	case w.since.IsZero() || w.moved != moved:
		w.since = now
	}
	w.moved = moved
	return now.Sub(w.since) < max(c.stall, c.patience)
}

// late tells whether the time for the whole answer is over.
func (c *conn) late() bool { return !c.deadline.IsZero() && time.Now().After(c.deadline) }

// moved counts the bytes that have gone either way, as the system sees it; if the system does not tell, as we do.
func (c *conn) moved() int64 {
	info, err := unix.GetsockoptTCPInfo(c.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return c.bytes
	}
	return int64(info.Bytes_acked + info.Bytes_received)
}

// Read implements net.Conn. It first sends what was written.
func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := c.flush(); err != nil && err != errHeard {
		return 0, err
	}
	for w := (watch{}); ; {
		n, err := c.read(p)
		switch {
		case n > 0 && c.late():
			return 0, errStalled
		case n > 0:
			c.bytes += int64(n)
			return n, nil
		case err == nil:
			return 0, io.EOF
		case err == unix.EAGAIN && !c.again(&w):
			return 0, errStalled
		case err != unix.EAGAIN && err != unix.EINTR:
			return 0, &net.OpError{Op: "read", Err: err}
		}
	}
}

// read waits for bytes; EAGAIN means that none came in time.
func (c *conn) read(p []byte) (int, error) {
	switch {
	case !c.until.IsZero():
		if ready, err := c.soon(unix.POLLIN, time.Until(c.until)); err == nil && ready == 0 {
			return 0, unix.EAGAIN
		}
	case !c.thread.Own():
		if ready, err := c.await(unix.POLLIN, c.look()); err != nil {
			return 0, err
		} else if ready == 0 {
			return 0, unix.EAGAIN
		}
	}
	return unix.Read(c.fd, p)
}

// Write implements net.Conn. It sends nothing, flush does: so TLS is never in the middle of a write while something can
// be read.
func (c *conn) Write(p []byte) (int, error) {
	c.out = append(c.out, p...)
	return len(p), nil
}

// flush sends what was written, or as much as it can before there is something to read.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	left, err := c.write([][]byte{c.out})
	c.stuck = len(left) > 0
	if c.stuck {
		c.out = append(c.out[:0], left[0]...)
	} else {
		c.out = c.out[:0]
	}
	return err
}

const (
	// atOnce bounds the pieces of one write. After each write others may have the processor. Otherwise the hash, which
	// all wait for in the end, would stand still as long as there is room to write.
	atOnce = 8
	// listens is how often a write checks whether the server answers instead of reading.
	listens = 100 * time.Millisecond
)

// write sends pieces, and gives those that it could not send.
func (c *conn) write(pieces [][]byte) ([][]byte, error) {
	flags := unix.MSG_NOSIGNAL
	if !c.thread.Own() {
		flags |= unix.MSG_DONTWAIT
	}
	for w := (watch{}); len(pieces) > 0; {
		n, err := unix.SendmsgBuffers(c.fd, pieces[:min(len(pieces), atOnce)], nil, nil, flags)
		switch {
		case err == nil:
			c.bytes += int64(n)
			if pieces = after(pieces, n); len(pieces) > 0 {
				_, _ = unix.RawSyscallNoError(unix.SYS_SCHED_YIELD, 0, 0, 0) // with Syscall, that costs more than it gains
			}
		case err == unix.EAGAIN:
			if err := c.room(&w); err != nil {
				return pieces, err
			}
		case err != unix.EINTR:
			return pieces, &net.OpError{Op: "write", Err: err}
		}
	}
	return nil, nil
}

// after drops n bytes from the front.
func after(pieces [][]byte, n int) [][]byte {
	for len(pieces) > 0 && n >= len(pieces[0]) {
		n -= len(pieces[0])
		pieces = pieces[1:]
	}
	if n > 0 {
		rest := append([][]byte{pieces[0][n:]}, pieces[1:]...)
		return rest
	}
	return pieces
}

// room waits until more can be written.
func (c *conn) room(w *watch) error {
	ready, err := c.await(unix.POLLOUT|unix.POLLIN, c.look())
	switch {
	case err != nil:
		return err
	case ready&unix.POLLOUT != 0:
		return nil
	case ready&unix.POLLIN != 0:
		return errHeard
	case ready == 0 && !c.again(w):
		return errStalled
	default: // the next write tells what is wrong
		return nil
	}
}

// await is poll for a wait that may take long. A thread that is not the request's own is left until the wait is over.
// An error of the thread means that nobody waits any more, even if the connection does not know that yet.
func (c *conn) await(events int16, wait time.Duration) (int16, error) {
	if c.thread.Own() {
		return c.poll(events, wait)
	}
	ready, err := c.thread.Wait(c.fd, events, wait)
	if number, ok := err.(unix.Errno); ok {
		err = &net.OpError{Op: "wait", Err: number}
	}
	if ready != 0 || err != nil {
		return ready, err
	}
	return c.poll(events, 0)
}

// soon is poll for a wait that is short: only a thread that is shared is left meanwhile.
func (c *conn) soon(events int16, wait time.Duration) (int16, error) {
	if wait > 0 && c.thread.Shared() {
		return c.await(events, wait)
	}
	return c.poll(events, wait)
}

// poll waits for one of the events, and gives those that are there; 0 if there was none in time.
func (c *conn) poll(events int16, wait time.Duration) (int16, error) {
	ask := []unix.PollFd{{Fd: int32(c.fd), Events: events}}
	for {
		n, err := unix.Poll(ask, int(max(wait.Milliseconds(), 0)))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, &net.OpError{Op: "wait", Err: err}
		case n == 0:
			return 0, nil
		default:
			return ask[0].Revents, nil
		}
	}
}

// abort makes every call end at once. Any thread may call it; the owner closes the connection.
func (c *conn) abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		_ = unix.Shutdown(c.fd, unix.SHUT_RDWR)
	}
}

// Close implements net.Conn; only the owner may call it. It drops what the system still holds of a request. Otherwise
// the server would get all of it, minutes after the caller was told that it failed.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	if held, err := unix.IoctlGetInt(c.fd, unix.SIOCOUTQ); c.stuck || err == nil && held > 0 {
		c.drop()
	} else {
		if len(c.out) > 0 { // TLS says that it closes
			_ = unix.Sendto(c.fd, c.out, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
		}
		_ = unix.Shutdown(c.fd, unix.SHUT_RDWR) // for a forked child too, which holds a copy
	}
	connections.Add(-1)
	return unix.Close(c.fd)
}

// drop takes back what the system has not sent, even if others hold the connection: a forked child keeps it open.
func (c *conn) drop() {
	nobody := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, failed := unix.Syscall(unix.SYS_CONNECT, uintptr(c.fd), uintptr(unsafe.Pointer(&nobody)), unsafe.Sizeof(nobody))
	if failed != 0 {
		_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn. It does nothing: there is the stall timer.
func (c *conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
