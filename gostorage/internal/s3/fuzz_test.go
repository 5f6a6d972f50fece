package s3

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

const (
	stamp   = "2006-01-02T15:04:05.000Z"
	someTag = "ETag: \"e\"\r\nLast-Modified: Mon, 02 Jan 2006 15:04:05 GMT\r\n"
)

// rightAnswers are what a server says that does as it is asked, by operation.
var rightAnswers = map[string]string{
	"PutObject":               said("200 OK", someTag, ""),
	"UploadPart":              said("200 OK", someTag, ""),
	"GetObject":               said("200 OK", someTag+"X-Amz-Meta-A: b\r\n", "some"),
	"GetObject, part":         said("206 Partial Content", someTag+"Content-Range: bytes 1-2/4\r\n", "om"),
	"HeadObject":              "HTTP/1.1 200 OK\r\n" + someTag + "Content-Length: 4\r\n\r\n",
	"DeleteObject":            "HTTP/1.1 204 No Content\r\n\r\n",
	"AbortMultipartUpload":    "HTTP/1.1 204 No Content\r\n\r\n",
	"CreateMultipartUpload":   inXML("InitiateMultipartUploadResult", "<UploadId>u</UploadId>"),
	"CompleteMultipartUpload": inXML("CompleteMultipartUploadResult", "<ETag>e-2</ETag>"),
	"UploadPartCopy":          inXML("CopyPartResult", "<ETag>e</ETag><LastModified>"+stamp+"</LastModified>"),
	"CopyObject":              inXML("CopyObjectResult", "<ETag>e</ETag><LastModified>"+stamp+"</LastModified>"),
	"DeleteObjects":           inXML("DeleteResult", "<Deleted><Key>fuzz/k</Key></Deleted>"),
	"ListObjectsV2": inXML("ListBucketResult", "<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"+
		"<Contents><Key>fuzz/s/00001</Key><LastModified>"+stamp+"</LastModified><ETag>e</ETag><Size>4</Size></Contents>"),
	"ListMultipartUploads": inXML("ListMultipartUploadsResult", "<EncodingType>url</EncodingType>"+
		"<Upload><Key>fuzz/k</Key><UploadId>u</UploadId><Initiated>"+stamp+"</Initiated></Upload>"),
	"ListParts": inXML("ListPartsResult", "<IsTruncated>false</IsTruncated><Part><PartNumber>1</PartNumber>"+
		"<LastModified>"+stamp+"</LastModified><ETag>e</ETag><Size>4</Size></Part>"),
}

func said(status, headers, body string) string {
	return fmt.Sprintf("HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s", status, headers, len(body), body)
}

func inXML(element, inside string) string {
	return said("200 OK", "", fmt.Sprintf("<%s>%s</%s>", element, inside, element))
}

// calls make each operation, some by way of others.
var calls = map[string]func(context.Context, *Store) error{
	"PutObject":  func(ctx context.Context, s *Store) error { return put(ctx, s, 1) },
	"UploadPart": func(ctx context.Context, s *Store) error { return put(ctx, s, 5) },
	"GetObject":  func(ctx context.Context, s *Store) error { return read(ctx, s, object.Whole) },
	"GetObject, part": func(ctx context.Context, s *Store) error {
		return read(ctx, s, object.Range{Start: 1, Length: 2})
	},
	"HeadObject": func(ctx context.Context, s *Store) error {
		_, err := s.Stat(ctx, "k")
		return err
	},
	"DeleteObject": func(ctx context.Context, s *Store) error { return s.Delete(ctx, "k") },
	"AbortMultipartUpload": func(ctx context.Context, s *Store) error {
		return s.Abandon(ctx, object.Unfinished{Key: "k", ID: "u"})
	},
	"CreateMultipartUpload":   func(ctx context.Context, s *Store) error { return put(ctx, s, 5) },
	"CompleteMultipartUpload": func(ctx context.Context, s *Store) error { return put(ctx, s, 5) },
	"UploadPartCopy":          func(ctx context.Context, s *Store) error { return copyAll(ctx, s, 6*mib, 7*mib) },
	"CopyObject": func(ctx context.Context, s *Store) error {
		s.copies.Store(new("")) // the server has shown that it does
		return copyAll(ctx, s, 6*mib)
	},
	"DeleteObjects": func(ctx context.Context, s *Store) error { return s.DeleteMany(ctx, []string{"k", "l"}) },
	"ListObjectsV2": func(ctx context.Context, s *Store) error {
		_, err := s.List(ctx, "s/")
		return err
	},
	"ListMultipartUploads": func(ctx context.Context, s *Store) (failed error) {
		for _, err := range s.Unfinished(ctx, "") {
			failed = errors.Join(failed, err)
		}
		return failed
	},
	"ListParts": func(ctx context.Context, s *Store) error {
		return s.Inspect(ctx, &object.Unfinished{Key: "k", ID: "u"})
	},
}

func put(ctx context.Context, s *Store, blocks int) error {
	source := &endless{left: blocks, size: -1, bytes: make([]byte, object.BlockSize)}
	if blocks == 1 {
		source.bytes = source.bytes[:4]
	}
	_, err := s.Put(ctx, "k", source, object.PutOptions{Overwrite: true})
	return err
}

func read(ctx context.Context, s *Store, hint object.Range) error {
	reader, err := s.Get(ctx, "k", hint)
	if err != nil {
		return err
	}
	defer func() { _ = reader.Close() }()
	got, at := make([]byte, 10), hint.Start
	if hint.Length >= 0 {
		got = got[:hint.Length]
	}
	for {
		n, err := reader.ReadAt(got, at)
		got, at = got[:len(got)-n], at+int64(n)
		switch {
		case errors.Is(err, io.EOF), len(got) == 0:
			return nil
		case err != nil && !errors.Is(err, object.ErrNotYet):
			return err
		}
	}
}

func copyAll(ctx context.Context, s *Store, sizes ...int64) error {
	join := &object.Join{
		Key: "k", From: s, Options: object.PutOptions{Overwrite: true},
		SHA256: func(context.Context) (string, error) { return hexSum(nil), nil },
		Done:   func(int64, int64) {}, Commit: func(context.Context) error { return nil },
	}
	for _, size := range sizes {
		join.Parts = append(join.Parts, object.Info{Key: "s/00001", Size: size, ETag: `"e"`})
		join.Size += size
	}
	_, err := s.Join(ctx, join)
	return err
}

// saying is a server that answers each operation as is right, but one with these bytes; then it closes.
func saying(t *testing.T, operation string, bytes []byte) (url string, heard func() bool) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	asked := make(chan struct{}, 1)
	go func() {
		for {
			accepted, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = accepted.Close() }()
				request, err := http.ReadRequest(bufio.NewReader(accepted))
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, request.Body)
				answer := []byte(rightAnswers[named(request)])
				if named(request) == operation {
					answer = bytes
					select {
					case asked <- struct{}{}:
					default:
					}
				}
				_, _ = accepted.Write(answer)
			}()
		}
	}()
	return "http://" + listener.Addr().String(), func() bool { return len(asked) > 0 }
}

func named(r *http.Request) string {
	query, whole := r.URL.Query(), r.URL.Path == "/tests" || r.URL.Path == "/tests/"
	switch operation := operationOf(r); {
	case query.Has("delete"):
		return "DeleteObjects"
	case operation == http.MethodDelete:
		return "DeleteObject"
	case operation == http.MethodHead:
		return "HeadObject"
	case operation != http.MethodGet:
		return operation
	case query.Has("uploads"):
		return "ListMultipartUploads"
	case query.Has("uploadId"):
		return "ListParts"
	case whole:
		return "ListObjectsV2"
	case r.Header.Get("Range") != "":
		return "GetObject, part"
	default:
		return "GetObject"
	}
}

// most is how long a call may take whose server says something and closes.
const most = 8 * time.Second

func tried(t *testing.T, operation string, answer []byte) (err error, heard bool) {
	url, asked := saying(t, operation, answer)
	store := open(t, url, func(c *Config) {
		c.Prefix, c.PartSize, c.ConnectTimeout, c.ReadTimeout, c.MaxAttempts = "fuzz/", 2*object.BlockSize, 1, 1, 1
	})
	defer func() { _ = store.Close() }()
	began := time.Now()
	err = calls[operation](t.Context(), store)
	if took := time.Since(began); took > most {
		t.Errorf("%s took %s", operation, took)
	}
	return err, asked()
}

func TestEachOperationAndItsRightAnswer(t *testing.T) {
	for operation, answer := range rightAnswers {
		if err, heard := tried(t, operation, []byte(answer)); err != nil || !heard {
			t.Errorf("%s: %v; asked: %v", operation, err, heard)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	operations := slices.Sorted(maps.Keys(rightAnswers))
	for i, operation := range operations {
		right := rightAnswers[operation]
		for _, answer := range []string{
			right, right[:len(right)-2], "HTTP/1.1 100 Continue\r\n\r\n" + right, rightAnswers["GetObject, part"],
			"HTTP/1.1 200 OK\r\n" + someTag + "Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n0\r\nX: y\r\n\r\n",
			said("503 Slow", "", "<Error><Code>SlowDown</Code></Error>"), "HTTP/1.1 404 No\r\n\r\n", "",
		} {
			f.Add(uint8(i), []byte(answer))
		}
	}
	f.Fuzz(func(t *testing.T, operation uint8, answer []byte) {
		t.Parallel()
		name := operations[int(operation)%len(operations)]
		if err, _ := tried(t, name, answer); object.CodeOf(err) == object.Internal {
			t.Errorf("%s: no kind of failure: %v", name, err)
		}
	})
}
