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
)

// connections counts those open in the process, for tests that look for leaks.
var connections atomic.Int64

// Connections tells how many connections are open in the process.
func Connections() int64 { return connections.Load() }

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
		WriteBufferSize:       16 << 10,
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
	patience time.Duration // how long the server may work before it answers, where that is longer than usual
	attempts int
}

type requestKey struct{}

func requestOf(ctx context.Context) *request {
	found, _ := ctx.Value(requestKey{}).(*request)
	return found
}

// doer is the SDK's HTTP client.
type doer struct{ client *http.Client }

// agent names us to servers.
var agent = []string{"django-gostorage"}

// Do sends one attempt.
func (d doer) Do(r *http.Request) (*http.Response, error) {
	about := requestOf(r.Context())
	if about == nil {
		return d.client.Do(r)
	}
	about.attempts++
	r.Header["User-Agent"] = agent
	if about.part != nil && about.part.size > 0 {
		r.Body = &body{part: about.part}
	}
	if about.patience == 0 {
		return d.client.Do(r)
	}
	var used *conn
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) {
			if secure, ok := got.Conn.(*tls.Conn); ok {
				got.Conn = secure.NetConn()
			}
			if plain, ok := got.Conn.(*conn); ok {
				used = plain
				used.wait(about.patience)
			}
		},
	}))
	response, err := d.client.Do(r)
	if used != nil {
		used.wait(0)
	}
	return response, err
}
