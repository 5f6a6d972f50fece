package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"golang.org/x/sys/unix"
)

// connections counts those open in the process, for tests that look for leaks.
var connections atomic.Int64

// Connections tells how many connections are open in the process.
func Connections() int64 { return connections.Load() }

// writeBuffer in bytes: a request that fits is one write.
const writeBuffer = 16 << 10

// readBuffer in bytes: a small answer comes by one read, and what is read of a large one goes past it. Every connection
// has one.
const readBuffer = 16 << 10

// transport makes the connections of a client.
func transport(
	secure *tls.Config, proxy func(*http.Request) (*url.URL, error), connect, stall time.Duration, idle int,
) *http.Transport {
	dialer := &net.Dialer{Timeout: connect, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy: proxy,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			opened, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			connections.Add(1)
			return watched(opened, stall), nil
		},
		TLSClientConfig:       secure,
		TLSHandshakeTimeout:   connect,
		MaxIdleConnsPerHost:   idle,
		IdleConnTimeout:       min(30*time.Second, stall/2), // before the stall timer ends it
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true, // bytes are what was stored
		WriteBufferSize:       writeBuffer,
		ReadBufferSize:        readBuffer,
	}
}

// conn ends when no byte has moved for a while in either direction: the only timeout that fits an upload of hours. What
// counts is what the system has sent and the other end has taken: on a slow line its buffers take bytes long before they
// move. It is looked at only when the deadline is over, which is some times within a while.
type conn struct {
	net.Conn
	raw    syscall.RawConn
	stall  time.Duration
	longer atomic.Int64 // nanoseconds of patience while the server works on what it got, else 0
	bytes  atomic.Int64 // that we have read and written
	closed atomic.Bool
	over   atomic.Bool // it has stalled
	ending atomic.Bool
}

// looks is how many there are within the time of the stall timer.
const looks = 4

func watched(opened net.Conn, stall time.Duration) *conn {
	c := &conn{Conn: opened, stall: stall}
	if plain, ok := opened.(syscall.Conn); ok {
		c.raw, _ = plain.SyscallConn()
	}
	_ = c.SetDeadline(time.Now().Add(stall / looks))
	return c
}

// watch is what one call that waits has seen.
type watch struct {
	moved int64
	since time.Time
}

// again tells whether a call that has ended with err goes on: the deadline was over, but not the patience.
func (c *conn) again(w *watch, err error) bool {
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || c.over.Load() {
		return false
	}
	now, moved := time.Now(), c.moved()
	if w.since.IsZero() || w.moved != moved {
		*w = watch{moved, now}
	}
	if now.Sub(w.since) >= max(c.stall, time.Duration(c.longer.Load())) {
		c.over.Store(true)
		return false
	}
	return c.SetDeadline(now.Add(c.stall/looks)) == nil
}

// moved counts bytes that have gone either way, as the system sees it; where it does not tell, as we do.
func (c *conn) moved() int64 {
	total := c.bytes.Load()
	if c.raw != nil {
		_ = c.raw.Control(func(fd uintptr) {
			if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
				total += int64(info.Bytes_acked + info.Bytes_received)
			}
		})
	}
	return total
}

func (c *conn) wait(patience time.Duration) { c.longer.Store(int64(patience)) }

func (c *conn) Read(p []byte) (int, error) {
	for w := (watch{}); ; {
		n, err := c.Conn.Read(p)
		c.bytes.Add(int64(n))
		if !c.again(&w, err) {
			return n, err
		}
	}
}

func (c *conn) Write(p []byte) (written int, err error) {
	for w := (watch{}); ; {
		n, err := c.Conn.Write(p[written:])
		written += n
		c.bytes.Add(int64(n))
		if !c.again(&w, err) {
			return written, c.why(err)
		}
	}
}

func (c *conn) writeAll(data net.Buffers) (written int64, err error) {
	for w := (watch{}); ; {
		n, err := data.WriteTo(c.Conn)
		written += n
		c.bytes.Add(n)
		if !c.again(&w, err) {
			return written, c.why(err)
		}
	}
}

// why tells what a failed write is about. net/http ends all with the first error that it sees: a stalled connection is
// closed by the read that always waits, and the answer of a server that will not have all of a request gets lost by a
// write that fails before it was read.
func (c *conn) why(err error) error {
	switch {
	case err == nil:
	case c.over.Load():
		return os.ErrDeadlineExceeded
	case errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		time.Sleep(lastWords)
	}
	return err
}

// lastWords is the time for reading why a server has closed.
const lastWords = 50 * time.Millisecond

// SetWriteDeadline is what TLS does before it says that it closes. That must not take longer.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.dropUnsent()
	c.over.Store(true)
	return c.Conn.SetWriteDeadline(t)
}

// ReadFrom sends a part's blocks as they are. net/http comes here with what is left of a body; it would copy it
// through a small buffer else.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	if limited, ok := r.(*io.LimitedReader); ok {
		if body, ok := limited.R.(*body); ok {
			n, err := body.writeTo(c, limited.N)
			limited.N -= n
			return n, err
		}
	}
	return io.Copy(struct{ io.Writer }{c}, r)
}

// dropUnsent sees to it that what the system still holds of a request goes with the connection: the server would get all
// of it else, minutes after the caller was told that it failed.
func (c *conn) dropUnsent() {
	plain, ok := c.Conn.(*net.TCPConn)
	if !ok || c.raw == nil || c.ending.Swap(true) {
		return
	}
	held := 0
	_ = c.raw.Control(func(fd uintptr) { held, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	if held > 0 {
		_ = plain.SetLinger(0)
	}
}

func (c *conn) Close() error {
	c.dropUnsent()
	if !c.closed.Swap(true) {
		connections.Add(-1)
	}
	return c.Conn.Close()
}

// request is what one operation tells the layers below it.
type request struct {
	hash     string        // SHA-256 of the payload, in hex, or a word of Signature Version 4 for it
	part     *part         // the body, or nil
	md5      bool          // the body needs a Content-MD5
	patience time.Duration // how long the server may work before it answers, where that is longer than usual
	began    time.Time
	attempts int
}

type requestKey struct{}

func requestOf(ctx context.Context) *request {
	found, _ := ctx.Value(requestKey{}).(*request)
	return found
}

// sender is the end of the SDK's steps: it sends one attempt.
type sender struct{ client *http.Client }

// agent names us to servers.
var agent = []string{"django-gostorage"}

// announced in bytes: a body of this size, which the server may refuse for what is there already, is sent once the
// server says that it wants it. Another one is not worth the time of an answer.
const announced = 1 << 20

// Handle implements middleware.Handler.
func (s sender) Handle(ctx context.Context, input any) (any, middleware.Metadata, error) {
	prepared := input.(*smithyhttp.Request)
	about := requestOf(ctx)
	about.attempts++
	request := prepared.Request.WithContext(ctx)
	request.Header["User-Agent"] = agent
	switch stream := prepared.GetStream(); {
	case about.part != nil && about.part.size > 0:
		request.Body = about.part.body()
		if request.Header.Get("If-None-Match") != "" && about.part.size >= announced {
			request.Header.Set("Expect", "100-continue")
			request.ProtoMajor, request.ProtoMinor = 1, 1 // net/http does not wait else
		}
	case stream != nil && request.ContentLength != 0:
		request.Body = io.NopCloser(stream)
	default:
		request.ContentLength = 0
	}
	response, err := s.do(request, about.patience)
	if err != nil {
		if ctx.Err() != nil {
			err = &smithy.CanceledError{Err: ctx.Err()}
		} else {
			err = &smithyhttp.RequestSendError{Err: err}
		}
		response = &http.Response{Header: http.Header{}, Body: http.NoBody}
	}
	return &smithyhttp.Response{Response: response}, middleware.Metadata{}, err
}

// do sends a request; with patience the server has longer to answer than the stall timer gives it.
func (s sender) do(request *http.Request, patience time.Duration) (*http.Response, error) {
	if patience == 0 {
		return s.client.Do(request)
	}
	var used *conn
	request = request.WithContext(httptrace.WithClientTrace(request.Context(), &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) {
			if secure, ok := got.Conn.(*tls.Conn); ok {
				got.Conn = secure.NetConn()
			}
			if plain, ok := got.Conn.(*conn); ok {
				used = plain
				used.wait(patience)
			}
		},
	}))
	response, err := s.client.Do(request)
	if used != nil {
		used.wait(0)
	}
	return response, err
}
