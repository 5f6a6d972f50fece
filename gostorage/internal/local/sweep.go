package local

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// Walk implements object.Store. It follows no symbolic links, and compares names byte by byte: a folder is never opened
// by the name in a prefix, which a file system may take for another one.
func (s *Store) Walk(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		at, err := s.here()
		if err == nil {
			err = (&visit{at, prefix, after, yield}).folder(ctx, "")
		}
		if err != nil && err != errStopped {
			yield(object.Info{}, err)
		}
	}
}

// visit is one walk.
type visit struct {
	*place
	prefix, after string
	yield         func(object.Info, error) bool
}

// errStopped is the error of a visit that was told to stop.
var errStopped = errors.New("stopped")

// lostAndFound is what mkfs puts at the top of a file system, for root alone.
const lostAndFound = "lost+found/"

// mostNames bounds the names of a folder that are held, some 100 bytes each. A folder of more is read several times.
const mostNames = 16_000

// folder gives the files below a folder. The folder is "", or a name with a slash at its end. What cannot be looked at
// comes with its error, and the rest after it.
func (v *visit) folder(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	directory, err := v.root.OpenFile(cmp.Or(strings.TrimSuffix(name, "/"), "."), unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if errors.Is(err, fs.ErrPermission) && name == lostAndFound {
		return nil
	}
	if err == nil {
		defer func() { _ = directory.Close() }()
	}
	for last := ""; ; {
		var keys []string
		more := false
		if err == nil {
			keys, more, err = v.next(ctx, directory, name, last)
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && name == "":
			return classify(err)
		case err != nil:
			return pass(v.yield(object.Info{Key: name}, classify(err)))
		}
		for _, key := range keys {
			if err := v.one(ctx, directory, key); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
		last = keys[len(keys)-1]
		_, err = directory.Seek(0, io.SeekStart)
	}
}

// next gives the first of the keys in a folder that come after the last one, in their order, and whether there are more.
// In the order of keys a folder counts with its slash: "a-b/1" comes before "a/1".
func (v *visit) next(ctx context.Context, directory *os.File, folder, last string) (keys []string, more bool, err error) {
	bound := "" // keys from there on are not among the first
	cut := func() {
		slices.Sort(keys)
		if len(keys) > mostNames {
			bound, keys, more = keys[mostNames], keys[:mostNames], true
		}
	}
	for err == nil && ctx.Err() == nil {
		var entries []fs.DirEntry
		entries, err = directory.ReadDir(1024)
		for _, entry := range entries {
			key, inside := folder+entry.Name(), false
			if entry.IsDir() {
				key += "/"
				inside = strings.HasPrefix(v.after, key) || strings.HasPrefix(v.prefix, key)
			}
			wanted := strings.HasPrefix(key, v.prefix) && key > v.after || inside
			if wanted && key > last && (!more || key < bound) && object.CheckKey(strings.TrimSuffix(key, "/")) == nil { // else no key can name it
				keys = append(keys, key)
			}
		}
		if len(keys) >= 2*mostNames {
			cut()
		}
	}
	cut()
	if err == io.EOF {
		err = nil
	}
	return keys, more, err
}

// one gives a file, or those below a folder.
func (v *visit) one(ctx context.Context, directory *os.File, key string) error {
	if strings.HasSuffix(key, "/") {
		return v.folder(ctx, key)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	stat, err := look(directory, path.Base(key))
	if stat == nil && err == nil {
		return nil // deleted meanwhile, or not a file
	}
	info := object.Info{Key: key}
	if err == nil {
		info.Size, info.Modified = stat.Size, modified(stat)
		info.SHA256 = listedDigest(directory, info)
	}
	return pass(v.yield(info, err))
}

// pass gives errStopped if the visit must not go on.
func pass(on bool) error {
	if !on {
		return errStopped
	}
	return nil
}

// look describes a file. It gives nil if the name is gone, or does not name a file.
func look(directory *os.File, name string) (*unix.Stat_t, error) {
	var stat unix.Stat_t
	err := unix.Fstatat(int(directory.Fd()), name, &stat, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) || err == nil && stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, nil
	}
	if err != nil {
		return nil, classify(err)
	}
	return &stat, nil
}

func modified(stat *unix.Stat_t) time.Time { return time.Unix(stat.Mtim.Unix()) }

// arrived is when the last byte of a write came. A file with another name was written for that name, and linked here
// later.
func arrived(stat *unix.Stat_t) time.Time {
	if linked := time.Unix(stat.Ctim.Unix()); stat.Nlink > 1 && linked.After(modified(stat)) {
		return linked
	}
	return modified(stat)
}

// Unfinished implements object.Sweeper: the files in the staging folder. Which keys they were for is not known.
func (s *Store) Unfinished(_ context.Context, after string) iter.Seq2[object.Unfinished, error] {
	return func(yield func(object.Unfinished, error) bool) {
		at, err := s.here()
		if err != nil {
			yield(object.Unfinished{}, err)
			return
		}
		for _, folder := range []string{StagingName, oldStaging} { // in the order of keys
			if at.stagedIn(folder, after, yield) != nil {
				return
			}
		}
	}
}

func (p *place) stagedIn(folder, after string, yield func(object.Unfinished, error) bool) error {
	directory, err := p.folder(folder)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) { // only a folder holds writes
		return nil
	}
	var names []string
	if err == nil {
		names, err = directory.Readdirnames(-1)
		defer func() { _ = directory.Close() }()
	}
	if err != nil {
		if key := folder + "/"; key > after {
			return pass(yield(object.Unfinished{Key: key}, classify(err)))
		}
		return nil
	}
	slices.Sort(names)
	for _, name := range names {
		key := folder + "/" + name
		if key <= after || !isRandomName(name) {
			continue
		}
		stat, err := look(directory, name)
		if stat == nil && err == nil {
			continue
		}
		write := object.Unfinished{Key: key, ID: name}
		if stat != nil {
			write.Modified = arrived(stat)
		}
		if err := pass(yield(write, err)); err != nil {
			return err
		}
	}
	return nil
}

// folder opens the folder that a write lies in. The caller closes it.
func (s *Store) folder(write object.Unfinished) (*os.File, error) {
	at, err := s.here()
	if err != nil {
		return nil, err
	}
	directory, err := at.folder(path.Dir(write.Key))
	if errors.Is(err, unix.ENOTDIR) {
		err = fs.ErrNotExist // somebody has put something else there
	}
	if err != nil {
		return nil, classify(err)
	}
	return directory, nil
}

// Inspect implements object.Sweeper.
func (s *Store) Inspect(_ context.Context, write *object.Unfinished) error {
	directory, err := s.folder(*write)
	if err != nil {
		return err
	}
	defer func() { _ = directory.Close() }()
	stat, err := look(directory, write.ID)
	if err != nil {
		return err
	}
	if stat == nil {
		return object.Errorf(object.NotFound, "the write has ended")
	}
	write.Size, write.Modified = stat.Size, arrived(stat)
	return nil
}

// Abandon implements object.Sweeper.
func (s *Store) Abandon(_ context.Context, write object.Unfinished) error {
	directory, err := s.folder(write)
	if object.CodeOf(err) == object.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = directory.Close() }()
	if err := unlink(directory, write.ID); !errors.Is(err, unix.ENOENT) {
		return classify(err)
	}
	return nil
}

// Now implements object.Sweeper. It is the file system's time: that of another machine if the file system is there.
func (s *Store) Now() time.Time {
	at, err := s.toWrite()
	if err != nil {
		return time.Now()
	}
	file, err := at.stage()
	if err != nil {
		return time.Now() // a full store has to be swept too
	}
	defer file.discard()
	stat, err := file.Stat()
	if err != nil {
		return time.Now()
	}
	return stat.ModTime()
}
