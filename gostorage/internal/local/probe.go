package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

var _ object.Prober = (*Store)(nil)

// Probe implements object.Prober. It works in the staging folder, where no key can name its files.
func (s *Store) Probe(ctx context.Context, _ string) ([]object.Finding, error) {
	var at *place
	found := []object.Finding{object.Examine(object.Reach, true, func() (found object.Finding) {
		at, found = s.reach(ctx)
		return found
	})}
	if at == nil {
		return found, nil
	}
	for _, one := range []struct {
		name     string
		required bool
		look     func(*place) object.Finding
	}{
		{"permissions", false, (*place).permissions},
		{"free_space", false, (*place).space},
		{"sync", s.config.Durable, s.syncs},
		{"nameless_files", false, (*place).nameless},
		{"attributes", false, (*place).attributes},
		{"hard_links", true, (*place).links},
	} {
		found = append(found, object.Examine(one.name, one.required, func() object.Finding { return one.look(at) }))
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return found, nil
}

func failed(err error) object.Finding { return object.No(classify(err).Error(), "") }

func (s *Store) reach(ctx context.Context) (*place, object.Finding) {
	if err := s.Check(ctx); err != nil {
		return nil, object.No(err.Error(), "let the user of this process write to the directory, and give it space")
	}
	at, err := s.toWrite()
	if err != nil {
		return nil, failed(err)
	}
	return at, object.Yes("a file can be written")
}

func (p *place) permissions() object.Finding {
	var stat unix.Stat_t
	if err := unix.Fstat(int(p.top.Fd()), &stat); err != nil {
		return failed(err)
	}
	detail := fmt.Sprintf("mode %04o, user %d, group %d", stat.Mode&0o7777, stat.Uid, stat.Gid)
	if stat.Mode&0o002 != 0 {
		return object.No(detail, "every user of this machine may write here: chmod o-w")
	}
	return object.Yes(detail)
}

// fileSystems are those whose nature a user should know, by their magic numbers; linux/magic.h lists all.
var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
	unix.TMPFS_MAGIC: "tmpfs", unix.NFS_SUPER_MAGIC: "nfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	unix.SMB2_SUPER_MAGIC: "smb", unix.CIFS_SUPER_MAGIC: "smb", unix.FUSE_SUPER_MAGIC: "fuse",
}

const little = 1 << 30 // bytes of free space that call for attention

func (p *place) space() object.Finding {
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(p.top.Fd()), &stat); err != nil {
		return failed(err)
	}
	free := stat.Bavail * uint64(stat.Frsize)
	detail := fmt.Sprintf("%.1f GiB free", float64(free)/(1<<30))
	name := fileSystems[int64(stat.Type)]
	if name != "" {
		detail += " on " + name
	}
	found := object.Yes(detail)
	switch {
	case free < little:
		found = object.No(detail, "a put fails when the space is used up: make room, or use another disk")
	case stat.Files > 0 && stat.Ffree < stat.Files/100:
		found = object.No(detail, "the file system has hardly any inodes left: delete files, or use another disk")
	case name == "tmpfs":
		found = object.No(detail, "files in memory are gone when the machine starts anew: use a directory on a disk")
	case name == "overlay":
		found = object.No(detail, "files in a container are gone with it: mount a volume here")
	}
	return found.WithValue(float64(free))
}

// syncs writes a block to the disk, and the folder that names it.
func (s *Store) syncs(p *place) object.Finding {
	file, err := p.stage()
	if err != nil {
		return failed(err)
	}
	defer file.discard()
	if _, err := file.Write(make([]byte, 4096)); err != nil {
		return failed(err)
	}
	started := time.Now()
	if err := file.Sync(); err != nil {
		return failed(err)
	}
	if err := p.top.Sync(); err != nil {
		return object.No("a directory cannot be synced: "+classify(err).Error(),
			"a power loss may take what was acknowledged: use another file system, or accept it by durable=False")
	}
	took := time.Since(started).Seconds()
	return object.Yes(fmt.Sprintf("file and directory are on the disk after %.1f ms", took*1000)).WithValue(took)
}

func (p *place) nameless() object.Finding {
	file, err := p.stage()
	if err != nil {
		return failed(err)
	}
	defer file.discard()
	if file.name != "" {
		return object.No("files have a name from the beginning (no O_TMPFILE, or no /proc)",
			"a killed process may leave a file in the folder "+StagingName+" of the directory")
	}
	return object.Yes("a file has no name before it is whole")
}

func (p *place) attributes() object.Finding {
	file, err := p.stage()
	if err != nil {
		return failed(err)
	}
	defer file.discard()
	stat, err := file.Stat()
	if err != nil {
		return failed(err)
	}
	info := object.Info{SHA256: fmt.Sprintf("%064d", 0), Modified: stat.ModTime()}
	err = unix.Fsetxattr(int(file.Fd()), digestAttribute, []byte(digestRecord(&info)), 0)
	if _, kept := parseDigest(attributesOf(file.File).get(digestAttribute), info); err == nil && !kept {
		err = unix.EIO
	}
	if err != nil {
		return object.No("there are no extended attributes: "+classify(err).Error(),
			"listings do not know SHA-256 digests, and streams are verified only where the caller passes a TempPart;"+
				" use a file system with user attributes (ext4, xfs, btrfs)")
	}
	return object.Yes("size and SHA-256 are kept with a file")
}

// links publishes two files under one name, as puts with overwrite=False do: the second must fail.
func (p *place) links() object.Finding {
	name := randomName()
	defer func() { _ = unix.Unlinkat(int(p.staging.Fd()), name, 0) }()
	publish := func() error {
		file, err := p.stage()
		if err != nil {
			return err
		}
		defer file.discard()
		return file.linkTo(p.staging, name)
	}
	if err := publish(); err != nil {
		return object.No("a file cannot be given a name that must be free: "+classify(err).Error(),
			"overwrite=False does not work here: use a file system with hard links")
	}
	switch err := publish(); {
	case errors.Is(err, fs.ErrExist):
		return object.Yes("of two files that want one name, one gets it")
	case err == nil:
		return object.No("two files get one name",
			"do not rely on overwrite=False here: use a file system with hard links")
	default:
		return failed(err)
	}
}
