// Panels of rows times strips of cells in float32. With ROUND the factors are rounded to bfloat16: what
// a processor without instructions for it does.
//
// A piece of a panel, n channels, lies as [n][panel_rows]; cells as [C][block_cells].
#pragma once

#include "core/cells.h"

namespace fsseg {
namespace FSSEG_NS {

constexpr int strip_vectors = 2;
#if defined(FSSEG_SIMD_AVX512) || defined(FSSEG_SIMD_NEON)
constexpr int panel_rows = 12; // 24 of 32 registers are sums
#elif defined(FSSEG_SIMD_AVX2)
constexpr int panel_rows = 6; // 12 of 16
#else
constexpr int panel_rows = 4;
#endif

constexpr int64_t floats_soon = 1024; // 4 KB of the rows, which stream by

template <bool ROUND> struct NearestFp32 {
    static constexpr int64_t panel = panel_rows, strip = strip_vectors * lanes;
    static constexpr int64_t channel_multiple = 1, channel_bytes = panel * 4; // of a panel
    static constexpr int64_t depth = 256; // channels of a piece: first-level cache

    static int64_t cell_bytes(int64_t) { return 0; } // they stay where they were gathered

    // n channels of unit rows [panel][stride] -> a piece. They are changed.
    static void pack_rows(float *rows, int64_t stride, int64_t n, void *to) {
        float *packed = static_cast<float *>(to);
        for (int64_t r = 0; ROUND && r < panel; ++r) {
            for (int64_t c = 0; c < n; c += lanes) {
                store(rows + r * stride + c, to_bf16(load(rows + r * stride + c)));
            }
        }
        for (int64_t c = 0; c < n; ++c) {
            for (int64_t r = 0; r < panel; ++r) { packed[c * panel + r] = rows[r * stride + c]; }
        }
    }

    static const void *pack_cells(float *cells, int64_t channels, int64_t, void *) {
        for (int64_t i = 0; ROUND && i < channels * block_cells; i += lanes) {
            store(cells + i, to_bf16(load(cells + i)));
        }
        return cells;
    }

    // sums [panel][strip] (+)= a piece of a panel times the same channels, from `channel` on, of the
    // cells from x on.
    static void multiply(const void *piece, const void *cells, int64_t channel, int64_t n,
                         int64_t x, bool more, float *sums) {
        const float *row = static_cast<const float *>(piece);
        const float *cell = static_cast<const float *>(cells) + channel * block_cells + x;
        vf sum[panel_rows][strip_vectors];
        for (int r = 0; r < panel_rows; ++r) {
            for (int v = 0; v < strip_vectors; ++v) {
                sum[r][v] = more ? load(sums + r * strip + v * lanes) : zero();
            }
        }
        for (int64_t c = 0; c < n; ++c, row += panel, cell += block_cells) {
            prefetch<1>(row, floats_soon);
            vf value[strip_vectors];
            for (int v = 0; v < strip_vectors; ++v) {
                value[v] = load(cell + v * lanes);
                keep(value[v]);
            }
            for (int r = 0; r < panel_rows; ++r) {
                vf factor = set1(row[r]);
                keep(factor);
                for (int v = 0; v < strip_vectors; ++v) {
                    sum[r][v] = fma(factor, value[v], sum[r][v]);
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
};

} // namespace FSSEG_NS
} // namespace fsseg
