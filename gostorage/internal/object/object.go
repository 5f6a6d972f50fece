// Package object says what a Store is: a flat space of keys, each of which names whole, immutable bytes.
//
// The temp parts and the final objects of an adapter are two Stores, so that neither can name an object of the other.
package object

import (
	"context"
	"errors"
	"hash"
	"io"
	"iter"
	"time"
)

// Info is what a Store knows of an object. SHA256 is lower-case hex, or empty if the store cannot know it. CRC64NVME is
// that of the whole object as S3 writes it (big-endian, in base64), or empty.
type Info struct {
	Key       string `json:"key"`
	Size      int64  `json:"size"`
	SHA256    string `json:"sha256"`
	CRC64NVME string `json:"-"`

	// Stored is the digest that was stored with the object, if somebody may have written to it since. Then SHA256 is
	// not known, and whoever reads the whole object finds out.
	Stored string `json:"-"`
	// ETag changes when the bytes do. Reads and copies that must not see other bytes use it.
	ETag string `json:"-"`
	// Version was never given to other bytes, not even by somebody who wants that; empty if there is none.
	Version string `json:"-"`
	// Record is what the Source wanted to store with its bytes, if it was stored.
	Record   string    `json:"-"`
	Modified time.Time `json:"-"` // zero if the store does not tell

	// ContentType and Metadata are known from Get and Stat. If nobody has told them, or the store could not keep them, the
	// type is "" or application/octet-stream, and the metadata empty. Names of metadata may differ in case from those
	// that were given.
	ContentType string            `json:"-"`
	Metadata    map[string]string `json:"-"`
}

// Same tells whether these are the bytes that were described before. A digest tells more than an ETag, which may change
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
	New         bool // with Overwrite false: also an object of the same bytes is in the way
	ContentType string
	Metadata    map[string]string
}

// Source gives the bytes of one object, once, forwards. A Store reads it in one of three ways, and does not mix them:
// Read, WriteTo, or Next.
//
// The end is reported only if the bytes are what the caller expects. After any error but io.EOF, no byte may become
// visible.
type Source interface {
	io.Reader
	io.WriterTo

	// Sum gives the size in bytes and the SHA-256 in hex of all bytes.
	// Before: the end was reported.
	Sum() (size int64, sha256 string)

	// Record gives what is to be stored with the object if that is possible, or "".
	// Before: the end was reported.
	Record() string

	// Expected gives what the caller said of the bytes: size -1 and no digest if it said nothing. It may be called at
	// any time.
	Expected() (size int64, sha256 string)

	// Next lends the next bytes, without a copy, to a Store that keeps them for a while. It waits until worth bytes
	// have come, or the end.
	// After: the block belongs to the Store until the Store releases it. At the end the error is io.EOF.
	Next(ctx context.Context, worth int64) (Block, error)

	// Reserve says how many bytes the Store needs at once to go on at all, how many it could use if there is memory,
	// and which checksum of each block it will ask for, or nil. It may be called again when that changes.
	Reserve(need, most int64, checksum Checksum)

	// Refused gives how many bytes of memory the Store may have if it could use more and there was no more, or 0 if that
	// has not happened since this was asked last.
	Refused() int64
}

// Checksum writes a block to a hash and gives its checksum.
type Checksum func(h hash.Hash, p []byte) uint64

// Block is memory on loan. All blocks of a Source but the last are of one size.
type Block interface {
	// Bytes are the bytes of the block. They do not change, and must not be written to.
	Bytes() []byte
	// Checksum is the checksum of the bytes, if it was computed when they came: see Source.Reserve.
	Checksum() (sum uint64, ok bool)
	// Release gives the memory back. After: nobody reads it. It is called once.
	Release()
}

// BlockSize in bytes is large enough that a write costs little, and small enough to stay in a core's cache between the
// copy, the hash and the write.
const BlockSize = 256 << 10

// MaxSize in bytes is the largest object: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html. A larger
// number from a store is not a size.
const MaxSize = 5 << 40

// Range is what the caller wants to read. Length -1 means to the end.
type Range struct{ Start, Length int64 }

// Whole is all of an object.
var Whole = Range{Length: -1}

// ErrNotYet is the error of a ReadAt that has no more bytes now and is not at the end: ask again. With it, callers that
// look for signals do not wait long for a slow store.
var ErrNotYet = Errorf(Internal, "no more bytes yet")

// Reader reads one object as it was when it was opened, whatever becomes of the key. Several threads may call its
// methods.
type Reader interface {
	// ReadAt gives the bytes from an offset on that are there. If they are fewer than asked for, the error is io.EOF at
	// the end of the object, else ErrNotYet: ask again for the rest.
	io.ReaderAt
	// Close frees what the Reader holds. After: reads fail with Closed. It may be called again.
	io.Closer
	// Info describes the object, with its size.
	Info() Info
}

// Mutable is a Reader of bytes that somebody else can overwrite in place.
type Mutable interface {
	// Unchanged tells whether nobody has done so since the Reader was opened.
	Unchanged() bool
}

// Store is one flat key space. Several goroutines may call its methods.
//
// Before each call: keys have passed CheckKey, and Close was not called. After each call that fails: the error is an
// *Error, or the cause of ctx, and the Store holds nothing for the call any more.
type Store interface {
	// Put stores all of src at key.
	// After success: the key has these bytes and no others, and Info tells their SHA-256. With Overwrite false, the key
	// had no object, or one of the same bytes. Of several writers with different bytes just one succeeds, and the
	// others get Exists. With New, of several writers of any bytes just one succeeds.
	// After an error: the key is as it was. If the store did not tell what became of the last request, and a look does
	// not show it either, the object may be there: the error is Unavailable or Timeout then.
	Put(ctx context.Context, key string, src Source, opts PutOptions) (Info, error)

	// Get opens the object. The range is a hint: any other may be read, too.
	// After success: the caller closes the Reader, which outlives ctx. A missing key is NotFound here, never at the
	// first read.
	Get(ctx context.Context, key string, hint Range) (Reader, error)

	// Stat describes the object without reading it, with all that Info has. A missing key is NotFound.
	Stat(ctx context.Context, key string) (Info, error)

	// Delete removes the object.
	// After success: the key has no object; it need not have had one.
	Delete(ctx context.Context, key string) error

	// DeleteMany removes the objects; missing keys are no errors.
	// After an error: it is about one object, which its Key names, and the others are gone; or it is about the store,
	// and any of the objects may be there.
	DeleteMany(ctx context.Context, keys []string) error

	// List gives all objects below a folder, ordered by key, each once.
	// Before: prefix ends with a slash.
	List(ctx context.Context, prefix string) ([]Info, error)

	// Walk gives the objects whose keys begin with a prefix, which may end anywhere, and come after a text, in the order
	// of keys and each once. It holds a page of them, however many there are. Their digests may be unknown. So may their
	// times, which are zero then: they may be young. An error with a key is about what lies there, or below it if the
	// key ends in a slash; the rest comes after it.
	Walk(ctx context.Context, prefix, after string) iter.Seq2[Info, error]

	Sweeper

	// Check writes, syncs and removes a probe that no key can name.
	Check(ctx context.Context) error

	// Close frees what the Store holds open; objects stay. Running calls end with Closed. It is called once.
	Close() error
}

// Yielding is a Store whose short operations keep a thread that is not their own for nothing that takes long: they wait
// and work with package task. Short are Get, Stat, Delete, and a Put whose bytes are all there.
type Yielding interface {
	Store
	Yields()
}

// Same settles a put that found an object at its key: an identical object is success, so that a retry is safe.
func (o PutOptions) Same(there, put Info) (Info, error) {
	switch {
	case o.New:
		return Info{}, Errorf(Exists, "an object is already there")
	case there.Size == put.Size && there.SHA256 == put.SHA256:
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
			return err // about the store, and not about this object
		}
		if failed == nil {
			failed = err
		}
	}
	return failed
}
