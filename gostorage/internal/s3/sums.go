package s3

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"net/http"
	"slices"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/checksum"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/s3api"
)

// The values of the option "checksum" besides the algorithms of s3api. auto falls back to signed if a server refuses
// checksums: then the hash of each part is in its signature.
const (
	checksumAuto   = "auto"
	checksumOff    = "off"
	checksumSigned = "signed"
)

// summer computes the checksums of the parts of one object, and that of the whole object if there is one.
type summer struct {
	algorithm string
	crc       *checksum.CRC // of crc32 and crc64nvme
	part      uint64
	size      int64 // of the part, in bytes
	whole     uint64
	digest    hash.Hash // per part, of other algorithms or for the signature
}

// summer computes what goes with the parts of an object by an algorithm. Over plain http to another machine, the payload is
// also signed, unless the option names a checksum: a relay that changes bytes can correct any other checksum.
func (s *Store) summer(algorithm string) *summer {
	made := newSummer(algorithm)
	if s.signs() && made.digest == nil {
		made.digest = sha256.New()
	}
	return made
}

// signs tells whether the signature covers the payload although a checksum would do.
func (s *Store) signs() bool {
	return s.bucket.Exposed() && (s.config.Checksum == checksumAuto || s.config.Checksum == checksumOff)
}

func newSummer(algorithm string) *summer {
	s := &summer{algorithm: algorithm}
	switch algorithm {
	case s3api.CRC32:
		s.crc = checksum.CRC32IEEE
	case s3api.CRC64NVME:
		s.crc = checksum.CRC64NVME
	case s3api.SHA256, checksumSigned:
		s.digest = sha256.New()
	}
	return s
}

func (s *summer) add(block object.Block) {
	bytes := block.Bytes()
	if s.digest != nil {
		s.digest.Write(bytes)
	}
	if s.crc != nil {
		sum, ok := block.Checksum()
		if !ok {
			sum = s.crc.Update(0, bytes)
		}
		s.part = s.crc.Join(s.part, sum, int64(len(bytes)))
		s.size += int64(len(bytes))
	}
}

// cut gives the sums of the part that was taken since the last cut.
func (s *summer) cut() s3api.Sums {
	part := s3api.Sums{Algorithm: s.algorithm, Hash: s3api.UnsignedPayload}
	if s.digest != nil {
		sum := s.digest.Sum(nil)
		s.digest.Reset()
		part.Hash, part.Checksum = hex.EncodeToString(sum), base64.StdEncoding.EncodeToString(sum)
	}
	if s.crc != nil {
		s.whole = s.crc.Join(s.whole, s.part, s.size)
		part.Checksum = s.crc.Text(s.part)
		s.part, s.size = 0, 0
	}
	return part
}

// complete gives the sum of all that was taken, if the algorithm has one.
func (s *summer) complete() s3api.Sums {
	if s.crc == nil {
		return s3api.Sums{}
	}
	return s3api.Sums{Algorithm: s.algorithm, Checksum: s.crc.Text(s.whole)}
}

// maybeUnsupported tells whether a server may not know the checksums that "auto" has sent: without them the request may
// succeed. A server that finds fault with the parts, or has found other bytes, is believed.
func (s *Store) maybeUnsupported(err error) bool {
	failed, ok := errors.AsType[*object.Error](err)
	return ok && s.config.Checksum == checksumAuto && slices.Contains(stumbling, failed.Status) &&
		!slices.Contains(believed, failed.Said)
}

var (
	stumbling = []int{http.StatusBadRequest, http.StatusInternalServerError, http.StatusNotImplemented}
	believed  = []string{
		"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody",
		"InvalidPart", "InvalidPartOrder", "EntityTooSmall", "EntityTooLarge", "RequestTimeout", "ExpiredToken",
	}
)
