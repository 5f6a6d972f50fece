package s3

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/checksum"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
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
	crc       *checksum.CRC // of checksumCRC32 and checksumCRC64
	part      uint64
	size      int64 // of the part, in bytes
	whole     uint64
	digest    hash.Hash // per part, of other algorithms or for the signature
}

// summer computes what goes with the parts of an object by an algorithm. Over plain http to another machine the payload is
// signed besides, unless the option names a checksum: a relay that changes bytes can mend any other checksum.
func (s *Store) summer(algorithm string) *summer {
	made := newSummer(algorithm)
	if s.signs() && made.digest == nil {
		made.digest = sha256.New()
	}
	return made
}

// signs tells whether the signature is over the payload where a checksum would do.
func (s *Store) signs() bool {
	return s.client.exposed && (s.config.Checksum == checksumAuto || s.config.Checksum == checksumOff)
}

func newSummer(algorithm string) *summer {
	s := &summer{algorithm: algorithm}
	switch algorithm {
	case checksumCRC32:
		s.crc = checksum.CRC32IEEE
	case checksumCRC64:
		s.crc = checksum.CRC64NVME
	case checksumSHA256, checksumSigned:
		s.digest = sha256.New()
	}
	return s
}

func (s *summer) take(block object.Block) {
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

// cut gives the sums of the part that was taken since the last one.
func (s *summer) cut() sums {
	part := sums{algorithm: s.algorithm, hash: unsigned}
	if s.digest != nil {
		sum := s.digest.Sum(nil)
		s.digest.Reset()
		part.hash, part.checksum = hex.EncodeToString(sum), base64Of(sum)
	}
	if s.crc != nil {
		s.whole = s.crc.Join(s.whole, s.part, s.size)
		part.checksum = aws.String(s.crc.Text(s.part))
		s.part, s.size = 0, 0
	}
	return part
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

// copiedSums are what the server says of a part that it has copied. Some tell the checksum of the source, which is none
// of its bytes if that came in parts.
func copiedSums(algorithm string, result *types.CopyPartResult) sums {
	found := sums{algorithm: algorithm}
	switch algorithm {
	case checksumCRC32:
		found.checksum = result.ChecksumCRC32
	case checksumCRC64:
		found.checksum = result.ChecksumCRC64NVME
	case checksumSHA256:
		found.checksum = result.ChecksumSHA256
	}
	if strings.Contains(aws.ToString(found.checksum), "-") {
		found.checksum = nil
	}
	return found
}

// withoutSums takes all checksums out of a request that ends an upload.
func withoutSums(in *sdk.CompleteMultipartUploadInput) {
	in.ChecksumCRC32, in.ChecksumCRC64NVME, in.ChecksumType = nil, nil, ""
	for i := range in.MultipartUpload.Parts {
		part := &in.MultipartUpload.Parts[i]
		part.ChecksumCRC32, part.ChecksumCRC64NVME, part.ChecksumSHA256 = nil, nil, nil
	}
}

func (s *summer) onComplete(in *sdk.CompleteMultipartUploadInput) {
	switch s.algorithm {
	case checksumCRC32:
		in.ChecksumCRC32, in.ChecksumType = aws.String(s.crc.Text(s.whole)), types.ChecksumTypeFullObject
	case checksumCRC64:
		in.ChecksumCRC64NVME, in.ChecksumType = aws.String(s.crc.Text(s.whole)), types.ChecksumTypeFullObject
	}
}
