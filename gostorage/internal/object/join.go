package object

import (
	"context"
	"time"
)

// Joiner is a Store that can make an object of others. At least most of their bytes do not pass through this process.
type Joiner interface {
	// Join stores the bytes of the parts, one after the other, under the promises of Put. If a part has changed since
	// it was described, the error is a Mismatch. ErrCannotJoin means that nothing was done: the bytes have to be
	// streamed.
	Join(ctx context.Context, join *Join) (Info, error)
}

// ErrCannotJoin is the error of a Join of objects that the Store cannot copy.
var ErrCannotJoin = Errorf(Refused, "the parts cannot be copied here")

// Join is what a Joiner is asked for.
type Join struct {
	Key     string
	From    Store
	Parts   []Info // as From described them; at least one
	Size    int64  // of all of them, in bytes
	Options PutOptions

	// SHA256 gives the digest of the whole. It may take as long as reading the parts, and may fail.
	SHA256 func(context.Context) (string, error)
	// Done is told how many bytes are in place now: those copied, and those that passed through this process.
	Done func(copied, streamed int64)
	// Commit is called once, when all bytes are in place and nothing is visible yet. An error undoes everything.
	Commit func(context.Context) error
}

// Adopter is a Store that can store the digest with an object that is there already. In any other Store an object is
// joined to its own key.
type Adopter interface {
	// Adopt reads the object, stores its digest with it if that is possible, and gives the object with the digest. It is
	// a Mismatch if the object is no longer the one described, or the digest is not the one described.
	Adopt(ctx context.Context, described Info) (Info, error)
}

// Link says what a URL of an object allows, and what its answer says of the object.
type Link struct {
	Method      string // GET, HEAD or PUT; POST begins a multipart upload
	Expires     time.Duration
	ContentType string // of the answer, or of the body of a PUT or POST; "" for that of the object, or any
	Disposition string // Content-Disposition of the answer, or ""
	Size        int64  // of the body of a PUT; -1 for any
	CreateOnly  bool   // a PUT, or the end of an upload: refused where an object is there
	NoCopy      bool   // a PUT: it has a body of its own, whatever else its client sends

	// For a request about a multipart upload: its id. GET lists its parts, PUT stores one, POST ends it, DELETE aborts it.
	Upload string
	Part   int32 // number of the part
}

// Linked is a URL, and the headers that a request has to have with it.
type Linked struct {
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"` // without Content-Length, which a client sets by itself
}

// Linker is a Store whose objects have URLs for everybody.
type Linker interface {
	// Link gives a URL for the request that link describes. The object need not be there.
	Link(ctx context.Context, key string, link Link) (Linked, error)
}

// Keeper is a Store that can store a record with an object that is there already.
type Keeper interface {
	// Keep stores the record with the object if it still is the one described, and tells whether it did.
	Keep(ctx context.Context, described Info, record string) (bool, error)
}
