// Package local keeps objects as files below one directory, durably. An object is written to a file without a name and
// synced. Only then the file is linked or renamed to its key, and the directory is synced after that. os.Root confines
// every path.
//
// # What is written where
//
// The object of a key is the file of that path below the root. Nothing else has a name there, except the folder
// .gostorage-staging, which no key can name. Content type, metadata, SHA-256 and record of an object are extended
// attributes of its file (attributes.go). The staging folder holds unfinished files, where the file system has no files
// without names, and the names that a rename goes through.
//
// # What a failure leaves behind
//
// The object of before, or none; never a part of the new one. A write that is given up is removed at once. A killed
// process or a power cut leaves at most files in the staging folder that no other process uses: a sweep removes the old
// ones. A directory that was made for a key may stay, empty.
//
// # Permissions
//
// The process writes and searches the root. Its files have file_mode, its directories directory_mode, whatever the
// umask is. An area that can only be read is enough for reading. The staging folder is 0700: all who write to an area
// are one user.
package local

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/fileread"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// StagingName is the folder of unfinished writes at the root of a store.
const StagingName = object.Staging

// oldStaging is the folder's earlier name: what lies there is swept.
const oldStaging = `.gostorage\staging`

// Config says where and how a Store keeps its files.
type Config struct {
	Root          string `json:"root"`
	Durable       bool   `json:"durable"` // fsync files and directories before a put is acknowledged
	FileMode      uint32 `json:"file_mode"`
	DirectoryMode uint32 `json:"directory_mode"`
	Area          string `json:"area"` // the setting that names the root, for messages
}

// Store is an object.Store on a file system.
type Store struct {
	config   Config
	entering sync.Mutex // held while the root is opened, which may take for ever: Close does not wait for it
	mu       sync.Mutex
	at       *place
	closed   bool
}

var (
	_ object.Store   = (*Store)(nil)
	_ object.Joiner  = (*Store)(nil)
	_ object.Keeper  = (*Store)(nil)
	_ object.Adopter = (*Store)(nil)
)

// place is the opened root. When the directory is made anew, the old place stays for those who use it.
type place struct {
	root     *os.Root
	top      *os.File
	staging  *os.File // nil if there is none: then the place can be read only
	unstaged error    // why there is none
	mode     uint32   // of new files: file_mode, and what it takes to give them attributes
	durable  bool

	trying sync.Mutex
	can    atomic.Pointer[abilities] // nil: nothing was tried yet
}

// Open makes a Store. Its directories are made and opened at the first operation.
func Open(config Config) *Store { return &Store{config: config} }

// Close implements object.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	at := s.at
	s.at, s.closed = nil, true
	s.mu.Unlock()
	at.close()
	return nil
}

func (p *place) close() {
	if p == nil {
		return
	}
	for _, c := range []*os.File{p.staging, p.top} { // nil can be closed
		_ = c.Close() // directories opened for reading: nothing can be lost
	}
	_ = p.root.Close()
}

// here gives the opened root, to read from. A directory that was removed meanwhile is made again.
func (s *Store) here() (*place, error) { return s.opened(false) }

// toWrite gives the opened root with its staging folder. If there was none, it tries again to make one.
func (s *Store) toWrite() (*place, error) { return s.opened(true) }

func (s *Store) opened(writes bool) (*place, error) {
	if at, err := s.known(writes); at != nil || err != nil {
		return at, err
	}
	s.entering.Lock()
	defer s.entering.Unlock()
	if at, err := s.known(writes); at != nil || err != nil { // another call was here first
		return at, err
	}
	readable, err := s.known(false)
	if err != nil {
		return nil, err
	}
	next, err := s.enter(readable)
	if err != nil {
		return nil, classify(err)
	}
	if writes && next.staging == nil {
		if readable == nil {
			next.close()
		}
		return nil, next.unstaged
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		next.close()
		return nil, errClosed
	}
	// The old place is not closed: others may be at work in it. Its finalizers close it.
	s.at = next
	return next, nil
}

var errClosed = object.Errorf(object.Closed, "the adapter was closed")

// known gives the root that was opened before, or nil if it can no longer be used.
func (s *Store) known(writes bool) (*place, error) {
	s.mu.Lock()
	at, closed := s.at, s.closed
	s.mu.Unlock()
	if closed {
		return nil, errClosed
	}
	if at == nil || !linked(at.top) || (writes || at.staging != nil) && !linked(at.staging) {
		return nil, nil
	}
	return at, nil
}

func linked(directory *os.File) bool {
	var stat unix.Stat_t
	return directory != nil && unix.Fstat(int(directory.Fd()), &stat) == nil && stat.Nlink > 0
}

// enter opens the root, unless it is open to read, and its staging folder.
func (s *Store) enter(readable *place) (at *place, err error) {
	if readable != nil {
		at = &place{root: readable.root, top: readable.top, mode: readable.mode, durable: readable.durable}
	} else if at, err = s.enterRoot(); err != nil {
		return nil, err
	}
	if err := at.makeStaging(); err != nil {
		at.unstaged = s.unusable(err)
	} else if at.staging, err = at.folder(StagingName); err != nil {
		at.unstaged = unusable("the folder "+StagingName+" of "+s.area(), at.kind(StagingName), err)
	} else if at.folds() {
		at.close()
		return nil, object.Errorf(object.Refused, "%s is on a file system that takes different names for one (upper and lower"+
			" case, or dots and blanks at the end), so that one object could replace another: use another one", s.area())
	}
	return at, nil
}

func (s *Store) enterRoot() (*place, error) {
	if err := s.make(s.config.Root); err != nil {
		return nil, s.unusable(err)
	}
	root, err := os.OpenRoot(s.config.Root + "/.") // only a directory has that path: opening a FIFO would wait
	if err != nil {
		return nil, s.unusable(err)
	}
	top, err := root.Open(".")
	if err != nil {
		_ = root.Close()
		return nil, s.unusable(err)
	}
	return &place{root: root, top: top, mode: s.config.FileMode&0o777 | 0o600, durable: s.config.Durable}, nil
}

// makeStaging makes the folder of unfinished writes. It removes the folder of earlier versions if that is empty.
func (p *place) makeStaging() error {
	_ = unix.Unlinkat(int(p.top.Fd()), oldStaging, unix.AT_REMOVEDIR)
	err := p.root.Mkdir(StagingName, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil // if it is no directory, opening it tells
	}
	if err != nil {
		return err
	}
	return chmod(unix.Fchmodat(int(p.top.Fd()), StagingName, 0o700, 0)) // what the umask took away
}

// folder opens a folder at the top, through no symbolic link. It never waits: anything else gives ENOTDIR.
func (p *place) folder(name string) (*os.File, error) {
	fd, err := retried(func() (int, error) {
		return unix.Openat(int(p.top.Fd()), name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// kind names what is at the top instead of a folder.
func (p *place) kind(name string) string {
	var stat unix.Stat_t
	if unix.Fstatat(int(p.top.Fd()), name, &stat, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return ""
	}
	return kind(stat.Mode)
}

// kind names a file that is no directory; it is "" for a directory.
func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return ""
	case unix.S_IFREG:
		return "a file"
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFSOCK:
		return "a socket"
	default:
		return "a device"
	}
}

// folds tells whether other names lead to the staging folder.
func (p *place) folds() bool {
	var ours, other unix.Stat_t
	if unix.Fstat(int(p.staging.Fd()), &ours) != nil {
		return false
	}
	for _, name := range []string{strings.ToUpper(StagingName), StagingName + "."} {
		err := unix.Fstatat(int(p.top.Fd()), name, &other, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && other.Ino == ours.Ino && other.Dev == ours.Dev {
			return true
		}
	}
	return false
}

// make makes a directory with directory_mode, and the directories that it lies in.
func (s *Store) make(name string) error {
	err := os.Mkdir(name, fs.FileMode(s.config.DirectoryMode&0o777))
	if errors.Is(err, fs.ErrNotExist) && path.Dir(name) != name {
		if err := s.make(path.Dir(name)); err != nil {
			return err
		}
		err = os.Mkdir(name, fs.FileMode(s.config.DirectoryMode&0o777))
	}
	if errors.Is(err, fs.ErrExist) {
		return nil // if it is no directory, opening it tells
	}
	if err != nil {
		return err
	}
	if err := chmod(unix.Chmod(name, s.config.DirectoryMode)); err != nil { // what the umask took away
		return err
	}
	if !s.config.Durable {
		return nil
	}
	parent, err := os.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer func() { _ = parent.Close() }()
	return parent.Sync() // a new directory is an entry of its parent
}

// area names the directory as its owner knows it.
func (s *Store) area() string { return cmp.Or(s.config.Area, "the directory") }

// unusable tells why a directory cannot be entered.
func (s *Store) unusable(err error) error {
	var stat unix.Stat_t
	instead := ""
	if unix.Stat(s.config.Root, &stat) == nil {
		instead = kind(stat.Mode)
	} else if unix.Lstat(s.config.Root, &stat) == nil && stat.Mode&unix.S_IFMT == unix.S_IFLNK {
		instead = "a symbolic link that leads nowhere"
	}
	return unusable(s.area(), instead, err)
}

// unusable makes that error. instead names what is there in place of a directory, or is "".
func unusable(name, instead string, err error) error {
	why, code := "", object.IO
	errno, _ := errors.AsType[unix.Errno](err)
	if instead != "" {
		return object.Errorf(code, "%s is %s, and no directory", name, instead)
	}
	switch errno {
	case unix.ENOTDIR:
		why = "is a file, or lies below one: name a directory"
	case unix.EACCES, unix.EPERM:
		why, code = "cannot be entered or written to: let the user of this process do so", object.Permission
	case unix.EROFS:
		why, code = "is on a file system that is mounted read-only", object.Permission
	case unix.ENOENT, unix.ELOOP:
		why = "cannot be made where it is: name a directory on a disk"
	case unix.ENOTCONN, unix.ESTALE, unix.EIO, unix.ENODEV, unix.ENXIO:
		why, code = "does not answer ("+unix.ErrnoName(errno)+"): is its file system still mounted?", object.Unavailable
	default:
		return classify(err)
	}
	failed := object.Errorf(code, "%s %s", name, why)
	failed.Retryable = code == object.Unavailable
	return failed
}

// Put implements object.Store.
func (s *Store) Put(ctx context.Context, key string, src object.Source, opts object.PutOptions) (object.Info, error) {
	at, err := s.toWrite()
	if err != nil {
		return object.Info{}, err
	}
	file, err := at.stage()
	if err != nil {
		return object.Info{}, classify(err)
	}
	defer file.discard()
	file.durable = s.config.Durable
	if _, err := src.WriteTo(classifying{file}); err != nil {
		return object.Info{}, err
	}
	size, sum := src.Sum()
	info := object.Info{Key: key, Size: size, SHA256: sum, Record: src.Record()}
	if err := s.seal(file, &info, opts); err != nil {
		return object.Info{}, classify(err)
	}
	if ctx.Err() != nil {
		return object.Info{}, context.Cause(ctx)
	}
	return s.publish(ctx, at, file, info, opts)
}

// seal makes the file complete, before it has a name.
func (s *Store) seal(file *staged, info *object.Info, opts object.PutOptions) error {
	stat, err := file.Stat()
	if err != nil {
		return err
	}
	info.Modified = stat.ModTime()
	if err := writeAttributes(file.File, info, opts); err != nil { // while we may still write to it
		return err
	}
	if modeOf(stat) != s.config.FileMode { // because of the umask, or because we had to write to it
		if err := chmod(unix.Fchmod(int(file.Fd()), s.config.FileMode)); err != nil {
			return err
		}
	}
	if s.config.Durable {
		return file.Sync() // a failed fsync is never tried again: the pages may be gone
	}
	return nil
}

// publish gives the file its key.
func (s *Store) publish(
	ctx context.Context, at *place, file *staged, info object.Info, opts object.PutOptions,
) (object.Info, error) {
	for attempt := 0; ; attempt++ {
		done, err := s.tryPublish(at, file, info.Key, opts.Overwrite)
		switch {
		case err == nil && done:
			return info, nil
		case err == nil:
			there, err := s.settle(ctx, info, opts)
			if object.CodeOf(err) == object.NotFound && attempt < 100 {
				continue // the rival was deleted meanwhile: the key is free again
			}
			return there, err
		case errors.Is(err, fs.ErrNotExist) && attempt < 100:
			continue // a delete removed an empty folder before the file was in it
		case slices.ContainsFunc(unnameable, func(errno unix.Errno) bool { return errors.Is(err, errno) }):
			return object.Info{}, object.Errorf(object.InvalidKey, "the file system has no file of this name (%s)", s.area())
		default:
			return object.Info{}, classify(err)
		}
	}
}

// unnameable are the errors of a file system for names that it does not allow.
var unnameable = []unix.Errno{unix.EINVAL, unix.EILSEQ, unix.ENAMETOOLONG, unix.ENOENT}

// tryPublish gives false if the key is taken and must not be overwritten.
func (s *Store) tryPublish(at *place, file *staged, key string, overwrite bool) (bool, error) {
	directory, err := s.directory(at, path.Dir(key))
	if err != nil {
		return false, err
	}
	defer at.leave(directory)
	err = file.linkTo(directory, path.Base(key))
	if err == errNotExclusive && !overwrite {
		return false, object.Errorf(object.Refused, "%s", notExclusive)
	}
	if errors.Is(err, fs.ErrExist) || err == errNotExclusive {
		if !overwrite {
			return false, nil
		}
		err = file.renameTo(directory, path.Base(key))
	}
	if err == nil && s.config.Durable {
		err = directory.Sync()
	}
	return err == nil, err
}

// settle decides a put without overwrite that came second.
func (s *Store) settle(ctx context.Context, put object.Info, opts object.PutOptions) (object.Info, error) {
	reader, err := s.Get(ctx, put.Key, object.Whole)
	if object.CodeOf(err) == object.NotFound && s.inTheWay(put.Key) {
		return object.Info{}, object.Errorf(object.Conflict, "a folder, or what is no file, has this name")
	}
	if err != nil {
		return object.Info{}, err
	}
	defer func() { _ = reader.Close() }()
	there := reader.Info()
	if there.SHA256 == "" && there.Size == put.Size && !opts.New {
		if there.SHA256, err = digest.SHA256(ctx, reader); err != nil {
			return object.Info{}, err
		}
	}
	return opts.Same(there, put)
}

// inTheWay tells whether something that is not an object has the name.
func (s *Store) inTheWay(key string) bool {
	at, err := s.here()
	if err != nil {
		return false
	}
	stat, err := at.root.Lstat(key)
	return err == nil && !stat.Mode().IsRegular()
}

// directory opens a folder of the store, and makes it if need be. The caller must leave it.
func (s *Store) directory(at *place, name string) (*os.File, error) {
	if name == "." {
		return at.top, nil
	}
	directory, err := at.root.OpenFile(name, unix.O_DIRECTORY, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return directory, err
	}
	parent, err := s.directory(at, path.Dir(name))
	if err != nil {
		return nil, err
	}
	defer at.leave(parent)
	err = at.root.Mkdir(name, fs.FileMode(s.config.DirectoryMode&0o777))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	made := err == nil
	directory, err = at.root.OpenFile(name, unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	if made {
		err = chmod(unix.Fchmod(int(directory.Fd()), s.config.DirectoryMode)) // what the umask took away
		if err == nil && s.config.Durable {
			err = parent.Sync() // a new folder is an entry of its parent
		}
	}
	if err != nil {
		_ = directory.Close()
		return nil, err
	}
	return directory, nil
}

func (p *place) leave(directory *os.File) {
	if directory != p.top {
		_ = directory.Close() // it was opened for reading: nothing can be lost
	}
}

// Get implements object.Store.
func (s *Store) Get(_ context.Context, key string, _ object.Range) (object.Reader, error) {
	at, err := s.here()
	if err != nil {
		return nil, err
	}
	opened, err := at.open(key)
	if err != nil {
		return nil, err
	}
	return opened, nil
}

func (p *place) open(key string) (*reader, error) {
	// O_NONBLOCK: a FIFO that somebody put there must not block us.
	file, err := p.root.OpenFile(key, unix.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) { // a socket, a device
			err = fs.ErrNotExist
		}
		return nil, classify(err)
	}
	stat, err := file.Stat()
	if err == nil && !stat.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		_ = file.Close()
		return nil, classify(err)
	}
	return &reader{File: file, info: describe(key, file, stat)}, nil
}

// Stat implements object.Store.
func (s *Store) Stat(ctx context.Context, key string) (object.Info, error) {
	reader, err := s.Get(ctx, key, object.Whole)
	if err != nil {
		return object.Info{}, err
	}
	return reader.Info(), reader.Close()
}

// Delete implements object.Store. It also removes the folders that it empties, so that their name is free for an
// object.
func (s *Store) Delete(_ context.Context, key string) error {
	return s.deleteFrom(path.Dir(key), key)
}

// DeleteMany implements object.Store. It syncs a folder once for all that it deletes from it in a row.
func (s *Store) DeleteMany(ctx context.Context, keys []string) (failed error) {
	for len(keys) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		folder, n := path.Dir(keys[0]), 1
		for n < len(keys) && path.Dir(keys[n]) == folder {
			n++
		}
		if err := s.deleteFrom(folder, keys[:n]...); err != nil && failed == nil {
			failed = err
		}
		keys = keys[n:]
	}
	return failed
}

func (s *Store) deleteFrom(folder string, keys ...string) error {
	at, err := s.here()
	if err != nil {
		return err
	}
	directory, err := at.root.OpenFile(folder, unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return classify(err)
	}
	defer func() { _ = directory.Close() }()
	var failed error
	deleted := false
	for _, key := range keys {
		err := unix.Unlinkat(int(directory.Fd()), path.Base(key), 0)
		switch {
		case err == nil:
			deleted = true
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EISDIR):
		case failed == nil:
			failed = err
		}
	}
	if deleted && s.config.Durable {
		if err := directory.Sync(); err != nil {
			return classify(err)
		}
	}
	if failed != nil || !deleted {
		return classify(failed)
	}
	for ; folder != "."; folder = path.Dir(folder) {
		parent, err := at.root.OpenFile(path.Dir(folder), unix.O_DIRECTORY, 0)
		if err != nil {
			break
		}
		err = unix.Unlinkat(int(parent.Fd()), path.Base(folder), unix.AT_REMOVEDIR)
		_ = parent.Close()
		if err != nil {
			break // it holds something else, or somebody else removed it
		}
	}
	return nil
}

// List implements object.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]object.Info, error) {
	at, err := s.here()
	if err != nil {
		return nil, err
	}
	var found []object.Info
	if err := at.walk(ctx, strings.TrimSuffix(prefix, "/"), &found); err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b object.Info) int { return strings.Compare(a.Key, b.Key) })
	return found, nil
}

func (p *place) walk(ctx context.Context, folder string, found *[]object.Info) error {
	directory, err := p.root.OpenFile(folder, unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return classify(err)
	}
	entries, err := directory.ReadDir(-1)
	_ = directory.Close()
	if err != nil {
		return classify(err)
	}
	for _, entry := range entries {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		key := folder + "/" + entry.Name()
		if object.CheckKey(key) != nil {
			continue // no object of ours: no key can name it
		}
		if entry.IsDir() {
			if err := p.walk(ctx, key, found); err != nil {
				return err
			}
			continue
		}
		reader, err := p.open(key)
		if object.CodeOf(err) == object.NotFound {
			continue // deleted meanwhile, or not a file
		}
		if err != nil {
			return err
		}
		*found = append(*found, reader.info)
		_ = reader.Close()
	}
	return nil
}

// Check implements object.Store.
func (s *Store) Check(ctx context.Context) error {
	at, err := s.toWrite()
	if err != nil {
		return err
	}
	// The tests below use the staging folder, and tell nothing about the directory itself.
	if err := unix.Faccessat(int(at.top.Fd()), ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return s.unusable(err)
	}
	file, err := at.stage()
	if err != nil {
		return s.unusable(err)
	}
	defer file.discard()
	if _, err := file.Write([]byte("probe")); err != nil {
		return classify(err)
	}
	if err := file.Sync(); err != nil {
		return classify(err)
	}
	if can := at.can.Load(); can != nil && !can.exclusive() {
		return object.Errorf(object.Refused, "%s: %s", s.area(), notExclusive)
	}
	return ctx.Err()
}

type reader struct {
	*os.File
	info  object.Info
	turns fileread.Reader
}

func (r *reader) Info() object.Info { return r.info }

// Unchanged implements object.Mutable. Names that the file gets or loses change nothing.
func (r *reader) Unchanged() bool {
	stat, err := r.Stat()
	return err == nil && stat.Size() == r.info.Size && stat.ModTime().Equal(r.info.Modified)
}

func (r *reader) ReadAt(p []byte, offset int64) (int, error) {
	handle, err := r.SyscallConn()
	if err != nil {
		return 0, classify(err)
	}
	n := 0
	closed := handle.Control(func(fd uintptr) { n, err = r.turns.ReadAt(int(fd), p, offset) })
	if err = cmp.Or(closed, err); err != nil && err != io.EOF && err != object.ErrNotYet {
		err = classify(err)
	}
	return n, err
}

func (r *reader) Close() error {
	r.turns.Close()
	return r.File.Close()
}

// classifying tells errors of the file from those of the source.
type classifying struct{ w io.Writer }

func (c classifying) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	if err != nil {
		err = classify(err)
	}
	return n, err
}
