package object

import "context"

// Joiner is a Store that can make an object out of others without their bytes passing through this process, at least for
// the most part.
type Joiner interface {
	// Join stores the bytes of the parts, one after the other, under the promises of Put. A part that has changed since
	// it was described is a Mismatch. ErrCannotJoin means that nothing was done: the bytes have to be streamed.
	Join(ctx context.Context, join *Join) (Info, error)
}

// ErrCannotJoin is the error of a Join of objects that the Store has no way to copy.
var ErrCannotJoin = Errorf(Refused, "the parts cannot be copied here")

// Join is what a Joiner is asked for.
type Join struct {
	Key     string
	From    Store
	Parts   []Info // as From described them; at least one
	Size    int64  // of all of them, in bytes
	Options PutOptions

	// SHA256 is the digest of all of it. It may take as long as it takes to read the parts, and fail.
	SHA256 func(context.Context) (string, error)
	// Done is told of bytes that are in place: how many were copied, and how many of this process have passed.
	Done func(copied, streamed int64)
	// Commit is called once, when all bytes are in place and nothing is visible yet; an error undoes it all.
	Commit func(context.Context) error
}

// Keeper is a Store that can keep a record with an object that is there already.
type Keeper interface {
	// Keep notes the record with the object if that still is the one described, and tells whether it did.
	Keep(ctx context.Context, described Info, record string) (bool, error)
}
