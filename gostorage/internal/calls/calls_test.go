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
	table.last = 1
	for _, op := range []string{"put", "get", "stat", "delete", "check"} {
		call, err := table.Start(1, op, `{"key": "a/b"}`)
		if err != nil {
			t.Fatal(err)
		}
		_, err = table.Wait(call, time.Minute)
		if err == nil || !strings.HasPrefix(err.Error(), "E1|internal|"+op+"|a%2Fb|") {
			t.Errorf("a panic in %s gives %v", op, err)
		}
	}
	nothingLeft(t, table)
}

func TestClosedStoreCancelsWhatRuns(t *testing.T) {
	table := NewTable()
	number, err := table.Open(`{"backend": "memory"}`)
	if err != nil {
		t.Fatal(err)
	}
	call, err := table.Start(number, "put", `{"key": "k"}`)
	if err != nil {
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
	table := NewTable()
	number, err := table.Open(`{"backend": "memory"}`)
	if err != nil {
		t.Fatal(err)
	}
	put, err := table.Start(number, "put", `{"key": "k"}`)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Finish(put); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Wait(put, time.Minute); err != nil {
		t.Fatal(err)
	}
	get, err := table.Start(number, "get", `{"key": "k"}`)
	if err != nil {
		t.Fatal(err)
	}
	table.Cancel(get)
	table.Cancel(get)
	if _, err := table.Wait(get, 0); object.CodeOf(err) != object.Closed {
		t.Errorf("a forgotten call gives %v", err)
	}
	if err := table.Close(number); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, table)
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
