package httpconn

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"
)

// A proxy may say in between that it is at work, but not for ever.
func TestProxyThatTakesItsTime(t *testing.T) {
	for interim, want := range map[int]string{0: "", 3: "", mostInterim + 1: "the proxy answers 102"} {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = http.ReadRequest(bufio.NewReader(theirs))
			for range interim {
				_, _ = io.WriteString(theirs, "HTTP/1.1 102 Processing\r\n\r\n")
			}
			_, _ = io.WriteString(theirs, "HTTP/1.1 200 Connection established\r\n\r\n")
		}()
		err := tunnel(ours, &url.URL{}, "store.example:443")
		if got := fmt.Sprint(err); err == nil != (want == "") || want != "" && got != want {
			t.Errorf("after %d interim answers: %v", interim, err)
		}
		_, _ = ours.Close(), theirs.Close()
	}
}

// Connections that were made ahead of need serve the requests that follow, and no more are made than are missing.
func TestWarm(t *testing.T) {
	var made, open atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			made.Add(1)
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	server.Start()
	defer server.Close()
	host, _ := url.Parse(server.URL)
	client := New(Config{Host: host, Connect: time.Second, Stall: time.Minute, Idle: 4})
	until := func(what *atomic.Int64, want int64) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); what.Load() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d connections, not %d", what.Load(), want)
			}
		}
	}
	idle := func(want int) {
		t.Helper()
		for {
			client.mu.Lock()
			idle, busy := len(client.idle), client.busy
			client.mu.Unlock()
			if busy == 0 {
				if idle != want {
					t.Fatalf("%d are idle, not %d", idle, want)
				}
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	request := func() *http.Response {
		t.Helper()
		head, _ := http.NewRequest(http.MethodGet, server.URL, nil)
		response, err := client.Do(t.Context(), Request{Head: head, Repeated: func() {}})
		if err != nil {
			t.Fatal(err)
		}
		return response
	}

	client.Warm(t.Context(), 3)
	until(&made, 3)
	idle(3)
	for range 3 {
		_ = request().Body.Close()
	}
	client.Warm(t.Context(), 3)
	client.Warm(t.Context(), 0)
	until(&made, 3)
	client.Warm(t.Context(), 100) // no more than are kept
	until(&made, 4)
	idle(4)

	ended, end := context.WithCancel(t.Context())
	end()
	client.Close()
	until(&open, 0)
	client.Warm(ended, 2)
	idle(0)
	client.Warm(t.Context(), 2) // of a client that is closed none stay
	idle(0)
	until(&open, 0)
}
