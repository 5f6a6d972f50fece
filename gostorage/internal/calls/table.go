// Package calls keeps what Python knows by number: stores, running calls, open readers.
//
// A call is a task (package task). Python waits for it in short turns, so that it sees signals, and cancels a call that
// is no longer wanted. A get leaves a reader under the number of the call. Python chooses the numbers and uses none
// twice: so it knows what to undo even if a signal keeps it from seeing that something was opened.
package calls

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/httpconn"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/parts"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/task"
)

type store struct {
	object.Store
	yields bool // its short operations can be made on the thread that asks for them
	runs   parts.Runs
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// Table holds all that is open or running in one process.
type Table struct {
	mu      sync.Mutex
	stores  map[int64]*store
	calls   map[int64]*call
	readers map[int64]*reader
	running map[*call]struct{} // calls whose work has not ended, forgotten ones too
}

// NewTable makes an empty table.
func NewTable() *Table {
	return &Table{
		stores: map[int64]*store{}, calls: map[int64]*call{}, readers: map[int64]*reader{}, running: map[*call]struct{}{},
	}
}

// Close cancels what runs on a store, closes its readers and forgets it.
func (t *Table) Close(id int64) error {
	t.mu.Lock()
	closing, ok := t.stores[id]
	delete(t.stores, id)
	var open []*reader
	for number, reader := range t.readers {
		if reader.store == id {
			open = append(open, reader)
			delete(t.readers, number)
		}
	}
	t.mu.Unlock()
	if !ok {
		return nil
	}
	closing.cancel(errCancelled)
	for _, reader := range open {
		_ = reader.Close()
	}
	return closing.Close()
}

func (t *Table) store(id int64) (*store, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	found, ok := t.stores[id]
	if !ok {
		return nil, object.Errorf(object.Closed, "the adapter was closed")
	}
	return found, nil
}

func (t *Table) call(id int64) (*call, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	found, ok := t.calls[id]
	if !ok {
		return nil, object.Errorf(object.Closed, "the transfer has ended")
	}
	return found, nil
}

// Cancel undoes a call, or closes the reader that the call gave, and forgets it. A long undo goes on in the background.
func (t *Table) Cancel(id int64) {
	t.mu.Lock()
	c, calls := t.calls[id]
	reader, reads := t.readers[id]
	delete(t.calls, id)
	delete(t.readers, id)
	t.mu.Unlock()
	if reads {
		_ = reader.Close() // nothing was written to it
	}
	if !calls {
		return
	}
	c.task.Cancel(errCancelled, func() {
		if opened, ok := c.result.(*openedReader); ok {
			_ = opened.reader.Close()
		}
	})
}

// CancelAll undoes all running calls in the background, and tells how many have not ended. Whoever waits for one of
// them gets the error.
func (t *Table) CancelAll() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.running {
		c.task.Stop(errCancelled)
	}
	return len(t.running)
}

// Stats counts what is open, for tests that look for leaks.
func (t *Table) Stats() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Sprintf(
		`{"stores":%d,"calls":%d,"readers":%d,"goroutines":%d,"buffers":%d,"buffer_bytes":%d,"budget":%d,"connections":%d}`,
		len(t.stores), max(len(t.running), len(t.calls)), len(t.readers), runtime.NumGoroutine()-task.Waiting()-task.Watching(),
		buffers.Shared.Lent(), buffers.Shared.Mapped(), buffers.Shared.Budget(), httpconn.Connections(),
	)
}
