// Package object says what a Store is: a flat space of keys, each naming whole, immutable bytes.
//
// The temp parts and the final objects of an adapter are two Stores, so that neither can name what the other holds.
package object

import (
	"context"
	"io"
)

// Info is what a Store knows of an object. SHA256 is lower-case hex, or empty where the store cannot know it.
type Info struct {
	Key    string `json:"key"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// PutOptions say how an object is stored.
type PutOptions struct {
	Overwrite   bool
	ContentType string
	Metadata    map[string]string
}

// Source gives the bytes of one object, once, forwards.
//
// Read and WriteTo report the end only when the bytes are what the caller expects; any error but io.EOF means that
// nothing may become visible. Size and SHA256 may be asked after the end.
type Source interface {
	io.Reader
	io.WriterTo
	Sum() (size int64, sha256 string)
}

// Reader reads one object as it was when it was opened, whatever becomes of the key.
type Reader interface {
	io.ReaderAt
	io.Closer
	Info() Info
}

// Store is one flat key space. Keys have passed CheckKey before they come here.
type Store interface {
	// Put stores all of src at key: the object appears whole or not at all. If src or ctx fails, the key is as it
	// was. With Overwrite false exactly one of several writers wins; an identical object already there is success,
	// a different one is Exists.
	Put(ctx context.Context, key string, src Source, opts PutOptions) (Info, error)

	// Get opens the object. A missing key is NotFound here, never at the first read.
	Get(ctx context.Context, key string) (Reader, error)

	// Stat describes the object without reading it. A missing key is NotFound.
	Stat(ctx context.Context, key string) (Info, error)

	// Delete removes the object. A missing key is not an error.
	Delete(ctx context.Context, key string) error

	// List gives all objects below the folder prefix (it ends with a slash), ordered by key.
	List(ctx context.Context, prefix string) ([]Info, error)

	// Check writes, syncs and removes a probe that no key can name.
	Check(ctx context.Context) error

	// Close frees what the Store holds open. Objects stay.
	Close() error
}

// Same settles a put that found an object already there: an identical one is success, so that a retry is safe.
func Same(there, put Info) (Info, error) {
	if there.Size == put.Size && there.SHA256 == put.SHA256 {
		return there, nil
	}
	return Info{}, Errorf(Exists, "a different object is already there")
}
