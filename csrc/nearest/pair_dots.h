// bfloat16 by the dot products of AVX512_BF16: the loop of fp32.h, each step of which takes a pair of
// channels. A piece of a panel lies as [n / 2][panel_rows] words, cells as [C / 2][block_cells] words.
#pragma once

#include "core/pairs.h"
#include "nearest/fp32.h"

namespace fsseg {
namespace FSSEG_NS {

struct NearestPairs {
    static constexpr int64_t panel = panel_rows, strip = strip_vectors * lanes;
    static constexpr int64_t channel_multiple = 2, channel_bytes = panel * 2, depth = 512;
    static constexpr int64_t word_bytes = 4;

    static int64_t cell_bytes(int64_t padded) { return padded / 2 * block_cells * word_bytes; }

    static void pack_rows(float *rows, int64_t stride, int64_t n, void *to) {
        uint32_t *packed = static_cast<uint32_t *>(to);
        for (int64_t c = 0; c < n; c += 2) {
            for (int64_t r = 0; r < panel; ++r) {
                packed[c / 2 * panel + r] = word_of(rows + r * stride + c);
            }
        }
    }

    static const void *pack_cells(float *cells, int64_t channels, int64_t padded, void *to) {
        uint32_t *words = static_cast<uint32_t *>(to);
        for (int64_t c = 0; c < padded; c += 2, words += block_cells) {
            const float *row = cells + c * block_cells;
            for (int64_t x = 0; x < block_cells; x += lanes) {
                const vf low = c < channels ? load(row + x) : zero();
                const vf high = c + 1 < channels ? load(row + block_cells + x) : zero();
                store_u(words + x, bf16_pair(low, high));
            }
        }
        return to;
    }

    static void multiply(const void *piece, const void *cells, int64_t channel, int64_t n,
                         int64_t x, bool more, float *sums) {
        const uint32_t *row = static_cast<const uint32_t *>(piece);
        const uint32_t *cell = static_cast<const uint32_t *>(cells) + channel / 2 * block_cells + x;
        vf sum[panel_rows][strip_vectors];
        for (int r = 0; r < panel_rows; ++r) {
            for (int v = 0; v < strip_vectors; ++v) {
                sum[r][v] = more ? load(sums + r * strip + v * lanes) : zero();
            }
        }
        for (int64_t c = 0; c < n; c += 2, row += panel, cell += block_cells) {
            prefetch<1>(reinterpret_cast<const float *>(row), floats_soon);
            vu value[strip_vectors];
            for (int v = 0; v < strip_vectors; ++v) { value[v] = load_u(cell + v * lanes); }
            for (int r = 0; r < panel_rows; ++r) {
                const vu factor = set1_u(row[r]);
                for (int v = 0; v < strip_vectors; ++v) {
                    sum[r][v] = dot_pairs(sum[r][v], factor, value[v]);
                }
            }
        }
        for (int r = 0; r < panel_rows; ++r) {
            for (int v = 0; v < strip_vectors; ++v) {
                store(sums + r * strip + v * lanes, sum[r][v]);
            }
        }
    }

    static void begin() {}
    static void end() {}

    // Two floats as one word of bfloat16, rounded to the nearest, ties to even. Finite values only.
    static uint32_t word_of(const float *pair) {
        uint32_t low, high;
        memcpy(&low, pair, sizeof low);
        memcpy(&high, pair + 1, sizeof high);
        low += 0x7fffu + (low >> 16 & 1u);
        high += 0x7fffu + (high >> 16 & 1u);
        return low >> 16 | (high & 0xffff0000u);
    }
};

} // namespace FSSEG_NS
} // namespace fsseg
