package s3

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/coroutine"
)

const (
	// readBuffer in bytes: a small answer comes by one read, and what is read of a large one goes past it. Every
	// connection has one.
	readBuffer = 16 << 10
	// together in bytes: a body that is not larger is copied behind the headers, and is one write with them.
	together = 8 << 10
	// longestHead in bytes is the most that an answer may have before its body.
	longestHead = 1 << 20
	// announcedWait is for the server to say that it wants a body; some never do.
	announcedWait = time.Second
	// mostInterim bounds the answers that come before the one that counts.
	mostInterim = 100
	// longestAnswer bounds an answer that is read at once, in times of the longest silence: a drip is no progress for ever.
	longestAnswer = 4
)

// line is a connection to the server with what requests need. It serves one at a time.
type line struct {
	*conn
	stream  io.ReadWriteCloser // the connection, or TLS over it
	plain   bool
	via     *url.URL // the proxy that requests are for, or nil
	reader  *bufio.Reader
	limit   io.LimitedReader // below reader
	head    []byte
	interim int // answers to this request that were not the final one
	served  int // requests before this one
	since   time.Time
}

func newLine(c *conn, stream io.ReadWriteCloser) *line {
	l := &line{conn: c, stream: stream, plain: stream == io.ReadWriteCloser(c)}
	l.limit.R = stream
	l.reader = bufio.NewReaderSize(&l.limit, readBuffer)
	return l
}

// lost is an error of a connection that has ended before a byte of the answer came.
type lost struct{ error }

func (l lost) Unwrap() error { return l.error }

// errTooSoon: a server that takes what it has not read is none that stores it.
var errTooSoon = strange("a success before it had the whole request")

// ask sends a request and reads its answer up to the body. done tells that the whole request was sent.
func (l *line) ask(request *http.Request, body [][]byte) (response *http.Response, done bool, err error) {
	l.interim = 0
	l.head = l.appendHead(l.head[:0], request)
	if request.Header.Get("Expect") == "" {
		response, err = l.send(request, l.head, body)
	} else if response, err = l.send(request, l.head, nil); err == nil && response == nil {
		if response, err = l.wanted(request); err == nil && response == nil {
			response, err = l.send(request, nil, body)
		}
	}
	switch {
	case response != nil && response.StatusCode/100 == 2:
		return nil, false, errTooSoon
	case response != nil, errors.Is(err, errStalled):
		return response, false, err
	}
	// Whatever has kept us from sending all: the server may have said why.
	response, failed := l.answer(request)
	switch {
	case failed != nil:
		return nil, false, cmp.Or(err, failed)
	case err != nil && response.StatusCode/100 == 2:
		return nil, false, errTooSoon
	default:
		return response, err == nil, nil
	}
}

// send writes headers and body, or one of them. A server that answers while there is no room for more does not mean to
// read the rest.
func (l *line) send(request *http.Request, head []byte, body [][]byte) (response *http.Response, err error) {
	if len(body) == 1 && len(body[0]) <= together {
		head = append(head, body[0]...)
		body = nil
	}
	pieces := make([][]byte, 0, len(body)+1)
	if len(head) > 0 {
		pieces = append(pieces, head)
	}
	pieces = append(pieces, body...)
	if l.plain {
		response, err = l.put(request, func() error { pieces, err = l.write(pieces); return err })
	} else {
		response, err = l.sealed(request, pieces)
	}
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return nil, lost{err}
	}
	return response, err
}

// sealedAtOnce in bytes is what TLS seals before it is sent.
const sealedAtOnce = 64 << 10

// sealed sends pieces by TLS.
func (l *line) sealed(request *http.Request, pieces [][]byte) (*http.Response, error) {
	for _, piece := range pieces {
		for chunk := range slices.Chunk(piece, sealedAtOnce) {
			if _, err := l.stream.Write(chunk); err != nil {
				return nil, err
			}
			if response, err := l.put(request, l.flush); response != nil || err != nil {
				return response, err
			}
		}
	}
	return nil, nil
}

// put writes until all is sent, or the final answer is there. What is heard meanwhile may be an interim one, or a matter of
// TLS.
func (l *line) put(request *http.Request, write func() error) (*http.Response, error) {
	for {
		if err := write(); err != errHeard {
			return nil, err
		}
		for l.said(time.Now()) {
			if response, err := l.part(request); err != nil || response.StatusCode >= http.StatusOK {
				return response, err
			}
		}
	}
}

// said waits for the server to say something, or to end the connection.
func (l *line) said(until time.Time) bool {
	l.limit.N, l.until = longestHead, until
	_, err := l.reader.Peek(1)
	l.until = time.Time{}
	return !errors.Is(err, errStalled)
}

// wanted waits for the server to say that it wants the body: then, or if it says nothing, there is no answer.
func (l *line) wanted(request *http.Request) (*http.Response, error) {
	if !l.said(time.Now().Add(announcedWait)) {
		return nil, nil
	}
	response, err := l.part(request)
	if err == nil && response.StatusCode < http.StatusOK {
		return nil, nil
	}
	return response, err
}

// answer reads the final answer.
func (l *line) answer(request *http.Request) (*http.Response, error) {
	for {
		response, err := l.part(request)
		if err != nil || response.StatusCode >= http.StatusOK {
			return response, err
		}
	}
}

// part reads one answer, which may be an interim one. Once it has begun it must come to its end in time.
func (l *line) part(request *http.Request) (*http.Response, error) {
	l.limit.N = longestHead
	if _, err := l.reader.Peek(1); err != nil {
		if errors.Is(err, errStalled) {
			return nil, err
		}
		return nil, lost{err}
	}
	l.deadline = time.Now().Add(l.stall)
	response, err := http.ReadResponse(l.reader, request)
	l.limit.N, l.deadline = 1<<63-1, time.Time{}
	switch {
	case err != nil && cut(err):
		return nil, err
	case err != nil:
		return nil, strange("no HTTP")
	case response.StatusCode < http.StatusOK:
		if l.interim++; l.interim > mostInterim {
			return nil, strange("it never comes to its answer")
		}
	}
	return response, nil
}

// cut tells an error of the connection from one of what came by it.
func cut(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// appendHead adds all of a request that comes before its body.
func (l *line) appendHead(b []byte, request *http.Request) []byte {
	b = append(append(b, request.Method...), ' ')
	if l.via != nil {
		b = append(append(append(b, request.URL.Scheme...), "://"...), request.URL.Host...)
	}
	b = append(append(b, request.URL.RequestURI()...), " HTTP/1.1\r\nHost: "...)
	b = append(append(b, cmp.Or(request.Host, request.URL.Host)...), "\r\n"...)
	if l.via != nil {
		b = append(b, authorization(l.via)...)
	}
	if request.ContentLength > 0 || request.Method == http.MethodPut || request.Method == http.MethodPost {
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), request.ContentLength, 10), "\r\n"...)
	}
	if request.Method == http.MethodGet && request.Header.Get("Accept-Encoding") == "" {
		b = append(b, "Accept-Encoding: identity\r\n"...) // else proxies may choose one; unsigned, since some change it
	}
	headers := bytes.NewBuffer(b)
	_ = request.Header.WriteSubset(headers, ours)
	return append(headers.Bytes(), "\r\n"...)
}

// ours are headers that a request has from elsewhere.
var ours = map[string]bool{"Host": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true}

// rest is the body of an answer; at its end the connection is free again.
type rest struct {
	io.Reader
	size int64
	line *line
	most time.Duration // that it may take, if it is read at once
	end  func(whole bool)
	over bool // the connection is free again, or another's
}

// hurry bounds the time in which all of it must come.
func (r *rest) hurry() {
	if !r.over {
		r.line.deadline = time.Now().Add(r.most)
	}
}

// came tells whether all of it has come with the headers.
func (r *rest) came() bool { return r.size >= 0 && int64(r.line.reader.Buffered()) >= r.size }

// ready waits for some of it to come, or for its end.
func (r *rest) ready(wait time.Duration) bool {
	if r.line.reader.Buffered() > 0 {
		return true
	}
	ready, err := r.line.poll(unix.POLLIN, wait)
	return err != nil || ready != 0
}

// detach lets it be read outside of the coroutine that it came in.
func (r *rest) detach() { r.line.leave = nil }

// Read implements io.Reader.
func (r *rest) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil {
		r.end(err == io.EOF)
	}
	return n, err
}

// Close implements io.Closer.
func (r *rest) Close() error {
	r.end(false)
	return nil
}

// exchange makes one request on a line. over gets the line back, and whether it can serve another.
func (l *line) exchange(
	ctx context.Context, request *http.Request, body [][]byte, patience time.Duration, over func(l *line, free bool),
) (*http.Response, error) {
	stop := context.AfterFunc(ctx, l.abort)
	l.patience, l.leave = patience, coroutine.Of(ctx)
	response, done, err := l.ask(request, body)
	l.patience = 0
	if err != nil {
		stop()
		l.leave = nil
		over(l, false)
		return nil, err
	}
	came := &rest{Reader: response.Body, size: response.ContentLength, line: l, most: longestAnswer * max(l.stall, patience)}
	came.end = func(whole bool) {
		if !came.over {
			came.over = true
			l.leave, l.deadline = nil, time.Time{}
			free := stop() && whole && done && !response.Close && l.reader.Buffered() == 0
			over(l, free)
		}
	}
	if response.Body == http.NoBody {
		came.end(true)
	} else {
		response.Body = came
	}
	return response, nil
}
