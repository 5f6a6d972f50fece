package local

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// The extended attributes of an object's file; user.mime_type is the freedesktop.org name.
const (
	digestAttribute      = "user.gostorage.sha256"
	recordAttribute      = "user.gostorage.record"
	contentTypeAttribute = "user.mime_type"
	metadataAttribute    = "user.gostorage.metadata"
)

// writeAttributes stores digest, record, content type and metadata with the file, if the file system can. Elsewhere
// they are not kept, and listings do not know the digest.
func writeAttributes(file *os.File, info *object.Info, opts object.PutOptions) error {
	kept, err := set(file, digestAttribute, digestRecord(info))
	if err != nil {
		return err
	}
	if !kept {
		if err := mark(file, info); err != nil {
			return err
		}
	}
	if info.Record != "" {
		kept, err := set(file, recordAttribute, info.Record)
		if err != nil {
			return err
		}
		if !kept {
			info.Record = ""
		}
	}
	if opts.ContentType != "" {
		if _, err := set(file, contentTypeAttribute, opts.ContentType); err != nil {
			return tooLarge(file, err)
		}
	}
	if len(opts.Metadata) > 0 {
		metadata, err := json.Marshal(opts.Metadata)
		if err != nil {
			return err
		}
		_, err = set(file, metadataAttribute, string(metadata))
		return tooLarge(file, err)
	}
	return nil
}

// tooLarge tells a full disk from a file that has no room for so many attributes: ext4 has one block for all of them.
func tooLarge(file *os.File, err error) error {
	var disk unix.Statfs_t
	fits := errors.Is(err, unix.ENOSPC) && unix.Fstatfs(int(file.Fd()), &disk) == nil && disk.Bavail > 0
	if fits || errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ERANGE) {
		return object.Errorf(object.Refused, "the metadata does not fit into the attributes that this file system keeps with a file:"+
			" give less of it, or keep it in the database")
	}
	return err
}

// set stores an attribute, and tells whether the file system keeps it.
func set(file *os.File, name, value string) (bool, error) {
	err := retry(func() error { return unix.Fsetxattr(int(file.Fd()), name, []byte(value), 0) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		return false, nil
	}
	return err == nil, err
}

// attributes are those of one file.
type attributes struct {
	file  *os.File
	names string // with a NUL before and after each; "": not known, so each is asked for
}

// attributesOf lists the attributes of a file: most have only a digest, and to ask for one that is not there takes as
// long as for one that is.
func attributesOf(file *os.File) attributes {
	names := make([]byte, 512)
	n, err := unix.Flistxattr(int(file.Fd()), names)
	if err != nil { // too many, or none at all
		return attributes{file: file}
	}
	return attributes{file, "\x00" + string(names[:n])}
}

// get gives an attribute, or "".
func (a attributes) get(name string) string {
	if a.names != "" && !strings.Contains(a.names, "\x00"+name+"\x00") {
		return ""
	}
	value := make([]byte, 512)
	n, err := unix.Fgetxattr(int(a.file.Fd()), name, value)
	if errors.Is(err, unix.ERANGE) {
		value = make([]byte, longestAttribute)
		n, err = unix.Fgetxattr(int(a.file.Fd()), name, value)
	}
	if err != nil {
		return ""
	}
	return string(value[:n])
}

// longestAttribute in bytes is the largest value that Linux keeps.
const longestAttribute = 64 << 10

// digestRecord is the digest, what tells whether somebody else has written to the file since, and a checksum. With 56
// bytes it still fits into an ext4 inode of the usual 256: a longer one would have a block of its own to be written.
func digestRecord(info *object.Info) string {
	sum, _ := hex.DecodeString(info.SHA256) // ours
	record := append([]byte{recordVersion}, sum...)
	record = binary.BigEndian.AppendUint64(record, uint64(info.Size))
	record = binary.BigEndian.AppendUint64(record, uint64(info.Modified.UnixNano()))
	return string(append(record, checksum(record)...))
}

const (
	recordVersion = 1
	recordSize    = 1 + sha256.Size + 8 + 8 + checksumSize
	checksumSize  = 7
)

func checksum(record []byte) []byte {
	sum := sha256.Sum256(record)
	return sum[:checksumSize]
}

// listedDigest gives the digest of a file that was looked at in a folder, or "" if it is not known.
func listedDigest(directory *os.File, info object.Info) string {
	kept := make([]byte, recordSize+1)
	name := procPath(int(directory.Fd())) + "/" + path.Base(info.Key)
	n, err := unix.Lgetxattr(name, digestAttribute, kept)
	if err != nil {
		return ""
	}
	if sum, unchanged := parseDigest(string(kept[:n]), info); unchanged {
		return sum
	}
	return ""
}

func parseDigest(kept string, info object.Info) (string, bool) {
	if len(kept) != recordSize || kept[0] != recordVersion {
		return "", false
	}
	told := []byte(kept[:recordSize-checksumSize])
	if !bytes.Equal(checksum(told), []byte(kept[len(told):])) || binary.BigEndian.Uint64(told[1+sha256.Size:]) != uint64(info.Size) {
		return "", false // damaged, or somebody has made another file of it
	}
	info.SHA256 = hex.EncodeToString(told[1 : 1+sha256.Size])
	return info.SHA256, kept == digestRecord(&info)
}

// mark gives a file without attributes a time of change within the last second, with random nanoseconds. Together with
// the file's number, the time tells these bytes from others that had the same name.
func mark(file *os.File, info *object.Info) error {
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails: crypto/rand ends the process instead
	now := info.Modified.Add(-time.Duration(binary.BigEndian.Uint32(random[:]) % 1e9))
	times := []unix.Timespec{unix.NsecToTimespec(now.UnixNano()), unix.NsecToTimespec(now.UnixNano())}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, procPath(int(file.Fd())), times, 0); err != nil {
		return nil // it has no version, then
	}
	stat, err := file.Stat()
	if err != nil {
		return err
	}
	if stat.ModTime().Equal(now) {
		info.Modified, info.Version = now, version(stat)
	}
	return nil
}

func version(stat fs.FileInfo) string {
	system, ok := stat.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d-%d.%09d", system.Ino, system.Mtim.Sec, system.Mtim.Nsec)
}

// settled is the age from which a file counts as one that cannot change again within the same tick of the clock.
const settled = 2 * time.Second

// describe tells what is known of an opened file.
func describe(key string, file *os.File, stat fs.FileInfo) object.Info {
	info := object.Info{Key: key, Size: stat.Size(), Modified: stat.ModTime()}
	kept := attributesOf(file)
	digest := kept.get(digestAttribute)
	if sum, unchanged := parseDigest(digest, info); unchanged {
		info.SHA256, info.Record = sum, kept.get(recordAttribute)
	} else {
		info.Stored = sum
	}
	info.ContentType = kept.get(contentTypeAttribute)
	// Metadata that is damaged, or was written by somebody else in another form, is not told.
	if text := kept.get(metadataAttribute); text != "" && json.Unmarshal([]byte(text), &info.Metadata) != nil {
		info.Metadata = nil
	}
	if system, ok := stat.Sys().(*syscall.Stat_t); ok {
		info.ETag = fmt.Sprintf("%d-%d.%09d-%d", system.Ino, system.Ctim.Sec, system.Ctim.Nsec, system.Size)
	}
	if info.SHA256 == "" && time.Since(info.Modified) > settled && digest == "" {
		info.Version = version(stat)
	}
	return info
}
