// The inner loop of cosine_match, linear_match and distance_stats: dot products of P vectors with
// the C-vector of every pixel of a tile, and the squared norm of that C-vector, in one pass over
// the features.
//
//   dots[p, x] = sum_c vectors[c, p] * features[c, x]        norms[x] = sum_c features[c, x]^2
//
// Order: blocks of channels, in a block groups of vectors, in a group steps of pixels. A block of
// channels is a handful of sequential streams, which the prefetchers follow; sums of one block stay
// in registers and are added to the sums in memory, so rounding grows with C / 16 + 16, not with C.
#pragma once

#include "core/simd.h"

namespace fsseg {
namespace FSSEG_NS {

constexpr int64_t block_channels = 16;
constexpr int64_t group_vectors = 6; // most vectors in one group
#if defined(FSSEG_SIMD_AVX512) || defined(FSSEG_SIMD_NEON)
constexpr int dot_registers = 24; // of 32, for sums
#else
constexpr int dot_registers = 12; // of 16
#endif

// Pixels of one step: a cache line of each channel, so that a block is 16 streams read side by side
// (longer steps were slower: the processor looks ahead over fewer streams).
constexpr int line_steps = 16 / lanes;

// How the pixels of a plane are cut into tasks: tiles of equal size, whole vectors; long, for long
// streams. What a pixel gets does not depend on its tile, so there may be one for each thread.
struct Tiling {
    int64_t pixels, tile, count;
};

static inline Tiling tile_pixels_of(int64_t pixels, int64_t most, int64_t parts) {
    const int64_t count = larger(divide_up(pixels, most), parts);
    const int64_t tile = round_up(divide_up(pixels, count), 64);
    return {pixels, tile, divide_up(pixels, tile)};
}

constexpr int64_t longest_tile = 4096;

// vectors [P, C] (any row stride) -> groups one after another, each [C, size of the group], so that the
// loop over channels reads them in order. `scale[p]` multiplies row p.
static inline void pack_vectors(const float *rows, int64_t row_stride, const double *scale,
                                int64_t vectors, int64_t channels, float *packed) {
    for (int64_t first = 0; first < vectors; first += group_vectors) {
        const int64_t size = smaller(group_vectors, vectors - first);
        for (int64_t p = 0; p < size; ++p) {
            const float *row = rows + (first + p) * row_stride;
            for (int64_t c = 0; c < channels; ++c) {
                packed[c * size + p] = static_cast<float>(row[c] * scale[first + p]);
            }
        }
        packed += size * channels;
    }
}

template <int P, bool NORM, int STEPS, bool WHOLE>
static inline void dot_step(const float *f, int64_t stride, int64_t channels, const float *packed,
                            float *dots, int64_t dots_stride, float *norms, int rest,
                            int64_t ahead) {
    vf dot[P][STEPS], norm[STEPS];
    for (int s = 0; s < STEPS; ++s) {
        norm[s] = zero();
        for (int p = 0; p < P; ++p) { dot[p][s] = zero(); }
    }
    for (int64_t c = 0; c < channels; ++c) {
        // With many vectors the arithmetic fills the processor's window: it sees no further load.
        if (WHOLE && P > 3) { prefetch(f + c * stride + ahead); }
        for (int s = 0; s < STEPS; ++s) {
            const float *at = f + c * stride + s * lanes;
            vf feature = WHOLE ? load(at) : load_n(at, rest);
            keep(feature);
            if (NORM) { norm[s] = fma(feature, feature, norm[s]); }
            for (int p = 0; p < P; ++p) {
                dot[p][s] = fma(feature, set1(packed[c * P + p]), dot[p][s]);
            }
        }
    }
    for (int s = 0; s < STEPS; ++s) { // dots and norms are whole vectors: no tail
        if (NORM) { store(norms + s * lanes, add(load(norms + s * lanes), norm[s])); }
        for (int p = 0; p < P; ++p) {
            float *at = dots + p * dots_stride + s * lanes;
            store(at, add(load(at), dot[p][s]));
        }
    }
}

template <int P, bool NORM> static void dot_block(const float *f, int64_t stride, int64_t channels,
                                                  int64_t n, const float *packed, float *dots,
                                                  int64_t dots_stride, float *norms,
                                                  int64_t ahead) {
    constexpr int fit = dot_registers / (P + (NORM ? 1 : 0));
    constexpr int steps = fit < line_steps ? fit : line_steps;
    int64_t x = 0;
    for (; x + steps * lanes <= n; x += steps * lanes) {
        dot_step<P, NORM, steps, true>(f + x, stride, channels, packed, dots + x, dots_stride,
                                       norms + x, 0, ahead);
    }
    for (; x + lanes <= n; x += lanes) {
        dot_step<P, NORM, 1, true>(f + x, stride, channels, packed, dots + x, dots_stride,
                                   norms + x, 0, ahead);
    }
    if (x < n) {
        dot_step<P, NORM, 1, false>(f + x, stride, channels, packed, dots + x, dots_stride,
                                    norms + x, static_cast<int>(n - x), ahead);
    }
}

template <bool NORM> static void dot_group(int64_t p, const float *f, int64_t stride,
                                           int64_t channels, int64_t n, const float *packed,
                                           float *dots, int64_t dots_stride, float *norms,
                                           int64_t ahead) {
    switch (p) {
    case 1:
        return dot_block<1, NORM>(f, stride, channels, n, packed, dots, dots_stride, norms, ahead);
    case 2:
        return dot_block<2, NORM>(f, stride, channels, n, packed, dots, dots_stride, norms, ahead);
    case 3:
        return dot_block<3, NORM>(f, stride, channels, n, packed, dots, dots_stride, norms, ahead);
    case 4:
        return dot_block<4, NORM>(f, stride, channels, n, packed, dots, dots_stride, norms, ahead);
    case 5:
        return dot_block<5, NORM>(f, stride, channels, n, packed, dots, dots_stride, norms, ahead);
    default:
        return dot_block<6, NORM>(f, stride, channels, n, packed, dots, dots_stride, norms, ahead);
    }
}

// One tile. dots [vectors, tile] and norms [tile] hold whole vectors (tile is a multiple of lanes)
// and are overwritten; norms is null where norms are not wanted.
static void dot_planes(const float *f, int64_t stride, int64_t channels, int64_t n,
                       const float *packed, int64_t vectors, float *dots, int64_t tile,
                       float *norms) {
    memset(dots, 0, static_cast<size_t>(vectors * tile) * sizeof(float));
    if (norms != nullptr) { memset(norms, 0, static_cast<size_t>(tile) * sizeof(float)); }
    for (int64_t c = 0; c < channels; c += block_channels) {
        const int64_t depth = smaller(block_channels, channels - c);
        // The same pixels of the next block; at the end there is none.
        const int64_t ahead = c + 2 * block_channels <= channels ? block_channels * stride : 0;
        const float *group = packed;
        for (int64_t first = 0; first < vectors; first += group_vectors) {
            const int64_t size = smaller(group_vectors, vectors - first);
            if (norms != nullptr && first == 0) {
                dot_group<true>(size, f + c * stride, stride, depth, n, group + c * size, dots,
                                tile, norms, ahead);
            } else {
                dot_group<false>(size, f + c * stride, stride, depth, n, group + c * size,
                                 dots + first * tile, tile, dots, ahead);
            }
            group += size * channels;
        }
    }
}

} // namespace FSSEG_NS
} // namespace fsseg
