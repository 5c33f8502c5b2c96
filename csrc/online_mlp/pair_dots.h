// bfloat16 by the dot products of AVX512_BF16: the loops of fp32.h, each step of which takes a pair.
//
// A panel of tile_rows cells: [padded_channels / 2][tile_rows] words for forward, then
// [padded_channels][tile_rows / 2] words for backward.
#pragma once

#include "core/pairs.h"
#include "online_mlp/fp32.h"
#include "online_mlp/pairs.h"

namespace fsseg {
namespace FSSEG_NS {

// sums [tile_rows][panel_units] (+)= OUTER x INNER steps; x moves on by `x_outer` words each INNER.
// Row r of step i: x[r * ROW + i * STEP].
template <int VECTORS, int ROW, int STEP>
static void tile_pairs(const uint32_t *x, int64_t x_outer, int64_t outer, int64_t inner,
                       const uint32_t *words, bool more, float *to) {
    vf sums[tile_rows][VECTORS];
    for (int r = 0; r < tile_rows; ++r) {
        for (int v = 0; v < VECTORS; ++v) {
            sums[r][v] = more ? load(to + r * panel_units + v * lanes) : zero();
        }
    }
    for (int64_t o = 0; o < outer; ++o, x += x_outer) {
        const uint32_t *at = x;
        for (int64_t i = 0; i < inner; ++i, at += STEP, words += panel_units) {
            vu word[VECTORS];
            for (int v = 0; v < VECTORS; ++v) { word[v] = load_u(words + v * lanes); }
            for (int r = 0; r < tile_rows; ++r) {
                const vu value = set1_u(at[r * ROW]);
                for (int v = 0; v < VECTORS; ++v) {
                    sums[r][v] = dot_pairs(sums[r][v], value, word[v]);
                }
            }
        }
    }
    for (int r = 0; r < tile_rows; ++r) {
        for (int v = 0; v < VECTORS; ++v) { store(to + r * panel_units + v * lanes, sums[r][v]); }
    }
}

struct PairDots : Pairs {
    static constexpr int64_t panel = tile_rows, channel_multiple = tile_rows;
    static constexpr int64_t strip_channels = 48;
    static constexpr int64_t forward_channels = 512;
    static constexpr int64_t backward_panels = 504 / tile_rows;
    static constexpr int row_words = tile_rows / 2;

    // In words; one cache line more than the panel, as in fp32.h.
    static int64_t panel_stride(const Plan &plan) {
        return round_up(plan.padded_channels * panel, 16) + 16;
    }
    static int64_t feature_bytes(const Plan &plan, int64_t cells) {
        return divide_up(cells, panel) * panel_stride(plan) * word_bytes;
    }

    static void pack(const Plan &plan, const float *rows, int64_t first, int64_t cells,
                     void *features) {
        uint32_t *to = static_cast<uint32_t *>(features) + first / panel * panel_stride(plan);
        uint32_t words[lanes];
        for (int64_t i = 0; i < cells; i += panel, to += panel_stride(plan)) {
            uint32_t *by_cells = to + plan.padded_channels / 2 * panel;
            for (int64_t c = 0; c < plan.padded_channels; c += 2) {
                // The last panel of a block ends with it: no vector may begin there.
                const int64_t begin = smaller(i, block_cells - lanes);
                store_u(words, channel_pair(plan, rows, c, begin));
                const uint32_t *own = words + (i - begin);
                memcpy(to + c / 2 * panel, own, panel * word_bytes);
                for (int64_t w = 0; w < row_words; ++w) {
                    const uint32_t one = own[2 * w], two = own[2 * w + 1];
                    by_cells[c * row_words + w] = (one & 0xffffu) | two << 16;
                    by_cells[(c + 1) * row_words + w] = one >> 16 | (two & 0xffff0000u);
                }
            }
        }
    }

    static void forward(const Plan &plan, const void *features, const float *, const void *copy,
                        int64_t first, int64_t cells, float *z) {
        const int64_t stride = panel_stride(plan);
        const uint32_t *from = static_cast<const uint32_t *>(features) + first / panel * stride;
        for (int64_t c = 0; c < plan.channels; c += forward_channels) {
            const int64_t n = divide_up(smaller(forward_channels, plan.channels - c), 2);
            for (int64_t p = 0; p < plan.panels; ++p) {
                const uint32_t *w = static_cast<const uint32_t *>(copy) +
                                    (p * plan.padded_channels + c) / 2 * panel_units;
                const auto run = whole_panel(plan, p) ? tile_pairs<2, 1, tile_rows>
                                                      : tile_pairs<1, 1, tile_rows>;
                for (int64_t i = 0; i < cells; i += panel) {
                    run(from + i / panel * stride + c / 2 * panel, 0, 1, n, w, c > 0,
                        z + (p * block_cells + i) * panel_units);
                }
            }
        }
    }

    static void backward(const Plan &plan, const void *features, const void *deltas,
                         int64_t all_cells, int64_t first, int64_t count, float *g) {
        const int64_t all_panels = all_cells / panel, stride = panel_stride(plan);
        const uint32_t *by_cells = static_cast<const uint32_t *>(features) +
                                   plan.padded_channels / 2 * panel + first * row_words;
        for (int64_t q = 0; q < all_panels; q += backward_panels) {
            const int64_t n = smaller(backward_panels, all_panels - q);
            for (int64_t p = 0; p < plan.panels; ++p) {
                const uint32_t *words = static_cast<const uint32_t *>(deltas) +
                                        (p * all_cells + q * panel) / 2 * panel_units;
                const auto run = whole_panel(plan, p) ? tile_pairs<2, row_words, 1>
                                                      : tile_pairs<1, row_words, 1>;
                for (int64_t c = 0; c < count; c += tile_rows) {
                    run(by_cells + q * stride + c * row_words, stride, n, row_words, words, q > 0,
                        g + (p * strip_channels + c) * panel_units);
                }
            }
        }
    }
};

} // namespace FSSEG_NS
} // namespace fsseg
