// dot_planes by strips: a few cache lines of pixels, whose sums stay in registers while the loop goes
// down all channels. Each channel lies in another page, where no prefetcher of a processor follows, so
// the loop asks itself for the lines that it will need some channels later.
//
// Every `block_channels` the sums are added to those in memory: rounding grows with C / 64 + 64, not
// with C.
#pragma once

#include "core/dot_vectors.h"

namespace fsseg {
namespace FSSEG_NS {

constexpr int64_t block_channels = 64;
constexpr int64_t line_floats = 16;
constexpr int64_t strip_floats = 6 * line_floats;   // the widest strip
constexpr int64_t floats_ahead = 160 * line_floats; // 10 KB of the first-level cache

// The sums of STEPS vectors of pixels from pixel x on; `rest` pixels of one vector if not WHOLE.
template <int P, bool NORM, int STEPS, bool WHOLE>
static void dot_strip(const DotTile &t, const float *packed, float *dots, int64_t x, int rest) {
    constexpr int64_t width = STEPS * lanes;
    const int64_t ahead = smaller(floats_ahead / width, t.channels);
    const int64_t turn = t.channels - ahead; // from here on, lines of the next strip
    const int64_t below = ahead * t.stride;
    const int64_t beside = (x + width < t.n ? width : 0) - turn * t.stride;
    const float *f = t.f + x;
    dots += x;
    for (int64_t begin = 0; begin < t.channels; begin += block_channels) {
        const int64_t end = smaller(begin + block_channels, t.channels);
        vf dot[P][STEPS], norm[STEPS];
        for (int s = 0; s < STEPS; ++s) {
            norm[s] = zero();
            for (int p = 0; p < P; ++p) { dot[p][s] = zero(); }
        }
        for (int64_t c = begin; c < end; ++c) {
            const float *row = f + c * t.stride;
            const int64_t soon = c < turn ? below : beside;
            vf feature[STEPS];
            for (int s = 0; s < STEPS; ++s) {
                const float *at = row + s * lanes;
                if (WHOLE && s * lanes % line_floats == 0) { prefetch<1>(at, soon); }
                feature[s] = WHOLE ? load(at) : load_n(at, rest);
                keep(feature[s]);
                if (NORM) { norm[s] = fma(feature[s], feature[s], norm[s]); }
            }
            for (int p = 0; p < P; ++p) {
                const vf factor = set1(packed[c * P + p]);
                for (int s = 0; s < STEPS; ++s) { dot[p][s] = fma(feature[s], factor, dot[p][s]); }
            }
        }
        for (int s = 0; s < STEPS; ++s) { // dots and norms are whole vectors: no tail
            const bool first = begin == 0;
            if (NORM) {
                float *at = t.norms + x + s * lanes;
                store(at, first ? norm[s] : add(load(at), norm[s]));
            }
            for (int p = 0; p < P; ++p) {
                float *at = dots + p * t.tile + s * lanes;
                store(at, first ? dot[p][s] : add(load(at), dot[p][s]));
            }
        }
    }
}

// The pixels [x, end): strips of STEPS vectors, then of half as many, and so on.
template <int P, bool NORM, int STEPS>
static void dot_strips(const DotTile &t, const float *packed, float *dots, int64_t x, int64_t end) {
    for (; x + STEPS * lanes <= end; x += STEPS * lanes) {
        dot_strip<P, NORM, STEPS, true>(t, packed, dots, x, 0);
    }
    if constexpr (STEPS > 1) {
        dot_strips<P, NORM, STEPS / 2>(t, packed, dots, x, end);
    } else if (x < end) {
        dot_strip<P, NORM, 1, false>(t, packed, dots, x, static_cast<int>(end - x));
    }
}

template <int P, bool NORM>
static void strips_of(const DotTile &t, const float *packed, float *dots, int64_t x, int64_t end) {
    constexpr int fit = dot_registers / (P + (NORM ? 1 : 0)), widest = strip_floats / lanes;
    dot_strips<P, NORM, (fit < widest ? fit : widest)>(t, packed, dots, x, end);
}

template <bool NORM> static void strip_group(int64_t size, const DotTile &t, const float *packed,
                                             float *dots, int64_t x, int64_t end) {
    switch (size) {
    case 1: return strips_of<1, NORM>(t, packed, dots, x, end);
    case 2: return strips_of<2, NORM>(t, packed, dots, x, end);
    case 3: return strips_of<3, NORM>(t, packed, dots, x, end);
    case 4: return strips_of<4, NORM>(t, packed, dots, x, end);
    case 5: return strips_of<5, NORM>(t, packed, dots, x, end);
    default: return strips_of<6, NORM>(t, packed, dots, x, end);
    }
}

// With more than one group of vectors, strip by strip: the next group finds the features in a cache.
static void dot_by_strips(const DotTile &t, const float *packed, int64_t vectors) {
    const int64_t width = vectors > group_vectors ? strip_floats : t.n;
    for (int64_t x = 0; x < t.n; x += width) {
        const int64_t end = smaller(x + width, t.n);
        const float *group = packed;
        for (int64_t first = 0; first < vectors; first += group_vectors) {
            const int64_t size = smaller(group_vectors, vectors - first);
            if (t.norms != nullptr && first == 0) {
                strip_group<true>(size, t, group, t.dots, x, end);
            } else {
                strip_group<false>(size, t, group, t.dots + first * t.tile, x, end);
            }
            group += size * t.channels;
        }
    }
}

} // namespace FSSEG_NS
} // namespace fsseg
