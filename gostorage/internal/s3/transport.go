package s3

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// connections counts those open in the process, for tests that look for leaks.
var connections atomic.Int64

// Connections tells how many connections are open in the process.
func Connections() int64 { return connections.Load() }

// writeBuffer in bytes: a request that fits is one write.
const writeBuffer = 16 << 10

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
			return &conn{Conn: opened, stall: stall}, nil
		},
		TLSClientConfig:       secure,
		TLSHandshakeTimeout:   connect,
		MaxIdleConnsPerHost:   idle,
		IdleConnTimeout:       min(30*time.Second, stall/2), // before the stall timer ends it
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true, // bytes are what was stored
		WriteBufferSize:       writeBuffer,
		ReadBufferSize:        64 << 10,
	}
}

// conn ends when no byte has moved for a while in either direction: the only timeout that fits an upload of hours.
type conn struct {
	net.Conn
	stall  time.Duration
	longer atomic.Int64 // nanoseconds of patience while the server works on what it got, else 0
	next   atomic.Int64 // when the deadline is worth moving again, in nanoseconds
	closed atomic.Bool
}

// began is the zero of the clock of next: reading the monotonic clock is cheaper than the calendar.
var began = time.Now()

func (c *conn) alive() {
	now := time.Since(began)
	if int64(now) < c.next.Load() {
		return
	}
	c.next.Store(int64(now + c.stall/16))
	c.extend()
}

func (c *conn) extend() {
	_ = c.SetDeadline(time.Now().Add(max(c.stall, time.Duration(c.longer.Load()))))
}

func (c *conn) wait(patience time.Duration) {
	c.longer.Store(int64(patience))
	c.extend()
}

func (c *conn) Read(p []byte) (int, error) {
	c.alive()
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.alive()
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	c.alive()
	return c.Conn.Write(p)
}

func (c *conn) writeAll(data net.Buffers) (int64, error) {
	c.alive()
	return data.WriteTo(c.Conn)
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

func (c *conn) Close() error {
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
