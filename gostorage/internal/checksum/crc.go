package checksum

import (
	"encoding/base64"
	"hash"
	"hash/crc32"
	"math/bits"
	"sync"

	"github.com/minio/crc64nvme"
)

// CRC is a cyclic redundancy check: the values of pieces give the value of the whole. Each block is summed once, while
// it is in the cache. The values of parts and of the object are computed from these sums.
type CRC struct {
	update     func(sum uint64, p []byte) uint64
	stitched   func(h hash.Hash, p []byte) (sum uint64, ok bool) // in one pass with a hash, or nil
	bytes      int                                               // length of a value
	polynomial uint64                                            // bit-reversed
	zeros      func() []matrix
}

// The checksums that S3 knows, by these names.
var (
	CRC64NVME = newCRC(CRC{
		update: crc64nvme.Update, stitched: SHA256CRC64, bytes: 8, polynomial: 0x9a6c9329ac4bc9b5,
	})
	CRC32IEEE = newCRC(CRC{update: updateCRC32, bytes: 4, polynomial: crc32.IEEE})
)

func updateCRC32(sum uint64, p []byte) uint64 {
	return uint64(crc32.Update(uint32(sum), crc32.IEEETable, p))
}

// Update gives the value of the bytes that sum stands for, with p behind them.
func (c *CRC) Update(sum uint64, p []byte) uint64 { return c.update(sum, p) }

func newCRC(c CRC) *CRC {
	c.zeros = sync.OnceValue(c.doublings)
	return &c
}

// Beside is an object.Checksum.
func (c *CRC) Beside(h hash.Hash, p []byte) uint64 {
	if c.stitched != nil {
		if sum, ok := c.stitched(h, p); ok {
			return sum
		}
	}
	h.Write(p)
	return c.update(0, p)
}

// Join gives the value of two runs of bytes, one after the other. size is the length of the second in bytes.
func (c *CRC) Join(first, second uint64, size int64) uint64 {
	for i := 0; size > 0 && first != 0; i, size = i+1, size>>1 {
		if size&1 == 1 {
			first = c.zeros()[i].times(first)
		}
	}
	return first ^ second
}

// Text is a value as S3 writes it.
func (c *CRC) Text(sum uint64) string {
	bytes := make([]byte, c.bytes)
	for i := range bytes {
		bytes[i] = byte(sum >> (8 * (c.bytes - 1 - i)))
	}
	return base64.StdEncoding.EncodeToString(bytes)
}

// Value reads what Text has written.
func (c *CRC) Value(text string) (sum uint64, ok bool) {
	bytes, err := base64.StdEncoding.DecodeString(text)
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

// doublings are the maps that 1, 2, 4, 8... zero bytes apply to a value.
func (c *CRC) doublings() []matrix {
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
