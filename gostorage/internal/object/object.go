// Package object says what a Store is: a flat space of keys, each naming whole, immutable bytes.
//
// The temp parts and the final objects of an adapter are two Stores, so that neither can name what the other holds.
package object

import (
	"context"
	"errors"
	"hash"
	"io"
	"time"
)

// Info is what a Store knows of an object. SHA256 is lower-case hex, or empty where the store cannot know it;
// CRC64NVME is that of the whole object as S3 writes it (big-endian, in base64), or empty.
type Info struct {
	Key       string `json:"key"`
	Size      int64  `json:"size"`
	SHA256    string `json:"sha256"`
	CRC64NVME string `json:"-"`

	// Stored is the digest that was stored with the object, where it may have been written to since: SHA256 is not known
	// then, and whoever reads all of it finds out.
	Stored string `json:"-"`
	// ETag changes when the bytes do: for reads and copies that must not see others.
	ETag string `json:"-"`
	// Version was never given to other bytes, not even by someone who wants that; empty where there is none.
	Version string `json:"-"`
	// Record is what the Source wanted to be kept with its bytes, where it was kept.
	Record   string    `json:"-"`
	Modified time.Time `json:"-"`
}

// Same tells whether these are the bytes that were described before. A digest tells more than a tag, which may change
// with the object's time.
func (i Info) Same(described Info) bool {
	if i.Size != described.Size {
		return false
	}
	if i.SHA256 != "" && described.SHA256 != "" {
		return i.SHA256 == described.SHA256
	}
	return i.ETag != "" && i.ETag == described.ETag
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

	// Record is to be kept with the object where that is possible; only after the end.
	Record() string

	// Expected is what the caller said of the bytes: size -1 and no digest where it did not.
	Expected() (size int64, sha256 string)

	// Next lends the next bytes, without a copy, to a Store that keeps them for a while. It is woken when as many
	// bytes as are worth it have come, or the end.
	Next(ctx context.Context, worth int64) (Block, error)

	// Hold says how many bytes the Store needs at once to go on at all, how many it could use if there is memory for
	// them, and which checksum of each block it will ask for.
	Hold(need, most int64, checksum Checksum)
}

// Checksum writes a block to a hash and gives its checksum.
type Checksum func(h hash.Hash, p []byte) uint64

// Block is memory on loan until it is released. All blocks of a Source but the last are of one size.
type Block interface {
	Bytes() []byte
	// Checksum is that of the bytes, if it was computed when they came.
	Checksum() (sum uint64, ok bool)
	Release()
}

// BlockSize in bytes: large enough that a write costs little, small enough to stay in a core's cache between the copy,
// the hash and the write.
const BlockSize = 256 << 10

// MaxSize in bytes is the most that an object has: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html.
// A number from a store that is larger is none.
const MaxSize = 5 << 40

// Range is what the caller means to read: Length -1 is to the end.
type Range struct{ Start, Length int64 }

// Whole is all of an object.
var Whole = Range{Length: -1}

// ErrNotYet is the error of a ReadAt that has no more bytes now and is not at the end: ask again. It keeps callers that
// see to signals from waiting long for a slow store.
var ErrNotYet = Errorf(Internal, "no more bytes yet")

// Reader reads one object as it was when it was opened, whatever becomes of the key.
type Reader interface {
	io.ReaderAt
	io.Closer
	Info() Info
}

// Mutable is a Reader of bytes to which somebody else can write where they are.
type Mutable interface {
	// Unchanged tells whether nobody has, since it was opened.
	Unchanged() bool
}

// Store is one flat key space. Keys have passed CheckKey before they come here.
type Store interface {
	// Put stores all of src at key: the object appears whole or not at all. If src or ctx fails, the key is as it
	// was. With Overwrite false exactly one of several writers wins; an identical object already there is success,
	// a different one is Exists.
	Put(ctx context.Context, key string, src Source, opts PutOptions) (Info, error)

	// Get opens the object. A missing key is NotFound here, never at the first read. The range is a hint: any other
	// may be read too.
	Get(ctx context.Context, key string, hint Range) (Reader, error)

	// Stat describes the object without reading it. A missing key is NotFound.
	Stat(ctx context.Context, key string) (Info, error)

	// Delete removes the object. A missing key is not an error.
	Delete(ctx context.Context, key string) error

	// DeleteMany removes the objects. Missing keys are not errors. One that cannot be removed keeps no other from being so.
	DeleteMany(ctx context.Context, keys []string) error

	// List gives all objects below the folder prefix (it ends with a slash), ordered by key.
	List(ctx context.Context, prefix string) ([]Info, error)

	Sweeper

	// Check writes, syncs and removes a probe that no key can name.
	Check(ctx context.Context) error

	// Close frees what the Store holds open. Objects stay.
	Close() error
}

// Yielding is a Store of which Put with all bytes there, Get, Stat and Delete keep their thread for nothing that takes
// long, if it is not their own: they wait and work by package task.
type Yielding interface {
	Store
	Yields()
}

// Same settles a put that found an object already there: an identical one is success, so that a retry is safe.
func Same(there, put Info) (Info, error) {
	if there.Size == put.Size && there.SHA256 == put.SHA256 {
		return there, nil
	}
	return Info{}, Errorf(Exists, "a different object is already there")
}

// DeleteEach is DeleteMany for a Store that deletes one by one.
func DeleteEach(ctx context.Context, s Store, keys []string) (failed error) {
	for _, key := range keys {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := s.Delete(ctx, key)
		if known, ok := errors.AsType[*Error](err); ok && known.Retryable {
			return err // of the store, and not of this object
		}
		if failed == nil {
			failed = err
		}
	}
	return failed
}
