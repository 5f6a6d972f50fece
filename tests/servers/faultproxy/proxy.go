package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Proxy forwards to one S3 server.
type Proxy struct {
	upstream  *url.URL
	transport *http.Transport

	numbers atomic.Int64 // of client connections so far
	open    atomic.Int64
	running atomic.Int64 // requests

	mu    sync.Mutex
	ids   int // of rules so far
	rules []*Rule
	log   []*exchange
}

// NewProxy forwards to the server at upstream, whose certificate must be one that trusted accepts if it is https.
func NewProxy(upstream *url.URL, trusted *tls.Config) *Proxy {
	return &Proxy{upstream: upstream, transport: &http.Transport{
		TLSClientConfig:       trusted,
		DisableCompression:    true, // else it asks for gzip on its own account
		DisableKeepAlives:     true,
		ExpectContinueTimeout: time.Second,
		WriteBufferSize:       64 * 1024,
		ReadBufferSize:        64 * 1024,
	}}
}

type clientKey struct{}

// Server is the side that clients talk to, by HTTP/1.1 only.
func (p *Proxy) Server() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:   p,
		Protocols: protocols,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			if secure, ok := conn.(*tls.Conn); ok {
				conn = secure.NetConn()
			}
			return context.WithValue(ctx, clientKey{}, &client{number: p.numbers.Add(1), conn: conn.(*net.TCPConn)})
		},
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				p.open.Add(1)
			case http.StateClosed:
				p.open.Add(-1)
			}
		},
	}
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.running.Add(1)
	defer p.running.Add(-1)
	http.NewResponseController(w).EnableFullDuplex() // an early answer must not wait for the rest of the request
	x := p.begin(w, r)
	err := x.run()
	x.finish(err)
	if err != nil {
		panic(http.ErrAbortHandler) // the client's connection is closed, and no end of the response is made up
	}
}

func (p *Proxy) begin(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{proxy: p, writer: w, request: r, client: r.Context().Value(clientKey{}).(*client), started: time.Now()}
	operation, key := classify(r)
	x.entry = Entry{
		Operation: operation, Method: r.Method, Key: key, Connection: x.client.number,
		Query: map[string]string{}, Headers: map[string]string{},
	}
	for name, values := range r.URL.Query() {
		if name != "X-Amz-Signature" {
			x.entry.Query[name] = values[0]
		}
	}
	for name, values := range r.Header {
		if name = strings.ToLower(name); concernsS3(name) {
			x.entry.Headers[name] = strings.Join(values, ",")
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.IndexFunc(p.rules, func(rule *Rule) bool { return rule.hits(r, operation, key) }); i >= 0 {
		x.rule = *p.rules[i]
	}
	x.upload = x.tapped(r.Body, "up")
	p.log = append(p.log, x)
	return x
}

func concernsS3(name string) bool {
	for _, prefix := range []string{"x-amz-", "if-", "content-", "range", "expect"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// Control is the side that tests talk to.
func (p *Proxy) Control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /rules", func(w http.ResponseWriter, r *http.Request) {
		rule := &Rule{cleared: make(chan struct{})}
		decoder := json.NewDecoder(r.Body)
		decoder.DisallowUnknownFields()
		err := decoder.Decode(rule)
		if err == nil {
			err = rule.complete()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ids++
		rule.id = p.ids
		p.rules = append(p.rules, rule)
		json.NewEncoder(w).Encode(map[string]int{"id": rule.id})
	})
	mux.HandleFunc("DELETE /rules/{id}", func(w http.ResponseWriter, r *http.Request) {
		p.takeBack(func(rule *Rule) bool { return strconv.Itoa(rule.id) == r.PathValue("id") })
	})
	mux.HandleFunc("DELETE /rules", func(http.ResponseWriter, *http.Request) {
		p.takeBack(func(*Rule) bool { return true })
	})
	mux.HandleFunc("GET /log", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(p.entries())
	})
	mux.HandleFunc("DELETE /log", func(http.ResponseWriter, *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.log = nil
	})
	mux.HandleFunc("GET /connections", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]int64{"open": p.open.Load()})
	})
	return mux
}

func (p *Proxy) takeBack(chosen func(*Rule) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = slices.DeleteFunc(p.rules, func(rule *Rule) bool {
		if chosen(rule) {
			close(rule.cleared)
			return true
		}
		return false
	})
}

// entries waits for what is still running: a client has its response a moment before the log is complete.
func (p *Proxy) entries() []Entry {
	for range 1000 {
		if p.running.Load() == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	entries := make([]Entry, len(p.log))
	for i, x := range p.log {
		entries[i] = x.snapshot()
	}
	return entries
}
