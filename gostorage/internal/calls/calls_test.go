package calls

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
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
		if err := table.Start(1, call, op, `{"key": "a/b"}`); err != nil {
			t.Fatal(err)
		}
		_, err := table.Wait(call, time.Minute)
		if err == nil || !strings.HasPrefix(err.Error(), "E1|internal|"+op+"|a%2Fb|") {
			t.Errorf("a panic in %s gives %v", op, err)
		}
	}
	nothingLeft(t, table)
}

func TestCancelAllUndoesWhatRuns(t *testing.T) {
	const number, put, list = 1, 2, 3
	table := memoryTable(t, number)
	if err := table.Start(number, put, "put", `{"key": "k"}`); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(time.Minute); table.CancelAll() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("a cancelled put goes on")
		}
	}
	if _, err := table.Wait(put, time.Minute); err == nil || !strings.HasPrefix(err.Error(), "E1|cancelled|put|k|") {
		t.Errorf("a put that was cancelled gives %v", err)
	}
	if err := table.Start(number, list, "list", `{"prefix": "k/"}`); err != nil {
		t.Fatal(err)
	}
	if text, err := table.Wait(list, time.Minute); err != nil || text == "" {
		t.Errorf("the store does not work afterwards: %q %v", text, err)
	}
	nothingLeft(t, table)
}

func TestClosedStoreCancelsWhatRuns(t *testing.T) {
	const number, call = 1, 2
	table := memoryTable(t, number)
	if err := table.Start(number, call, "put", `{"key": "k"}`); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Write(call, []byte("some")); err != nil {
		t.Fatal(err)
	}
	if text, err := table.Wait(call, time.Millisecond); text != "" || err != nil {
		t.Fatalf("an unfinished put has ended: %q %v", text, err)
	}
	if err := table.Close(number); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Wait(call, time.Minute); err == nil || !strings.HasPrefix(err.Error(), "E1|cancelled|put|k|") {
		t.Errorf("a put on a closed store gives %v", err)
	}
	nothingLeft(t, table)
}

func TestCancelledGetGivesItsReaderBack(t *testing.T) {
	const number, put, get, read = 1, 2, 3, 4
	table := memoryTable(t, number)
	if err := table.Start(number, put, "put", `{"key": "k"}`); err != nil {
		t.Fatal(err)
	}
	if err := table.Finish(put); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Wait(put, time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, call := range []int64{get, read} {
		if err := table.Start(number, call, "get", `{"key": "k"}`); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := table.Wait(read, time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, call := range []int64{get, get, read, read} {
		table.Cancel(call)
		if _, err := table.Wait(call, 0); object.CodeOf(err) != object.Closed {
			t.Errorf("a forgotten call gives %v", err)
		}
	}
	if _, err := table.Read(read, 0, nil); object.CodeOf(err) != object.Closed {
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
		if err := table.Start(number, int64(call), op, `{"sweep": {"parts": true, "older_than": 1.5}}`); err != nil {
			t.Fatal(err)
		}
		text, err := table.Wait(int64(call), time.Minute)
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
