package calls

import (
	"context"
	"encoding/json"
	"io"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/fileread"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/task"
)

const (
	// writeWait bounds one Write: Python must see a signal within 250 ms.
	writeWait = 100 * time.Millisecond
	// short in bytes is the most that a put may have to be made on the thread that asks for it.
	short = 64 << 10
)

var errCancelled = object.Errorf(object.Cancelled, "the transfer was cancelled")

type call struct {
	op, key  string
	task     *task.Task
	inline   bool            // it may run on the thread that asks for it
	aside    bool            // its caller has other work, and waits only for its descriptor
	pipe     *digest.Pipe    // of a put
	file     fileread.Reader // the file that a put pulls
	progress func() int64    // of a call that moves bytes, else nil
	commit   *commit         // of an assembly
	result   any             // set once the task has ended, as is err
	err      error
}

// Start starts an operation on a store, and answers as Wait does. The memory of a put holds all its bytes, or is nil if
// they are still to come: then there is no answer yet. The memory of a get is the room for a small object.
func (t *Table) Start(id, number int64, op, key, args string, memory []byte) (answer string, err error) {
	on, err := t.store(id)
	if err != nil {
		return "", err
	}
	request := Request{Key: key}
	if args != "" {
		if err := json.Unmarshal([]byte(args), &request); err != nil {
			return "", object.Errorf(object.Internal, "the arguments of %s are not understood", op)
		}
	}
	work, err := t.plan(on, id, op, &request)
	if err != nil {
		return "", object.Wire(op, key, err)
	}
	started := &call{
		op: op, key: key, inline: request.short && on.yields && !request.Aside, aside: request.Aside,
		pipe: request.pipe, progress: request.progress, commit: request.commit,
	}
	if request.Aside {
		work = onFewThreads(on, started, work)
	}
	t.begin(on, number, started, work)
	if started.commit != nil {
		started.commit.tell = started.task.Tell
	}
	if started.pipe == nil {
		started.task.Start(started.inline)
		return t.answer(number, started, memory)
	}
	started.task.Later() // a put begins when there is work for it: a small one has all its bytes then
	if memory == nil {
		return "", nil
	}
	taken, err := started.write(memory)
	if err == nil && taken < len(memory) {
		err = object.Errorf(object.Internal, "a put cannot start with %d bytes", len(memory))
	}
	if err != nil {
		return "", err
	}
	return t.finish(number, started)
}

func (t *Table) begin(on *store, number int64, started *call, work func(context.Context) (any, error)) {
	started.task = task.New(on.ctx, func(ctx context.Context) { t.run(ctx, started, work) })
	if started.pipe != nil && started.aside {
		started.pipe.Many(started.task.Tell)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls[number] = started
	t.running[started] = struct{}{}
}

// onFewThreads makes work that needs no thread for itself while it waits: a store that yields waits for descriptors on
// a thread that all share, and others are on few threads while they do not wait for their caller.
func onFewThreads(on *store, c *call, work func(context.Context) (any, error)) func(context.Context) (any, error) {
	if on.yields {
		return func(ctx context.Context) (any, error) { return work(task.Shared(ctx)) }
	}
	if c.pipe != nil {
		c.pipe.Around(task.Leave, task.Enter)
	}
	if c.commit != nil {
		c.commit.leave, c.commit.enter = task.Leave, task.Enter
	}
	return func(ctx context.Context) (any, error) {
		task.Enter()
		defer task.Leave()
		return work(ctx)
	}
}

func (t *Table) run(ctx context.Context, c *call, work func(context.Context) (any, error)) {
	defer func() {
		t.mu.Lock()
		delete(t.running, c)
		t.mu.Unlock()
	}()
	if c.pipe != nil {
		defer c.file.Close()
		stop := context.AfterFunc(ctx, func() { c.pipe.Fail(context.Cause(ctx)) })
		defer c.pipe.Close()
		defer stop()
	}
	c.result, c.err = rescued(ctx, work)
	if c.err != nil && ctx.Err() != nil {
		c.err = context.Cause(ctx) // that is the reason, whatever error the cancelled call ran into
	}
	if c.err != nil && c.pipe != nil {
		c.pipe.Fail(c.err)
	}
}

func rescued(ctx context.Context, work func(context.Context) (any, error)) (result any, err error) {
	defer object.Rescue(&err)
	return work(ctx)
}

// Write gives bytes to a put and says how many it took.
func (t *Table) Write(id int64, data []byte) (int, error) {
	c, err := t.call(id)
	if err != nil {
		return 0, err
	}
	return c.write(data)
}

func (c *call) write(data []byte) (int, error) {
	if c.pipe == nil {
		return 0, object.Errorf(object.Internal, "%s takes no bytes", c.op)
	}
	if c.pipe.Moved()+int64(len(data)) > short {
		c.task.Start(false)
	}
	n, err := c.pipe.Write(data, c.patience())
	if err != nil {
		return n, object.Wire(c.op, c.key, err)
	}
	return n, nil
}

// patience is how long the caller waits for room.
func (c *call) patience() time.Duration {
	if c.aside {
		return 0
	}
	return writeWait
}

// Lend gives a put one block without a copy, and says how many bytes it took: 0 if there was no room in time, -1 if the
// block has to be written instead. Returned gives the token when the memory is no longer needed, or was not taken.
func (t *Table) Lend(id, token int64, data []byte) (taken int, err error) {
	loan := buffers.Shared.Borrow(token)
	defer buffers.Shared.Return(loan)
	c, err := t.call(id)
	if err != nil {
		return 0, err
	}
	if c.pipe == nil || len(data)%buffers.Size != 0 || !c.pipe.Aligned() || !t.alone(c) {
		return -1, nil
	}
	c.task.Start(false)
	if taken, err = c.pipe.Lend(data, loan, c.patience()); err != nil {
		return 0, object.Wire(c.op, c.key, err)
	}
	return taken, nil
}

// alone tells whether no other put runs. With several puts, lending would not bound the memory: each thread of Python
// has its own heap, which stays as large as it was at its peak.
func (t *Table) alone(put *call) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for other := range t.running {
		if other != put && other.pipe != nil {
			return false
		}
	}
	return true
}

// Returned gives the token of lent memory that is no longer needed, or 0. A token is given again until it is passed as
// done.
func (t *Table) Returned(done int64) int64 { return buffers.Shared.Returned(done) }

// Pull lets a put read up to most bytes of an open file, and says how many it took: 0 if it can read no more, -1 if
// there was no room in time.
func (t *Table) Pull(id int64, fd, most int) (int, error) {
	c, err := t.call(id)
	if err != nil {
		return 0, err
	}
	if c.pipe == nil {
		return 0, object.Errorf(object.Internal, "%s takes no bytes", c.op)
	}
	if moved := c.pipe.Moved(); moved > short {
		c.task.Start(false)
	} else {
		most = min(most, int(short+1-moved))
	}
	start, failed := unix.Seek(fd, 0, io.SeekCurrent)
	if failed != nil {
		return 0, nil
	}
	at := start
	n, err := c.pipe.ReadFrom(func(into []byte) (n int, err error) {
		n, failed = c.file.ReadAt(fd, into, at)
		at += int64(n)
		return n, failed
	}, most, writeWait)
	if _, lost := unix.Seek(fd, start+int64(n), io.SeekStart); lost != nil {
		return 0, object.Wire(c.op, c.key, object.Errorf(object.IO, "the file cannot be read on: %v", lost))
	}
	switch {
	case n > 0:
		return n, nil
	case err == nil || err == object.ErrNotYet:
		return -1, nil
	case err == failed:
		return 0, nil
	default:
		return 0, object.Wire(c.op, c.key, err)
	}
}

// Finish tells a put or an assembly that no more bytes will come, so that it commits. It answers as Wait does.
func (t *Table) Finish(id int64) (answer string, err error) {
	c, err := t.call(id)
	if err != nil {
		return "", err
	}
	return t.finish(id, c)
}

func (t *Table) finish(id int64, c *call) (answer string, err error) {
	switch {
	case c.pipe != nil:
		c.pipe.CloseWrite()
		c.task.Start(c.inline)
	case c.commit != nil:
		c.commit.agree()
	default:
		return "", object.Errorf(object.Internal, "%s takes no bytes", c.op)
	}
	return t.answer(id, c, nil)
}

// Wait gives the result of a call, and the call is then forgotten. While the call goes on, the answer is "@" with a
// descriptor, which becomes readable once there is news. It may be another one after each Wait, and is closed when the
// call is forgotten. An assembly that has moved all bytes answers with its figures, and goes on when Finish tells it
// to. If a get reads a whole object that fits into room, it fills room and leaves no reader.
func (t *Table) Wait(id int64, room []byte) (answer string, err error) {
	c, err := t.call(id)
	if err != nil {
		return "", err
	}
	return t.answer(id, c, room)
}

func (t *Table) answer(id int64, c *call, room []byte) (string, error) {
	fd, ended, err := c.task.Poll()
	if !ended {
		if c.commit != nil && !closed(c.commit.agreed) && closed(c.commit.ready) {
			text, err := json.Marshal(c.commit.figures())
			return string(text), err
		}
		if err != nil {
			return "", err
		}
		return "@" + strconv.Itoa(fd), nil
	}
	t.mu.Lock()
	_, mine := t.calls[id]
	delete(t.calls, id)
	opened, ok := c.result.(*openedReader)
	orphan := false // its store was closed meanwhile
	if ok && mine && c.err == nil {
		_, kept := t.stores[opened.reader.store]
		if orphan = !kept; kept {
			t.readers[id] = opened.reader
		}
	}
	t.mu.Unlock()
	if orphan {
		_ = opened.reader.Close()
		c.err = object.Errorf(object.Closed, "the adapter was closed")
	}
	if !mine {
		return "", object.Errorf(object.Closed, "the transfer has ended")
	}
	if c.err != nil {
		return "", object.Wire(c.op, c.key, c.err)
	}
	if ok && opened.fills(room) {
		t.Cancel(id)
		opened.filled = true
	}
	return written(c.result)
}

// written is the form in which a result crosses to Python. For one object it is the size and the SHA-256, which needs
// no decoder; for a reader one more word if it borrows, or has filled the room; and for an object that was asked for its
// description in JSON, which is decoded when somebody wants it. For the rest it is JSON.
func written(result any) (string, error) {
	switch result := result.(type) {
	case object.Info:
		return strconv.FormatInt(result.Size, 10) + " " + result.SHA256, nil
	case described:
		return withDescription(result.Info, "")
	case *openedReader:
		word := ""
		switch {
		case result.filled:
			word = " whole"
		case result.borrows:
			word = " borrows"
		}
		return withDescription(result.Info, word)
	default:
		text, err := json.Marshal(result)
		return string(text), err
	}
}

func withDescription(info object.Info, word string) (string, error) {
	text, err := written(info)
	if err != nil {
		return "", err
	}
	description, err := description(info)
	return text + word + " " + description, err
}

func closed(channel <-chan struct{}) bool {
	select {
	case <-channel:
		return true
	default:
		return false
	}
}

// Stop gives a call up that goes on until it is undone: Wait tells of that. A reader is closed, in the background.
func (t *Table) Stop(id int64) {
	t.mu.Lock()
	c, calls := t.calls[id]
	reader, reads := t.readers[id]
	delete(t.readers, id)
	t.mu.Unlock()
	if calls {
		c.task.Stop(errCancelled)
	}
	if reads {
		go func() { _ = reader.Close() }()
	}
}

// Progress tells how many bytes a put or an assembly has moved.
func (t *Table) Progress(id int64) (int64, error) {
	c, err := t.call(id)
	if err != nil || c.progress == nil {
		return 0, err
	}
	return c.progress(), nil
}
