// Package fileread reads files without keeping the caller: bytes that a disk does not have at once are read in the
// background.
package fileread

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/task"
)

// wait bounds how long one ReadAt takes. Python must see a signal within 250 ms.
const wait = 50 * time.Millisecond

// Reader reads one open file, for one caller at a time. The zero value is ready to use; Close ends it.
type Reader struct {
	mu     sync.Mutex
	how    way
	behind *behind
}

// way is how a file is read.
type way int

const (
	// cached asks the system for the bytes that it has in memory, and reads the rest in the background.
	cached way = iota
	// aside reads all bytes in the background: the file system cannot tell which of them would take long.
	aside
	// inMemory reads on the spot: all of the file system is in memory.
	inMemory
)

// behind is a read in the background.
type behind struct {
	offset int64
	block  *buffers.Block
	done   chan struct{} // closed when n and err are known
	n      int
	err    error
	over   atomic.Bool // one of its two users is done with it: the read, or the caller who wants the bytes
}

// leave is called by both users, once each. The second call puts the block back.
func (b *behind) leave() {
	if b.over.Swap(true) {
		buffers.Shared.Put(b.block)
	}
}

// ReadAt reads the bytes of an open file that are there within a short time. If they are fewer than asked for, the
// error is io.EOF at the end, and object.ErrNotYet if there are more: ask again.
func (r *Reader) ReadAt(fd int, into []byte, offset int64) (n int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n < len(into) && err == nil {
		var more int
		more, err = r.some(fd, into[n:], offset+int64(n))
		if n += more; more == 0 && err == nil {
			err = io.EOF
		}
	}
	if n == len(into) {
		return n, nil
	}
	return n, err
}

// some reads some bytes, or none at the end. After bytes from the background it lets the caller look at other things.
func (r *Reader) some(fd int, into []byte, offset int64) (int, error) {
	if r.behind == nil {
		n, err := r.now(fd, into, offset)
		if err != unix.EAGAIN {
			return n, err
		}
		if err := r.begin(fd, len(into), offset); err != nil {
			return 0, err
		}
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-r.behind.done:
	case <-timer.C:
		return 0, object.ErrNotYet
	}
	if r.behind.offset != offset { // a seek came between
		r.drop()
		return 0, object.ErrNotYet
	}
	n, err := copy(into, r.behind.block.Bytes[:r.behind.n]), r.behind.err
	if n > 0 {
		err = object.ErrNotYet
	}
	r.drop()
	return n, err
}

// now reads bytes that need no waiting, or answers EAGAIN.
func (r *Reader) now(fd int, into []byte, offset int64) (n int, err error) {
	switch r.how {
	case inMemory:
		return pread(fd, into, offset)
	case aside:
		return 0, unix.EAGAIN
	}
	for {
		if n, err = unix.Preadv2(fd, [][]byte{into}, offset, unix.RWF_NOWAIT); err != unix.EINTR {
			break
		}
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		r.how = aside
		var system unix.Statfs_t
		if unix.Fstatfs(fd, &system) == nil && (system.Type == unix.TMPFS_MAGIC || system.Type == unix.RAMFS_MAGIC) {
			r.how = inMemory
			return pread(fd, into, offset)
		}
		return 0, unix.EAGAIN
	}
	return max(n, 0), err
}

// begin starts a read of size bytes, at most a block, in the background. It uses its own descriptor: the caller's may
// be closed before the read ends.
func (r *Reader) begin(fd, size int, offset int64) error {
	block, err := buffers.Shared.Get()
	if err != nil {
		return err
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		buffers.Shared.Put(block)
		return err
	}
	begun := &behind{offset: offset, block: block, done: make(chan struct{})}
	r.behind = begun
	task.Go(func() {
		begun.n, begun.err = pread(own, block.Bytes[:min(size, len(block.Bytes))], offset)
		_ = unix.Close(own) // nothing was written
		close(begun.done)
		begun.leave()
	})
	return nil
}

func pread(fd int, into []byte, offset int64) (int, error) {
	for {
		if n, err := unix.Pread(fd, into, offset); err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

func (r *Reader) drop() {
	if r.behind != nil {
		r.behind.leave()
		r.behind = nil
	}
}

// Close gives up the read in the background.
func (r *Reader) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop()
}
