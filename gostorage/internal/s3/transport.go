package s3

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

	"github.com/django-gostorage/django-gostorage/gostorage/internal/coroutine"
)

// transport makes requests of one server over connections that it keeps.
type transport struct {
	host    *url.URL
	proxy   *url.URL // nil: none
	secure  *tls.Config
	connect time.Duration
	stall   time.Duration
	keep    time.Duration  // how long an idle connection is kept
	most    int            // idle connections
	literal netip.AddrPort // of what is connected to, if that needs no lookup

	mu     sync.Mutex
	idle   []*line // the newest last
	timer  *time.Timer
	closed bool
}

func newTransport(host, proxy *url.URL, secure *tls.Config, connect, stall time.Duration, idle int) *transport {
	t := &transport{
		host: host, proxy: proxy, secure: secure, connect: connect, stall: stall, keep: min(30*time.Second, stall/2), most: idle,
	}
	if address, err := netip.ParseAddrPort(addressOf(t.to())); err == nil && address.Addr().Zone() == "" {
		t.literal = address
	}
	return t
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	var body [][]byte
	if request.Body != nil {
		text, err := io.ReadAll(request.Body)
		_ = request.Body.Close()
		if err != nil {
			return nil, err
		}
		body = [][]byte{text}
	}
	return t.do(request.Context(), request, body, 0, func() {})
}

// do makes a request. A connection that the server has closed while it was idle is followed by another; repeated hears of that.
func (t *transport) do(
	ctx context.Context, request *http.Request, body [][]byte, patience time.Duration, repeated func(),
) (*http.Response, error) {
	for {
		l, err := t.take(ctx)
		if err != nil {
			return nil, err
		}
		old := l.served > 0
		response, err := l.exchange(ctx, request, body, patience, t.over)
		if err == nil && response.StatusCode == http.StatusExpectationFailed && request.Header.Get("Expect") != "" {
			_ = response.Body.Close()
			request.Header.Del("Expect") // it is not signed
			repeated()
			continue
		}
		if err == nil || !old || ctx.Err() != nil {
			return response, err
		}
		if _, ok := errors.AsType[lost](err); !ok {
			return nil, err
		}
		repeated()
	}
}

// take gives a connection that is idle, or a new one.
func (t *transport) take(ctx context.Context) (*line, error) {
	for {
		t.mu.Lock()
		last := len(t.idle) - 1
		if last < 0 {
			t.mu.Unlock()
			if t.literal.IsValid() {
				return t.dial(ctx)
			}
			return coroutine.Aside(ctx, t.dial, func(l *line) { _ = l.stream.Close() }) // for the lookup of the name
		}
		l := t.idle[last]
		t.idle[last] = nil
		t.idle = t.idle[:last]
		t.mu.Unlock()
		if time.Since(l.since) < t.keep && !l.said(time.Now()) { // also nothing that nobody has asked for
			return l, nil
		}
		_ = l.stream.Close()
	}
}

// over takes a connection back.
func (t *transport) over(l *line, free bool) {
	l.served++
	l.since = time.Now()
	t.mu.Lock()
	free = free && !t.closed && len(t.idle) < t.most
	if free {
		t.idle = append(t.idle, l)
		if t.timer == nil {
			t.timer = time.AfterFunc(t.keep, t.expire)
		}
	}
	t.mu.Unlock()
	if !free {
		_ = l.stream.Close()
	}
}

// expire closes what was idle for long.
func (t *transport) expire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	var young []*line
	for _, l := range t.idle {
		if time.Since(l.since) < t.keep {
			young = append(young, l)
		} else {
			_ = l.stream.Close()
		}
	}
	t.idle = young
	t.timer = nil
	if len(young) > 0 {
		t.timer = time.AfterFunc(t.keep-time.Since(young[0].since), t.expire)
	}
}

// close ends what is idle, and what becomes so.
func (t *transport) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, l := range t.idle {
		_ = l.stream.Close()
	}
	t.idle = nil
	if t.timer != nil {
		t.timer.Stop()
	}
}

// to is what is connected to.
func (t *transport) to() *url.URL {
	if t.proxy != nil {
		return t.proxy
	}
	return t.host
}

// dial makes a connection, through the proxy if there is one.
func (t *transport) dial(ctx context.Context) (*line, error) {
	ctx, cancel := context.WithTimeout(ctx, t.connect)
	defer cancel()
	c, err := t.reach(ctx)
	if err != nil {
		return nil, err
	}
	c.leave = coroutine.Of(ctx)
	defer func() { c.leave = nil }()
	stop := context.AfterFunc(ctx, c.abort)
	if err = c.connected(ctx); err != nil {
		_, _ = stop(), c.Close()
		return nil, err
	}
	stream, err := t.dress(ctx, c)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	made := newLine(c, stream)
	if t.proxy != nil && t.host.Scheme == "http" && !socks(t.proxy) {
		made.via = t.proxy
	}
	return made, nil
}

// reach begins a connection, or makes one.
func (t *transport) reach(ctx context.Context) (*conn, error) {
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

// dress does what comes before the first request: what the proxy wants, and TLS.
func (t *transport) dress(ctx context.Context, c *conn) (stream net.Conn, err error) {
	stream = c
	if t.proxy != nil {
		if stream, err = t.through(ctx, c); err != nil {
			return nil, err
		}
	}
	if t.host.Scheme == "https" {
		return t.secured(stream, t.host)
	}
	return stream, nil
}

// through makes a connection to the proxy one to the server, unless each request says where it goes.
func (t *transport) through(ctx context.Context, c *conn) (stream net.Conn, err error) {
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
		if stream, err = t.secured(stream, t.proxy); err != nil {
			return nil, err
		}
	}
	if t.host.Scheme == "https" {
		err = tunnel(stream, t.proxy, addressOf(t.host))
	}
	return stream, err
}

func (t *transport) secured(stream net.Conn, to *url.URL) (net.Conn, error) {
	config := t.secure.Clone()
	config.ServerName = to.Hostname()
	secured := tls.Client(stream, config)
	return secured, secured.Handshake() // its last words go with the first request
}

// tunnel asks a proxy for a connection to the server.
func tunnel(stream net.Conn, proxy *url.URL, address string) error {
	ask := "CONNECT " + address + " HTTP/1.1\r\nHost: " + address + "\r\n" + authorization(proxy) + "\r\n"
	if _, err := io.WriteString(stream, ask); err != nil {
		return err
	}
	answer := bufio.NewReader(&io.LimitedReader{R: stream, N: longestHead}) // nothing comes after it until we speak
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
		return proxyError(response.StatusCode)
	}
	return nil
}

// proxyError is the status with which a proxy has refused a tunnel.
type proxyError int

func (e proxyError) Error() string { return fmt.Sprintf("the proxy answers %d", int(e)) }

// authorization is the header for a proxy that wants to know who asks.
func authorization(proxy *url.URL) string {
	if proxy.User == nil {
		return ""
	}
	password, _ := proxy.User.Password()
	word := base64.StdEncoding.EncodeToString([]byte(proxy.User.Username() + ":" + password))
	return "Proxy-Authorization: Basic " + word + "\r\n"
}

var ports = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}

func addressOf(to *url.URL) string {
	port := to.Port()
	if port == "" {
		port = ports[to.Scheme]
	}
	return net.JoinHostPort(to.Hostname(), port)
}
