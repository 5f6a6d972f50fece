package s3

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"hash/crc32"

	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/minio/crc64nvme"
)

// Words of Signature Version 4 for a payload that the signature does not cover.
const unsigned = "UNSIGNED-PAYLOAD"

// The values of the option "checksum". signed is what auto falls back to where a server refuses checksums: the hash of
// each part is in its signature.
const (
	checksumAuto   = "auto"
	checksumCRC32  = "crc32"
	checksumCRC64  = "crc64nvme"
	checksumSHA256 = "sha256"
	checksumOff    = "off"
	checksumSigned = "signed"
)

// sums are what the server verifies of one request's body: the checksum in base64, and the payload's hash.
type sums struct {
	algorithm string
	checksum  *string
	hash      string
}

// summer computes the checksums of the parts of one object, and that of all of it where they have one.
type summer struct {
	algorithm string
	part      hash.Hash
	whole     hash.Hash // nil: the algorithm has none
}

func newSummer(algorithm string) *summer {
	s := &summer{algorithm: algorithm}
	switch algorithm {
	case checksumCRC32:
		s.part, s.whole = crc32.NewIEEE(), crc32.NewIEEE()
	case checksumCRC64:
		s.part, s.whole = crc64nvme.New(), crc64nvme.New()
	case checksumSHA256, checksumSigned:
		s.part = sha256.New()
	}
	return s
}

func (s *summer) take(bytes []byte) {
	if s.part != nil {
		s.part.Write(bytes)
	}
	if s.whole != nil {
		s.whole.Write(bytes)
	}
}

// cut gives the sums of the part that was taken since the last one.
func (s *summer) cut() sums {
	switch s.algorithm {
	case checksumOff:
		return sums{algorithm: s.algorithm, hash: unsigned}
	case checksumSHA256, checksumSigned:
		sum := s.part.Sum(nil)
		s.part.Reset()
		return sums{algorithm: s.algorithm, checksum: base64Of(sum), hash: hex.EncodeToString(sum)}
	default:
		sum := s.part.Sum(nil)
		s.part.Reset()
		return sums{algorithm: s.algorithm, checksum: base64Of(sum), hash: unsigned}
	}
}

func base64Of(sum []byte) *string {
	text := base64.StdEncoding.EncodeToString(sum)
	return &text
}

// declared is what CreateMultipartUpload is told of the algorithm.
func declared(algorithm string) (types.ChecksumAlgorithm, types.ChecksumType) {
	switch algorithm {
	case checksumCRC32:
		return types.ChecksumAlgorithmCrc32, types.ChecksumTypeFullObject
	case checksumCRC64:
		return types.ChecksumAlgorithmCrc64nvme, types.ChecksumTypeFullObject
	case checksumSHA256:
		return types.ChecksumAlgorithmSha256, types.ChecksumTypeComposite
	default:
		return "", ""
	}
}

func (s sums) onPart(in *sdk.UploadPartInput) {
	switch s.algorithm {
	case checksumCRC32:
		in.ChecksumCRC32 = s.checksum
	case checksumCRC64:
		in.ChecksumCRC64NVME = s.checksum
	case checksumSHA256:
		in.ChecksumSHA256 = s.checksum
	}
}

func (s sums) onCompleted(in *types.CompletedPart) {
	switch s.algorithm {
	case checksumCRC32:
		in.ChecksumCRC32 = s.checksum
	case checksumCRC64:
		in.ChecksumCRC64NVME = s.checksum
	case checksumSHA256:
		in.ChecksumSHA256 = s.checksum
	}
}

func (s *summer) onComplete(in *sdk.CompleteMultipartUploadInput) {
	switch s.algorithm {
	case checksumCRC32:
		in.ChecksumCRC32, in.ChecksumType = base64Of(s.whole.Sum(nil)), types.ChecksumTypeFullObject
	case checksumCRC64:
		in.ChecksumCRC64NVME, in.ChecksumType = base64Of(s.whole.Sum(nil)), types.ChecksumTypeFullObject
	}
}
