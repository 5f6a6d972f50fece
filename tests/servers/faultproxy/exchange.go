package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Entry is what the log says of one request.
type Entry struct {
	Operation  string            `json:"operation"`
	Method     string            `json:"method"`
	Key        string            `json:"key"`
	Query      map[string]string `json:"query"`   // without the signature
	Headers    map[string]string `json:"headers"` // those that concern S3, in lower case, without the signature
	Connection int64             `json:"connection"`
	Status     int               `json:"status"`   // 0: none was sent
	Fault      string            `json:"fault"`    // "": none took effect
	Received   int64             `json:"received"` // bytes of the request's body
	Sent       int64             `json:"sent"`     // bytes of the response's body
	Seconds    float64           `json:"seconds"`
	Finished   bool              `json:"finished"`
	Error      string            `json:"error"` // why it was cut, "" if it was not
}

// exchange is one request and its response on their way through the proxy.
type exchange struct {
	proxy    *Proxy
	writer   http.ResponseWriter
	request  *http.Request
	client   *client
	rule     Rule // with no Fault if none hits
	upload   *tap
	download *tap
	started  time.Time

	mu    sync.Mutex
	entry Entry
}

// What ends an exchange whose client gets no whole response.
var (
	errCut  = errors.New("cut by a fault")
	errLeft = errors.New("the client left during a stall")
)

func (x *exchange) run() error {
	switch x.rule.Fault {
	case "status", "error_in_200", "no_copy", "no_checksums":
		return x.answer()
	case "delay":
		if err := x.stall(); err != nil {
			return err
		}
	}
	response, err := x.forward()
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if x.rule.Fault == "lost_response" {
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return err
		}
		return x.reset()
	}
	return x.relay(response)
}

// forward sends the request on as it came. A new connection for each: none is ever found stale, and cut ones are gone.
func (x *exchange) forward() (*http.Response, error) {
	request := x.request.Clone(x.request.Context())
	request.RequestURI = ""
	request.URL.Scheme, request.URL.Host = x.proxy.upstream.Scheme, x.proxy.upstream.Host
	request.Header.Del("Connection")
	if !hasHeader(request.Header, "User-Agent") {
		request.Header.Set("User-Agent", "") // else net/http adds its own
	}
	if request.ContentLength != 0 {
		request.Body = x.upload
	}
	return x.proxy.transport.RoundTrip(request)
}

func (x *exchange) relay(response *http.Response) error {
	header := x.writer.Header()
	for name, values := range response.Header {
		header[name] = values
	}
	header.Del("Connection")
	for _, name := range []string{"Content-Type", "Date"} {
		if !hasHeader(header, name) {
			header[name] = nil // else net/http adds its own
		}
	}
	download := x.tapped(response.Body, "down")
	x.mu.Lock()
	x.download = download
	x.mu.Unlock()
	if err := download.arrive(-1); err != nil {
		return err
	}
	x.head(response.StatusCode)
	_, err := io.CopyBuffer(struct{ io.Writer }{x.writer}, download, make([]byte, 64*1024))
	return err
}

func (x *exchange) answer() error {
	if x.rule.ReadBody {
		if _, err := io.Copy(io.Discard, x.upload); err != nil {
			return err
		}
	}
	x.applied()
	id := fmt.Sprintf("faultproxy-%d", x.started.UnixNano())
	body, err := xml.Marshal(struct {
		XMLName                       xml.Name `xml:"Error"`
		Code, Message, Key, RequestId string
	}{Code: x.rule.Code, Message: x.rule.Message, Key: x.entry.Key, RequestId: id})
	if err != nil {
		return err
	}
	header := x.writer.Header()
	header.Set("Content-Type", "application/xml")
	header.Set("X-Amz-Request-Id", id)
	if x.rule.RetryAfter != "" {
		header.Set("Retry-After", x.rule.RetryAfter)
	}
	x.head(x.rule.Status)
	n, err := io.WriteString(x.writer, xml.Header+string(body))
	if x.request.Method != http.MethodHead {
		x.mu.Lock()
		x.entry.Sent = int64(n)
		x.mu.Unlock()
	}
	return err
}

func (x *exchange) head(status int) {
	x.mu.Lock()
	x.entry.Status = status
	x.mu.Unlock()
	x.writer.WriteHeader(status)
}

// applied notes that the fault took effect.
func (x *exchange) applied() {
	x.mu.Lock()
	x.entry.Fault = x.rule.Fault
	x.mu.Unlock()
}

func (x *exchange) reset() error {
	x.applied()
	x.client.conn.SetLinger(0) // what is closed now ends with RST instead of FIN
	x.client.conn.Close()
	return errCut
}

func (x *exchange) stall() error {
	x.applied()
	over := time.After(time.Duration(x.rule.Seconds * float64(time.Second)))
	for waiting := true; waiting; {
		select {
		case <-over:
			waiting = false
		case <-x.rule.cleared:
			waiting = false
		case <-time.After(10 * time.Millisecond):
		}
		if x.client.left() {
			return errLeft
		}
	}
	return nil
}

// tapped counts a body, and lets the fault happen in it if it is one of this direction, "up" or "down".
func (x *exchange) tapped(body io.ReadCloser, direction string) *tap {
	t := &tap{ReadCloser: body, at: x.rule.At}
	kind, faultDirection, _ := strings.Cut(x.rule.Fault, "_")
	if kind == "short" && direction == "down" {
		t.act = func() error { x.applied(); x.flush(); return errCut }
	}
	if faultDirection != direction {
		return t
	}
	switch kind {
	case "flip":
		t.flip = x.applied
	case "reset":
		t.act = func() error { x.flush(); return x.reset() }
	case "stall":
		t.act = func() error { x.flush(); return x.stall() }
	}
	return t
}

// flush sends what net/http still holds back of a response that has begun.
func (x *exchange) flush() {
	x.mu.Lock()
	begun := x.entry.Status != 0
	x.mu.Unlock()
	if begun {
		http.NewResponseController(x.writer).Flush()
	}
}

func (x *exchange) snapshot() Entry {
	x.mu.Lock()
	defer x.mu.Unlock()
	entry := x.entry
	entry.Received = x.upload.passed.Load()
	if x.download != nil {
		entry.Sent = x.download.passed.Load()
	}
	if !entry.Finished {
		entry.Seconds = time.Since(x.started).Seconds()
	}
	return entry
}

func (x *exchange) finish(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.entry.Finished, x.entry.Seconds = true, time.Since(x.started).Seconds()
	if err != nil {
		x.entry.Error = err.Error()
	}
}

// tap counts the bytes of a body as they are read; at one place in it something happens once.
type tap struct {
	io.ReadCloser
	passed atomic.Int64
	at     int64
	act    func() error // before the byte at `at` is read
	flip   func()       // when that byte has been inverted
}

func (t *tap) Read(p []byte) (int, error) {
	before := t.passed.Load()
	if err := t.arrive(before); err != nil {
		return 0, err
	}
	if t.act != nil && t.at > before {
		p = p[:min(int64(len(p)), t.at-before)]
	}
	n, err := t.ReadCloser.Read(p)
	if place := t.at - before; t.flip != nil && place >= 0 && place < int64(n) {
		p[place] ^= 0xff
		t.flip()
	}
	t.passed.Add(int64(n))
	return n, err
}

func (t *tap) arrive(place int64) error {
	if t.act == nil || place != t.at {
		return nil
	}
	act := t.act
	t.act = nil
	return act()
}

// client is one connection from a client.
type client struct {
	number int64
	conn   *net.TCPConn
}

// left tells whether the client has closed its end, also while there is something to read from it.
func (c *client) left() bool {
	const established = 1 // enum in linux/tcp_states.h; tcp_info begins with the state
	state := 0
	raw, err := c.conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			state, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO)
		})
	}
	return err != nil || state&0xff != established
}

func hasHeader(header http.Header, name string) bool {
	_, there := header[name]
	return there
}
