package local

import (
	"cmp"
	"context"
	"errors"
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

// Walk implements object.Sweeper. It follows no symbolic links.
func (s *Store) Walk(ctx context.Context, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		at, err := s.here()
		if err == nil {
			err = at.visit(ctx, "", after, yield)
		}
		if err != nil && err != errStopped {
			yield(object.Info{}, err)
		}
	}
}

// errStopped is the error of a visit that was told to stop.
var errStopped = errors.New("stopped")

// lostAndFound is what mkfs puts at the top of a file system, for root alone.
const lostAndFound = "lost+found/"

// visit gives the files below a folder that come after a text. The folder is "", or a name with a slash at its end.
// What cannot be looked at comes with its error, and the rest after it.
func (p *place) visit(ctx context.Context, folder, after string, yield func(object.Info, error) bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	directory, err := p.root.OpenFile(cmp.Or(strings.TrimSuffix(folder, "/"), "."), unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if errors.Is(err, fs.ErrPermission) && folder == lostAndFound {
		return nil
	}
	var entries []fs.DirEntry
	if err == nil {
		entries, err = directory.ReadDir(-1)
		defer func() { _ = directory.Close() }()
	}
	if err != nil && folder == "" {
		return classify(err)
	}
	if err != nil {
		return pass(yield(object.Info{Key: folder}, classify(err)))
	}
	// In the order of keys a folder counts with its slash: "a-b/1" comes before "a/1".
	keys, found := make([]string, 0, len(entries)), make(map[string]fs.DirEntry, len(entries))
	for _, entry := range entries {
		key := folder + entry.Name()
		if entry.IsDir() {
			key += "/"
		}
		if key > after || entry.IsDir() && strings.HasPrefix(after, key) {
			keys, found[key] = append(keys, key), entry
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		if object.CheckKey(strings.TrimSuffix(key, "/")) != nil {
			continue // no object of ours: no key can name it
		}
		if found[key].IsDir() {
			if err := p.visit(ctx, key, after, yield); err != nil {
				return err
			}
			continue
		}
		file, err := found[key].Info()
		info := object.Info{Key: key}
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && !file.Mode().IsRegular():
			continue // deleted meanwhile, or not a file
		case err == nil:
			info.Size, info.Modified = file.Size(), file.ModTime()
		}
		if err := pass(yield(info, classify(err))); err != nil {
			return err
		}
	}
	return nil
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
