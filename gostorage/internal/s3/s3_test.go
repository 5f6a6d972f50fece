package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/awsconfig"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/httpconn"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/prefetch"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/s3api"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/storetest"
)

const versitygw = "../../../build/tools/bin/versitygw"

// gateway starts a real S3 server with a bucket "tests" and gives its address.
func gateway(t *testing.T) string {
	t.Helper()
	data := t.TempDir()
	if err := os.Mkdir(filepath.Join(data, "tests"), 0o700); err != nil {
		t.Fatal(err)
	}
	return serve(t, func(address string) *exec.Cmd {
		server := exec.Command(versitygw, "--port", address, "--quiet", "posix", data)
		server.Env = append(os.Environ(), "ROOT_ACCESS_KEY=key", "ROOT_SECRET_KEY=secretsecret")
		return server
	})
}

// serve starts a server and waits until it answers.
func serve(t *testing.T, command func(address string) *exec.Cmd) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	server := command(address)
	if _, err := os.Stat(server.Path); err != nil {
		t.Fatal("there is no S3 server to test with: run `make tools`")
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = server.Process.Kill(), server.Wait() })
	for range 200 {
		if answer, err := http.Get("http://" + address); err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode < http.StatusInternalServerError {
				return "http://" + address
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the S3 server does not start")
	return ""
}

func open(t *testing.T, url string, change func(*Config)) *Store {
	t.Helper()
	config := Config{PartSize: 5 << 20, Concurrency: 3, Checksum: checksumAuto}
	config.Prefix = t.Name() + "/"
	config.Options = awsconfig.Options{
		Bucket: "tests", AccessKey: "key", SecretKey: "secretsecret", Endpoint: url, Verify: true,
		ConnectTimeout: 5, ReadTimeout: 10, MaxAttempts: 3, MaxConnections: 16,
	}
	if change != nil {
		change(&config)
	}
	store, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestContract(t *testing.T) {
	url := gateway(t)
	storetest.Run(t, func(t *testing.T) object.Store { return open(t, url, nil) })
	for end := time.Now().Add(5 * time.Second); httpconn.Connections() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections are left", httpconn.Connections())
		}
	}
}

func TestContractWithEachChecksum(t *testing.T) {
	url := gateway(t)
	for _, checksum := range []string{s3api.CRC32, s3api.SHA256, checksumOff, checksumSigned} {
		t.Run(checksum, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) object.Store {
				return open(t, url, func(c *Config) { c.Checksum = checksum })
			})
		})
	}
}

// endless gives one block again and again, so many times.
type endless struct {
	left  int
	size  int64
	bytes []byte
}

func (e *endless) Bytes() []byte                         { return e.bytes }
func (e *endless) Checksum() (uint64, bool)              { return 0, true }
func (e *endless) Release()                              {}
func (e *endless) Reserve(int64, int64, object.Checksum) {}
func (e *endless) Refused() int64                        { return 0 }
func (e *endless) Read([]byte) (int, error)              { return 0, errors.ErrUnsupported }
func (e *endless) Record() string                        { return "" }

func (e *endless) Expected() (int64, string) { return e.size, "" }
func (e *endless) Sum() (int64, string)      { return int64(len(e.bytes)), hexSum(e.bytes) }

func (e *endless) WriteTo(io.Writer) (int64, error) { return 0, errors.ErrUnsupported }

func (e *endless) Next(context.Context, int64) (object.Block, error) {
	if e.left == 0 {
		return nil, io.EOF
	}
	e.left--
	return e, nil
}

// swallowing is a server that takes all parts and remembers their sizes.
type swallowing struct {
	mu              sync.Mutex
	parts           map[int64]int
	joined, aborted int
}

func (s *swallowing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n, _ := io.Copy(io.Discard, r.Body)
	s.mu.Lock() // a request that was cancelled may still be here when the test looks
	defer s.mu.Unlock()
	query := r.URL.Query()
	switch {
	case r.Method == http.MethodPost && query.Has("uploads"):
		_, _ = io.WriteString(w, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
	case r.Method == http.MethodPut:
		s.parts[n]++
		w.Header().Set("ETag", `"e"`)
	case r.Method == http.MethodPost:
		s.joined++
		_, _ = io.WriteString(w, "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>")
	case r.Method == http.MethodDelete && s.aborted > 0:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodDelete:
		s.aborted++
		w.WriteHeader(http.StatusNoContent)
	}
}

// seen gives how many parts had a size, and how many uploads were joined and aborted.
func (s *swallowing) seen() (parts map[int64]int, joined, aborted int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.parts), s.joined, s.aborted
}

func swallow(t *testing.T) (*swallowing, string) {
	taken := &swallowing{parts: map[int64]int{}}
	server := httptest.NewServer(taken)
	t.Cleanup(server.Close)
	return taken, server.URL
}

func tiny(c *Config) { c.PartSize = object.BlockSize }

func TestUnknownSizeGetsLargerPartsAfterAQuarterOfThem(t *testing.T) {
	taken, url := swallow(t)
	store := open(t, url, tiny)
	defer func() { _ = store.Close() }()
	_, err := store.Put(t.Context(), "k", &endless{left: growAfter + 200, size: -1, bytes: make([]byte, object.BlockSize)}, object.PutOptions{Overwrite: true})
	if err != nil {
		t.Fatal(err)
	}
	parts, joined, aborted := taken.seen()
	if parts[object.BlockSize] != growAfter || parts[growBy*object.BlockSize] != 200/growBy || joined != 1 || aborted != 0 {
		t.Errorf("parts of %v, joined %d, aborted %d", parts, joined, aborted)
	}
}

func TestTooManyPartsEndTheUpload(t *testing.T) {
	taken, url := swallow(t)
	store := open(t, url, func(c *Config) { tiny(c); c.EqualParts = true })
	defer func() { _ = store.Close() }()
	_, err := store.Put(t.Context(), "k", &endless{left: mostParts + 1, size: -1, bytes: make([]byte, object.BlockSize)}, object.PutOptions{Overwrite: true})
	if object.CodeOf(err) != object.Refused || !strings.Contains(err.Error(), "part_size") {
		t.Errorf("a stream of more than %d parts gives %v", mostParts, err)
	}
	parts, joined, aborted := taken.seen()
	if aborted != 1 || joined != 0 || len(parts) > 2 || parts[object.BlockSize] < mostParts-5 {
		t.Errorf("parts of %v, joined %d, aborted %d", parts, joined, aborted)
	}
}

func TestKnownSizesArePlanned(t *testing.T) {
	store := &Store{config: Config{PartSize: 8 << 20}}
	for size, want := range map[int64]int64{
		-1: 8 << 20, 0: 8 << 20, 8 << 20 * mostParts: 8 << 20, 8<<20*mostParts + 1: 8<<20 + object.BlockSize,
		16 << 20 * mostParts: 16 << 20, 16<<20*mostParts + 1: 0,
	} {
		part, err := store.partSize(size)
		if part != want || (err == nil) != (want > 0) {
			t.Errorf("%d bytes are planned in parts of %d (%v), not %d", size, part, err, want)
		}
		if want > 0 && size > part*mostParts {
			t.Errorf("%d parts of %d do not hold %d bytes", mostParts, part, size)
		}
	}
}

func TestPartsAreAsSmallAsPossibleUnlessSaid(t *testing.T) {
	defer buffers.Shared.SetBudget(buffers.DefaultBudget)
	for _, one := range []struct {
		budget, size int64
		equal, near  bool
		want         int64
	}{
		{buffers.DefaultBudget, -1, false, false, 5 << 20},
		{buffers.DefaultBudget, -1, true, false, 8 << 20},
		{buffers.DefaultBudget, -1, false, true, 8 << 20},
		{buffers.DefaultBudget, 8 << 20, false, false, 8 << 20}, // one request
		{buffers.DefaultBudget, 8<<20 + 1, false, false, 5 << 20},
		{buffers.DefaultBudget, 8<<20 + 1, true, false, 5 << 20},
		{buffers.DefaultBudget, 5<<20*mostParts + 1, true, false, 5<<20 + object.BlockSize},
		{buffers.DefaultBudget, 16<<20*mostParts + 1, false, false, 0},
		{2 * buffers.DefaultBudget, 16<<20*mostParts + 1, false, false, 16<<20 + object.BlockSize},
		{16 << 20, 5 << 20 * mostParts, false, false, 5 << 20},
		{16 << 20, 5<<20*mostParts + 1, false, false, 0},
	} {
		buffers.Shared.SetBudget(one.budget)
		store := open(t, "http://127.0.0.1:9", func(c *Config) { c.PartSize, c.EqualParts = 0, one.equal })
		store.bucket.Traits.Near.Store(one.near)
		_ = store.Close()
		if part, err := store.partSize(one.size); part != one.want || (err == nil) != (one.want > 0) {
			t.Errorf("%+v: parts of %d (%v)", one, part, err)
		}
	}
}

// A single bit of a request that is wrong must not pass: what we sign is what we send.
func TestSmallPutIsSignedWithItsDigest(t *testing.T) {
	seen := make(chan *http.Request, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("ETag", `"e"`)
		seen <- r
	}))
	defer server.Close()
	store := open(t, server.URL, func(c *Config) { c.SessionToken = "token" })
	store.bucket.Traits.Creates[byPut].Store(new(true)) // known, so that nothing is asked for it
	defer func() { _ = store.Close() }()
	source := &endless{left: 1, size: -1, bytes: []byte("some")}
	if _, err := store.Put(t.Context(), "k", source, object.PutOptions{Overwrite: false}); err != nil {
		t.Fatal(err)
	}
	_, sum := source.Sum()
	request := <-seen
	for name, want := range map[string]string{
		"X-Amz-Content-Sha256": sum, "If-None-Match": "*", "X-Amz-Security-Token": "token",
		"X-Amz-Meta-Gostorage-Sha256": sum,
	} {
		if got := request.Header.Get(name); got != want {
			t.Errorf("%s is %q, not %q", name, got, want)
		}
	}
}

func TestCancelDuringAStalledPartAborts(t *testing.T) {
	taken := &swallowing{parts: map[int64]int{}}
	stalled, release := make(chan struct{}, 8), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			stalled <- struct{}{}
			<-release
			return
		}
		taken.ServeHTTP(w, r)
	}))
	defer server.Close()
	defer close(release)
	store := open(t, server.URL, tiny)
	defer func() { _ = store.Close() }()
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-stalled
		cancel(object.Errorf(object.Cancelled, "enough"))
	}()
	lent := buffers.Shared.Lent()
	_, err := store.Put(ctx, "k", &endless{left: 100, size: -1, bytes: make([]byte, object.BlockSize)}, object.PutOptions{Overwrite: true})
	if _, joined, aborted := taken.seen(); object.CodeOf(err) != object.Cancelled || aborted != 1 || joined != 0 {
		t.Errorf("a cancelled upload gives %v; aborted %d, joined %d", err, aborted, joined)
	}
	if now := buffers.Shared.Lent(); now != lent {
		t.Errorf("%d blocks are left", now-lent)
	}
}

// What the system holds of a request must not go on to the server once the caller knows that it has failed.
func TestARequestThatIsGivenUpDoesNotArriveLater(t *testing.T) {
	const size = object.BlockSize // more than the server's system takes by itself, less than ours does
	for _, cancelled := range []bool{false, true} {
		held := -1 // a copy of the connection, as a forked child has it
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		store := open(t, "http://"+listener.Addr().String(), func(c *Config) { c.ReadTimeout, c.MaxAttempts = 0.3, 1 })
		ctx, cancel := context.WithCancelCause(t.Context())
		given, got := make(chan struct{}), make(chan int64, 1)
		go func() {
			late, err := listener.Accept()
			if err != nil {
				got <- size
				return
			}
			held = copyOf(t, late.RemoteAddr())
			if cancelled {
				time.Sleep(50 * time.Millisecond) // the system takes the request meanwhile
				cancel(object.Errorf(object.Cancelled, "enough"))
			}
			<-given
			n, _ := io.Copy(io.Discard, late)
			_ = late.Close()
			got <- n
		}()
		_, err = store.Put(ctx, "k", &endless{left: 1, size: size, bytes: make([]byte, size)}, object.PutOptions{Overwrite: true})
		close(given)
		if n := <-got; err == nil || n >= size {
			t.Errorf("cancelled %t: error %v, and the server got %d bytes later", cancelled, err, n)
		}
		_ = unix.Close(held)
		cancel(nil)
		_, _ = store.Close(), listener.Close()
	}
}

// copyOf gives a copy of the descriptor of this process whose socket has the address.
func copyOf(t *testing.T, local net.Addr) int {
	for fd := range 1024 {
		name, err := unix.Getsockname(fd)
		if inet, ok := name.(*unix.SockaddrInet4); err == nil && ok && inet.Port == local.(*net.TCPAddr).Port {
			if held, err := unix.Dup(fd); err == nil {
				return held
			}
		}
	}
	t.Error("the connection has no descriptor")
	return -1
}

func TestRangesOfAReader(t *testing.T) {
	data := storetest.Bytes(12<<20, 7)
	var mu sync.Mutex
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.Header.Get("Range"))
		mu.Unlock()
		w.Header().Set("ETag", `"e"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(data)))
	}))
	defer server.Close()
	store := open(t, server.URL, nil)
	defer func() { _ = store.Close() }()
	reader, err := store.Get(t.Context(), "k", object.Range{Start: 5, Length: 10})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	for _, at := range []int64{5, 9 << 20, 9<<20 + 1<<20, 3} {
		into := make([]byte, 8)
		var n int
		for n == 0 && (err == nil || err == object.ErrNotYet) {
			n, err = reader.ReadAt(into, at)
		}
		if n == 0 || string(into[:n]) != string(data[at:at+int64(n)]) {
			t.Fatalf("at %d: %d bytes, %v", at, n, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	want := []string{"bytes=5-14", fmt.Sprintf("bytes=%d-%d", 9<<20, 10<<20-1), fmt.Sprintf("bytes=%d-%d", 10<<20, 12<<20-1), "bytes=3-14"}
	if fmt.Sprint(asked) != fmt.Sprint(want) {
		t.Errorf("asked for %v, not %v", asked, want)
	}
}

// A server that has given parts, and then all of an object in place of one, is asked again; one that gives none is not.
func TestAllInPlaceOfAPart(t *testing.T) {
	data := storetest.Bytes(20<<20, 7)
	for _, c := range []struct {
		parts []int32 // the requests that are answered by a part
		asked int32
		code  object.Code
	}{
		{[]int32{2, 4}, 4, ""},
		{nil, 2, object.Refused},
	} {
		var asked atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"e"`)
			if !slices.Contains(c.parts, asked.Add(1)) {
				r.Header.Del("Range")
			}
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(data)))
		}))
		store := open(t, server.URL, nil)
		reader, err := store.Get(t.Context(), "k", object.Whole)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int64{15 << 20, 9 << 20} {
			into, n := make([]byte, 8), 0
			for n == 0 && err == nil {
				if n, err = reader.ReadAt(into, at); err == object.ErrNotYet {
					err = nil
				}
			}
			if n > 0 && string(into[:n]) != string(data[at:at+int64(n)]) {
				t.Errorf("other bytes at %d", at)
			}
		}
		if object.CodeOf(err) != c.code || asked.Load() != c.asked {
			t.Errorf("%v: %d requests, %v", c.parts, asked.Load(), err)
		}
		_, _ = reader.Close(), store.Close()
		server.Close()
	}
}

// cutting reads data from a server whose connections are cut now and then. lent counts the blocks in use for that.
func cutting(t *testing.T, data []byte) (reader object.Reader, lent func() int64) {
	const cut = 5<<20 + 123
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, last := 0, len(data)-1
		w.Header().Set("ETag", `"e"`)
		if asked, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &last); asked > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, last, len(data)))
		}
		w.Header().Set("Content-Length", fmt.Sprint(last+1-from))
		if from > 0 || r.Header.Get("Range") != "" {
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = w.Write(data[from:min(from+cut, last+1)]) // less than was announced ends the connection
	}))
	t.Cleanup(server.Close)
	store := open(t, server.URL, nil)
	t.Cleanup(func() { _ = store.Close() })
	before := buffers.Shared.Lent()
	reader, err := store.Get(t.Context(), "k", object.Whole)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reader.Close() })
	return reader, func() int64 { return buffers.Shared.Lent() - before }
}

// TestMemoryThatIsLent reads with memory lent for what follows, which is sometimes read into, and sometimes not.
func TestMemoryThatIsLent(t *testing.T) {
	data := storetest.Bytes(64<<20, 7)
	reader, lent := cutting(t, data)
	borrower, ok := reader.(digest.Borrower)
	if !ok || !borrower.Borrows() {
		t.Fatal("it has no use for memory")
	}
	random := rand.New(rand.NewPCG(1, 2))
	type piece struct {
		at   int
		data []byte
	}
	open, token, at, taken, read := map[int64][]byte{}, int64(0), 0, 0, []piece{}
	returned := func() {
		for back := buffers.Shared.Returned(0); back != 0; back = buffers.Shared.Returned(back) {
			delete(open, back)
		}
	}
	var next []byte
	for at < len(data) {
		into := next
		if random.IntN(4) == 0 {
			into = make([]byte, 1+random.IntN(3<<20))
		}
		if random.IntN(30) == 0 {
			time.Sleep(prefetch.AwayAfter + 50*time.Millisecond)
		}
		if random.IntN(30) == 0 {
			at, into = random.IntN(len(data)), make([]byte, 1<<20)
		}
		if into == nil {
			into = make([]byte, 1<<20)
		}
		into = into[:min(len(into), len(data)-at)]
		next = make([]byte, 1+random.IntN(2<<20))
		for done := 0; done < len(into); {
			token++
			open[token] = next
			loan := buffers.Shared.Borrow(token)
			n, err := borrower.ReadAhead(into[done:], int64(at+done), next, loan)
			buffers.Shared.Return(loan)
			if err != nil && err != io.EOF && err != object.ErrNotYet {
				t.Fatalf("at %d: %v", at+done, err)
			}
			done += n
			returned()
		}
		read = append(read, piece{at, into})
		for _, memory := range open {
			if &memory[0] == &into[0] {
				t.Fatalf("the memory of the %d from %d is not given back", len(into), at)
			}
		}
		at += len(into)
		if len(open) > 0 {
			taken++
		}
	}
	if taken < 10 {
		t.Errorf("memory was taken %d times", taken)
	}
	_ = reader.Close()
	for _, piece := range read { // now, so that nothing can have been written to it since
		if string(piece.data) != string(data[piece.at:piece.at+len(piece.data)]) {
			t.Fatalf("other bytes in the %d from %d", len(piece.data), piece.at)
		}
	}
	if returned(); len(open) > 0 || lent() != 0 {
		t.Errorf("%d pieces are lent after the end, and %d blocks", len(open), lent())
	}
}

// TestWhoReadsTakesTheBytes reads from a connection that is cut now and then, at once and after pauses.
func TestWhoReadsTakesTheBytes(t *testing.T) {
	data := storetest.Bytes(16<<20, 7)
	reader, lent := cutting(t, data)
	random, into := rand.New(rand.NewPCG(1, 2)), make([]byte, 2<<20)
	for at := 0; at < len(data); {
		n, err := reader.ReadAt(into[:1+random.IntN(len(into))], int64(at))
		if err != nil && err != io.EOF && err != object.ErrNotYet {
			t.Fatalf("at %d: %v", at, err)
		}
		if string(into[:n]) != string(data[at:at+n]) {
			t.Fatalf("other bytes in the %d from %d", n, at)
		}
		at += n
		switch {
		case at == n && lent() != 1:
			t.Errorf("%d blocks to read at once", lent())
		case random.IntN(4) == 0 && at < len(data):
			for until := time.Now().Add(20 * time.Second); lent() < 2; time.Sleep(prefetch.AwayAfter / 4) {
				if time.Now().After(until) {
					t.Fatalf("at %d nothing was fetched ahead", at)
				}
			}
		}
	}
	if n, err := reader.ReadAt(into, int64(len(data))); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d, %v", n, err)
	}
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// TestAListingOfOneKeyEnds: a page that comes again and again under new tokens is no progress.
func TestAListingOfOneKeyEnds(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		page := asked.Add(1)
		_, _ = fmt.Fprintf(w, "<ListBucketResult><IsTruncated>true</IsTruncated>"+
			"<NextContinuationToken>%d</NextContinuationToken><Contents><Key>one/s/00001</Key>"+
			"<LastModified>2026-01-02T15:04:05.000Z</LastModified><ETag>e</ETag><Size>4</Size></Contents></ListBucketResult>", page)
	}))
	defer server.Close()
	store := open(t, server.URL, func(c *Config) { c.Prefix = "one/" })
	defer func() { _ = store.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var failed error
	for _, err := range store.Walk(ctx, "", "") {
		failed = err
	}
	if object.CodeOf(failed) != object.Unavailable || asked.Load() > 2*s3api.MaxFruitless {
		t.Errorf("%d requests, %v", asked.Load(), failed)
	}
}
