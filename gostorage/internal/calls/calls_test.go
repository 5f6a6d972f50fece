package calls

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/parts"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/task"
)

// panicking is a Store with a defect: whatever is asked of it panics.
type panicking struct{ object.Store }

func (panicking) Close() error { return nil }

func TestPanicInTheBackgroundIsAnError(t *testing.T) {
	table := NewTable()
	ctx, cancel := context.WithCancelCause(context.Background())
	table.stores[1] = &store{Store: panicking{}, ctx: ctx, cancel: cancel}
	for call, op := range []string{"put", "get", "stat", "delete", "check"} {
		call := int64(call)
		_, err := asked(t, table, call, op, "a/b", "", nil)
		if op == "put" {
			_, err = finished(t, table, call)
		}
		if err == nil || !strings.HasPrefix(err.Error(), "E1|internal|"+op+"|a%2Fb|") {
			t.Errorf("a panic in %s gives %v", op, err)
		}
	}
	nothingLeft(t, table)
}

func TestCancelAllUndoesWhatRuns(t *testing.T) {
	const number, put, list = 1, 2, 3
	table := memoryTable(t, number)
	if _, err := table.Start(number, put, "put", "k", "", nil); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(time.Minute); table.CancelAll() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("a cancelled put goes on")
		}
	}
	if _, err := waited(t, table, put); err == nil || !strings.HasPrefix(err.Error(), "E1|cancelled|put|k|") {
		t.Errorf("a put that was cancelled gives %v", err)
	}
	if text, err := asked(t, table, list, "list", "", `{"prefix": "k/"}`, nil); err != nil || text == "" {
		t.Errorf("the store does not work afterwards: %q %v", text, err)
	}
	nothingLeft(t, table)
}

func TestClosedStoreCancelsWhatRuns(t *testing.T) {
	const number, call = 1, 2
	table := memoryTable(t, number)
	if _, err := table.Start(number, call, "put", "k", "", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Write(call, []byte("some")); err != nil {
		t.Fatal(err)
	}
	if text, err := table.Wait(call, nil); !strings.HasPrefix(text, "@") || err != nil {
		t.Fatalf("an unfinished put has ended: %q %v", text, err)
	}
	if err := table.Close(number); err != nil {
		t.Fatal(err)
	}
	if _, err := waited(t, table, call); err == nil || !strings.HasPrefix(err.Error(), "E1|cancelled|put|k|") {
		t.Errorf("a put on a closed store gives %v", err)
	}
	nothingLeft(t, table)
}

func TestCancelledGetGivesItsReaderBack(t *testing.T) {
	const number, put, get, read = 1, 2, 3, 4
	table := memoryTable(t, number)
	if _, err := table.Start(number, put, "put", "k", "", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := finished(t, table, put); err != nil {
		t.Fatal(err)
	}
	for _, call := range []int64{get, read} {
		if _, err := asked(t, table, call, "get", "k", "", nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, call := range []int64{get, get, read, read} {
		table.Cancel(call)
		if _, err := table.Wait(call, nil); object.CodeOf(err) != object.Closed {
			t.Errorf("a forgotten call gives %v", err)
		}
	}
	if _, err := table.Read(read, 0, nil, nil, 0); object.CodeOf(err) != object.Closed {
		t.Errorf("a reader of a cancelled call gives %v", err)
	}
	if err := table.Close(number); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, table)
}

func TestSweepThroughTheTable(t *testing.T) {
	const number = 1
	table := memoryTable(t, number)
	for call, op := range []string{"survey", "sweep"} {
		text, err := asked(t, table, int64(call), op, "", `{"sweep": {"parts": true, "older_than": 1.5}}`, nil)
		if err != nil {
			t.Fatal(err)
		}
		var found map[string]any
		if err := json.Unmarshal([]byte(text), &found); err != nil || found["last"] != "" {
			t.Errorf("%s: %s %v", op, text, err)
		}
	}
	nothingLeft(t, table)
}

func memoryTable(t *testing.T, store int64) *Table {
	t.Helper()
	table := NewTable()
	for range 2 { // one that is there stays
		if err := table.Open(store, `{"backend": "memory"}`); err != nil {
			t.Fatal(err)
		}
	}
	return table
}

func nothingLeft(t *testing.T, table *Table) {
	t.Helper()
	var counts map[string]int
	for range 100 {
		if err := json.Unmarshal([]byte(table.Stats()), &counts); err != nil {
			t.Fatal(err)
		}
		if counts["calls"]+counts["readers"]+counts["buffers"] == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("left: %v", counts)
}

// waiting is a Store whose Stat waits, on the thread of who asks, until its context ends or something comes.
type waiting struct {
	object.Store
	ends [2]int
	more int // times that it waits once its context has ended
}

func newWaiting(t *testing.T) (*Table, *waiting) {
	t.Helper()
	runtime.LockOSThread() // as Python's threads are while they are in here
	t.Cleanup(runtime.UnlockOSThread)
	w := &waiting{}
	if err := unix.Pipe2(w.ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.Close(w.ends[0]), unix.Close(w.ends[1]) })
	table := NewTable()
	ctx, cancel := context.WithCancelCause(context.Background())
	table.stores[1] = &store{Store: w, yields: true, ctx: ctx, cancel: cancel}
	return table, w
}

func (w *waiting) Close() error { return nil }

func (w *waiting) Stat(ctx context.Context, key string) (object.Info, error) {
	defer context.AfterFunc(ctx, w.come)()
	_, _ = task.ThreadOf(ctx).Wait(w.ends[0], unix.POLLIN, time.Second)
	_, _ = unix.Read(w.ends[0], make([]byte, 1))
	if ctx.Err() != nil {
		for range w.more {
			_, _ = task.ThreadOf(ctx).Wait(w.ends[0], unix.POLLIN, time.Second)
		}
		return object.Info{}, context.Cause(ctx)
	}
	_, err := task.Aside(ctx, func(context.Context) (int, error) { return 0, nil }, nil)
	return object.Info{Key: key, Size: 7}, err
}

func (w *waiting) come() { _, _ = unix.Write(w.ends[1], []byte{1}) }

// asked carries out a call, and waits for it as Python does.
func asked(t *testing.T, table *Table, call int64, op, key, args string, memory []byte) (string, error) {
	t.Helper()
	text, err := table.Start(1, call, op, key, args, memory)
	return await(t, table, call, text, err, memory)
}

// finished lets a call commit, and waits for it.
func finished(t *testing.T, table *Table, call int64) (string, error) {
	t.Helper()
	text, err := table.Finish(call)
	return await(t, table, call, text, err, nil)
}

// await waits for a call that has given an answer.
func await(t *testing.T, table *Table, call int64, text string, err error, room []byte) (string, error) {
	t.Helper()
	for end := time.Now().Add(time.Minute); err == nil && time.Now().Before(end); text, err = table.Wait(call, room) {
		fd, goesOn := strings.CutPrefix(text, "@")
		if !goesOn {
			return text, nil
		}
		number, err := strconv.ParseInt(fd, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(number), Events: unix.POLLIN}}, 100)
	}
	if err == nil {
		t.Fatal("no answer")
	}
	return "", err
}

// waited waits for a call of which nothing is known.
func waited(t *testing.T, table *Table, call int64) (string, error) {
	t.Helper()
	text, err := table.Wait(call, nil)
	return await(t, table, call, text, err, nil)
}

// A get of a whole object that fits into the room leaves no reader; all others do.
func TestSmallObjectsComeWithTheAnswer(t *testing.T) {
	table := memoryTable(t, 1)
	if _, err := asked(t, table, 2, "put", "k", "", []byte("some bytes")); err != nil {
		t.Fatal(err)
	}
	for call, try := range map[int64]struct {
		args  string
		room  int
		whole bool
	}{
		3: {"", 10, true}, 4: {"", 100, true}, 5: {"", 9, false}, 6: {"", 0, false},
		7: {`{"start": 1}`, 100, false}, 8: {`{"length": 10}`, 100, false},
	} {
		room := make([]byte, try.room)
		text, err := asked(t, table, call, "get", "k", try.args, room)
		if err != nil || strings.Contains(text, " whole {") != try.whole {
			t.Errorf("with room for %d of %q: %q, %v", try.room, try.args, text, err)
		}
		if try.whole && string(room[:10]) != "some bytes" {
			t.Errorf("the room holds %q", room)
		}
		into := make([]byte, 10)
		n, err := table.Read(call, 0, into, nil, 0)
		if open := err == nil && string(into[:n]) == "some bytes"; open == try.whole {
			t.Errorf("with room for %d of %q: reading gives %q, %v", try.room, try.args, into[:n], err)
		}
		table.Cancel(call)
	}
	nothingLeft(t, table)
}

// sevenBytes is how an object of which no more is known crosses.
const sevenBytes = `7  {"content_type":"application/octet-stream","modified":null,"metadata":{}}`

// What a store or a file system says of an object is told only in the form that it can have.
func TestDescriptions(t *testing.T) {
	when := time.Date(2026, 11, 29, 12, 0, 0, 123456789, time.UTC)
	for want, info := range map[string]object.Info{
		`{"content_type":"text/plain; a=b","modified":1795953600123456,"metadata":{"by":"Zo\u00eb {\""}}`: {
			ContentType: "text/plain; a=b", Modified: when, Metadata: map[string]string{"By": "Zo\u00eb {\""},
		},
		`{"content_type":"application/octet-stream","modified":null,"metadata":{}}`: {
			ContentType: "text/plain\r\nX: y", Modified: time.Unix(1<<40, 0),
		},
		`{"content_type":"application/octet-stream","modified":-1000000,"metadata":{}}`: {
			ContentType: strings.Repeat("a", 256), Modified: time.Unix(-1, 0),
		},
	} {
		var is, should any
		text, err := description(info)
		if err != nil || json.Unmarshal([]byte(text), &is) != nil || json.Unmarshal([]byte(want), &should) != nil || !reflect.DeepEqual(is, should) {
			t.Errorf("%+v is told as %s, %v", info, text, err)
		}
	}
	for _, bad := range []string{"", " a", "a ", "\u00e9", "a\tb", "\x7f"} {
		if visible(bad) {
			t.Errorf("%q passes for a content type", bad)
		}
	}
}

func TestShortCallsAreMadeOnTheThreadThatAsks(t *testing.T) {
	table, store := newWaiting(t)
	before := runtime.NumGoroutine()
	for call := int64(1); call < 4; call++ {
		if text, err := table.Start(1, call, "stat", "k", "", nil); text != fmt.Sprintf("@%d", store.ends[0]) || err != nil {
			t.Errorf("it waits for %s, %v", text, err)
		}
		store.come()
		if text, err := waited(t, table, call); text != sevenBytes {
			t.Errorf("stat gives %q, %v", text, err)
		}
	}
	store.come() // what has come already is not waited for
	text, err := table.Start(1, 4, "stat", "k", "", nil)
	if text == fmt.Sprintf("@%d", store.ends[0]) {
		t.Error("it waits for what is there")
	}
	if text, err = await(t, table, 4, text, err, nil); text != sevenBytes || err != nil {
		t.Errorf("stat gives %q, %v", text, err)
	}
	nothingLeft(t, table)
	if now := runtime.NumGoroutine(); now > before {
		t.Errorf("%d goroutines are left", now-before)
	}
}

func TestShortCallsEndWithTheirContext(t *testing.T) {
	for name, end := range map[string]func(*Table){
		"cancelled":     func(table *Table) { table.Cancel(1) },
		"store closed":  func(table *Table) { _ = table.Close(1) },
		"all cancelled": func(table *Table) { table.CancelAll() },
	} {
		for _, elsewhere := range []bool{false, true} {
			table, _ := newWaiting(t)
			if _, err := table.Start(1, 1, "stat", "k", "", nil); err != nil {
				t.Fatal(err)
			}
			if elsewhere {
				done := make(chan struct{})
				go func() { end(table); close(done) }()
				<-done
			} else {
				end(table)
			}
			if name == "cancelled" {
				if elsewhere { // its thread has to come for it, with whichever call
					_, _ = table.Start(1, 2, "put", "k", "", nil)
					table.Cancel(2)
				}
			} else if _, err := waited(t, table, 1); err == nil || !strings.HasPrefix(err.Error(), "E1|cancelled|stat|k|") {
				t.Errorf("%s: stat gives %v", name, err)
			}
			nothingLeft(t, table)
		}
	}
}

func TestAPutThatGetsAllAtOnce(t *testing.T) {
	const number = 1
	table := memoryTable(t, number)
	for call, size := range []int{0, 1, short, short + 1} {
		text, err := asked(t, table, int64(call), "put", "k", "", make([]byte, size))
		if !strings.HasPrefix(text, strconv.Itoa(size)+" ") || err != nil {
			t.Errorf("a put of %d bytes gives %q, %v", size, text, err)
		}
	}
	if _, err := table.Start(number, 10, "put", "k", `{"size": 1}`, make([]byte, 2)); err == nil ||
		!strings.HasPrefix(err.Error(), "E1|mismatch|put|k|") {
		t.Errorf("more bytes than were expected give %v", err)
	}
	table.Cancel(10)
	if _, err := asked(t, table, 11, "put", "k", `{"size": 3}`, make([]byte, 2)); err == nil || !strings.HasPrefix(err.Error(), "E1|mismatch|put|k|") {
		t.Errorf("fewer bytes than were expected give %v", err)
	}
	nothingLeft(t, table)
}

// The token of memory that is offered comes back, whatever becomes of it.
func TestEveryTokenComesBack(t *testing.T) {
	const number, put, other = 1, 2, 3
	table := memoryTable(t, number)
	if _, err := table.Start(number, put, "put", "k", "", nil); err != nil {
		t.Fatal(err)
	}
	block := make([]byte, object.BlockSize)
	if n, err := table.Lend(put, 1, block); n != len(block) || err != nil {
		t.Errorf("a block: %d, %v", n, err)
	}
	if n, err := table.Lend(put, 2, make([]byte, 3*object.BlockSize)); n != 3*object.BlockSize || err != nil {
		t.Errorf("three blocks: %d, %v", n, err)
	}
	if n, err := table.Lend(put, 3, block[:100]); n != -1 || err != nil {
		t.Errorf("less than a block: %d, %v", n, err)
	}
	if _, err := table.Write(put, block[:100]); err != nil {
		t.Fatal(err)
	}
	if n, err := table.Lend(put, 4, block); n != -1 || err != nil {
		t.Errorf("where no block begins: %d, %v", n, err)
	}
	if _, err := table.Start(number, other, "put", "other", "", nil); err != nil {
		t.Fatal(err)
	}
	if n, err := table.Lend(other, 6, block); n != -1 || err != nil {
		t.Errorf("beside another put: %d, %v", n, err)
	}
	table.Cancel(other)
	if text, err := finished(t, table, put); !strings.HasPrefix(text, "1048676 ") {
		t.Errorf("the put gives %s, %v", text, err)
	}
	if n, err := table.Lend(put, 5, block); n != 0 || err == nil {
		t.Errorf("after the end: %d, %v", n, err)
	}
	back := map[int64]bool{}
	for token := table.Returned(0); token != 0; token = table.Returned(token) {
		back[token] = true
	}
	if len(back) != 6 {
		t.Errorf("back came %v", back)
	}
	nothingLeft(t, table)
}

// A thread may be held up in the middle of a cancel, and what it cancels wait more than once: nothing is left of that.
func TestNothingIsLeftOfAShortCallHoweverLateItsEndComes(t *testing.T) {
	table, store := newWaiting(t)
	store.more = 10
	before := runtime.NumGoroutine()
	for call := int64(1); call < 4; call++ {
		if _, err := table.Start(1, call, "stat", "k", "", nil); err != nil {
			t.Fatal(err)
		}
		table.Cancel(call)
		nothingLeft(t, table)
	}
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines are left", runtime.NumGoroutine()-before)
		}
	}
}

// Whatever a store that is being closed still answers, no reader of it stays.
func TestNothingIsLeftOfAStoreThatIsClosedMeanwhile(t *testing.T) {
	for range 200 {
		table := memoryTable(t, 1)
		if _, err := asked(t, table, 1, "put", "k", "", []byte("some bytes")); err != nil {
			t.Fatal(err)
		}
		var callers sync.WaitGroup
		begin := make(chan struct{})
		for caller := range int64(4) {
			callers.Go(func() {
				<-begin
				for call := 10 * (caller + 1); call < 10*(caller+2); call++ {
					var err error
					switch call % 4 {
					case 0:
						_, err = asked(t, table, call, "put", "k", "", []byte("other bytes"))
					case 1:
						_, err = asked(t, table, call, "list", "", `{"prefix": "k/"}`, nil)
					default:
						_, err = asked(t, table, call, "get", "k", "", nil)
					}
					if err != nil {
						table.Cancel(call)
					}
					if err != nil && !strings.Contains(err.Error(), "closed") && !strings.Contains(err.Error(), "|cancelled|") {
						t.Errorf("call %d gives %v", call, err)
					}
				}
			})
		}
		close(begin)
		runtime.Gosched()
		if err := table.Close(1); err != nil {
			t.Fatal(err)
		}
		callers.Wait()
		nothingLeft(t, table)
		if t.Failed() {
			return
		}
	}
}

func TestAGetThatHasEndedOnAClosedStoreLeavesNoReader(t *testing.T) {
	table := memoryTable(t, 1)
	if _, err := asked(t, table, 1, "put", "k", "", []byte("some bytes")); err != nil {
		t.Fatal(err)
	}
	on, err := table.store(1)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := parts.Open(t.Context(), on, parts.Wanted{Key: "k", Expect: expected(nil, "")}, object.Whole)
	if err != nil {
		t.Fatal(err)
	}
	get := &call{op: "get", key: "k"}
	get.task = task.New(t.Context(), func(context.Context) {
		get.result = &openedReader{Info: opened.Info(), whole: true, reader: &reader{opened, 1}}
	})
	get.task.Start(false)
	table.calls[2] = get
	if err := table.Close(1); err != nil {
		t.Fatal(err)
	}
	text, err := table.Wait(2, make([]byte, 100))
	if _, err = await(t, table, 2, text, err, make([]byte, 100)); err == nil || !strings.HasPrefix(err.Error(), "E1|closed|get|k|") {
		t.Errorf("the get gives %v", err)
	}
	nothingLeft(t, table)
}
