// Package httpconn is an HTTP/1.1 client of one server.
//
// The goroutine that makes a request writes it and reads the answer, with system calls that block. Nothing is handed to
// another goroutine or to Go's poller. Client keeps connections (pool.go). A persistConn makes one request at a time
// (exchange.go), over a conn that ends when no byte moves for a while (conn.go).
//
// The package writes only to sockets, and needs no permission but to connect. A request that fails leaves no bytes: its
// connection is closed, and what the system had still to send of it is dropped, even if a forked child holds a copy of
// the socket.
package httpconn

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/proxy"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/task"
)

// Client makes requests to one server, over connections that it keeps.
type Client struct {
	host    *url.URL
	proxy   *url.URL // nil: none
	secure  *tls.Config
	connect time.Duration
	stall   time.Duration
	keep    time.Duration  // how long an idle connection is kept
	most    int            // idle connections
	literal netip.AddrPort // the address to connect to, if it needs no lookup

	mu     sync.Mutex
	idle   []*persistConn // the newest last
	busy   int            // connections that are being made, or serve a request
	timer  *time.Timer
	closed bool
}

// Config says what a client connects to, and how long it waits.
type Config struct {
	Host    *url.URL
	Proxy   *url.URL // nil: none
	TLS     *tls.Config
	Connect time.Duration // for a connection to be made
	Stall   time.Duration // for how long no byte may move
	Idle    int           // connections that are kept open
}

// New makes a client. It connects when there is a request.
func New(c Config) *Client {
	t := &Client{
		host: c.Host, proxy: c.Proxy, secure: c.TLS, connect: c.Connect, stall: c.Stall,
		keep: min(30*time.Second, c.Stall/2), most: c.Idle,
	}
	if address, err := netip.ParseAddrPort(addressOf(t.to())); err == nil && address.Addr().Zone() == "" {
		t.literal = address
	}
	return t
}

// Request is one request: its head, with the length of the body, and the body in pieces.
type Request struct {
	Head     *http.Request
	Body     [][]byte
	Patience time.Duration // how long nothing may move while the server works on it, if longer than usual
	Repeated func()        // is called each time that the request is sent again
}

// Do makes a request. If the server has closed the idle connection that it uses, it goes on with another one.
//
// The answer's body is a *Body. Its connection serves no other request until the body was read to its end, or closed.
func (t *Client) Do(ctx context.Context, asked Request) (*http.Response, error) {
	request := asked.Head
	for {
		pc, err := t.getConn(ctx)
		if err != nil {
			return nil, err
		}
		old := pc.served > 0
		response, err := pc.do(ctx, request, asked.Body, asked.Patience, t.release)
		if err == nil && response.StatusCode == http.StatusExpectationFailed && request.Header.Get("Expect") != "" {
			_ = response.Body.Close()
			request.Header.Del("Expect") // it is not signed
			asked.Repeated()
			continue
		}
		if err == nil || !old || ctx.Err() != nil {
			return response, err
		}
		if _, ok := errors.AsType[lostError](err); !ok {
			return nil, err
		}
		asked.Repeated()
	}
}

// Warm makes connections ahead of need, side by side, until there are so many with those in use. They cost no request a
// round trip later. Whether they come about, the next requests will tell.
func (t *Client) Warm(ctx context.Context, connections int) {
	t.mu.Lock()
	missing := min(connections, t.most) - len(t.idle) - t.busy
	t.busy += max(missing, 0)
	t.mu.Unlock()
	for range missing {
		go func() {
			if pc, err := t.rescuedDial(ctx); err == nil {
				t.release(pc, true)
			} else {
				t.notMade()
			}
		}()
	}
}

// rescuedDial is dial in a goroutine of its own, where a panic would end the process.
func (t *Client) rescuedDial(ctx context.Context) (pc *persistConn, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return t.dial(ctx)
}

// getConn gives a connection that is idle, or a new one.
func (t *Client) getConn(ctx context.Context) (pc *persistConn, err error) {
	t.mu.Lock()
	t.busy++
	t.mu.Unlock()
	for {
		t.mu.Lock()
		last := len(t.idle) - 1
		if last < 0 {
			t.mu.Unlock()
			break
		}
		pc = t.idle[last]
		t.idle[last] = nil
		t.idle = t.idle[:last]
		t.mu.Unlock()
		if time.Since(pc.since) < t.keep && !pc.readable(time.Now()) { // and it has sent nothing that nobody asked for
			return pc, nil
		}
		_ = pc.stream.Close()
	}
	if t.literal.IsValid() {
		pc, err = t.dial(ctx)
	} else { // aside, for the lookup of the name
		pc, err = task.Aside(ctx, t.dial, func(pc *persistConn) { _ = pc.stream.Close() })
	}
	if err != nil {
		t.notMade()
	}
	return pc, err
}

func (t *Client) notMade() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy--
}

// release takes a connection back.
func (t *Client) release(pc *persistConn, free bool) {
	pc.served++
	pc.since = time.Now()
	t.mu.Lock()
	t.busy--
	free = free && !t.closed && len(t.idle) < t.most
	if free {
		t.idle = append(t.idle, pc)
		if t.timer == nil {
			t.timer = time.AfterFunc(t.keep, t.expire)
		}
	}
	t.mu.Unlock()
	if !free {
		_ = pc.stream.Close()
	}
}

// expire closes connections that were idle for long.
func (t *Client) expire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	var young []*persistConn
	for _, pc := range t.idle {
		if time.Since(pc.since) < t.keep {
			young = append(young, pc)
		} else {
			_ = pc.stream.Close()
		}
	}
	t.idle = young
	t.timer = nil
	if len(young) > 0 {
		t.timer = time.AfterFunc(t.keep-time.Since(young[0].since), t.expire)
	}
}

// Close closes idle connections, and those that become idle later.
func (t *Client) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, pc := range t.idle {
		_ = pc.stream.Close()
	}
	t.idle = nil
	if t.timer != nil {
		t.timer.Stop()
	}
}

// to is the URL to connect to.
func (t *Client) to() *url.URL {
	if t.proxy != nil {
		return t.proxy
	}
	return t.host
}

// dial makes a connection, through the proxy if there is one.
func (t *Client) dial(ctx context.Context) (*persistConn, error) {
	ctx, cancel := context.WithTimeout(ctx, t.connect)
	defer cancel()
	c, err := t.reach(ctx)
	if err != nil {
		return nil, err
	}
	c.thread = task.ThreadOf(ctx)
	defer func() { c.thread = task.Thread{} }()
	stop := context.AfterFunc(ctx, c.abort)
	if err = c.connected(ctx); err != nil {
		_, _ = stop(), c.Close()
		return nil, err
	}
	stream, err := t.handshake(ctx, c)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	made := newPersistConn(c, stream)
	if t.proxy != nil && t.host.Scheme == "http" && !socks(t.proxy) {
		made.via = t.proxy
	}
	return made, nil
}

// reach begins a connection, or makes one.
func (t *Client) reach(ctx context.Context) (*conn, error) {
	if t.literal.IsValid() {
		return connecting(t.literal, t.stall)
	}
	opened, err := (&net.Dialer{KeepAlive: keepAlive}).DialContext(ctx, "tcp", addressOf(t.to()))
	if err != nil {
		return nil, err
	}
	return blocking(opened, t.stall)
}

func socks(proxy *url.URL) bool { return strings.HasPrefix(proxy.Scheme, "socks5") }

// handshake does what comes before the first request: what the proxy requires, and TLS.
func (t *Client) handshake(ctx context.Context, c *conn) (stream net.Conn, err error) {
	stream = c
	if t.proxy != nil {
		if stream, err = t.through(ctx, c); err != nil {
			return nil, err
		}
	}
	if t.host.Scheme == "https" {
		return t.startTLS(stream, t.host)
	}
	return stream, nil
}

// through makes a connection to the proxy into one to the server, unless each request names the server.
func (t *Client) through(ctx context.Context, c *conn) (stream net.Conn, err error) {
	if socks(t.proxy) {
		dialer, err := proxy.FromURL(t.proxy, nil)
		if err != nil {
			return nil, err
		}
		with := dialer.(interface {
			DialWithConn(context.Context, net.Conn, string, string) (net.Addr, error)
		})
		_, err = with.DialWithConn(ctx, c, "tcp", addressOf(t.host))
		return c, err
	}
	stream = c
	if t.proxy.Scheme == "https" {
		if stream, err = t.startTLS(stream, t.proxy); err != nil {
			return nil, err
		}
	}
	if t.host.Scheme == "https" {
		err = tunnel(stream, t.proxy, addressOf(t.host))
	}
	return stream, err
}

func (t *Client) startTLS(stream net.Conn, to *url.URL) (net.Conn, error) {
	config := t.secure.Clone()
	config.ServerName = to.Hostname()
	secured := tls.Client(stream, config)
	return secured, secured.Handshake() // its last message goes with the first request
}

// tunnel asks a proxy for a connection to the server.
func tunnel(stream net.Conn, proxy *url.URL, address string) error {
	ask := "CONNECT " + address + " HTTP/1.1\r\nHost: " + address + "\r\n" + authorization(proxy) + "\r\n"
	if _, err := io.WriteString(stream, ask); err != nil {
		return err
	}
	answer := bufio.NewReader(&io.LimitedReader{R: stream, N: longestHead}) // the proxy sends nothing after it until we do
	var response *http.Response
	for range mostInterim + 1 {
		var err error
		if response, err = http.ReadResponse(answer, &http.Request{Method: http.MethodConnect}); err != nil {
			return err
		}
		if response.StatusCode/100 != 1 {
			break
		}
	}
	if response.StatusCode != http.StatusOK {
		return ProxyError(response.StatusCode)
	}
	return nil
}

// ProxyError is the status with which a proxy refused a tunnel.
type ProxyError int

func (e ProxyError) Error() string { return fmt.Sprintf("the proxy answers %d", int(e)) }

// authorization is the header that tells a proxy who asks, or "".
func authorization(proxy *url.URL) string {
	if proxy.User == nil {
		return ""
	}
	password, _ := proxy.User.Password()
	word := base64.StdEncoding.EncodeToString([]byte(proxy.User.Username() + ":" + password))
	return "Proxy-Authorization: Basic " + word + "\r\n"
}

// Ports has the URL schemes that one can connect to, or through, and the port of each.
var Ports = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}

func addressOf(to *url.URL) string {
	port := to.Port()
	if port == "" {
		port = Ports[to.Scheme]
	}
	return net.JoinHostPort(to.Hostname(), port)
}
