package s3

import (
	"encoding/base64"
	"hash"
	"hash/crc32"
	"math/bits"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/minio/crc64nvme"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/stitch"
)

// crc is a cyclic redundancy check whose values for pieces give that of the whole: each block is summed once, while it
// is in the cache, and parts and object come of that by arithmetic.
type crc struct {
	update     func(sum uint64, p []byte) uint64
	stitched   func(h hash.Hash, p []byte) (sum uint64, ok bool) // in one pass with a hash, or nil
	bytes      int                                               // of a value
	polynomial uint64                                            // bit-reversed
	zeros      func() []matrix
}

var (
	crc64NVME = newCRC(crc{
		update: crc64nvme.Update, stitched: stitch.SHA256CRC64, bytes: 8, polynomial: 0x9a6c9329ac4bc9b5,
	})
	crc32IEEE = newCRC(crc{update: updateCRC32, bytes: 4, polynomial: crc32.IEEE})
)

func updateCRC32(sum uint64, p []byte) uint64 {
	return uint64(crc32.Update(uint32(sum), crc32.IEEETable, p))
}

func newCRC(c crc) *crc {
	c.zeros = sync.OnceValue(c.doublings)
	return &c
}

// beside is object.Checksum.
func (c *crc) beside(h hash.Hash, p []byte) uint64 {
	if c.stitched != nil {
		if sum, ok := c.stitched(h, p); ok {
			return sum
		}
	}
	h.Write(p)
	return c.update(0, p)
}

// join gives the value of two runs of bytes, of which the second has so many.
func (c *crc) join(first, second uint64, size int64) uint64 {
	for i := 0; size > 0 && first != 0; i, size = i+1, size>>1 {
		if size&1 == 1 {
			first = c.zeros()[i].times(first)
		}
	}
	return first ^ second
}

// text is a value as S3 writes it.
func (c *crc) text(sum uint64) *string {
	bytes := make([]byte, c.bytes)
	for i := range bytes {
		bytes[i] = byte(sum >> (8 * (c.bytes - 1 - i)))
	}
	return base64Of(bytes)
}

// value reads what text has written.
func (c *crc) value(text *string) (sum uint64, ok bool) {
	bytes, err := base64.StdEncoding.DecodeString(aws.ToString(text))
	for _, b := range bytes {
		sum = sum<<8 | uint64(b)
	}
	return sum, err == nil && len(bytes) == c.bytes
}

// matrix is a linear map over bits: a column for each bit of the argument.
type matrix []uint64

func (m matrix) times(vector uint64) uint64 {
	var product uint64
	for ; vector != 0; vector &= vector - 1 {
		product ^= m[bits.TrailingZeros64(vector)]
	}
	return product
}

func (m matrix) after(first matrix) matrix {
	product := make(matrix, len(m))
	for i, column := range first {
		product[i] = m.times(column)
	}
	return product
}

// doublings are what 1, 2, 4, 8... zero bytes do to a value.
func (c *crc) doublings() []matrix {
	width := 8 * c.bytes
	power := make(matrix, width) // one zero bit
	power[0] = c.polynomial
	for i := 1; i < width; i++ {
		power[i] = 1 << (i - 1)
	}
	for range 3 { // one zero byte
		power = power.after(power)
	}
	all := make([]matrix, 0, 63)
	for len(all) < cap(all) {
		all = append(all, power)
		power = power.after(power)
	}
	return all
}
