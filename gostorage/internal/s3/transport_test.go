package s3

import (
	"bufio"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/httpconn"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// relay is a proxy for http, for tunnels and of SOCKS 5, and notes what it was asked.
type relay struct {
	net.Listener
	mu    sync.Mutex
	asked []string
}

func newRelay(t *testing.T) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: listener}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			opened, err := listener.Accept()
			if err != nil {
				return
			}
			go r.serve(opened)
		}
	}()
	return r
}

func (r *relay) note(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, what)
}

func (r *relay) notes() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.asked, "; ")
}

func (r *relay) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	reader := bufio.NewReader(client)
	if first, err := reader.Peek(1); err != nil || first[0] == 5 {
		r.socks(client, reader)
		return
	}
	for {
		request, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		user := request.Header.Get("Proxy-Authorization")
		r.note(request.Method + " " + request.RequestURI + " " + user)
		if request.Method == http.MethodConnect {
			_, _ = io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
			join(client, reader, request.RequestURI)
			return
		}
		request.RequestURI = ""
		answer, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			return
		}
		_ = answer.Write(client)
		_ = answer.Body.Close()
	}
}

func (r *relay) socks(client net.Conn, reader *bufio.Reader) {
	hello := make([]byte, 2)
	_, _ = io.ReadFull(reader, hello)
	_, _ = io.CopyN(io.Discard, reader, int64(hello[1]))
	_, _ = client.Write([]byte{5, 0})
	ask := make([]byte, 10) // an address of four bytes
	_, _ = io.ReadFull(reader, ask)
	to := fmt.Sprintf("%d.%d.%d.%d:%d", ask[4], ask[5], ask[6], ask[7], int(ask[8])<<8|int(ask[9]))
	r.note("SOCKS " + to)
	_, _ = client.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	join(client, reader, to)
}

func join(client net.Conn, reader io.Reader, to string) {
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	go func() { _, _ = io.Copy(server, reader); _ = server.Close() }()
	_, _ = io.Copy(client, server)
}

// keeping is a server that holds one object.
type keeping struct {
	mu   sync.Mutex
	data []byte
}

func (k *keeping) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w.Header().Set("ETag", `"e"`)
	if r.Method == http.MethodPut {
		k.data, _ = io.ReadAll(r.Body)
		return
	}
	_, _ = w.Write(k.data)
}

func TestProxies(t *testing.T) {
	plain, secure := httptest.NewServer(&keeping{}), httptest.NewTLSServer(&keeping{})
	defer plain.Close()
	defer secure.Close()
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if err := os.WriteFile(bundle, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, scheme := range []string{"http", "socks5", "socks5h"} {
		for _, server := range []*httptest.Server{plain, secure} {
			through := newRelay(t)
			store := open(t, server.URL, func(c *Config) {
				c.Proxy, c.CABundle = scheme+"://user:word@"+through.Addr().String(), bundle
				if scheme != "http" {
					c.Proxy = scheme + "://" + through.Addr().String()
				}
			})
			data := []byte("some bytes")
			for range 2 {
				source := &endless{left: 1, size: int64(len(data)), bytes: data}
				if _, err := store.Put(t.Context(), "k", source, object.PutOptions{Overwrite: true}); err != nil {
					t.Fatalf("%s to %s: %v", scheme, server.URL, err)
				}
			}
			opened, err := store.Get(t.Context(), "k", object.Whole)
			if err != nil {
				t.Fatal(err)
			}
			into := make([]byte, 100)
			if n, err := opened.ReadAt(into, 0); !bytes.Equal(into[:n], data) {
				t.Errorf("%s to %s gives %q, %v", scheme, server.URL, into[:n], err)
			}
			_, _ = opened.Close(), store.Close()
			host, _ := url.Parse(server.URL)
			want := "SOCKS " + host.Host
			if scheme == "http" {
				want = "CONNECT " + host.Host + " Basic dXNlcjp3b3Jk"
				if server == plain {
					one := server.URL + "/tests/TestProxies/k?x-id="
					want = fmt.Sprintf("PUT %[1]sPutObject Basic dXNlcjp3b3Jk; PUT %[1]sPutObject Basic dXNlcjp3b3Jk; GET %[1]sGetObject Basic dXNlcjp3b3Jk", one)
				}
			}
			if got := through.notes(); got != want {
				t.Errorf("%s to %s: the proxy was asked %s", scheme, server.URL, got)
			}
		}
	}
}

func TestProxyThatRefuses(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusProxyAuthRequired)
	}))
	defer refusing.Close()
	store := open(t, "https://store.example", func(c *Config) { c.Proxy, c.MaxAttempts = refusing.URL, 1 })
	defer func() { _ = store.Close() }()
	if _, err := store.Stat(t.Context(), "k"); err == nil || !strings.Contains(err.Error(), "the proxy answers 407") {
		t.Errorf("a proxy that refuses gives %v", err)
	}
}

// A server that ends connections between requests costs nothing but another one.
func TestConnectionsThatEndWhileIdle(t *testing.T) {
	server := httptest.NewServer(&keeping{data: []byte("some")})
	defer server.Close()
	store := open(t, server.URL, func(c *Config) { c.MaxAttempts = 1 })
	defer func() { _ = store.Close() }()
	for range 3 {
		if _, err := store.Stat(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		server.CloseClientConnections()
	}
}

// Idle connections are kept for the next requests, and no longer than that is of use.
func TestIdleConnections(t *testing.T) {
	var opened atomic.Int64
	server := httptest.NewUnstartedServer(&keeping{data: []byte("some")})
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	store := open(t, server.URL, func(c *Config) { c.ReadTimeout = 0.4 }) // an idle one is kept for half of it
	defer func() { _ = store.Close() }()
	for range 5 {
		if _, err := store.Stat(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
	}
	if opened.Load() != 1 || httpconn.Connections() != 1 {
		t.Errorf("%d connections were opened, %d are open", opened.Load(), httpconn.Connections())
	}
	for end := time.Now().Add(5 * time.Second); httpconn.Connections() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("an idle connection stays")
		}
	}
}

// However many requests there were at a time, no more connections stay than max_connections.
func TestIdleConnectionsAreLimited(t *testing.T) {
	const asked, most = 6, 2
	var together sync.WaitGroup
	together.Add(asked)
	keeping := &keeping{data: []byte("some")}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		together.Done()
		together.Wait()
		keeping.ServeHTTP(w, r)
	}))
	defer server.Close()
	store := open(t, server.URL, func(c *Config) { c.MaxConnections = most })
	defer func() { _ = store.Close() }()
	var calls sync.WaitGroup
	for range asked { // none of them waits for another, though there are more of them than that
		calls.Go(func() {
			if _, err := store.Stat(t.Context(), "k"); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if n := httpconn.Connections(); n != most {
		t.Errorf("%d connections are kept", n)
	}
}

// A server that refuses a body before it has all of it is heard, and its connection is not used again.
func TestEarlyAnswers(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "<Error><Code>AccessDenied</Code></Error>")
	}))
	defer server.Close()
	store := open(t, server.URL, func(c *Config) { c.PartSize = 32 << 20 })
	defer func() { _ = store.Close() }()
	for range 3 {
		source := &endless{left: 96, size: 96 * object.BlockSize, bytes: make([]byte, object.BlockSize)}
		_, err := store.Put(t.Context(), "k", source, object.PutOptions{Overwrite: true})
		if object.CodeOf(err) != object.Permission {
			t.Fatalf("an early refusal gives %v", err)
		}
	}
	if n := httpconn.Connections(); n != 0 {
		t.Errorf("%d connections are kept", n)
	}
}
