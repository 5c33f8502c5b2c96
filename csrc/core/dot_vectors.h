// What the two ways of dot_planes (core/dot_planes.h) share: how vectors are packed, what a tile is.
#pragma once

#include "core/simd.h"

namespace fsseg {
namespace FSSEG_NS {

constexpr int64_t group_vectors = 6; // most vectors in one group
#if defined(FSSEG_SIMD_AVX512) || defined(FSSEG_SIMD_NEON)
constexpr int dot_registers = 24; // of 32, for sums
#else
constexpr int dot_registers = 12; // of 16
#endif

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

// One tile of n pixels. dots [vectors, tile] and norms [tile] hold whole vectors (tile is a multiple of
// lanes) and are overwritten; norms is null where norms are not wanted.
struct DotTile {
    const float *f;
    int64_t stride, channels, n;
    float *dots;
    int64_t tile;
    float *norms;
};

} // namespace FSSEG_NS
} // namespace fsseg
