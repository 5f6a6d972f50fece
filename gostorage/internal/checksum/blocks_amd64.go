package checksum

import "github.com/klauspost/cpuid/v2"

var supported = cpuid.CPU.Supports(cpuid.SHA, cpuid.CLMUL, cpuid.SSSE3, cpuid.SSE4)

// blocks hashes whole blocks into the state of a SHA-256. It gives 64 bytes that have the same remainder as all these
// blocks, in a checksum that begins with all bits set.
//
//go:noescape
func blocks(state *[8]uint32, folded *[64]byte, p []byte)
