package digest

import (
	"crypto/sha256"
	"encoding"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// Record is the SHA-256 of a run of parts, in a form that can be continued over the next part.
//
// It holds only for these contents in this order: the chain is made of the digests of the parts. Whoever uses a record
// computes the chain of the parts that are there now. So a part that was put again, deleted or moved makes the record
// worthless, but never wrong.
type Record struct {
	Size  int64 // of the run, in bytes
	Chain Chain
	state string // the state of crypto/sha256, as its MarshalBinary gives it
}

// Chain names a run of parts by their contents.
type Chain [sha256.Size]byte

// Add gives the chain of the run with one more part. It needs the part's digest.
func (c Chain) Add(part object.Info) (Chain, bool) {
	sum, err := hex.DecodeString(part.SHA256)
	if err != nil || len(sum) != sha256.Size {
		return Chain{}, false
	}
	text := append(c[:], sum...)
	return sha256.Sum256(binary.BigEndian.AppendUint64(text, uint64(part.Size))), true
}

// Start is the record of no parts at all.
func Start() Record { return record(sha256.New(), 0, Chain{}) }

func record(state hash.Hash, size int64, chain Chain) Record {
	marshalled, err := state.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return Record{}
	}
	return Record{Size: size, Chain: chain, state: string(marshalled)}
}

// Hash gives the hash in its state after the run.
func (r Record) Hash() (hash.Hash, bool) {
	resumed := sha256.New()
	err := resumed.(encoding.BinaryUnmarshaler).UnmarshalBinary([]byte(r.state))
	return resumed, err == nil
}

// SHA256 is the digest of the run.
func (r Record) SHA256() string {
	resumed, ok := r.Hash()
	if !ok {
		return ""
	}
	return Sum(resumed)
}

// Add gives the record of the run with one more part. state is the hash after that part.
func (r Record) Add(part object.Info, state hash.Hash) (Record, bool) {
	chain, ok := r.Chain.Add(part)
	return record(state, r.Size+part.Size, chain), ok
}

const recordVersion = "v1 sha256"

// String is the form in which a record is stored. It has a checksum, since the hash would accept a damaged state.
func (r Record) String() string {
	text := fmt.Sprintf("%s %d %s %s", recordVersion, r.Size, encode(r.Chain[:]), encode([]byte(r.state)))
	return Seal(text)
}

// Seal adds a checksum to a text.
func Seal(text string) string { return text + " " + checksum(text) }

// Unseal gives a text without its checksum; false if the checksum does not fit the text.
func Unseal(text string) (string, bool) {
	end := strings.LastIndexByte(text, ' ')
	if end < 0 || checksum(text[:end]) != text[end+1:] {
		return "", false
	}
	return text[:end], true
}

// ParseRecord reads a record; false if the text is not a record, or was damaged.
func ParseRecord(text string) (Record, bool) {
	text, ok := Unseal(text)
	if !ok {
		return Record{}, false
	}
	var parsed Record
	var chain, state string
	n, err := fmt.Sscanf(text, recordVersion+" %d %s %s", &parsed.Size, &chain, &state)
	if n != 3 || err != nil || copy(parsed.Chain[:], decode(chain)) != len(parsed.Chain) {
		return Record{}, false
	}
	parsed.state = string(decode(state))
	// The last eight bytes of a state tell how many bytes the hash has seen.
	if _, ok = parsed.Hash(); !ok || int64(binary.BigEndian.Uint64([]byte(parsed.state[len(parsed.state)-8:]))) != parsed.Size {
		return Record{}, false
	}
	return parsed, true
}

func encode(p []byte) string { return base64.RawStdEncoding.EncodeToString(p) }

func decode(text string) []byte {
	p, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return p
}

func checksum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return encode(sum[:12])
}

// Sum is the digest of what a hash has seen, in lower-case hex.
func Sum(of hash.Hash) string { return hex.EncodeToString(of.Sum(nil)) }
