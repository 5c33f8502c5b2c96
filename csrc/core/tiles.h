// The tile instructions of AMX, for the AVX-512 level: eight tiles of 16 rows of 64 bytes.
//
// Written in assembly: the compiler needs no flags for them and may not move memory across them (GCC
// 12 dropped the stores of the configuration before its own intrinsic). FSSEG_AMX_EMULATED=1 does the
// same in C++, for tests on processors without AMX (tests/ops/emulated_tiles.sh).
#pragma once

#include "core/simd.h"

namespace fsseg {
namespace FSSEG_NS {

#if FSSEG_AMX_EMULATED

static thread_local uint8_t emulated_tiles[8][16][64];

static inline void tiles_begin() { memset(emulated_tiles, 0xff, sizeof emulated_tiles); }
static inline void tiles_end() { memset(emulated_tiles, 0xff, sizeof emulated_tiles); }
template <int TILE> static inline void tile_zero() {
    memset(emulated_tiles[TILE], 0, sizeof emulated_tiles[TILE]);
}
template <int TILE> static inline void tile_load(const void *from, int64_t stride) {
    for (int64_t r = 0; r < 16; ++r) {
        memcpy(emulated_tiles[TILE][r], static_cast<const char *>(from) + r * stride, 64);
    }
}
template <int TILE> static inline void tile_store(void *to, int64_t stride) {
    for (int64_t r = 0; r < 16; ++r) {
        memcpy(static_cast<char *>(to) + r * stride, emulated_tiles[TILE][r], 64);
    }
}
static inline float emulated_bf16(const uint8_t *at) {
    const uint32_t bits = static_cast<uint32_t>(at[0]) << 16 | static_cast<uint32_t>(at[1]) << 24;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
template <int SUM, int A, int B> static inline void tile_dot() {
    for (int m = 0; m < 16; ++m) {
        for (int n = 0; n < 16; ++n) {
            float sum, even = 0.0f, odd = 0.0f;
            uint8_t *at = emulated_tiles[SUM][m] + 4 * n;
            memcpy(&sum, at, sizeof sum);
            for (int k = 0; k < 16; ++k) {
                const uint8_t *a = emulated_tiles[A][m] + 4 * k, *b = emulated_tiles[B][k] + 4 * n;
                even += emulated_bf16(a) * emulated_bf16(b);
                odd += emulated_bf16(a + 2) * emulated_bf16(b + 2);
            }
            sum += even + odd;
            memcpy(at, &sum, sizeof sum);
        }
    }
}

#else

// Each thread configures its own tiles, and gives them back so that their state is not saved for it.
static inline void tiles_begin() {
    alignas(64) uint8_t shape[64] = {1}; // palette 1
    for (int t = 0; t < 8; ++t) {
        shape[16 + 2 * t] = 64; // bytes of a row
        shape[48 + t] = 16;     // rows
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(shape) : "memory");
}
static inline void tiles_end() { __asm__ volatile("tilerelease" : : : "memory"); }
template <int TILE> static inline void tile_zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(TILE));
}
template <int TILE> static inline void tile_load(const void *from, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"
                     :
                     : "r"(from), "r"(stride), "i"(TILE)
                     : "memory");
}
template <int TILE> static inline void tile_store(void *to, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                     :
                     : "r"(to), "r"(stride), "i"(TILE)
                     : "memory");
}
// SUM [16][16] float32 += A [16][32] bfloat16 times B [16 pairs of rows][16][2].
template <int SUM, int A, int B> static inline void tile_dot() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUM), "i"(A), "i"(B));
}

#endif

} // namespace FSSEG_NS
} // namespace fsseg
