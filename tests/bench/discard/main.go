// Command discard is an S3 server that keeps nothing, so that a benchmark measures the client. It swallows what is put,
// and serves objects whose last segment says how long they are, "get-1048576": the byte at position i is i mod 251.
// It checks neither signatures nor checksums, and knows path-style requests. It prints its address on the loopback
// interface.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	etag         = `"00000000000000000000000000000000"`
	lastModified = "Thu, 01 Jan 2026 00:00:00 GMT"
	xmlProlog    = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"
	period       = 251
)

var endOfHeaders = []byte("\r\n\r\n")

// pattern is what objects are made of: a whole number of periods, about 1 MiB.
var pattern = func() []byte {
	var once [period]byte
	for i := range once {
		once[i] = byte(i)
	}
	return bytes.Repeat(once[:], 4096)
}()

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(conn)
	}
}

// serve answers the requests of one connection. A net/http server would cost about as much again for each of them: a
// goroutine that watches the connection, timers, a header map for the response.
func serve(conn net.Conn) {
	defer conn.Close()
	reader := bufio.NewReaderSize(conn, 4096) // a body larger than that is read past it
	buffer := make([]byte, 512*1024)
	var head bytes.Buffer
	for {
		request, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		if request.Header.Get("Expect") == "100-continue" {
			if _, err := io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
				return
			}
		}
		for err == nil {
			_, err = request.Body.Read(buffer)
		}
		if err != io.EOF {
			return
		}
		head.Reset()
		from, length := answer(&head, request)
		if request.Method == http.MethodHead {
			head.Truncate(bytes.Index(head.Bytes(), endOfHeaders) + len(endOfHeaders))
			length = 0
		}
		if _, err := conn.Write(head.Bytes()); err != nil {
			return
		}
		for length > 0 {
			piece := pattern[from%period:]
			n, err := conn.Write(piece[:min(length, int64(len(piece)))])
			if err != nil {
				return
			}
			from, length = from+int64(n), length-int64(n)
		}
	}
}

// answer writes a response, but for an object's bytes: these are the `length` ones from position `from` on.
func answer(w *bytes.Buffer, r *http.Request) (from, length int64) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	query := r.URL.Query()
	switch {
	case key == "" && r.Method == http.MethodHead:
		respond(w, "200 OK", "", "")
	case key == "" && r.Method == http.MethodGet:
		respond(w, "200 OK", "", "<ListBucketResult><Name>"+bucket+"</Name><KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys>"+
			"<IsTruncated>false</IsTruncated></ListBucketResult>")
	case r.Method == http.MethodPut:
		respond(w, "200 OK", "ETag: "+etag+"\r\n"+checksums(r), "")
	case r.Method == http.MethodPost && query.Has("uploads"):
		respond(w, "200 OK", "", "<InitiateMultipartUploadResult><Bucket>"+bucket+"</Bucket><UploadId>upload</UploadId>"+
			"</InitiateMultipartUploadResult>")
	case r.Method == http.MethodPost && query.Has("uploadId"):
		respond(w, "200 OK", "", "<CompleteMultipartUploadResult><Bucket>"+bucket+"</Bucket><ETag>"+etag+"</ETag>"+
			"</CompleteMultipartUploadResult>")
	case r.Method == http.MethodDelete:
		respond(w, "204 No Content", "", "")
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return object(w, r, key)
	default:
		respond(w, "501 Not Implemented", "", "<Error><Code>NotImplemented</Code></Error>")
	}
	return 0, 0
}

func object(w *bytes.Buffer, r *http.Request, key string) (from, length int64) {
	_, number, _ := strings.Cut(key[strings.LastIndexByte(key, '/')+1:], "get-")
	size, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		respond(w, "404 Not Found", "", "<Error><Code>NoSuchKey</Code></Error>")
		return 0, 0
	}
	status, headers := "200 OK", "Accept-Ranges: bytes\r\nETag: "+etag+"\r\nLast-Modified: "+lastModified+"\r\n"
	length = size
	if asked := r.Header.Get("Range"); asked != "" {
		last := size - 1
		if n, _ := fmt.Sscanf(asked, "bytes=%d-%d", &from, &last); n == 0 || from < 0 || from >= size || last < from {
			respond(w, "416 Range Not Satisfiable", "", "<Error><Code>InvalidRange</Code></Error>")
			return 0, 0
		}
		last = min(last, size-1)
		length = last - from + 1
		status = "206 Partial Content"
		headers += fmt.Sprintf("Content-Range: bytes %d-%d/%d\r\n", from, last, size)
	}
	begin(w, status, headers, "application/octet-stream", length)
	return from, length
}

// checksums are the headers that give back what the client has said of a body.
func checksums(r *http.Request) string {
	headers := ""
	for name, values := range r.Header {
		if strings.HasPrefix(name, "X-Amz-Checksum-") {
			headers += name + ": " + values[0] + "\r\n"
		}
	}
	return headers
}

func respond(w *bytes.Buffer, status, headers, xml string) {
	if xml != "" {
		xml = xmlProlog + xml
	}
	begin(w, status, headers, "application/xml", int64(len(xml)))
	w.WriteString(xml)
}

func begin(w *bytes.Buffer, status, headers, contentType string, length int64) {
	fmt.Fprintf(w, "HTTP/1.1 %s\r\nDate: %s\r\nx-amz-request-id: discard\r\n%s", status, time.Now().UTC().Format(http.TimeFormat), headers)
	if length > 0 {
		fmt.Fprintf(w, "Content-Type: %s\r\n", contentType)
	}
	if !strings.HasPrefix(status, "204") {
		fmt.Fprintf(w, "Content-Length: %d\r\n", length)
	}
	w.WriteString("\r\n")
}
