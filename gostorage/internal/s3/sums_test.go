package s3

import (
	"crypto/sha256"
	"testing"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/s3api"
)

// BenchmarkSums is what the checksums of a part cost, beside the SHA-256 of the whole that is computed anyway.
func BenchmarkSums(b *testing.B) {
	block := &endless{bytes: make([]byte, object.BlockSize)}
	for name, signs := range map[string]bool{"checksum": false, "checksum and signature": true} {
		b.Run(name, func(b *testing.B) {
			sums := newSummer(s3api.CRC64NVME)
			if signs {
				sums.digest = sha256.New()
			}
			b.SetBytes(object.BlockSize)
			for b.Loop() {
				sums.add(block)
			}
		})
	}
}
