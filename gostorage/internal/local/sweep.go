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
			err = at.visit(ctx, "", after, func(info object.Info) bool { return yield(info, nil) })
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

// visit gives the files below a folder, "" or a name with a slash at its end, that come after a text.
func (p *place) visit(ctx context.Context, folder, after string, yield func(object.Info) bool) error {
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
	if err != nil {
		return classify(err)
	}
	defer func() { _ = directory.Close() }()
	entries, err := directory.ReadDir(-1)
	if err != nil {
		return classify(err)
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
		if err != nil || !file.Mode().IsRegular() {
			continue // deleted meanwhile, or not a file
		}
		if !yield(object.Info{Key: key, Size: file.Size(), Modified: file.ModTime()}) {
			return errStopped
		}
	}
	return nil
}

// look describes a file; nil is for what is none, or is not there any more.
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

// arrived is when the last of a write came. What has another name too was written for that one, and linked here later.
func arrived(stat *unix.Stat_t) time.Time {
	if linked := time.Unix(stat.Ctim.Unix()); stat.Nlink > 1 && linked.After(modified(stat)) {
		return linked
	}
	return modified(stat)
}

// Unfinished implements object.Sweeper: the files in the staging folder. Which keys they were for is not known.
func (s *Store) Unfinished(_ context.Context, after string) iter.Seq2[object.Unfinished, error] {
	return func(yield func(object.Unfinished, error) bool) {
		found, err := s.staged(after)
		if err != nil {
			yield(object.Unfinished{}, err)
			return
		}
		for _, one := range found {
			if !yield(one, nil) {
				return
			}
		}
	}
}

func (s *Store) staged(after string) ([]object.Unfinished, error) {
	at, err := s.here()
	if err != nil {
		return nil, err
	}
	var found []object.Unfinished
	for _, folder := range []string{StagingName, oldStaging} { // in the order of keys
		one, err := at.stagedIn(folder, after)
		if err != nil {
			return nil, err
		}
		found = append(found, one...)
	}
	return found, nil
}

func (p *place) stagedIn(folder, after string) (found []object.Unfinished, err error) {
	directory, err := p.root.Open(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, classify(err)
	}
	defer func() { _ = directory.Close() }()
	names, err := directory.Readdirnames(-1)
	if err != nil {
		return nil, classify(err)
	}
	slices.Sort(names)
	for _, name := range names {
		key := folder + "/" + name
		if key <= after || !isRandomName(name) {
			continue
		}
		stat, err := look(directory, name)
		if err != nil {
			return nil, err
		}
		if stat != nil {
			found = append(found, object.Unfinished{Key: key, ID: name, Modified: arrived(stat)})
		}
	}
	return found, nil
}

// folder opens the one that a write lies in, which is to be closed.
func (s *Store) folder(write object.Unfinished) (*os.File, error) {
	at, err := s.here()
	if err != nil {
		return nil, err
	}
	directory, err := at.root.Open(path.Dir(write.Key))
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

// Now implements object.Sweeper: the file system's time, which is that of another machine where it is that machine's.
func (s *Store) Now() time.Time {
	at, err := s.here()
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
