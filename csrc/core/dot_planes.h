// The inner loop of cosine_match, linear_match and distance_stats: dot products of P vectors with
// the C-vector of every pixel of a tile, and the squared norm of that C-vector, in one pass over
// the features. In what order depends on how far the channels lie apart (core/dot_strips.h, dot_rows.h),
// on nothing else: not on tiles or threads.
//
//   dots[p, x] = sum_c vectors[c, p] * features[c, x]        norms[x] = sum_c features[c, x]^2
#pragma once

#include "core/dot_rows.h"
#include "core/dot_strips.h"

namespace fsseg {
namespace FSSEG_NS {

// How the pixels of a plane are cut into tasks: tiles of equal size, whole strips. What a pixel gets
// does not depend on its tile, so there may be one for each thread.
struct Tiling {
    int64_t pixels, tile, count;
};

static inline Tiling tile_pixels_of(int64_t pixels, int64_t most, int64_t parts) {
    const int64_t count = larger(divide_up(pixels, most), parts);
    const int64_t tile = round_up(divide_up(pixels, count), strip_floats);
    return {pixels, tile, divide_up(pixels, tile)};
}

constexpr int64_t longest_tile = 4096;

// One tile of n pixels, see DotTile.
static void dot_planes(const float *f, int64_t stride, int64_t channels, int64_t n,
                       const float *packed, int64_t vectors, float *dots, int64_t tile,
                       float *norms) {
    const DotTile t{f, stride, channels, n, dots, tile, norms};
    // Where channels lie a large power of two apart (a map of 64x64), the lines of a strip share a few
    // sets of the caches and drive each other out.
    if (stride != 0 && stride * static_cast<int64_t>(sizeof(float)) % 2048 == 0) {
        dot_by_rows(t, packed, vectors);
    } else {
        dot_by_strips(t, packed, vectors);
    }
}

} // namespace FSSEG_NS
} // namespace fsseg
