package local

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// staged is a file on its way to a key. If the file system can, it has no name until then, and a killed process leaves
// nothing. Otherwise it has a name in the staging folder.
type staged struct {
	*os.File
	staging *os.File
	name    string // in the staging folder; empty for a file without a name
	can     abilities
	shared  bool // another key names it too
	durable bool
	written int64
	started int64 // how far the disk was told to begin writing
}

// writeBehind is how many bytes are handed to the disk at once while more are coming. The fsync at the end then finds
// most of its work done.
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
		// This is a hint: if it fails, the fsync does all the work.
		_ = unix.SyncFileRange(int(f.Fd()), f.started, f.written-f.started, unix.SYNC_FILE_RANGE_WRITE)
		f.started = f.written
	}
}

// abilities are what the file system of a place can do.
type abilities struct {
	nameless  bool // files without a name, which can get one by their path in /proc
	links     bool // hard links
	noReplace bool // renames that replace nothing
}

// exclusive tells whether a file can be given a name that must be free.
func (a abilities) exclusive() bool { return a.links || a.noReplace }

// notExclusive is the message for a file system that cannot do this.
const notExclusive = "the file system has neither hard links nor renames that replace nothing, so that overwrite=False" +
	" cannot be kept: use another one"

var errNotExclusive = errors.New(notExclusive)

// abilities tries, once, what the file system can do.
func (p *place) abilities() (abilities, error) {
	if known := p.can.Load(); known != nil {
		return *known, nil
	}
	p.trying.Lock()
	defer p.trying.Unlock()
	if known := p.can.Load(); known != nil {
		return *known, nil
	}
	can, err := p.try()
	if err == nil {
		p.can.Store(&can)
	}
	return can, err
}

func (p *place) try() (can abilities, err error) {
	if p.durable {
		if err := p.staging.Sync(); lacks(err) {
			return can, object.Errorf(object.Refused, "the file system cannot sync a directory, so that a power loss may take what"+
				" was acknowledged: use another one, or accept that by durable=False")
		} else if err != nil {
			return can, err
		}
	}
	if file, err := p.openNameless(); err == nil {
		name := randomName()
		err = linkFd(file.File, p.staging, name)
		_ = file.Close()
		if err == nil {
			return abilities{nameless: true, links: true}, unlink(p.staging, name)
		}
		if !lacks(err) && !errors.Is(err, unix.ENOENT) {
			return can, err
		}
	} else if !lacks(err) {
		return can, err
	}
	file, err := p.openNamed()
	if err != nil {
		return can, err
	}
	defer file.discard()
	other := randomName()
	err = retry(func() error {
		return unix.Linkat(int(p.staging.Fd()), file.name, int(p.staging.Fd()), other, 0)
	})
	if err == nil {
		return abilities{links: true}, unlink(p.staging, other)
	}
	if !lacks(err) {
		return can, err
	}
	err = retry(func() error {
		return unix.Renameat2(int(p.staging.Fd()), file.name, int(p.staging.Fd()), other, unix.RENAME_NOREPLACE)
	})
	if err == nil {
		file.name = other
		return abilities{noReplace: true}, nil
	}
	if !lacks(err) {
		return can, err
	}
	return can, nil
}

// lacks tells whether a file system does not know what it was asked for.
func lacks(err error) bool {
	return slices.ContainsFunc(unknown, func(errno unix.Errno) bool { return errors.Is(err, errno) })
}

var unknown = []unix.Errno{unix.EOPNOTSUPP, unix.ENOSYS, unix.EINVAL, unix.EPERM, unix.EISDIR, unix.EMLINK}

// chmod ignores the error of a file system that has no modes.
func chmod(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}

func modeOf(stat fs.FileInfo) uint32 {
	if system, ok := stat.Sys().(*syscall.Stat_t); ok {
		return system.Mode & 0o7777
	}
	return uint32(stat.Mode().Perm())
}

func (p *place) stage() (*staged, error) {
	can, err := p.abilities()
	if err != nil {
		return nil, err
	}
	var file *staged
	if can.nameless {
		file, err = p.openNameless()
	} else {
		file, err = p.openNamed()
	}
	if err != nil {
		return nil, err
	}
	file.can = can
	return file, nil
}

func (p *place) openNameless() (*staged, error) {
	return p.openStaged(".", "", unix.O_TMPFILE)
}

func (p *place) openNamed() (*staged, error) {
	name := randomName()
	return p.openStaged(name, name, unix.O_CREAT|unix.O_EXCL)
}

func (p *place) openStaged(at, name string, how int) (*staged, error) {
	fd, err := retried(func() (int, error) {
		return unix.Openat(int(p.staging.Fd()), at, how|unix.O_RDWR|unix.O_CLOEXEC, p.mode)
	})
	if err != nil {
		return nil, err
	}
	return &staged{File: os.NewFile(uintptr(fd), "staged"), staging: p.staging, name: name}, nil
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

// linkTo gives the file a name that must be free: ErrExist if it is not, errNotExclusive if the file system cannot do
// it.
func (f *staged) linkTo(directory *os.File, name string) error {
	switch {
	case f.name == "":
		return linkFd(f.File, directory, name)
	case f.can.links:
		return retry(func() error { return unix.Linkat(int(f.staging.Fd()), f.name, int(directory.Fd()), name, 0) })
	case !f.can.noReplace:
		return errNotExclusive
	}
	err := retry(func() error {
		return unix.Renameat2(int(f.staging.Fd()), f.name, int(directory.Fd()), name, unix.RENAME_NOREPLACE)
	})
	if err == nil {
		f.name = ""
	}
	return err
}

// renameTo gives the file a name, and replaces any file that has it.
func (f *staged) renameTo(directory *os.File, name string) error {
	if f.name == "" {
		through := randomName()
		if err := linkFd(f.File, f.staging, through); err != nil {
			return err
		}
		f.name = through
	}
	err := retry(func() error { return unix.Renameat(int(f.staging.Fd()), f.name, int(directory.Fd()), name) })
	if err == nil && !f.shared { // a rename to a name of the same file replaces nothing: both stay
		f.name = ""
	}
	return err
}

func linkFd(file, directory *os.File, name string) error {
	return retry(func() error {
		return unix.Linkat(unix.AT_FDCWD, procPath(int(file.Fd())), int(directory.Fd()), name, unix.AT_SYMLINK_FOLLOW)
	})
}

func unlink(directory *os.File, name string) error {
	return retry(func() error { return unix.Unlinkat(int(directory.Fd()), name, 0) })
}

// discard forgets the file; a published one keeps its key.
func (f *staged) discard() {
	if f.name != "" {
		_ = unlink(f.staging, f.name) // what stays is litter in the staging folder
	}
	_ = f.Close() // fsync has told of every error that matters
}

// retry is retried for a call that gives only an error.
func retry(call func() error) error {
	_, err := retried(func() (int, error) { return 0, call() })
	return err
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
	case unix.ENOTCONN, unix.ESTALE:
		return object.Retryablef(object.Unavailable, "the file system does not answer: is it still mounted? %s", text)
	case unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EAGAIN, unix.EBUSY:
		return object.Retryablef(object.Unavailable, "the system has no room for it now: %s", text)
	default:
		return object.Errorf(object.IO, "%s", text)
	}
}
