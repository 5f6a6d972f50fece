package s3

import (
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/minio/crc64nvme"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

func TestJoinedChecksumsAreThatOfTheWhole(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		sizes := []int{random.IntN(4), random.IntN(100_000), object.BlockSize, random.IntN(2), object.BlockSize}
		var whole []byte
		var sum64, sum32 uint64
		for _, size := range sizes {
			piece := make([]byte, size)
			for i := range piece {
				piece[i] = byte(random.Uint32())
			}
			whole = append(whole, piece...)
			sum64 = crc64NVME.join(sum64, crc64NVME.update(0, piece), int64(size))
			sum32 = crc32IEEE.join(sum32, crc32IEEE.update(0, piece), int64(size))
		}
		if sum64 != crc64nvme.Checksum(whole) {
			t.Fatalf("CRC64NVME of %v: %x, not %x", sizes, sum64, crc64nvme.Checksum(whole))
		}
		if sum32 != uint64(crc32.ChecksumIEEE(whole)) {
			t.Fatalf("CRC32 of %v: %x, not %x", sizes, sum32, crc32.ChecksumIEEE(whole))
		}
	}
}

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
