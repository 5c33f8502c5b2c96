// bfloat16 by the tiles of AMX: 32 x 32 sums in four tiles, from two tiles of features and two of words
// (pairs.h).
//
// A panel of 32 cells: for forward [padded_channels / 32][2][16 cells][32 channels], then for backward
// [padded_channels / 16][16 channels][32 cells], all tiles of 1 KB.
#pragma once

#include "core/tiles.h"
#include "online_mlp/pairs.h"

namespace fsseg {
namespace FSSEG_NS {

// row[i] word j <-> row[j] word i.
static inline void transpose_words(vu row[16]) {
    vu other[16];
    for (int i = 0; i < 16; i += 2) {
        other[i] = _mm512_unpacklo_epi32(row[i], row[i + 1]);
        other[i + 1] = _mm512_unpackhi_epi32(row[i], row[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        row[i] = _mm512_unpacklo_epi64(other[i], other[i + 2]);
        row[i + 1] = _mm512_unpackhi_epi64(other[i], other[i + 2]);
        row[i + 2] = _mm512_unpacklo_epi64(other[i + 1], other[i + 3]);
        row[i + 3] = _mm512_unpackhi_epi64(other[i + 1], other[i + 3]);
    }
    // Now row[4 q + i], part l, holds the words 4 q .. 4 q + 3 of row 4 l + i: parts change places.
    for (int i = 0; i < 4; ++i) {
        const vu a = _mm512_shuffle_i32x4(row[i], row[4 + i], 0x88);
        const vu b = _mm512_shuffle_i32x4(row[i], row[4 + i], 0xdd);
        const vu c = _mm512_shuffle_i32x4(row[8 + i], row[12 + i], 0x88);
        const vu d = _mm512_shuffle_i32x4(row[8 + i], row[12 + i], 0xdd);
        other[i] = _mm512_shuffle_i32x4(a, c, 0x88);
        other[4 + i] = _mm512_shuffle_i32x4(b, d, 0x88);
        other[8 + i] = _mm512_shuffle_i32x4(a, c, 0xdd);
        other[12 + i] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
    for (int i = 0; i < 16; ++i) { row[i] = other[i]; }
}

// to [32][panel_units] (+)= `steps` times two tiles x, one after another, `x_step` bytes on each time,
// times two tiles of `words`, 16 rows of panel_units each time.
template <int VECTORS> static void tiles_product(const char *x, int64_t x_step,
                                                 const uint32_t *words, int64_t steps, bool more,
                                                 float *to) {
    constexpr int64_t row = panel_units * 4, tile = 1024;
    float *low = to + 16 * panel_units;
    if (more) {
        tile_load<0>(to, row);
        tile_load<1>(low, row);
        if (VECTORS == 2) {
            tile_load<2>(to + lanes, row);
            tile_load<3>(low + lanes, row);
        }
    } else {
        tile_zero<0>();
        tile_zero<1>();
        tile_zero<2>();
        tile_zero<3>();
    }
    for (int64_t s = 0; s < steps; ++s, x += x_step, words += 16 * panel_units) {
        tile_load<4>(x, 64);
        tile_load<6>(words, row);
        tile_load<5>(x + tile, 64);
        tile_dot<0, 4, 6>();
        tile_dot<1, 5, 6>();
        if (VECTORS == 2) {
            tile_load<7>(words + lanes, row);
            tile_dot<2, 4, 7>();
            tile_dot<3, 5, 7>();
        }
    }
    tile_store<0>(to, row);
    tile_store<1>(low, row);
    if (VECTORS == 2) {
        tile_store<2>(to + lanes, row);
        tile_store<3>(low + lanes, row);
    }
}

struct Tiles : Pairs {
    static constexpr int64_t panel = 32, channel_multiple = 32;
    static constexpr int64_t strip_channels = 128;
    static constexpr int64_t forward_channels = 512; // of a panel of weights: first-level cache
    static constexpr int64_t backward_panels = 32;   // of cells

    // In bytes; some cache lines more than the panel, so that panels do not share sets of the caches.
    static int64_t panel_stride(const Plan &plan) { return plan.padded_channels * 128 + 33 * 64; }
    static int64_t feature_bytes(const Plan &plan, int64_t cells) {
        return divide_up(cells, panel) * panel_stride(plan);
    }

    static void pack(const Plan &plan, const float *rows, int64_t first, int64_t cells,
                     void *features) {
        char *to = static_cast<char *>(features) + first / panel * panel_stride(plan);
        for (int64_t i = 0; i < cells; i += panel, to += panel_stride(plan)) {
            char *by_cells = to + plan.padded_channels * 64;
            for (int64_t c = 0; c < plan.padded_channels; c += 32) {
                for (int64_t half = 0; half < 2; ++half) {
                    vu row[16];
                    for (int64_t r = 0; r < 16; ++r) {
                        row[r] = channel_pair(plan, rows, c + 2 * r, i + half * 16);
                    }
                    transpose_words(row);
                    for (int64_t r = 0; r < 16; ++r) {
                        char *at = to + c * 64 + half * 1024 + r * 64;
                        store_u(reinterpret_cast<uint32_t *>(at), row[r]);
                    }
                }
                for (int64_t r = c; r < c + 32; ++r) { pack_channel(plan, rows, r, i, by_cells); }
            }
        }
    }

    static void forward(const Plan &plan, const void *features, const float *, const void *copy,
                        int64_t first, int64_t cells, float *z) {
        const char *from = static_cast<const char *>(features) + first / panel * panel_stride(plan);
        tiles_begin();
        for (int64_t c = 0; c < plan.channels; c += forward_channels) {
            const int64_t steps = smaller(forward_channels, plan.padded_channels - c) / 32;
            for (int64_t p = 0; p < plan.panels; ++p) {
                const uint32_t *w = static_cast<const uint32_t *>(copy) +
                                    (p * plan.padded_channels + c) / 2 * panel_units;
                const auto run = whole_panel(plan, p) ? tiles_product<2> : tiles_product<1>;
                for (int64_t i = 0; i < cells; i += panel) {
                    run(from + i / panel * panel_stride(plan) + c * 64, 2048, w, steps, c > 0,
                        z + (p * block_cells + i) * panel_units);
                }
            }
        }
        tiles_end();
    }

    static void backward(const Plan &plan, const void *features, const void *deltas,
                         int64_t all_cells, int64_t first, int64_t count, float *g) {
        const int64_t all_panels = all_cells / panel, stride = panel_stride(plan);
        const char *by_cells =
            static_cast<const char *>(features) + (plan.padded_channels + first) * 64;
        tiles_begin();
        for (int64_t q = 0; q < all_panels; q += backward_panels) {
            const int64_t n = smaller(backward_panels, all_panels - q);
            for (int64_t p = 0; p < plan.panels; ++p) {
                const uint32_t *words = static_cast<const uint32_t *>(deltas) +
                                        (p * all_cells + q * panel) / 2 * panel_units;
                const auto run = whole_panel(plan, p) ? tiles_product<2> : tiles_product<1>;
                for (int64_t c = 0; c < count; c += 32) {
                    run(by_cells + q * stride + c * 64, stride, words, n, q > 0,
                        g + (p * strip_channels + c) * panel_units);
                }
            }
        }
        tiles_end();
    }

  private:
    // 32 cells of one channel side by side: bfloat16 of even and odd places are two halves of a word.
    static void pack_channel(const Plan &plan, const float *rows, int64_t c, int64_t cell,
                             char *to) {
        const float *at = rows + c * block_cells + cell;
        const vf low = c < plan.channels ? load(at) : zero();
        const vf high = c < plan.channels ? load(at + lanes) : zero();
        const vu even =
            _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        const vu odd = or_u(even, set1_u(1u));
        store_u(reinterpret_cast<uint32_t *>(to + c * 64),
                bf16_pair(_mm512_permutex2var_ps(low, even, high),
                          _mm512_permutex2var_ps(low, odd, high)));
    }
};

} // namespace FSSEG_NS
} // namespace fsseg
