package httpconn

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

	"github.com/django-gostorage/django-gostorage/gostorage/internal/task"
)

const (
	// readBuffer in bytes: a small answer comes with one read, and the reads of a large one bypass the buffer. Every
	// connection has one.
	readBuffer = 16 << 10
	// together in bytes: a body up to this size is copied behind the headers, and one write sends both.
	together = 8 << 10
	// longestHead in bytes is the most that an answer may have before its body.
	longestHead = 1 << 20
	// announcedWait is the time for the server to say that it wants a body; some servers never do.
	announcedWait = time.Second
	// mostInterim bounds the interim answers before the final one.
	mostInterim = 100
	// longestAnswer bounds an answer that is read at once, in times of the longest silence: dripping is not progress.
	longestAnswer = 4
)

// persistConn is a connection to the server, with what requests need. It serves one request at a time.
type persistConn struct {
	*conn
	stream  io.ReadWriteCloser // the connection, or TLS over it
	plain   bool
	via     *url.URL // the proxy that requests are addressed to, or nil
	reader  *bufio.Reader
	limit   io.LimitedReader // below reader
	head    []byte
	interim int // answers to this request that were not the final one
	served  int // requests before this one
	since   time.Time
}

func newPersistConn(c *conn, stream io.ReadWriteCloser) *persistConn {
	pc := &persistConn{conn: c, stream: stream, plain: stream == io.ReadWriteCloser(c)}
	pc.limit.R = stream
	pc.reader = bufio.NewReaderSize(&pc.limit, readBuffer)
	return pc
}

// lostError is the error of a connection that ended before a byte of the answer came.
type lostError struct{ error }

func (e lostError) Unwrap() error { return e.error }

// ProtocolError is an answer that is not HTTP.
type ProtocolError struct{ Why string }

func (e *ProtocolError) Error() string { return e.Why }

// errTooSoon: a server that acknowledges a body before it has read it does not store it.
var errTooSoon = &ProtocolError{"a success before it had the whole request"}

// roundTrip sends a request and reads its answer up to the body. done tells that the whole request was sent.
func (pc *persistConn) roundTrip(request *http.Request, body [][]byte) (response *http.Response, done bool, err error) {
	pc.interim = 0
	pc.head = pc.appendHead(pc.head[:0], request)
	if request.Header.Get("Expect") == "" {
		response, err = pc.send(request, pc.head, body)
	} else if response, err = pc.send(request, pc.head, nil); err == nil && response == nil {
		if response, err = pc.awaitContinue(request); err == nil && response == nil {
			response, err = pc.send(request, nil, body)
		}
	}
	switch {
	case response != nil && response.StatusCode/100 == 2:
		return nil, false, errTooSoon
	case response != nil, errors.Is(err, errStalled):
		return response, false, err
	}
	// Whatever kept us from sending all of it, the server may have said why.
	response, failed := pc.finalResponse(request)
	switch {
	case failed != nil:
		return nil, false, cmp.Or(err, failed)
	case err != nil && response.StatusCode/100 == 2:
		return nil, false, errTooSoon
	default:
		return response, err == nil, nil
	}
}

// send writes headers and body, or one of them. A server that answers while there is no room for more will not read the
// rest.
func (pc *persistConn) send(request *http.Request, head []byte, body [][]byte) (response *http.Response, err error) {
	if len(body) == 1 && len(body[0]) <= together {
		head = append(head, body[0]...)
		body = nil
	}
	pieces := make([][]byte, 0, len(body)+1)
	if len(head) > 0 {
		pieces = append(pieces, head)
	}
	pieces = append(pieces, body...)
	if pc.plain {
		response, err = pc.writeAll(request, func() error { pieces, err = pc.write(pieces); return err })
	} else {
		response, err = pc.sendTLS(request, pieces)
	}
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return nil, lostError{err}
	}
	return response, err
}

// recordsAtOnce in bytes is how much TLS encrypts before it is sent.
const recordsAtOnce = 64 << 10

// sendTLS sends pieces by TLS.
func (pc *persistConn) sendTLS(request *http.Request, pieces [][]byte) (*http.Response, error) {
	for _, piece := range pieces {
		for chunk := range slices.Chunk(piece, recordsAtOnce) {
			if _, err := pc.stream.Write(chunk); err != nil {
				return nil, err
			}
			if response, err := pc.writeAll(request, pc.flush); response != nil || err != nil {
				return response, err
			}
		}
	}
	return nil, nil
}

// writeAll writes until all is sent, or the final answer is there. What is heard meanwhile may also be an interim
// answer, or a message of TLS.
func (pc *persistConn) writeAll(request *http.Request, write func() error) (*http.Response, error) {
	for {
		if err := write(); err != errHeard {
			return nil, err
		}
		for pc.readable(time.Now()) {
			if response, err := pc.readResponse(request); err != nil || response.StatusCode >= http.StatusOK {
				return response, err
			}
		}
	}
}

// readable waits for the server to say something, or to end the connection.
func (pc *persistConn) readable(until time.Time) bool {
	pc.limit.N, pc.until = longestHead, until
	_, err := pc.reader.Peek(1)
	pc.until = time.Time{}
	return !errors.Is(err, errStalled)
}

// awaitContinue waits for the server to say that it wants the body. If it does, or says nothing, there is no answer.
func (pc *persistConn) awaitContinue(request *http.Request) (*http.Response, error) {
	if !pc.readable(time.Now().Add(announcedWait)) {
		return nil, nil
	}
	response, err := pc.readResponse(request)
	if err == nil && response.StatusCode < http.StatusOK {
		return nil, nil
	}
	return response, err
}

// finalResponse reads the final answer.
func (pc *persistConn) finalResponse(request *http.Request) (*http.Response, error) {
	for {
		response, err := pc.readResponse(request)
		if err != nil || response.StatusCode >= http.StatusOK {
			return response, err
		}
	}
}

// readResponse reads one answer, which may be an interim one. An answer that has begun must end in time.
func (pc *persistConn) readResponse(request *http.Request) (*http.Response, error) {
	pc.limit.N = longestHead
	if _, err := pc.reader.Peek(1); err != nil {
		if errors.Is(err, errStalled) {
			return nil, err
		}
		return nil, lostError{err}
	}
	pc.deadline = time.Now().Add(pc.stall)
	response, err := http.ReadResponse(pc.reader, request)
	pc.limit.N, pc.deadline = 1<<63-1, time.Time{}
	switch {
	case err != nil && Cut(err):
		return nil, err
	case err != nil:
		return nil, &ProtocolError{"no HTTP"}
	case response.StatusCode < http.StatusOK:
		if pc.interim++; pc.interim > mostInterim {
			return nil, &ProtocolError{"it never comes to its answer"}
		}
	}
	return response, nil
}

// Cut tells whether an error is of the connection, and not of what came over it.
func Cut(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// appendHead adds everything of a request that comes before its body.
func (pc *persistConn) appendHead(b []byte, request *http.Request) []byte {
	b = append(append(b, request.Method...), ' ')
	if pc.via != nil {
		b = append(append(append(b, request.URL.Scheme...), "://"...), request.URL.Host...)
	}
	b = append(append(b, request.URL.RequestURI()...), " HTTP/1.1\r\nHost: "...)
	b = append(append(b, cmp.Or(request.Host, request.URL.Host)...), "\r\n"...)
	if pc.via != nil {
		b = append(b, authorization(pc.via)...)
	}
	if request.ContentLength > 0 || request.Method == http.MethodPut || request.Method == http.MethodPost {
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), request.ContentLength, 10), "\r\n"...)
	}
	if request.Method == http.MethodGet && request.Header.Get("Accept-Encoding") == "" {
		b = append(b, "Accept-Encoding: identity\r\n"...) // else a proxy may choose one; not signed: some change it
	}
	headers := bytes.NewBuffer(b)
	_ = request.Header.WriteSubset(headers, ours)
	return append(headers.Bytes(), "\r\n"...)
}

// ours are the headers that a request gets elsewhere.
var ours = map[string]bool{"Host": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true}

// Body is the body of an answer; at its end the connection is free again.
type Body struct {
	io.Reader
	size     int64
	conn     *persistConn
	most     time.Duration // how long it may take, if it is read at once
	end      func(whole bool)
	released bool // the connection is free again, or serves another request
}

// Hurry bounds the time in which the whole body must come.
func (r *Body) Hurry() {
	if !r.released {
		r.conn.deadline = time.Now().Add(r.most)
	}
}

// Arrived tells whether the whole body has come with the headers.
func (r *Body) Arrived() bool { return r.size >= 0 && int64(r.conn.reader.Buffered()) >= r.size }

// Ready waits for bytes of the body, or for its end.
func (r *Body) Ready(wait time.Duration) bool {
	if r.conn.reader.Buffered() > 0 {
		return true
	}
	ready, err := r.conn.soon(unix.POLLIN, wait)
	return err != nil || ready != 0
}

// Size is the length of the body in bytes, or -1 if the server did not tell it.
func (r *Body) Size() int64 { return r.size }

// Plain tells whether the bytes go from the system to their reader with nothing in between.
func (r *Body) Plain() bool { return r.conn.plain }

// Detach lets the body be read on another thread than the one that it came on, by somebody who may keep that thread.
func (r *Body) Detach() { r.conn.thread = r.conn.thread.Detached() }

// Read implements io.Reader.
func (r *Body) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil {
		r.end(err == io.EOF)
	}
	return n, err
}

// Close implements io.Closer.
func (r *Body) Close() error {
	r.end(false)
	return nil
}

// do makes one request on a connection. release gets the connection back, and whether it can serve another request.
func (pc *persistConn) do(
	ctx context.Context, request *http.Request, body [][]byte, patience time.Duration, release func(pc *persistConn, free bool),
) (*http.Response, error) {
	stop := context.AfterFunc(ctx, pc.abort)
	pc.patience, pc.thread = patience, task.ThreadOf(ctx)
	response, done, err := pc.roundTrip(request, body)
	pc.patience = 0
	if err != nil {
		stop()
		pc.thread = task.Thread{}
		release(pc, false)
		return nil, err
	}
	came := &Body{Reader: response.Body, size: response.ContentLength, conn: pc, most: longestAnswer * max(pc.stall, patience)}
	came.end = func(whole bool) {
		if !came.released {
			came.released = true
			pc.thread, pc.deadline = task.Thread{}, time.Time{}
			free := stop() && whole && done && !response.Close && pc.reader.Buffered() == 0
			release(pc, free)
		}
	}
	if response.Body == http.NoBody {
		came.end(true)
	} else {
		response.Body = came
	}
	return response, nil
}
