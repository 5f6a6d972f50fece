package checksum

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
			sum64 = CRC64NVME.Join(sum64, CRC64NVME.Update(0, piece), int64(size))
			sum32 = CRC32IEEE.Join(sum32, CRC32IEEE.Update(0, piece), int64(size))
		}
		if sum64 != crc64nvme.Checksum(whole) {
			t.Fatalf("CRC64NVME of %v: %x, not %x", sizes, sum64, crc64nvme.Checksum(whole))
		}
		if sum32 != uint64(crc32.ChecksumIEEE(whole)) {
			t.Fatalf("CRC32 of %v: %x, not %x", sizes, sum32, crc32.ChecksumIEEE(whole))
		}
	}
}
