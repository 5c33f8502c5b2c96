// Cosines of P prototypes with the pixels of one tile: what cosine_match and distance_stats share.
//
// Fast path: float32 dots with unit prototypes, divided by the float32 norm. Where a squared norm is
// so large or so small (or zero, or NaN) that float32 squares lose digits, the tile is done again
// pixel by pixel in double: right for every float32 input, and the place where NaN and infinity are
// noticed without a pass of its own over the features.
#pragma once

#include "core/dot_planes.h"
#include "core/norms.h"

namespace fsseg {
namespace FSSEG_NS {

constexpr float smallest_square = 1e-24f, largest_square = 1e36f;

static bool tile_in_range(const float *norms, int64_t n) {
    bool within = true;
    for (int64_t x = 0; x < n; x += lanes) {
        const int count = static_cast<int>(smaller(lanes, n - x));
        within = within && all_within(load(norms + x), smallest_square, largest_square, count);
    }
    return within;
}

// The slow path for the pixels whose norm is out of range: dots becomes factor * cosine.
// False: a feature is not finite.
static bool careful_pixels(const float *f, int64_t stride, int64_t channels, int64_t n,
                           const float *packed, int64_t vectors, float factor, float *dots,
                           int64_t tile, const float *norms) {
    for (int64_t x = 0; x < n; ++x) {
        if (norms[x] >= smallest_square && norms[x] <= largest_square) { continue; }
        double square = 0.0;
        for (int64_t c = 0; c < channels; ++c) {
            const double value = f[c * stride + x];
            square += value * value;
        }
        if (!finite(square)) { return false; }
        const double inverse = square > 0.0 ? factor / ::sqrt(square) : 0.0;
        const float *group = packed;
        for (int64_t p = 0; p < vectors; ++p) {
            const int64_t first = p / group_vectors * group_vectors;
            const int64_t size = smaller(group_vectors, vectors - first);
            double dot = 0.0;
            for (int64_t c = 0; c < channels; ++c) {
                dot += static_cast<double>(f[c * stride + x]) * group[c * size + (p - first)];
            }
            dots[p * tile + x] = static_cast<float>(dot * inverse);
            if (p - first + 1 == size) { group += size * channels; }
        }
    }
    return true;
}

// dots[p, x] = factor * cosine(prototype p, pixel x) for n pixels; packed holds unit prototypes.
// False: a feature is not finite.
static bool cosine_tile(const float *f, int64_t stride, int64_t channels, int64_t n,
                        const float *packed, int64_t vectors, float factor, float *dots,
                        int64_t tile, float *norms) {
    dot_planes(f, stride, channels, n, packed, vectors, dots, tile, norms);
    const bool in_range = tile_in_range(norms, n);
    for (int64_t x = 0; x < n; x += lanes) {
        // Out of range: careful_pixels overwrites what is made of these.
        const vf inverse = div(set1(factor), sqrt(load(norms + x)));
        for (int64_t p = 0; p < vectors; ++p) {
            float *at = dots + p * tile + x;
            store(at, mul(load(at), inverse));
        }
    }
    return in_range ||
           careful_pixels(f, stride, channels, n, packed, vectors, factor, dots, tile, norms);
}

} // namespace FSSEG_NS
} // namespace fsseg
