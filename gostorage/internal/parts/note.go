package parts

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// suffix comes after the name of a part in the name of its sidecar. The name of a part is a number.
const suffix = ".digest"

func sidecar(key string) string { return key + suffix }

// isSidecar tells a sidecar from a part.
func isSidecar(key string) bool { return strings.HasSuffix(key, suffix) }

// note is what a sidecar says of a part: what could not be stored with the part itself when it was put.
type note struct {
	version string
	size    int64
	sha256  string
	record  string
}

// about adds what the note knows to a part, if the note is about these very bytes.
func (n note) about(part *object.Info) {
	same := part.SHA256 == n.sha256
	if part.SHA256 == "" {
		same = part.Version != "" && part.Version == n.version
	}
	if !same || part.Size != n.size {
		return
	}
	part.SHA256 = n.sha256
	part.Record = strings.TrimSpace(part.Record + "\n" + n.record)
}

// records are the records of a part: one in the part itself and one beside it. Either may be out of date.
func records(part object.Info) []digest.Record {
	var found []digest.Record
	for text := range strings.Lines(part.Record) {
		if record, ok := digest.ParseRecord(strings.TrimSpace(text)); ok {
			found = append(found, record)
		}
	}
	return found
}

const noteVersion = "v1 part"

// text is the content of the sidecar.
func (n note) text() string {
	return digest.Seal(fmt.Sprintf("%s %q %d %q %q", noteVersion, n.version, n.size, n.sha256, n.record))
}

func parseNote(text string) (n note, ok bool) {
	text, ok = digest.Unseal(text)
	if !ok {
		return note{}, false
	}
	count, err := fmt.Sscanf(text, noteVersion+" %q %d %q %q", &n.version, &n.size, &n.sha256, &n.record)
	return n, count == 4 && err == nil && len(n.sha256) == 64
}

// readNote gives what the sidecar of a part says, or nothing if there is none, or none that can be believed.
func readNote(ctx context.Context, from object.Store, key string) (note, error) {
	opened, err := from.Get(ctx, sidecar(key), object.Whole)
	if object.CodeOf(err) == object.NotFound {
		return note{}, nil
	}
	if err != nil {
		return note{}, err
	}
	defer func() { _ = opened.Close() }()
	text := make([]byte, min(opened.Info().Size, 4096))
	for at := 0; at < len(text); {
		if ctx.Err() != nil {
			return note{}, context.Cause(ctx)
		}
		n, err := opened.ReadAt(text[at:], int64(at))
		at += n
		if err == io.EOF && at < len(text) {
			return note{}, nil
		}
		if err != nil && err != io.EOF && err != object.ErrNotYet {
			return note{}, err
		}
	}
	n, _ := parseNote(string(text))
	return n, nil
}

// writeNote puts the sidecar of a part.
func writeNote(ctx context.Context, to object.Store, key string, n note) error {
	text := []byte(n.text())
	pipe := digest.NewPipe(buffers.Shared, digest.Expect{Size: int64(len(text))})
	defer pipe.Close()
	if _, err := pipe.Write(text, time.Second); err != nil {
		return err
	}
	pipe.CloseWrite()
	_, err := to.Put(ctx, sidecar(key), pipe, object.PutOptions{Overwrite: true})
	return err
}

// keep stores the record of a run with the part at its end: in the part itself if the store can, else beside it.
func keep(ctx context.Context, in object.Store, part object.Info, record digest.Record) error {
	if keeper, ok := in.(object.Keeper); ok {
		if kept, err := keeper.Keep(ctx, part, record.String()); kept || err != nil {
			return err
		}
	}
	return writeNote(ctx, in, part.Key, note{part.Version, part.Size, part.SHA256, record.String()})
}

// Delete removes a part and its sidecar.
func Delete(ctx context.Context, from object.Store, key string) error {
	return from.DeleteMany(ctx, []string{sidecar(key), key})
}

// DeleteAll removes all that lies in a folder, and tells how many of these were parts.
func DeleteAll(ctx context.Context, from object.Store, folder string) (int, error) {
	found, err := from.List(ctx, folder)
	if err != nil {
		return 0, err
	}
	keys, count := make([]string, len(found)), 0
	for i, info := range found {
		keys[i] = info.Key
		if !isSidecar(info.Key) {
			count++
		}
	}
	return count, from.DeleteMany(ctx, keys)
}
