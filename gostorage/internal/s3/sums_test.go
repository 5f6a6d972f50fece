package s3

import (
	"testing"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// BenchmarkSums is what the checksums of a part cost, beside the SHA-256 of the whole that is computed anyway.
func BenchmarkSums(b *testing.B) {
	block := &endless{bytes: make([]byte, object.BlockSize)}
	for name, exposed := range map[string]bool{"checksum": false, "checksum and signature": true} {
		b.Run(name, func(b *testing.B) {
			store := &Store{client: &client{exposed: exposed}, config: Config{Checksum: checksumAuto}}
			sums := store.summer(checksumCRC64)
			b.SetBytes(object.BlockSize)
			for b.Loop() {
				sums.take(block)
			}
		})
	}
}
