#include "textflag.h"

// Registers:
//   X0       four words of the schedule with the constants of their rounds
//   X1, X2   the state: words A B E F and C D G H (see Intel's description of SHA256RNDS2)
//   X3 - X6  the last sixteen words of the schedule
//   X7, X15  temporary
//   X8       the order of bytes in a word
//   X9       what the remainder is folded by
//   X10      the value that the checksum begins with, then 0
//   X11 - X14  the remainder of all bytes before, in four lanes

// ROUNDS makes four rounds, with the constants at an offset and the words in X0.
#define ROUNDS(at) \
	PADDD       at(AX), X0; \
	SHA256RNDS2 X0, X1, X2; \
	PSHUFD      $0x0e, X0, X0; \
	SHA256RNDS2 X0, X2, X1

// WORDS reads four words of the block.
#define WORDS(at, to) \
	MOVOU  at(SI), to; \
	PSHUFB X8, to; \
	MOVOA  to, X0

// SCHEDULE makes the next four words, in place of those that are sixteen words back, of the eight before them.
#define SCHEDULE(back, before, last) \
	MOVOA      last, X7; \
	PALIGNR    $4, before, X7; \
	PADDD      X7, back; \
	SHA256MSG2 last, back; \
	MOVOA      back, X0

// NEXT makes four rounds and the next four words, and begins those after them in place of `before`.
#define NEXT(at, back, before, last) \
	ROUNDS(at); \
	SCHEDULE(back, before, last); \
	SHA256MSG1 last, before

// FOLD moves a lane 64 bytes on, and takes 16 bytes of the block into it.
#define FOLD(at, lane) \
	MOVOA     lane, X15; \
	PCLMULQDQ $0x00, X9, X15; \
	PCLMULQDQ $0x11, X9, lane; \
	PXOR      X15, lane; \
	MOVOU     at(SI), X15; \
	PXOR      X15, lane

// func blocks(state *[8]uint32, folded *[64]byte, p []byte)
TEXT ·blocks(SB), NOSPLIT, $32-40
	MOVQ  state+0(FP), DI
	MOVQ  folded+8(FP), BX
	MOVQ  p_base+16(FP), SI
	MOVQ  p_len+24(FP), DX
	ADDQ  SI, DX
	LEAQ  rounds<>(SB), AX
	MOVOU order<>(SB), X8
	MOVOU fold<>(SB), X9
	MOVOU first<>(SB), X10
	PXOR  X11, X11
	PXOR  X12, X12
	PXOR  X13, X13
	PXOR  X14, X14

	MOVOU   0(DI), X1
	MOVOU   16(DI), X2
	PSHUFD  $0xb1, X1, X1
	PSHUFD  $0x1b, X2, X2
	MOVOA   X1, X7
	PALIGNR $8, X2, X1
	PBLENDW $0xf0, X7, X2

loop:
	MOVOU X1, 0(SP)
	MOVOU X2, 16(SP)

	WORDS(0, X3)
	ROUNDS(0)
	FOLD(0, X11)
	PXOR X10, X11
	PXOR X10, X10

	WORDS(16, X4)
	ROUNDS(16)
	SHA256MSG1 X4, X3
	FOLD(16, X12)

	WORDS(32, X5)
	ROUNDS(32)
	SHA256MSG1 X5, X4
	FOLD(32, X13)

	WORDS(48, X6)
	NEXT(48, X3, X5, X6)
	FOLD(48, X14)

	NEXT(64, X4, X6, X3)
	NEXT(80, X5, X3, X4)
	NEXT(96, X6, X4, X5)
	NEXT(112, X3, X5, X6)

	NEXT(128, X4, X6, X3)
	NEXT(144, X5, X3, X4)
	NEXT(160, X6, X4, X5)
	NEXT(176, X3, X5, X6)

	NEXT(192, X4, X6, X3)
	ROUNDS(208)
	SCHEDULE(X5, X3, X4)
	ROUNDS(224)
	SCHEDULE(X6, X4, X5)
	ROUNDS(240)

	MOVOU 0(SP), X7
	PADDD X7, X1
	MOVOU 16(SP), X7
	PADDD X7, X2
	ADDQ  $64, SI
	CMPQ  SI, DX
	JNE   loop

	PSHUFD  $0x1b, X1, X1
	PSHUFD  $0xb1, X2, X2
	MOVOA   X1, X7
	PBLENDW $0xf0, X2, X1
	PALIGNR $8, X7, X2
	MOVOU   X1, 0(DI)
	MOVOU   X2, 16(DI)
	MOVOU   X11, 0(BX)
	MOVOU   X12, 16(BX)
	MOVOU   X13, 32(BX)
	MOVOU   X14, 48(BX)
	RET

// Each word of a block has its first byte highest.
DATA order<>+0(SB)/8, $0x0405060700010203
DATA order<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL order<>(SB), RODATA|NOPTR, $16

// x^575 and x^511 modulo the polynomial, their bits in reverse order: 64 bytes on for either half of a lane.
DATA fold<>+0(SB)/8, $0x0c32cdb31e18a84a
DATA fold<>+8(SB)/8, $0x62242240ace5045a
GLOBL fold<>(SB), RODATA|NOPTR, $16

DATA first<>+0(SB)/8, $0xffffffffffffffff
DATA first<>+8(SB)/8, $0
GLOBL first<>(SB), RODATA|NOPTR, $16

// FIPS 180-4, 4.2.2: of the cube roots of the first 64 primes, the first 32 bits behind the point.
DATA rounds<>+0(SB)/8, $0x71374491428a2f98
DATA rounds<>+8(SB)/8, $0xe9b5dba5b5c0fbcf
DATA rounds<>+16(SB)/8, $0x59f111f13956c25b
DATA rounds<>+24(SB)/8, $0xab1c5ed5923f82a4
DATA rounds<>+32(SB)/8, $0x12835b01d807aa98
DATA rounds<>+40(SB)/8, $0x550c7dc3243185be
DATA rounds<>+48(SB)/8, $0x80deb1fe72be5d74
DATA rounds<>+56(SB)/8, $0xc19bf1749bdc06a7
DATA rounds<>+64(SB)/8, $0xefbe4786e49b69c1
DATA rounds<>+72(SB)/8, $0x240ca1cc0fc19dc6
DATA rounds<>+80(SB)/8, $0x4a7484aa2de92c6f
DATA rounds<>+88(SB)/8, $0x76f988da5cb0a9dc
DATA rounds<>+96(SB)/8, $0xa831c66d983e5152
DATA rounds<>+104(SB)/8, $0xbf597fc7b00327c8
DATA rounds<>+112(SB)/8, $0xd5a79147c6e00bf3
DATA rounds<>+120(SB)/8, $0x1429296706ca6351
DATA rounds<>+128(SB)/8, $0x2e1b213827b70a85
DATA rounds<>+136(SB)/8, $0x53380d134d2c6dfc
DATA rounds<>+144(SB)/8, $0x766a0abb650a7354
DATA rounds<>+152(SB)/8, $0x92722c8581c2c92e
DATA rounds<>+160(SB)/8, $0xa81a664ba2bfe8a1
DATA rounds<>+168(SB)/8, $0xc76c51a3c24b8b70
DATA rounds<>+176(SB)/8, $0xd6990624d192e819
DATA rounds<>+184(SB)/8, $0x106aa070f40e3585
DATA rounds<>+192(SB)/8, $0x1e376c0819a4c116
DATA rounds<>+200(SB)/8, $0x34b0bcb52748774c
DATA rounds<>+208(SB)/8, $0x4ed8aa4a391c0cb3
DATA rounds<>+216(SB)/8, $0x682e6ff35b9cca4f
DATA rounds<>+224(SB)/8, $0x78a5636f748f82ee
DATA rounds<>+232(SB)/8, $0x8cc7020884c87814
DATA rounds<>+240(SB)/8, $0xa4506ceb90befffa
DATA rounds<>+248(SB)/8, $0xc67178f2bef9a3f7
GLOBL rounds<>(SB), RODATA|NOPTR, $256
