// Package checksum has the checksums that S3 verifies. It computes one of them, CRC-64/NVME, in one pass with a
// SHA-256.
//
// Each round of SHA-256 waits for the round before it, and most of a core idles meanwhile. The checksum is computed
// between the rounds, mostly in this idle time. The idea is Intel's: V. Gopal et al., Fast Cryptographic Computation on
// Intel Architecture Processors Via Function Stitching, 2010.
package checksum

import (
	"crypto/fips140"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash"

	"github.com/minio/crc64nvme"
)

// The form in which crypto/sha256 marshals: a word, the state, bytes that wait for more, and how many bytes it has
// seen.
const (
	magic   = "sha\x03"
	stateAt = len(magic)
	countAt = stateAt + sha256.Size + sha256.BlockSize
	length  = countAt + 8
)

// A validated module (FIPS 140) computes its digests itself.
var possible = supported && !fips140.Enabled()

// SHA256CRC64 writes bytes to a hash of crypto/sha256, and gives their CRC-64/NVME. If ok is false it has done neither:
// the processor lacks the instructions, or the bytes are not whole blocks of the hash.
func SHA256CRC64(h hash.Hash, p []byte) (sum uint64, ok bool) {
	if !possible || len(p) == 0 || len(p)%sha256.BlockSize != 0 {
		return 0, false
	}
	marshalled, ok := marshal(h)
	if !ok {
		return 0, false
	}
	count := binary.BigEndian.Uint64(marshalled[countAt:])
	if count%sha256.BlockSize != 0 {
		return 0, false
	}
	var state [8]uint32
	for i := range state {
		state[i] = binary.BigEndian.Uint32(marshalled[stateAt+4*i:])
	}
	var folded [64]byte
	blocks(&state, &folded, p)
	for i, word := range state {
		binary.BigEndian.PutUint32(marshalled[stateAt+4*i:], word)
	}
	binary.BigEndian.PutUint64(marshalled[countAt:], count+uint64(len(p)))
	if h.(encoding.BinaryUnmarshaler).UnmarshalBinary(marshalled) != nil {
		return 0, false
	}
	// Folding has kept the remainder. It began as a checksum does, with all bits set; Update inverts the sum that it
	// gets.
	return crc64nvme.Update(^uint64(0), folded[:]), true
}

// marshal gives the state of a hash; false if the hash is not of crypto/sha256, or if the form is not the one known
// here.
func marshal(h hash.Hash) ([]byte, bool) {
	appender, appends := h.(encoding.BinaryAppender)
	_, takes := h.(encoding.BinaryUnmarshaler)
	if !appends || !takes {
		return nil, false
	}
	marshalled, err := appender.AppendBinary(make([]byte, 0, length))
	return marshalled, err == nil && len(marshalled) == length && string(marshalled[:stateAt]) == magic
}
