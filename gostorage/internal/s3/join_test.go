package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/httpconn"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/s3api"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/storetest"
)

const minio = "../../../build/tools/bin/minio"

// minioServer starts the other S3 server, which does not copy into an upload with checksums.
func minioServer(t *testing.T) string {
	t.Helper()
	data := t.TempDir()
	if err := os.Mkdir(filepath.Join(data, "tests"), 0o700); err != nil {
		t.Fatal(err)
	}
	return serve(t, func(address string) *exec.Cmd {
		server := exec.Command(minio, "server", "--quiet", "--address", address, data)
		server.Env = append(os.Environ(), "MINIO_ROOT_USER=key", "MINIO_ROOT_PASSWORD=secretsecret", "MINIO_BROWSER=off")
		return server
	})
}

// joins is a final and a temp store of one server, and what a Join told.
type joins struct {
	*testing.T
	final, temp *Store
	lent        int64

	mu               sync.Mutex
	copied, streamed int64
	commits          int
}

func newJoins(t *testing.T, url string, change func(*Config)) *joins {
	t.Helper()
	at := func(prefix string) *Store {
		return open(t, url, func(c *Config) {
			if change != nil {
				change(c)
			}
			c.Prefix, c.MaxAttempts = prefix, 2
		})
	}
	j := &joins{T: t, final: at("final/" + t.Name() + "/"), temp: at("temp/" + t.Name() + "/"), lent: buffers.Shared.Lent()}
	t.Cleanup(j.close)
	return j
}

// close looks for what was left: uploads on the server; memory and connections here.
func (j *joins) close() {
	for _, upload := range j.uploads() {
		j.Errorf("the upload %s is left", upload)
	}
	_, _ = j.final.Close(), j.temp.Close()
	for end := time.Now().Add(3 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		connections, lent := httpconn.Connections(), buffers.Shared.Lent()-j.lent
		if connections == 0 && lent == 0 {
			return
		}
		if time.Now().After(end) {
			j.Errorf("%d connections and %d blocks are left", connections, lent)
			return
		}
	}
}

func (j *joins) uploads() []string {
	j.Helper()
	listed, err := j.final.bucket.ListUploads(context.Background(), "", "")
	if err != nil {
		j.Fatal(err)
	}
	var found []string
	for _, upload := range listed.Found {
		found = append(found, upload.Key)
	}
	return found
}

// put stores bytes, and describes them as a Join wants it.
func (j *joins) put(to *Store, key string, data []byte) object.Info {
	j.Helper()
	pipe := digest.NewPipe(buffers.Shared, digest.Expect{Size: int64(len(data))})
	defer pipe.Close()
	go func() {
		for rest := data; len(rest) > 0; {
			n, err := pipe.Write(rest, time.Second)
			if err != nil {
				return
			}
			rest = rest[n:]
		}
		pipe.CloseWrite()
	}()
	if _, err := to.Put(context.Background(), key, pipe, object.PutOptions{Overwrite: true}); err != nil {
		j.Fatal(err)
	}
	info, err := to.Stat(context.Background(), key)
	if err != nil {
		j.Fatal(err)
	}
	return info
}

// parts stores one part for each size; they and what they are together.
func (j *joins) parts(sizes ...int) (parts []object.Info, whole []byte) {
	j.Helper()
	for i, size := range sizes {
		data := storetest.Bytes(size, byte(i))
		parts = append(parts, j.put(j.temp, fmt.Sprintf("s é+&%%/%d/%05d", len(sizes), i+1), data))
		whole = append(whole, data...)
	}
	return parts, whole
}

// order is the Join of these parts.
func (j *joins) order(key string, parts []object.Info, whole []byte) *object.Join {
	return &object.Join{
		Key: key, From: j.temp, Parts: parts, Size: int64(len(whole)),
		Options: object.PutOptions{Overwrite: true, ContentType: "text/x-own", Metadata: map[string]string{"by": "Zoë"}},
		SHA256:  func(context.Context) (string, error) { return hexSum(whole), nil },
		Done: func(copied, streamed int64) {
			j.mu.Lock()
			defer j.mu.Unlock()
			j.copied, j.streamed = j.copied+copied, j.streamed+streamed
		},
		Commit: func(context.Context) error {
			j.commits++
			return nil
		},
	}
}

// bytes are those of an object, verified, or nil if there is none.
func (j *joins) bytes(key string) ([]byte, object.Info) {
	j.Helper()
	opened, err := j.final.Get(context.Background(), key, object.Whole)
	if object.CodeOf(err) == object.NotFound {
		return nil, object.Info{}
	}
	if err != nil {
		j.Fatal(err)
	}
	defer func() { _ = opened.Close() }()
	verified := digest.NewReader(opened, "")
	data := make([]byte, opened.Info().Size)
	for done := 0; done < len(data); {
		n, err := verified.ReadAt(data[done:], int64(done))
		done += n
		if err != nil && err != io.EOF && err != object.ErrNotYet {
			j.Fatal(err)
		}
	}
	return data, opened.Info()
}

// holds tells whether that is what is at a key.
func (j *joins) holds(key string, want []byte) {
	j.Helper()
	if got, _ := j.bytes(key); !bytes.Equal(got, want) || got == nil && want != nil {
		j.Errorf("%s holds %d bytes that are not the %d wanted", key, len(got), len(want))
	}
}

func (j *joins) join(order *object.Join) (object.Info, error) {
	j.copied, j.streamed, j.commits = 0, 0, 0
	return j.final.Join(j.Context(), order)
}

// succeeds joins and looks at all that should be true of the object.
func (j *joins) succeeds(order *object.Join, whole []byte) {
	j.Helper()
	info, err := j.join(order)
	if err != nil {
		j.Fatal(err)
	}
	sum := hexSum(whole)
	if info.Key != order.Key || info.Size != int64(len(whole)) || info.SHA256 != sum {
		j.Errorf("the join tells %+v", info)
	}
	if j.copied+j.streamed != int64(len(whole)) || j.commits != 1 {
		j.Errorf("%d bytes were copied and %d streamed, of %d; %d commits", j.copied, j.streamed, len(whole), j.commits)
	}
	j.holds(order.Key, whole)
	if _, there := j.bytes(order.Key); there.SHA256 != sum || there.Version != info.Version {
		j.Errorf("the server tells %+v, the join told %+v", there, info)
	}
	out, err := j.final.bucket.HeadObject(j.Context(), order.Key, false)
	if err != nil || out.Metadata["by"] != "=?utf-8?b?Wm/Dqw==?=" {
		j.Errorf("metadata %v, %v", out, err)
	}
}

// shapes of parts, with how many of the bytes pass through this process.
var shapes = []struct {
	name     string
	sizes    []int
	streamed int64
}{
	{"one", []int{leastPart}, 0},
	{"one small", []int{1000}, 0},
	{"one large", []int{17 * mib}, 0},
	{"nothing", []int{0, 0}, 0},
	{"nothing around it", []int{0, 1000, 0}, 0},
	{"equal", []int{leastPart, leastPart, leastPart}, 0},
	{"and a smaller last", []int{leastPart, leastPart, 7}, 0},
	{"unequal", []int{6 * mib, leastPart, 7*mib + 1}, 0},
	{"two small", []int{1000, buffers.Size}, 1000 + buffers.Size},
	{"small, and more than a block", []int{3 * mib, buffers.Size + 1, 4 * mib, 1}, 7*mib + buffers.Size + 1},
	{"small before large", []int{1000, 12 * mib, leastPart}, leastPart},
	{"all mixed", []int{1, leastPart, 0, 11 * mib, 20, 12 * mib, 30, 2 * mib}, 1 + leastPart + leastPart + 2*mib + 30},
}

func TestJoins(t *testing.T) {
	for name, server := range map[string]func(*testing.T) string{"versitygw": gateway, "MinIO": minioServer} {
		t.Run(name, func(t *testing.T) {
			url := server(t)
			for _, shape := range shapes {
				t.Run(shape.name, func(t *testing.T) {
					j := newJoins(t, url, nil)
					parts, whole := j.parts(shape.sizes...)
					for range 2 { // the second time it knows what the server can
						j.succeeds(j.order("a/b", parts, whole), whole)
						if j.streamed != shape.streamed {
							t.Errorf("%d bytes were streamed, not %d", j.streamed, shape.streamed)
						}
						_, info := j.bytes("a/b")
						if verified := info.CRC64NVME != ""; name == "versitygw" && len(shape.sizes) > 2 && j.copied > 0 && !verified {
							t.Error("the server has no checksum of it")
						}
					}
				})
			}
		})
	}
}

// front is a server behind which a real one stands, for which it answers now and then.
type front struct {
	url  string
	mu   sync.Mutex
	seen []string // the operations
	// instead may answer a request in place of the server; it is told the operation and how many there were before.
	instead func(operation string, before int, w http.ResponseWriter, r *http.Request, forward http.Handler) bool
}

func newFront(t *testing.T, upstream string) *front {
	t.Helper()
	target, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
		Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	f := &front{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		operation := operationOf(r)
		f.mu.Lock()
		before := 0
		for _, other := range f.seen {
			if other == operation {
				before++
			}
		}
		f.seen = append(f.seen, operation)
		instead := f.instead
		f.mu.Unlock()
		if instead == nil || !instead(operation, before, w, r, forward) {
			forward.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

func (f *front) answer(
	instead func(operation string, before int, w http.ResponseWriter, r *http.Request, forward http.Handler) bool,
) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.instead = instead
}

func operationOf(r *http.Request) string {
	query, copies := r.URL.Query(), r.Header.Get("X-Amz-Copy-Source") != ""
	switch {
	case r.Method == http.MethodPut && query.Has("uploadId") && copies:
		return "UploadPartCopy"
	case r.Method == http.MethodPut && query.Has("uploadId"):
		return "UploadPart"
	case r.Method == http.MethodPut && copies:
		return "CopyObject"
	case r.Method == http.MethodPost && query.Has("uploads"):
		return "CreateMultipartUpload"
	case r.Method == http.MethodPost:
		return "CompleteMultipartUpload"
	case r.Method == http.MethodDelete && query.Has("uploadId"):
		return "AbortMultipartUpload"
	case r.Method == http.MethodPut:
		return "PutObject"
	default:
		return r.Method
	}
}

// operations gives those that were seen, without reads, and forgets them.
func (f *front) operations() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	counted := map[string]int{}
	for _, operation := range f.seen {
		counted[operation]++
	}
	f.seen = nil
	for _, reads := range []string{http.MethodGet, http.MethodHead} {
		delete(counted, reads)
	}
	return counted
}

func fail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no</Message></Error>", code)
}

// lose has a request carried out, and its answer lost.
func lose(w http.ResponseWriter, r *http.Request, forward http.Handler) {
	forward.ServeHTTP(httptest.NewRecorder(), r)
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

// What a server may not be able to do: what the first join comes to, what it asks for, and the second.
func TestServersThatCannot(t *testing.T) {
	upstream := gateway(t)
	type counts = map[string]int
	for _, one := range []struct {
		name          string
		sizes         []int
		instead       func(operation string, before int, w http.ResponseWriter, r *http.Request, forward http.Handler) bool
		cannot        bool
		first, second counts
	}{
		{
			name: "copy", sizes: []int{leastPart, leastPart}, cannot: true,
			instead: func(operation string, _ int, w http.ResponseWriter, _ *http.Request, _ http.Handler) bool {
				if operation == "UploadPartCopy" {
					fail(w, http.StatusNotImplemented, "NotImplemented")
				}
				return operation == "UploadPartCopy"
			},
			first: counts{"CreateMultipartUpload": 1, "UploadPartCopy": 1, "AbortMultipartUpload": 1}, second: counts{},
		},
		{
			name: "tell a copy from a part", sizes: []int{1000}, cannot: true,
			instead: func(operation string, _ int, w http.ResponseWriter, _ *http.Request, _ http.Handler) bool {
				if operation == "UploadPartCopy" {
					w.Header().Set("ETag", `"d41d8cd98f00b204e9800998ecf8427e"`)
				}
				return operation == "UploadPartCopy"
			},
			first: counts{"CreateMultipartUpload": 1, "UploadPartCopy": 1, "AbortMultipartUpload": 1}, second: counts{},
		},
		{
			name: "copy what we ask for", sizes: []int{leastPart, leastPart}, cannot: true,
			instead: func(operation string, _ int, w http.ResponseWriter, _ *http.Request, _ http.Handler) bool {
				if operation == "UploadPartCopy" {
					fail(w, http.StatusBadRequest, "InvalidArgument")
				}
				return operation == "UploadPartCopy"
			},
			first:  counts{"CreateMultipartUpload": 2, "UploadPartCopy": 2, "AbortMultipartUpload": 2},
			second: counts{"CreateMultipartUpload": 2, "UploadPartCopy": 2, "AbortMultipartUpload": 2},
		},
		{
			name: "have parts of different sizes", sizes: []int{6 * mib, leastPart, 7 * mib}, cannot: true,
			instead: func(operation string, _ int, w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
				if operation == "CompleteMultipartUpload" {
					_, _ = io.Copy(io.Discard, r.Body)
					fail(w, http.StatusBadRequest, "InvalidPart")
				}
				return operation == "CompleteMultipartUpload"
			},
			first: counts{
				"CreateMultipartUpload": 1, "UploadPartCopy": 3, "CompleteMultipartUpload": 1, "AbortMultipartUpload": 1,
			},
			second: counts{},
		},
		{
			name: "have parts as small", sizes: []int{leastPart, leastPart}, cannot: true,
			instead: func(operation string, _ int, w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
				if operation == "CompleteMultipartUpload" {
					_, _ = io.Copy(io.Discard, r.Body)
					fail(w, http.StatusBadRequest, "EntityTooSmall")
				}
				return operation == "CompleteMultipartUpload"
			},
			first: counts{
				"CreateMultipartUpload": 1, "UploadPartCopy": 2, "CompleteMultipartUpload": 1, "AbortMultipartUpload": 1,
			},
			second: counts{
				"CreateMultipartUpload": 1, "UploadPartCopy": 2, "CompleteMultipartUpload": 1, "AbortMultipartUpload": 1,
			},
		},
		{
			name: "have checksums", sizes: []int{leastPart, leastPart},
			instead: func(operation string, _ int, w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
				if r.Header.Get("X-Amz-Checksum-Algorithm") != "" {
					fail(w, http.StatusBadRequest, "InvalidRequest")
					return true
				}
				return false
			},
			first:  counts{"CreateMultipartUpload": 2, "UploadPartCopy": 2, "CompleteMultipartUpload": 1},
			second: counts{"CreateMultipartUpload": 1, "UploadPartCopy": 2, "CompleteMultipartUpload": 1},
		},
	} {
		t.Run(one.name, func(t *testing.T) {
			front := newFront(t, upstream)
			j := newJoins(t, front.url, nil)
			parts, whole := j.parts(one.sizes...)
			front.answer(one.instead)
			for _, want := range []counts{one.first, one.second} {
				front.operations()
				if one.cannot {
					if _, err := j.join(j.order("a", parts, whole)); err != object.ErrCannotJoin {
						t.Errorf("gives %v", err)
					}
				} else {
					j.succeeds(j.order("a", parts, whole), whole)
				}
				if got := front.operations(); !maps.Equal(got, want) {
					t.Errorf("asks for %v, not %v", got, want)
				}
			}
			front.answer(nil)
			if one.cannot {
				j.holds("a", nil)
			}
		})
	}
}

func TestCopiesIntoPlainUploads(t *testing.T) {
	front := newFront(t, minioServer(t))
	for _, checksum := range []string{checksumAuto, s3api.CRC64NVME} {
		t.Run(checksum, func(t *testing.T) {
			j := newJoins(t, front.url, func(c *Config) { c.Checksum = checksum })
			parts, whole := j.parts(leastPart, leastPart)
			if checksum != checksumAuto { // it was asked for, and so it has to be streamed
				if _, err := j.join(j.order("a", parts, whole)); err != object.ErrCannotJoin {
					t.Errorf("gives %v", err)
				}
				return
			}
			for _, creates := range []int{2, 1} {
				front.operations()
				j.succeeds(j.order("a", parts, whole), whole)
				if got := front.operations(); got["CreateMultipartUpload"] != creates || got["UploadPartCopy"] != creates+1 {
					t.Errorf("asks for %v", got)
				}
			}
		})
	}
}

func TestEqualParts(t *testing.T) {
	j := newJoins(t, gateway(t), func(c *Config) { c.EqualParts = true })
	for _, sizes := range [][]int{{6 * mib, 6 * mib, 6 * mib}, {6 * mib, 6 * mib, 1}, {1000, 2000}, {9 * mib}} {
		parts, whole := j.parts(sizes...)
		j.succeeds(j.order("a", parts, whole), whole)
	}
	parts, whole := j.parts(6*mib, leastPart, 6*mib)
	if _, err := j.join(j.order("b", parts, whole)); err != object.ErrCannotJoin {
		t.Errorf("gives %v", err)
	}
	j.holds("b", nil)
}

func TestEachChecksum(t *testing.T) {
	url := gateway(t)
	for _, checksum := range []string{s3api.CRC32, s3api.CRC64NVME, s3api.SHA256, checksumOff} {
		t.Run(checksum, func(t *testing.T) {
			j := newJoins(t, url, func(c *Config) { c.Checksum = checksum })
			for _, sizes := range [][]int{{1000}, {1000, 1000}, {1000, 12 * mib, leastPart, 3}} {
				parts, whole := j.parts(sizes...)
				for range 2 {
					if checksum == s3api.SHA256 && len(sizes) > 2 { // versitygw tells a digest of digests
						if _, err := j.join(j.order("a", parts, whole)); err != object.ErrCannotJoin {
							t.Errorf("gives %v", err)
						}
						continue
					}
					j.succeeds(j.order("a", parts, whole), whole)
				}
			}
		})
	}
}

func TestOnePartIsOneRequest(t *testing.T) {
	front := newFront(t, gateway(t))
	j := newJoins(t, front.url, nil)
	j.final.bucket.Traits.Creates[byUpload].Store(new(true)) // known, so that nothing is asked for it
	parts, whole := j.parts(leastPart)
	inParts := map[string]int{"CreateMultipartUpload": 1, "UploadPartCopy": 1, "CompleteMultipartUpload": 1}
	large, largeWhole := j.parts(0, mostCopied+1)
	small, smallWhole := j.parts(10, 20, 0)
	for _, one := range []struct {
		parts     []object.Info
		whole     []byte
		overwrite bool
		want      map[string]int
	}{
		{parts, whole, true, inParts}, // the server has not yet shown that it copies
		{parts, whole, true, map[string]int{"CopyObject": 1}},
		{parts, whole, false, inParts},
		{large, largeWhole, true, inParts},
		{small, smallWhole, true, map[string]int{"PutObject": 1}},
	} {
		front.operations()
		order := j.order(fmt.Sprint("a", len(one.whole), one.overwrite), one.parts, one.whole)
		order.Options.Overwrite = one.overwrite
		j.succeeds(order, one.whole)
		if got := front.operations(); !maps.Equal(got, one.want) {
			t.Errorf("%d parts, overwrite %v: %v, not %v", len(one.parts), one.overwrite, got, one.want)
		}
	}
}

// shapesThat come to each kind of request.
var kindsOfJoin = map[string][]int{
	"copies": {leastPart, 6 * mib, leastPart}, "copy": {1000}, "reads": {1000, 2000}, "both": {1000, 12 * mib, leastPart},
}

func TestPartsThatChangeOrGo(t *testing.T) {
	for name, server := range map[string]func(*testing.T) string{"versitygw": gateway, "MinIO": minioServer} {
		url := server(t)
		for kind, sizes := range kindsOfJoin {
			if name == "MinIO" && kind == "copies" {
				continue // seconds, since it does not tell of an upload that it is gone; and "both" has it too
			}
			t.Run(name+" "+kind, func(t *testing.T) {
				j := newJoins(t, url, nil)
				parts, whole := j.parts(sizes...)
				old := []byte("old")
				j.put(j.final, "a", old)
				j.succeeds(j.order("b", parts, whole), whole) // it knows what the server can
				for i, part := range parts {
					changed := storetest.Bytes(int(part.Size), 99)
					j.put(j.temp, part.Key, changed)
					_, err := j.join(j.order("a", parts, whole))
					if failed, ok := err.(*object.Error); !ok || failed.Code != object.Mismatch || failed.Key != part.Key || failed.Retryable {
						t.Errorf("part %d has changed: %#v", i, err)
					}
					if err := j.temp.Delete(t.Context(), part.Key); err != nil {
						t.Fatal(err)
					}
					_, err = j.join(j.order("a", parts, whole))
					if failed, ok := err.(*object.Error); !ok || failed.Code != object.NotFound || failed.Key != part.Key {
						t.Errorf("part %d is gone: %#v", i, err)
					}
					if j.commits > 0 && kind != "copy" {
						t.Error("that was to be committed")
					}
					parts[i] = j.put(j.temp, part.Key, storetest.Bytes(int(part.Size), byte(i)))
				}
				j.holds("a", old)
			})
		}
	}
}

func TestJoinOnceOnly(t *testing.T) {
	for name, server := range map[string]func(*testing.T) string{"versitygw": gateway, "MinIO": minioServer} {
		url := server(t)
		for kind, sizes := range kindsOfJoin {
			t.Run(name+" "+kind, func(t *testing.T) {
				j := newJoins(t, url, nil)
				parts, whole := j.parts(sizes...)
				order := j.order("a", parts, whole)
				order.Options.Overwrite = false
				results := make(chan error, 4)
				for range cap(results) {
					go func() {
						other := *order
						other.Commit = func(context.Context) error { return nil }
						_, err := j.final.Join(t.Context(), &other)
						results <- err
					}()
				}
				for range cap(results) { // they are identical, and so all succeed
					if err := <-results; err != nil {
						t.Error(err)
					}
				}
				j.holds("a", whole)
				j.put(j.final, "b", []byte("old"))
				order.Key = "b"
				if _, err := j.join(order); object.CodeOf(err) != object.Exists {
					t.Errorf("a different object is there: %v", err)
				}
				j.holds("b", []byte("old"))
			})
		}
	}
}

func TestJoinsThatFail(t *testing.T) {
	url := gateway(t)
	mine := errors.New("mine")
	for kind, sizes := range kindsOfJoin {
		for _, known := range []bool{false, true} {
			t.Run(fmt.Sprint(kind, " ", known), func(t *testing.T) {
				j := newJoins(t, url, nil)
				parts, whole := j.parts(sizes...)
				if known {
					j.succeeds(j.order("b", parts, whole), whole)
				}
				old := []byte("old")
				j.put(j.final, "a", old)
				goroutines := runtime.NumGoroutine()

				order := j.order("a", parts, whole)
				order.SHA256 = func(context.Context) (string, error) { return "", mine }
				if _, err := j.join(order); err != mine {
					t.Errorf("without a digest: %v", err)
				}
				order = j.order("a", parts, whole)
				order.Commit = func(context.Context) error { return mine }
				if _, err := j.join(order); err != mine {
					t.Errorf("before the commit: %v", err)
				}
				for _, bytes := range []int64{1, int64(len(whole))} {
					order = j.order("a", parts, whole)
					ctx, cancel := context.WithCancelCause(t.Context())
					count := order.Done
					order.Done = func(copied, streamed int64) {
						count(copied, streamed)
						j.mu.Lock()
						defer j.mu.Unlock()
						if j.copied+j.streamed >= bytes {
							cancel(mine)
						}
					}
					order.Commit = func(ctx context.Context) error { return context.Cause(ctx) }
					j.copied, j.streamed = 0, 0
					if _, err := j.final.Join(ctx, order); err != mine {
						t.Errorf("interrupted after %d bytes: %v", bytes, err)
					}
				}
				j.holds("a", old)
				for end := time.Now().Add(time.Second); runtime.NumGoroutine() > goroutines+2; time.Sleep(10 * time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
					}
				}
			})
		}
	}
}

func TestJoinsWithBadAnswers(t *testing.T) {
	upstream := gateway(t)
	for _, operation := range []string{"CreateMultipartUpload", "UploadPartCopy", "UploadPart", "CompleteMultipartUpload", "CopyObject"} {
		for fault, answer := range map[string]func(w http.ResponseWriter, r *http.Request, forward http.Handler){
			"500":    func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { fail(w, 500, "InternalError") },
			"in 200": func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { fail(w, 200, "InternalError") },
			"lost":   lose,
		} {
			t.Run(operation+" "+fault, func(t *testing.T) {
				front := newFront(t, upstream)
				j := newJoins(t, front.url, nil)
				sizes := kindsOfJoin["both"]
				if operation == "CopyObject" {
					sizes = kindsOfJoin["copy"]
				}
				parts, whole := j.parts(sizes...)
				j.succeeds(j.order("a", parts, whole), whole)
				front.operations()
				var times atomic.Int64
				times.Store(1)
				front.answer(func(seen string, before int, w http.ResponseWriter, r *http.Request, forward http.Handler) bool {
					if seen != operation || before >= int(times.Load()) {
						return false
					}
					answer(w, r, forward)
					return true
				})
				j.succeeds(j.order("once", parts, whole), whole)
				times.Store(1000)
				front.operations()
				_, err := j.join(j.order("always", parts, whole))
				commits := operation == "CompleteMultipartUpload" || operation == "CopyObject"
				front.answer(nil)
				if fault == "lost" && commits {
					if err != nil {
						t.Errorf("it was carried out, but: %v", err)
					}
					j.holds("always", whole)
					return
				}
				if failed, ok := err.(*object.Error); !ok || failed.Code != object.Unavailable || !failed.Retryable {
					t.Errorf("always: %#v", err)
				}
				j.holds("always", nil)
			})
		}
	}
}

// A part of 1 KiB is no round trip on its own, and no buffer for long.
func TestJoinOfManySmallParts(t *testing.T) {
	j := newJoins(t, gateway(t), nil)
	parts, whole := j.parts(kib)
	parts, whole = slices.Repeat(parts, 10_000), bytes.Repeat(whole, 10_000)
	j.succeeds(j.order("a", parts, whole), whole)
}

// Without any budget left it goes on with the memory of one part.
func TestJoinWithoutBudget(t *testing.T) {
	j := newJoins(t, gateway(t), nil)
	parts, whole := j.parts(slices.Repeat([]int{2 * mib, 3 * mib, leastPart}, 3)...)
	others := buffers.Shared.Share()
	defer others.End()
	var held []*buffers.Block
	for block := others.TryGet(); block != nil; block = others.TryGet() {
		held = append(held, block)
	}
	j.succeeds(j.order("a", parts, whole), whole)
	for _, block := range held {
		buffers.Shared.Put(block)
	}
}

func TestJoinOfOtherStores(t *testing.T) {
	url := gateway(t)
	j := newJoins(t, url, nil)
	parts, whole := j.parts(1000)
	other := newJoins(t, url, func(c *Config) { c.ConnectTimeout = 7 })
	order := j.order("a", parts, whole)
	order.From = other.temp
	if _, err := j.join(order); err != object.ErrCannotJoin {
		t.Errorf("gives %v", err)
	}
}

// With one connection all goes one after another, and to an end.
func TestJoinOverOneConnection(t *testing.T) {
	j := newJoins(t, gateway(t), func(c *Config) { c.MaxConnections = 1 })
	share := j.final.Connections().Share() // there is nothing to share
	defer share.End()
	if share.Take(1) {
		t.Fatal("there is more than one connection")
	}
	parts, whole := j.parts(10_000, leastPart, 20_000, 30_000, leastPart+1, leastPart, 5)
	j.succeeds(j.order("one", parts, whole), whole)
}
