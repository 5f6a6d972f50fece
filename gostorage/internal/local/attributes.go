package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// The extended attributes that are kept with an object; user.mime_type is the freedesktop.org name.
const (
	digestAttribute      = "user.gostorage.sha256"
	recordAttribute      = "user.gostorage.record"
	contentTypeAttribute = "user.mime_type"
	metadataAttribute    = "user.gostorage.metadata"
)

// writeAttributes keeps digest, record, content type and metadata with the file, where the file system can. Elsewhere
// the digest of a listing is unknown, info loses its record, and nothing else is lost.
func writeAttributes(file *os.File, info *object.Info, opts object.PutOptions) error {
	if err := set(file, digestAttribute, digestRecord(info)); err != nil {
		return err
	}
	if info.Record != "" {
		if err := set(file, recordAttribute, info.Record); err != nil {
			return err
		}
		info.Record = get(file, recordAttribute)
	}
	if opts.ContentType != "" {
		if err := set(file, contentTypeAttribute, opts.ContentType); err != nil {
			return err
		}
	}
	if len(opts.Metadata) > 0 {
		metadata, err := json.Marshal(opts.Metadata)
		if err != nil {
			return err
		}
		return set(file, metadataAttribute, string(metadata))
	}
	return nil
}

func set(file *os.File, name, value string) error {
	err := unix.Fsetxattr(int(file.Fd()), name, []byte(value), 0)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

// get gives a short attribute, or "".
func get(file *os.File, name string) string {
	value := make([]byte, 512)
	n, err := unix.Fgetxattr(int(file.Fd()), name, value)
	if err != nil {
		return ""
	}
	return string(value[:n])
}

func digestRecord(info *object.Info) string { return fmt.Sprintf("v1 %s %d", info.SHA256, info.Size) }

// describe tells what is known of an opened file.
func describe(key string, file *os.File, stat fs.FileInfo) object.Info {
	info := object.Info{
		Key: key, Size: stat.Size(), Modified: stat.ModTime(),
		SHA256: readDigest(file, stat.Size()), Record: get(file, recordAttribute),
	}
	if system, ok := stat.Sys().(*syscall.Stat_t); ok {
		info.ETag = fmt.Sprintf("%d-%d.%09d-%d", system.Ino, system.Ctim.Sec, system.Ctim.Nsec, system.Size)
	}
	return info
}

// readDigest gives the digest kept with the file, or "" when there is none or the file has another size since.
func readDigest(file *os.File, size int64) string {
	var sum string
	var was int64
	_, err := fmt.Sscanf(get(file, digestAttribute), "v1 %64s %d", &sum, &was)
	if err != nil || was != size || len(sum) != 64 {
		return ""
	}
	return sum
}
