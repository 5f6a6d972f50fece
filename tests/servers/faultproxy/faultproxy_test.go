package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"
)

const size = 1 << 20

var content = func() []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i * i >> 8)
	}
	return b
}()

// received is a request as the server got it.
type received struct {
	request *http.Request
	body    []byte
	err     error
}

// rig is a client, a proxy and a server. The server serves content to GET, and 200 to all else.
type rig struct {
	*testing.T
	proxy   *Proxy
	url     string
	control string
	client  *http.Client
	server  chan received
}

func newRig(t *testing.T) *rig {
	server := make(chan received, 10)
	return newRigWith(t, server, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		server <- received{r, body, err}
		w.Header().Set("ETag", `"tag"`)
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Length", fmt.Sprint(size))
			w.Write(content)
		}
	})
}

func newRigWith(t *testing.T, server chan received, handler http.HandlerFunc) *rig {
	upstream := httptest.NewServer(handler)
	t.Cleanup(upstream.Close)
	return rigBefore(t, server, upstream.URL, nil)
}

func rigBefore(t *testing.T, server chan received, upstream string, trusted *tls.Config) *rig {
	target, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	proxy := NewProxy(target, trusted)
	front := httptest.NewUnstartedServer(nil)
	front.Config = proxy.Server()
	front.Config.ErrorLog = nil
	front.Start()
	t.Cleanup(front.Close)
	control := httptest.NewServer(proxy.Control())
	t.Cleanup(control.Close)
	transport := &http.Transport{ExpectContinueTimeout: 5 * time.Second}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	return &rig{t, proxy, front.URL, control.URL, client, server}
}

// tell gives an order to the control and returns what it answers.
func (r *rig) tell(method, path, order string) (int, string) {
	r.Helper()
	request, err := http.NewRequest(method, r.control+path, strings.NewReader(order))
	if err != nil {
		r.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		r.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		r.Fatal(err)
	}
	return response.StatusCode, string(answer)
}

func (r *rig) rule(rule string) string {
	r.Helper()
	status, answer := r.tell("POST", "/rules", rule)
	if status != http.StatusOK {
		r.Fatalf("rule %s: %s", rule, answer)
	}
	var added struct{ ID int }
	if err := json.Unmarshal([]byte(answer), &added); err != nil {
		r.Fatal(err)
	}
	return fmt.Sprint("/rules/", added.ID)
}

func (r *rig) log() []Entry {
	r.Helper()
	_, answer := r.tell("GET", "/log", "")
	var entries []Entry
	if err := json.Unmarshal([]byte(answer), &entries); err != nil {
		r.Fatal(err)
	}
	return entries
}

func (r *rig) last() Entry {
	r.Helper()
	entries := r.log()
	if len(entries) == 0 {
		r.Fatal("nothing in the log")
	}
	return entries[len(entries)-1]
}

// do sends a request, with headers given as names and values, and reads the response: whole, or until what err says.
func (r *rig) do(method, path string, body []byte, headers ...string) (response *http.Response, got []byte, err error) {
	r.Helper()
	request, err := http.NewRequest(method, r.url+path, bytes.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err = r.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	got, err = io.ReadAll(response.Body)
	return response, got, err
}

func (r *rig) nothingForwarded() {
	r.Helper()
	select {
	case got := <-r.server:
		r.Errorf("the server got %d bytes, %v", len(got.body), got.err)
	default:
	}
}

// cutUpstream checks that the server got the beginning of the content, then the end of its connection.
func (r *rig) cutUpstream() {
	r.Helper()
	got := <-r.server
	if got.err == nil {
		r.Error("the server got a whole request")
	}
	if len(got.body) > size/2 || !bytes.HasPrefix(content, got.body) {
		r.Errorf("the server got %d bytes", len(got.body))
	}
}

func dial(t *testing.T, rawURL string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(rawURL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn, bufio.NewReader(conn)
}

func TestRequestsAndResponsesPassAsTheyAre(t *testing.T) {
	server := make(chan received, 1)
	r := newRigWith(t, server, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		server <- received{r, body, err}
		w.Header()["Date"] = nil
		w.Header()["Content-Type"] = nil
		w.Header().Set("Content-Length", "2")
		w.Header().Set("ETag", `"tag"`)
		w.Write([]byte("ok"))
	})
	conn, reader := dial(t, r.url)
	for _, framing := range []string{"Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"} {
		fmt.Fprintf(conn, "PUT /b/a%%20%%2F+//c?x-id=PutObject&e= HTTP/1.1\r\nHost: s3.example:99\r\nx-amz-date: d\r\n%s", framing)
		got := <-server
		if got.err != nil || string(got.body) != "hello" {
			t.Errorf("body %q, %v", got.body, got.err)
		}
		if got.request.Host != "s3.example:99" || got.request.RequestURI != "/b/a%20%2F+//c?x-id=PutObject&e=" {
			t.Errorf("%s at %s", got.request.RequestURI, got.request.Host)
		}
		header := got.request.Header
		header.Del("Connection")
		want := http.Header{"X-Amz-Date": {"d"}}
		if strings.HasPrefix(framing, "Content-Length") {
			want["Content-Length"] = []string{"5"}
		} else if got.request.ContentLength != -1 {
			t.Errorf("chunked became Content-Length %d", got.request.ContentLength)
		}
		if fmt.Sprint(header) != fmt.Sprint(want) {
			t.Errorf("headers %v, want %v", header, want)
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(response.Body); err != nil || string(body) != "ok" {
			t.Errorf("response %q, %v", body, err)
		}
		if want := (http.Header{"Content-Length": {"2"}, "Etag": {`"tag"`}}); fmt.Sprint(response.Header) != fmt.Sprint(want) {
			t.Errorf("response headers %v, want %v", response.Header, want)
		}
	}
	entries := r.log()
	if len(entries) != 2 || entries[0].Connection != entries[1].Connection {
		t.Errorf("no keep-alive: %+v", entries)
	}
}

func TestBodiesStream(t *testing.T) {
	first := make(chan struct{})
	r := newRigWith(t, nil, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		b := make([]byte, 1)
		for range 2 {
			if _, err := io.ReadFull(r.Body, b); err != nil {
				t.Error(err)
			}
			first <- struct{}{}
		}
		io.Copy(w, bytes.NewReader(content))
	})
	reader, writer := io.Pipe()
	go func() {
		for range 2 {
			writer.Write([]byte("x"))
			<-first // it has gone all the way before more is written
		}
		writer.Close()
	}()
	response, err := r.client.Post(r.url+"/b/k?uploads", "", reader)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(response.Body); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got := r.last(); got.Received != 2 || got.Sent != size || got.Status != 200 || got.Operation != "CreateMultipartUpload" {
		t.Errorf("%+v", got)
	}
}

func TestExpectContinue(t *testing.T) {
	r := newRigWith(t, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Expect") != "100-continue" {
			t.Error("Expect did not come through")
		}
		if r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusPreconditionFailed)
			return
		}
		io.Copy(io.Discard, r.Body)
	})
	const head = "PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
	conn, reader := dial(t, r.url)
	io.WriteString(conn, head+"\r\n")
	if line, err := reader.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Fatalf("%q, %v", line, err)
	}
	reader.ReadString('\n')
	io.WriteString(conn, "hello")
	if response, err := http.ReadResponse(reader, nil); err != nil || response.StatusCode != 200 {
		t.Errorf("%v, %v", response, err)
	}
	conn, reader = dial(t, r.url)
	io.WriteString(conn, head+"If-None-Match: *\r\n\r\n")
	if line, err := reader.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 412") {
		t.Errorf("%q, %v", line, err)
	}
	if got := r.last(); got.Received != 0 {
		t.Errorf("%+v", got)
	}
}

func TestAnEarlyAnswerDoesNotWaitForTheRequest(t *testing.T) {
	r := newRigWith(t, nil, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(http.StatusForbidden)
	})
	conn, reader := dial(t, r.url)
	io.WriteString(conn, "PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nbegin")
	if line, err := reader.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 403") {
		t.Errorf("%q, %v", line, err)
	}
}

func TestTLSUpstream(t *testing.T) {
	upstream := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	defer upstream.Close()
	pool := x509.NewCertPool()
	pool.AddCert(upstream.Certificate())
	r := rigBefore(t, nil, upstream.URL, &tls.Config{RootCAs: pool})
	if _, got, err := r.do("PUT", "/b/k", content); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	r = rigBefore(t, nil, upstream.URL, &tls.Config{RootCAs: x509.NewCertPool()})
	if _, _, err := r.do("PUT", "/b/k", content); err == nil || !strings.Contains(r.last().Error, "certificate") {
		t.Errorf("%v, %+v", err, r.last())
	}
}

func TestClassify(t *testing.T) {
	for request, want := range map[string]string{
		"PUT /b/k": "PutObject", "GET /b/k/l?response-content-type=x": "GetObject", "HEAD /b/k": "HeadObject",
		"DELETE /b/k": "DeleteObject", "POST /b?delete": "DeleteObjects", "PUT /b/k copy": "CopyObject",
		"GET /b?list-type=2&prefix=p": "ListObjectsV2", "POST /b/k?uploads": "CreateMultipartUpload",
		"PUT /b/k?partNumber=1&uploadId=u": "UploadPart", "PUT /b/k?partNumber=1&uploadId=u copy": "UploadPartCopy",
		"POST /b/k?uploadId=u": "CompleteMultipartUpload", "DELETE /b/k?uploadId=u": "AbortMultipartUpload",
		"GET /b/?uploads": "ListMultipartUploads", "GET /b/k?uploadId=u": "ListParts", "HEAD /b": "HeadBucket",
		"PUT /b": "other", "GET /b/k?tagging": "other", "GET /": "other", "OPTIONS /b/k": "other",
	} {
		fields := strings.Fields(request)
		r := httptest.NewRequest(fields[0], fields[1], nil)
		if len(fields) > 2 {
			r.Header.Set("X-Amz-Copy-Source", "/b/s")
		}
		if got, _ := classify(r); got != want {
			t.Errorf("%s is %s, want %s", request, got, want)
		}
	}
	if _, key := classify(httptest.NewRequest("GET", "/b/a%20b/c?x", nil)); key != "a b/c" {
		t.Errorf("key %q", key)
	}
}

func TestRulesChoose(t *testing.T) {
	r := newRig(t)
	rule := r.rule(`{"fault": "status", "status": 503, "operation": "PutObject", "key_contains": "yes", "skip": 1, "times": 2}`)
	statuses := func(method, path string) (got []int) {
		for range 4 {
			response, _, err := r.do(method, path, nil)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, response.StatusCode)
			if response.StatusCode == 200 {
				<-r.server
			}
		}
		return got
	}
	for _, c := range []struct{ method, path, want string }{
		{"PUT", "/b/no", "[200 200 200 200]"}, {"HEAD", "/b/yes", "[200 200 200 200]"},
		{"PUT", "/b/oh-yes", "[200 503 503 200]"},
	} {
		if got := fmt.Sprint(statuses(c.method, c.path)); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.method, c.path, got, c.want)
		}
	}
	r.tell("DELETE", rule, "")
	rule = r.rule(`{"fault": "status", "status": 500}`)
	r.rule(`{"fault": "status", "status": 503}`)
	if got := fmt.Sprint(statuses("DELETE", "/b/k")); got != "[500 500 500 500]" {
		t.Error(got)
	}
	r.tell("DELETE", rule, "")
	if got := fmt.Sprint(statuses("DELETE", "/b/k")); got != "[503 503 503 503]" {
		t.Error(got)
	}
	r.tell("DELETE", "/rules", "")
	if got := fmt.Sprint(statuses("DELETE", "/b/k")); got != "[200 200 200 200]" {
		t.Error(got)
	}
	for _, wrong := range []string{`{"fault": "typo"}`, `{"fault": "status"}`, `{"fault": "delay", "typo": 1}`, `no`} {
		if status, answer := r.tell("POST", "/rules", wrong); status != http.StatusBadRequest || answer == "" {
			t.Errorf("%s is accepted: %d %s", wrong, status, answer)
		}
	}
}

func TestLogTellsNoSecret(t *testing.T) {
	r := newRig(t)
	headers := map[string]string{"if-match": "e", "range": "bytes=0-", "content-type": "t", "x-amz-meta-a": "b"}
	sent := []string{"Authorization", "AWS4-HMAC-SHA256 Signature=secret"}
	for name, value := range headers {
		sent = append(sent, name, value)
	}
	if _, _, err := r.do("GET", "/b/k?X-Amz-Signature=secret&versionId=7", nil, sent...); err != nil {
		t.Fatal(err)
	}
	if _, answer := r.tell("GET", "/log", ""); strings.Contains(answer, "secret") {
		t.Error(answer)
	}
	got := r.last()
	if !maps.Equal(got.Headers, headers) || !maps.Equal(got.Query, map[string]string{"versionId": "7"}) || !got.Finished {
		t.Errorf("%+v", got)
	}
	r.tell("DELETE", "/log", "")
	if got := r.log(); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestConnectionsAreCounted(t *testing.T) {
	r := newRig(t)
	dial(t, r.url)
	conn, _ := dial(t, r.url)
	r.open(2)
	conn.Close()
	r.open(1)
}

func (r *rig) open(want int) {
	r.Helper()
	answer := ""
	for range 500 {
		if _, answer = r.tell("GET", "/connections", ""); answer == fmt.Sprintf("{\"open\":%d}\n", want) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.Errorf("%s, want %d", answer, want)
}

func TestStatus(t *testing.T) {
	for rule, want := range map[string]string{
		`"status": 503`:                           "503 SlowDown",
		`"status": 500`:                           "500 InternalError",
		`"status": 412`:                           "412 PreconditionFailed",
		`"status": 409`:                           "409 ConditionalRequestConflict",
		`"status": 418, "code": "Teapot"`:         "418 Teapot",
		`"status": 429, "retry_after": "7"`:       "429 TooManyRequests",
		`"status": 503, "read_body": true`:        "503 SlowDown",
		`"status": 507, "message": "<&>"`:         "507 ",
		`"status": 400, "operation": "PutObject"`: "400 InvalidRequest",
	} {
		r := newRig(t)
		r.rule(`{"fault": "status", ` + rule + `}`)
		body := content[:100_000] // a client that sends much more may see the connection end before it reads the answer
		response, got, err := r.do("PUT", "/b/k", body)
		if err != nil {
			t.Fatal(err)
		}
		status, code, _ := strings.Cut(want, " ")
		if fmt.Sprint(response.StatusCode) != status || !bytes.Contains(got, []byte("<Code>"+code+"</Code>")) {
			t.Errorf("%s: %d %s", rule, response.StatusCode, got)
		}
		if id := response.Header.Get("X-Amz-Request-Id"); id == "" || !bytes.Contains(got, []byte(id)) {
			t.Errorf("%s: request id %q", rule, id)
		}
		if strings.Contains(rule, "message") && !bytes.Contains(got, []byte("&lt;&amp;&gt;")) {
			t.Errorf("%s: %s", rule, got)
		}
		if strings.Contains(rule, "retry_after") != (response.Header.Get("Retry-After") == "7") {
			t.Errorf("%s: %v", rule, response.Header)
		}
		entry := r.last()
		if strings.Contains(rule, "read_body") && entry.Received != int64(len(body)) {
			t.Errorf("%s: read %d bytes", rule, entry.Received)
		}
		if entry.Fault != "status" || fmt.Sprint(entry.Status) != status || entry.Sent != int64(len(got)) {
			t.Errorf("%s: %+v", rule, entry)
		}
		r.nothingForwarded()
	}
}

func TestErrorIn200(t *testing.T) {
	r := newRig(t)
	r.rule(`{"fault": "error_in_200", "operation": "CompleteMultipartUpload"}`)
	response, got, err := r.do("POST", "/b/k?uploadId=u", content)
	if err != nil || response.StatusCode != 200 || !bytes.Contains(got, []byte("<Error><Code>InternalError</Code>")) {
		t.Errorf("%v %s %v", response, got, err)
	}
	if got := r.last(); got.Received != size || got.Fault != "error_in_200" {
		t.Errorf("%+v", got)
	}
	r.nothingForwarded()
}

func TestNoCopy(t *testing.T) {
	r := newRig(t)
	r.rule(`{"fault": "no_copy"}`)
	for header, want := range map[string]int{"x-amz-meta-source": 200, "x-amz-copy-source": 501} {
		response, _, err := r.do("PUT", "/b/k?partNumber=1&uploadId=u", nil, header, "/b/s")
		if err != nil || response.StatusCode != want {
			t.Errorf("%s: %v, %v", header, response, err)
		}
	}
}

func TestNoChecksums(t *testing.T) {
	r := newRig(t)
	r.rule(`{"fault": "no_checksums"}`)
	for name, want := range map[string]int{
		"Content-MD5": 200, "X-Amz-Content-Sha256": 200, "x-amz-checksum-crc32": 400, "x-amz-trailer": 400,
		"x-amz-sdk-checksum-algorithm": 400, "?x-amz-checksum-sha256": 400, "?X-Amz-Sdk-Checksum-Algorithm": 400,
	} {
		path, headers := "/b/k", []string{name, "v"}
		if strings.HasPrefix(name, "?") {
			path, headers = path+name+"=v", nil
		}
		response, _, err := r.do("PUT", path, nil, headers...)
		if err != nil || response.StatusCode != want {
			t.Errorf("%s: %v, %v", name, response, err)
		}
	}
}

func TestDelay(t *testing.T) {
	r := newRig(t)
	r.rule(`{"fault": "delay", "seconds": 0.3}`)
	started := time.Now()
	if _, _, err := r.do("PUT", "/b/k", content); err != nil || time.Since(started) < 300*time.Millisecond {
		t.Errorf("%v after %v", err, time.Since(started))
	}
	if got := <-r.server; got.err != nil || !bytes.Equal(got.body, content) {
		t.Errorf("%d bytes, %v", len(got.body), got.err)
	}
	if got := r.last(); got.Fault != "delay" || got.Seconds < 0.3 {
		t.Errorf("%+v", got)
	}
}

func TestResetUp(t *testing.T) {
	r := newRig(t)
	r.rule(`{"fault": "reset_up", "at": 300000}`)
	conn, reader := dial(t, r.url)
	fmt.Fprintf(conn, "PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", size)
	conn.Write(content[:400_000]) // and waits for what comes
	if _, err := reader.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	r.cutUpstream()
	if got := r.last(); got.Received != 300_000 || got.Fault != "reset_up" || got.Status != 0 || got.Error == "" {
		t.Errorf("%+v", got)
	}
}

func TestFlipUp(t *testing.T) {
	for _, at := range []int{0, 70_000, size - 1, size} {
		r := newRig(t)
		r.rule(fmt.Sprintf(`{"fault": "flip_up", "at": %d}`, at))
		if _, _, err := r.do("PUT", "/b/k", content); err != nil {
			t.Fatal(err)
		}
		want, fault := bytes.Clone(content), ""
		if at < size {
			want[at] ^= 0xff
			fault = "flip_up"
		}
		if got := <-r.server; got.err != nil || !bytes.Equal(got.body, want) {
			t.Errorf("at %d: %v", at, got.err)
		}
		if got := r.last(); got.Fault != fault || got.Received != size {
			t.Errorf("at %d: %+v", at, got)
		}
	}
}

func TestStallUp(t *testing.T) {
	t.Run("goes on", func(t *testing.T) {
		for name, order := range map[string]string{"seconds": "0.3", "cleared": "60"} {
			r := newRig(t)
			rule := r.rule(`{"fault": "stall_up", "at": 300000, "seconds": ` + order + `}`)
			if name == "cleared" {
				time.AfterFunc(300*time.Millisecond, func() { r.tell("DELETE", rule, "") })
			}
			started := time.Now()
			if _, _, err := r.do("PUT", "/b/k", content); err != nil || time.Since(started) < 300*time.Millisecond {
				t.Errorf("%s: %v after %v", name, err, time.Since(started))
			}
			if got := <-r.server; got.err != nil || !bytes.Equal(got.body, content) {
				t.Errorf("%s: %d bytes, %v", name, len(got.body), got.err)
			}
			if got := r.last(); got.Fault != "stall_up" {
				t.Errorf("%s: %+v", name, got)
			}
		}
	})
	t.Run("client leaves", func(t *testing.T) {
		r := newRig(t)
		r.rule(`{"fault": "stall_up", "at": 300000, "seconds": 60}`)
		conn, _ := dial(t, r.url)
		fmt.Fprintf(conn, "PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", size)
		conn.Write(content[:310_000])
		time.Sleep(300 * time.Millisecond)
		r.nothingForwarded()
		if got := r.last(); got.Finished || got.Received != 300_000 || got.Fault != "stall_up" {
			t.Errorf("%+v", got)
		}
		conn.Close()
		r.cutUpstream()
		if got := r.last(); !got.Finished || got.Error == "" {
			t.Errorf("%+v", got)
		}
	})
}

func TestLostResponse(t *testing.T) {
	r := newRig(t)
	r.rule(`{"fault": "lost_response"}`)
	if _, got, err := r.do("PUT", "/b/k", content); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s, %v", got, err)
	}
	if got := <-r.server; got.err != nil || !bytes.Equal(got.body, content) {
		t.Errorf("%d bytes, %v", len(got.body), got.err)
	}
	if got := r.last(); got.Fault != "lost_response" || got.Status != 0 || got.Received != size || got.Sent != 0 {
		t.Errorf("%+v", got)
	}
}

func TestResetDownAndShortBody(t *testing.T) {
	for fault, want := range map[string]error{"reset_down": syscall.ECONNRESET, "short_body": io.ErrUnexpectedEOF} {
		r := newRig(t)
		r.rule(`{"fault": "` + fault + `", "at": 300000}`)
		response, got, err := r.do("GET", "/b/k", nil)
		if response == nil || response.ContentLength != size || !errors.Is(err, want) {
			t.Errorf("%s: %v, %v", fault, response, err)
		}
		if len(got) > 300_000 || fault == "short_body" && len(got) != 300_000 || !bytes.HasPrefix(content, got) {
			t.Errorf("%s: %d bytes", fault, len(got))
		}
		if got := r.last(); got.Fault != fault || got.Status != 200 || got.Sent != 300_000 {
			t.Errorf("%+v", got)
		}
	}
}

func TestFlipDown(t *testing.T) {
	r := newRig(t)
	r.rule(`{"fault": "flip_down", "at": 300000}`)
	want := bytes.Clone(content)
	want[300_000] ^= 0xff
	if _, got, err := r.do("GET", "/b/k", nil); err != nil || !bytes.Equal(got, want) {
		t.Error(err)
	}
	if got := r.last(); got.Fault != "flip_down" || got.Sent != size {
		t.Errorf("%+v", got)
	}
}

func TestStallDown(t *testing.T) {
	for _, at := range []int{-1, 0, 300_000} {
		r := newRig(t)
		r.rule(fmt.Sprintf(`{"fault": "stall_down", "at": %d, "seconds": 60}`, at))
		conn, reader := dial(t, r.url)
		io.WriteString(conn, "GET /b/k HTTP/1.1\r\nHost: h\r\n\r\n")
		if at >= 0 {
			response, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(io.LimitReader(response.Body, int64(at))); err != nil || !bytes.Equal(got, content[:at]) {
				t.Errorf("at %d: %d bytes, %v", at, len(got), err)
			}
		}
		conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := reader.ReadByte(); !isTimeout(err) {
			t.Errorf("at %d: %v", at, err)
		}
		conn.Close()
		if got := r.last(); got.Fault != "stall_down" || !got.Finished || got.Sent != int64(max(at, 0)) {
			t.Errorf("at %d: %+v", at, got)
		}
	}
	r := newRig(t)
	r.rule(`{"fault": "stall_down", "at": 300000, "seconds": 0.3}`)
	started := time.Now()
	if _, got, err := r.do("GET", "/b/k", nil); err != nil || !bytes.Equal(got, content) || time.Since(started) < 300*time.Millisecond {
		t.Errorf("%d bytes, %v after %v", len(got), err, time.Since(started))
	}
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}
