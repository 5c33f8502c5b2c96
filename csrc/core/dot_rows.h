// dot_planes by rows: blocks of channels, and in a block steps of one cache line of each channel, so that
// a block is 16 streams read side by side (longer steps were slower: the processor looks ahead over
// fewer streams).
//
// Sums of one block stay in registers and are added to the sums in memory, so rounding grows with
// C / 16 + 16, not with C.
#pragma once

#include "core/dot_vectors.h"

namespace fsseg {
namespace FSSEG_NS {

constexpr int64_t side_by_side = 16;
constexpr int line_steps = 16 / lanes;

template <int P, bool NORM, int STEPS, bool WHOLE>
static inline void row_step(const float *f, int64_t stride, int64_t channels, const float *packed,
                            float *dots, int64_t dots_stride, float *norms, int rest,
                            int64_t ahead) {
    vf dot[P][STEPS], norm[STEPS];
    for (int s = 0; s < STEPS; ++s) {
        norm[s] = zero();
        for (int p = 0; p < P; ++p) { dot[p][s] = zero(); }
    }
    for (int64_t c = 0; c < channels; ++c) {
        // With many vectors the arithmetic fills the processor's window: it sees no further load.
        if (WHOLE && P > 3) { prefetch<2>(f + c * stride, ahead); }
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

// A function of its own: inlined into the ops, its inner loop lost a tenth of its speed (GCC 12).
#if defined(__GNUC__)
#define FSSEG_APART __attribute__((noinline))
#else
#define FSSEG_APART
#endif
template <int P, bool NORM>
FSSEG_APART static void row_block(const float *f, int64_t stride, int64_t channels, int64_t n,
                                  const float *packed, float *dots, int64_t dots_stride,
                                  float *norms, int64_t ahead) {
    constexpr int fit = dot_registers / (P + (NORM ? 1 : 0));
    constexpr int steps = fit < line_steps ? fit : line_steps;
    int64_t x = 0;
    for (; x + steps * lanes <= n; x += steps * lanes) {
        row_step<P, NORM, steps, true>(f + x, stride, channels, packed, dots + x, dots_stride,
                                       norms + x, 0, ahead);
    }
    for (; x + lanes <= n; x += lanes) {
        row_step<P, NORM, 1, true>(f + x, stride, channels, packed, dots + x, dots_stride,
                                   norms + x, 0, ahead);
    }
    if (x < n) {
        row_step<P, NORM, 1, false>(f + x, stride, channels, packed, dots + x, dots_stride,
                                    norms + x, static_cast<int>(n - x), ahead);
    }
}

template <bool NORM> static void row_group(int64_t p, const float *f, int64_t stride,
                                           int64_t channels, int64_t n, const float *packed,
                                           float *dots, int64_t dots_stride, float *norms,
                                           int64_t ahead) {
    switch (p) {
    case 1:
        return row_block<1, NORM>(f, stride, channels, n, packed, dots, dots_stride, norms, ahead);
    case 2:
        return row_block<2, NORM>(f, stride, channels, n, packed, dots, dots_stride, norms, ahead);
    case 3:
        return row_block<3, NORM>(f, stride, channels, n, packed, dots, dots_stride, norms, ahead);
    case 4:
        return row_block<4, NORM>(f, stride, channels, n, packed, dots, dots_stride, norms, ahead);
    case 5:
        return row_block<5, NORM>(f, stride, channels, n, packed, dots, dots_stride, norms, ahead);
    default:
        return row_block<6, NORM>(f, stride, channels, n, packed, dots, dots_stride, norms, ahead);
    }
}

static void dot_by_rows(const DotTile &t, const float *packed, int64_t vectors) {
    memset(t.dots, 0, static_cast<size_t>(vectors * t.tile) * sizeof(float));
    if (t.norms != nullptr) { memset(t.norms, 0, static_cast<size_t>(t.tile) * sizeof(float)); }
    for (int64_t c = 0; c < t.channels; c += side_by_side) {
        const int64_t depth = smaller(side_by_side, t.channels - c);
        // The same pixels of the next block; at the end there is none.
        const int64_t ahead = c + 2 * side_by_side <= t.channels ? side_by_side * t.stride : 0;
        const float *f = t.f + c * t.stride, *group = packed;
        for (int64_t first = 0; first < vectors; first += group_vectors) {
            const int64_t size = smaller(group_vectors, vectors - first);
            if (t.norms != nullptr && first == 0) {
                row_group<true>(size, f, t.stride, depth, t.n, group + c * size, t.dots, t.tile,
                                t.norms, ahead);
            } else {
                row_group<false>(size, f, t.stride, depth, t.n, group + c * size,
                                 t.dots + first * t.tile, t.tile, t.dots, ahead);
            }
            group += size * t.channels;
        }
    }
}

#undef FSSEG_APART

} // namespace FSSEG_NS
} // namespace fsseg
