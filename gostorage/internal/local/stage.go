package local

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// staged is a file on its way to a key. Where the file system can, it has no name until then, and a killed process
// leaves nothing; elsewhere it has one in the staging folder.
type staged struct {
	*os.File
	staging *os.File
	name    string // in the staging folder; empty for a file without a name
	shared  bool   // another key names it too
	durable bool
	written int64
	started int64 // how far the disk was told to begin with
}

// writeBehind is how many bytes are handed to the disk at once while more are coming, so that the fsync at the end
// finds most of its work done.
const writeBehind = 8 << 20

// Write implements io.Writer.
func (f *staged) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.wrote(int64(n))
	return n, err
}

func (f *staged) wrote(n int64) {
	f.written += n
	if f.durable && f.written-f.started >= writeBehind {
		// A hint: where it fails, the fsync does all the work.
		_ = unix.SyncFileRange(int(f.Fd()), f.started, f.written-f.started, unix.SYNC_FILE_RANGE_WRITE)
		f.started = f.written
	}
}

func (p *place) stage() (*staged, error) {
	if p.proc {
		fd, err := retried(func() (int, error) {
			return unix.Openat(int(p.staging.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, p.mode)
		})
		if err == nil {
			return &staged{File: os.NewFile(uintptr(fd), "staged"), staging: p.staging}, nil
		}
		if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL) {
			return nil, err
		}
	}
	name := randomName()
	fd, err := retried(func() (int, error) {
		return unix.Openat(int(p.staging.Fd()), name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, p.mode)
	})
	if err != nil {
		return nil, err
	}
	return &staged{File: os.NewFile(uintptr(fd), "staged"), staging: p.staging, name: name}, nil
}

// linkable tells whether /proc is there to give a file a name by.
func linkable(fd int) bool {
	var stat unix.Stat_t
	return unix.Lstat(procPath(fd), &stat) == nil
}

func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func randomName() string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(random[:])
}

func isRandomName(name string) bool {
	random, err := hex.DecodeString(name)
	return err == nil && len(random) == 16
}

// linkTo gives the file a name that must be free: ErrExist otherwise.
func (f *staged) linkTo(directory *os.File, name string) error {
	if f.name == "" {
		return linkFd(f.File, directory, name)
	}
	err := unix.Linkat(int(f.staging.Fd()), f.name, int(directory.Fd()), name, 0)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) { // no hard links here
		err = unix.Renameat2(int(f.staging.Fd()), f.name, int(directory.Fd()), name, unix.RENAME_NOREPLACE)
		if err == nil {
			f.name = ""
		}
	}
	return err
}

// renameTo gives the file a name, in place of whatever file has it.
func (f *staged) renameTo(directory *os.File, name string) error {
	if f.name == "" {
		through := randomName()
		if err := linkFd(f.File, f.staging, through); err != nil {
			return err
		}
		f.name = through
	}
	err := unix.Renameat(int(f.staging.Fd()), f.name, int(directory.Fd()), name)
	if err == nil && !f.shared { // a name of the same file is not replaced: both stay
		f.name = ""
	}
	return err
}

func linkFd(file, directory *os.File, name string) error {
	return unix.Linkat(unix.AT_FDCWD, procPath(int(file.Fd())), int(directory.Fd()), name, unix.AT_SYMLINK_FOLLOW)
}

// discard forgets the file; a published one keeps its key.
func (f *staged) discard() {
	if f.name != "" {
		_ = unix.Unlinkat(int(f.staging.Fd()), f.name, 0) // what stays is litter in the staging folder
	}
	_ = f.Close() // fsync has told of every error that matters
}

// retried repeats a system call that a signal interrupted.
func retried(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// classify turns an error of the system into one of ours; its text names no path.
func classify(err error) error {
	if err == nil {
		return nil
	}
	if known, ok := errors.AsType[*object.Error](err); ok {
		return known
	}
	if errors.Is(err, fs.ErrNotExist) {
		return object.Errorf(object.NotFound, "there is no such object")
	}
	if errors.Is(err, fs.ErrClosed) {
		return object.Errorf(object.Closed, "it was closed")
	}
	errno, ok := errors.AsType[unix.Errno](err)
	if !ok {
		if _, ok := errors.AsType[*fs.PathError](err); ok { // os.Root: the path leads out of the store
			return object.Errorf(object.Permission, "the key leads outside the store, through a symbolic link")
		}
		return err
	}
	text := fmt.Sprintf("%s (%s)", errno.Error(), unix.ErrnoName(errno))
	switch errno {
	case unix.ENOSPC, unix.EDQUOT, unix.EFBIG:
		return object.Errorf(object.Full, "the store is full: %s", text)
	case unix.EACCES, unix.EPERM, unix.EROFS:
		return object.Errorf(object.Permission, "the store does not allow it: %s", text)
	case unix.EISDIR, unix.ENOTDIR, unix.ENOTEMPTY:
		return object.Errorf(object.Conflict, "an object cannot be both a file and a folder of others: %s", text)
	case unix.EXDEV:
		return object.Errorf(object.Conflict, "a folder of the store lies on another file system: %s", text)
	case unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EAGAIN, unix.EBUSY:
		busy := object.Errorf(object.Unavailable, "the system has no room for it now: %s", text)
		busy.Retryable = true
		return busy
	default:
		return object.Errorf(object.IO, "%s", text)
	}
}
