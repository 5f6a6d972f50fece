package checksum

import "github.com/klauspost/cpuid/v2"

var supported = cpuid.CPU.Supports(cpuid.SHA, cpuid.CLMUL, cpuid.SSSE3, cpuid.SSE4)

// blocks takes whole blocks of SHA-256 into its state, and gives 64 bytes that have the same remainder as all of them:
// that of a checksum which begins with all bits set.
//
//go:noescape
func blocks(state *[8]uint32, folded *[64]byte, p []byte)
