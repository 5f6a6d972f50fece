package local

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"os"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// copyAtOnce is how many bytes the system copies before the context is looked at.
const copyAtOnce = 16 << 20

// Join implements object.Joiner: the system copies the files, or shares their blocks where it can. If there is one
// part, and nothing else to store with the object, the object is a second name of the part's file.
func (s *Store) Join(ctx context.Context, join *object.Join) (object.Info, error) {
	from, ok := join.From.(*Store)
	if !ok {
		return object.Info{}, object.ErrCannotJoin
	}
	there, err := from.here()
	if err != nil {
		return object.Info{}, err
	}
	at, err := s.toWrite()
	if err != nil {
		return object.Info{}, err
	}
	if len(join.Parts) == 1 && sameForm(join) {
		info, err := s.link(ctx, at, there, join)
		if err != object.ErrCannotJoin {
			return info, err
		}
	}
	file, err := at.stage()
	if err != nil {
		return object.Info{}, classify(err)
	}
	defer file.discard()
	file.durable = s.config.Durable
	for _, part := range join.Parts {
		if err := file.append(ctx, there, part, join.Done); err != nil {
			return object.Info{}, about(part, err)
		}
	}
	info := object.Info{Key: join.Key, Size: join.Size}
	if info.SHA256, err = join.SHA256(ctx); err != nil {
		return object.Info{}, err
	}
	if err := s.seal(file, &info, join.Options); err != nil {
		return object.Info{}, classify(err)
	}
	return s.commit(ctx, at, file, info, join)
}

func (s *Store) commit(
	ctx context.Context, at *place, file *staged, info object.Info, join *object.Join,
) (object.Info, error) {
	if err := join.Commit(ctx); err != nil {
		return object.Info{}, err
	}
	if ctx.Err() != nil {
		return object.Info{}, context.Cause(ctx)
	}
	return s.publish(ctx, at, file, info, join.Options)
}

// sameForm tells whether the digest of a part is stored with it, so that its attributes may be right for the object.
func sameForm(join *object.Join) bool {
	part := join.Parts[0]
	return part.SHA256 != "" && part.Version == ""
}

// link publishes the file of the only part under the key.
func (s *Store) link(ctx context.Context, at, there *place, join *object.Join) (object.Info, error) {
	part := join.Parts[0]
	opened, err := there.openAs(part)
	if err != nil {
		return object.Info{}, about(part, err)
	}
	file := &staged{File: opened.File, staging: at.staging, shared: true, can: abilities{links: true}}
	defer file.discard()
	// The part may have been put with other options.
	if stat, err := file.Stat(); err != nil || modeOf(stat) != s.config.FileMode {
		return object.Info{}, object.ErrCannotJoin
	}
	told := opened.info
	if told.ContentType != join.Options.ContentType || !maps.Equal(told.Metadata, join.Options.Metadata) {
		return object.Info{}, object.ErrCannotJoin
	}
	sum, err := join.SHA256(ctx)
	if err != nil {
		return object.Info{}, err
	}
	if s.config.Durable {
		if err := file.Sync(); err != nil {
			return object.Info{}, classify(err)
		}
	}
	through := randomName()
	if err := linkFd(file.File, at.staging, through); err != nil {
		return object.Info{}, object.ErrCannotJoin // another file system, or one without links
	}
	file.name = through
	join.Done(part.Size, 0)
	return s.commit(ctx, at, file, object.Info{Key: join.Key, Size: part.Size, SHA256: sum}, join)
}

// openAs opens a part that must be as it was described.
func (p *place) openAs(part object.Info) (*reader, error) {
	opened, err := p.open(part.Key)
	if err != nil {
		return nil, err
	}
	if !opened.info.Same(part) {
		_ = opened.Close()
		return nil, object.Errorf(object.Mismatch, "the part has changed")
	}
	return opened, nil
}

// append lets the system copy a part to the end of the file.
func (f *staged) append(ctx context.Context, there *place, part object.Info, done func(copied, streamed int64)) error {
	opened, err := there.openAs(part)
	if err != nil {
		return err
	}
	defer func() { _ = opened.Close() }()
	for left := part.Size; left > 0; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := copyRange(f.File, opened.File, min(left, copyAtOnce))
		switch {
		case lacks(err), errors.Is(err, unix.EXDEV), errors.Is(err, unix.ETXTBSY), err == nil && n == 0 && opened.Unchanged():
			return object.ErrCannotJoin
		case err != nil:
			return classify(err)
		case n == 0:
			return object.Errorf(object.Mismatch, "the part has changed: it became shorter")
		}
		left -= n
		f.wrote(n)
		done(n, 0)
	}
	if !opened.Unchanged() {
		return object.Errorf(object.Mismatch, "the part has changed: somebody wrote to it")
	}
	return nil
}

// copyRange copies between the positions of two files.
func copyRange(to, from *os.File, size int64) (int64, error) {
	n, err := retried(func() (int, error) {
		return unix.CopyFileRange(int(from.Fd()), nil, int(to.Fd()), nil, int(size), 0)
	})
	return int64(n), err
}

// about names the part in an error.
func about(part object.Info, err error) error {
	known, ok := err.(*object.Error)
	if !ok || known.Key != "" || err == object.ErrCannotJoin || known.Code == object.Cancelled || known.Code == object.Full {
		return err
	}
	named := *known
	named.Key = part.Key
	return &named
}

// Keep implements object.Keeper, if the file system has attributes.
func (s *Store) Keep(_ context.Context, described object.Info, record string) (bool, error) {
	at, err := s.here()
	if err != nil {
		return false, err
	}
	if described.Version != "" { // then its digest is not stored with it either
		return false, nil
	}
	opened, err := at.openAs(described)
	if err != nil {
		return object.CodeOf(err) == object.NotFound || object.CodeOf(err) == object.Mismatch, nil
	}
	defer func() { _ = opened.Close() }()
	kept, err := set(opened.File, recordAttribute, record)
	return kept && err == nil, nil // else the record is kept beside it
}

// Adopt implements object.Adopter.
func (s *Store) Adopt(ctx context.Context, described object.Info) (object.Info, error) {
	at, err := s.here()
	if err != nil {
		return object.Info{}, err
	}
	opened, err := at.open(described.Key)
	if err != nil {
		return object.Info{}, err
	}
	defer func() { _ = opened.Close() }()
	info := opened.info
	if info.SHA256, err = digest.SHA256(ctx, opened); err != nil {
		return object.Info{}, err
	}
	if !opened.Unchanged() || info.Size != described.Size || cmp.Or(described.SHA256, info.SHA256) != info.SHA256 {
		return object.Info{}, object.Errorf(object.Mismatch, "the object has changed, or has another SHA-256 than expected")
	}
	kept, err := set(opened.File, digestAttribute, digestRecord(&info))
	if err == nil && kept && s.config.Durable {
		err = opened.Sync()
	}
	return info, classify(err)
}
