package s3api

import (
	"encoding/base64"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// The checksums that S3 verifies and keeps, by their names as Sums.Algorithm.
const (
	CRC32     = "crc32"
	CRC64NVME = "crc64nvme"
	SHA256    = "sha256"
)

// UnsignedPayload is the Hash of a body that the signature does not cover.
const UnsignedPayload = "UNSIGNED-PAYLOAD"

// Sums are what the store verifies of a body, or of a whole object.
type Sums struct {
	Algorithm string // of Checksum; with any other than those above there is none
	Checksum  string // in base64, or ""
	Hash      string // SHA-256 of the body in hex, which the signature covers, or UnsignedPayload; "": it is computed
}

// declared is what the store is told of an algorithm before it gets checksums.
func declared(algorithm string) (types.ChecksumAlgorithm, types.ChecksumType) {
	switch algorithm {
	case CRC32:
		return types.ChecksumAlgorithmCrc32, types.ChecksumTypeFullObject
	case CRC64NVME:
		return types.ChecksumAlgorithmCrc64nvme, types.ChecksumTypeFullObject
	case SHA256:
		return types.ChecksumAlgorithmSha256, types.ChecksumTypeComposite
	default:
		return "", ""
	}
}

// field puts the checksum into the field that a request has for its algorithm.
func (s Sums) field(crc32, crc64, sha256 **string) {
	if s.Checksum == "" {
		return
	}
	switch s.Algorithm {
	case CRC32:
		*crc32 = &s.Checksum
	case CRC64NVME:
		*crc64 = &s.Checksum
	case SHA256:
		*sha256 = &s.Checksum
	}
}

func (s Sums) onPut(in *sdk.PutObjectInput) {
	s.field(&in.ChecksumCRC32, &in.ChecksumCRC64NVME, &in.ChecksumSHA256)
}

func (s Sums) onPart(in *sdk.UploadPartInput) {
	s.field(&in.ChecksumCRC32, &in.ChecksumCRC64NVME, &in.ChecksumSHA256)
}

func (s Sums) onCompleted(in *types.CompletedPart) {
	s.field(&in.ChecksumCRC32, &in.ChecksumCRC64NVME, &in.ChecksumSHA256)
}

// onComplete puts the checksum of a whole object. It is never a SHA-256: the store joins it from those of the parts.
func (s Sums) onComplete(in *sdk.CompleteMultipartUploadInput) {
	s.field(&in.ChecksumCRC32, &in.ChecksumCRC64NVME, new(*string))
	if in.ChecksumCRC32 != nil || in.ChecksumCRC64NVME != nil {
		in.ChecksumType = types.ChecksumTypeFullObject
	}
}

// copiedSums are what the store tells of a part that it has copied. Some stores tell the checksum of the source: if the
// source came in parts, that is not a checksum of its bytes.
func copiedSums(algorithm string, result *types.CopyPartResult) Sums {
	found := Sums{Algorithm: algorithm}
	switch algorithm {
	case CRC32:
		found.Checksum = aws.ToString(result.ChecksumCRC32)
	case CRC64NVME:
		found.Checksum = aws.ToString(result.ChecksumCRC64NVME)
	case SHA256:
		found.Checksum = aws.ToString(result.ChecksumSHA256)
	}
	if strings.Contains(found.Checksum, "-") {
		found.Checksum = ""
	}
	return found
}

func base64Of(sum []byte) string { return base64.StdEncoding.EncodeToString(sum) }
