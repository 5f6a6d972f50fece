package checksum

import (
	"crypto/md5"
	"crypto/sha256"
	"hash"
	"math/rand"
	"testing"

	"github.com/minio/crc64nvme"
)

// check writes bytes to a hash that has seen others, and compares what comes of it with what two passes give.
func check(t *testing.T, before, p []byte) {
	t.Helper()
	both, alone := sha256.New(), sha256.New()
	both.Write(before)
	alone.Write(before)
	alone.Write(p)
	sum, ok := SHA256CRC64(both, p)
	if !ok {
		t.Fatalf("%d bytes behind %d are not taken", len(p), len(before))
	}
	if want := crc64nvme.Checksum(p); sum != want {
		t.Errorf("the CRC of %d bytes is %016x, not %016x", len(p), sum, want)
	}
	if string(both.Sum(nil)) != string(alone.Sum(nil)) {
		t.Errorf("the SHA-256 of %d bytes behind %d is wrong", len(p), len(before))
	}
	both.Write([]byte("more"))
	alone.Write([]byte("more"))
	if string(both.Sum(nil)) != string(alone.Sum(nil)) {
		t.Errorf("the hash cannot go on after %d bytes behind %d", len(p), len(before))
	}
}

func random(size int) []byte {
	p := make([]byte, size)
	rand.New(rand.NewSource(int64(size))).Read(p)
	return p
}

func TestBothAreThoseOfTwoPasses(t *testing.T) {
	if !possible {
		t.Skip("this processor lacks the instructions")
	}
	memory := random(256<<10 + 64)
	for blocks := 1; blocks <= 130; blocks++ {
		check(t, nil, memory[:64*blocks])
	}
	for shift := range 64 { // memory that Python gives begins anywhere
		check(t, memory[:128], memory[shift:shift+640])
	}
	check(t, memory[:64], memory[:256<<10])
	check(t, nil, make([]byte, 4096))
	for _, fill := range []byte{0x00, 0xff, 0x80, 0x01} {
		p := make([]byte, 192)
		for i := range p {
			p[i] = fill
		}
		check(t, nil, p)
	}
}

func TestWhatIsNotTaken(t *testing.T) {
	within := sha256.New()
	within.Write([]byte("a"))
	for name, one := range map[string]struct {
		hash hash.Hash
		size int
	}{
		"no bytes":             {sha256.New(), 0},
		"less than a block":    {sha256.New(), 63},
		"more than a block":    {sha256.New(), 65},
		"within a block":       {within, 64},
		"another hash":         {md5.New(), 64},
		"the hash of 224 bits": {sha256.New224(), 64},
	} {
		before := string(one.hash.Sum(nil))
		if _, ok := SHA256CRC64(one.hash, make([]byte, one.size)); ok {
			t.Errorf("%s: taken", name)
		}
		if string(one.hash.Sum(nil)) != before {
			t.Errorf("%s: the hash has seen bytes", name)
		}
	}
}

func FuzzBoth(f *testing.F) {
	f.Add([]byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"), uint8(3))
	f.Fuzz(func(t *testing.T, p []byte, before uint8) {
		if p = p[:len(p)/64*64]; possible && len(p) > 0 {
			check(t, random(64*int(before)), p)
		}
	})
}

func benchmark(b *testing.B, work func(hash.Hash, []byte)) {
	p, h := random(256<<10), sha256.New()
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		work(h, p)
	}
}

func BenchmarkTogether(b *testing.B) {
	benchmark(b, func(h hash.Hash, p []byte) { SHA256CRC64(h, p) })
}

func BenchmarkOneAfterTheOther(b *testing.B) {
	benchmark(b, func(h hash.Hash, p []byte) { h.Write(p); crc64nvme.Update(0, p) })
}

func BenchmarkSHA256Alone(b *testing.B) {
	benchmark(b, func(h hash.Hash, p []byte) { h.Write(p) })
}
