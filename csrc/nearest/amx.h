// bfloat16 by the tiles of AMX: 32 rows times 32 cells in four tiles of sums.
//
// A piece of a panel lies as [n / 32][2][16 rows][32 channels], all tiles of 1 KB; cells as those of
// pair_dots.h.
#pragma once

#include "core/tiles.h"
#include "nearest/pair_dots.h"

namespace fsseg {
namespace FSSEG_NS {

struct NearestTiles {
    static constexpr int64_t panel = 32, strip = 32;
    static constexpr int64_t channel_multiple = 32, channel_bytes = panel * 2, depth = 512;

    static int64_t cell_bytes(int64_t padded) { return NearestPairs::cell_bytes(padded); }

    static void pack_rows(float *rows, int64_t stride, int64_t n, void *to) {
        uint32_t *packed = static_cast<uint32_t *>(to);
        for (int64_t c = 0; c < n; c += 32) {
            for (int64_t r = 0; r < panel; ++r, packed += 16) {
                const float *row = rows + r * stride + c;
                for (int64_t w = 0; w < 16; ++w) { packed[w] = NearestPairs::word_of(row + 2 * w); }
            }
        }
    }

    static const void *pack_cells(float *cells, int64_t channels, int64_t padded, void *to) {
        return NearestPairs::pack_cells(cells, channels, padded, to);
    }

    static void multiply(const void *piece, const void *cells, int64_t channel, int64_t n,
                         int64_t x, bool more, float *sums) {
        constexpr int64_t row = strip * 4, tile = 1024, cell_row = block_cells * 4;
        const char *rows = static_cast<const char *>(piece);
        const uint32_t *words =
            static_cast<const uint32_t *>(cells) + channel / 2 * block_cells + x;
        float *low = sums + 16 * strip;
        if (more) {
            tile_load<0>(sums, row);
            tile_load<1>(low, row);
            tile_load<2>(sums + 16, row);
            tile_load<3>(low + 16, row);
        } else {
            tile_zero<0>();
            tile_zero<1>();
            tile_zero<2>();
            tile_zero<3>();
        }
        for (int64_t c = 0; c < n; c += 32, rows += 2 * tile, words += 16 * block_cells) {
            tile_load<4>(rows, 64);
            tile_load<6>(words, cell_row);
            tile_load<5>(rows + tile, 64);
            tile_load<7>(words + 16, cell_row);
            tile_dot<0, 4, 6>();
            tile_dot<1, 5, 6>();
            tile_dot<2, 4, 7>();
            tile_dot<3, 5, 7>();
        }
        tile_store<0>(sums, row);
        tile_store<1>(low, row);
        tile_store<2>(sums + 16, row);
        tile_store<3>(low + 16, row);
    }

    static void begin() { tiles_begin(); }
    static void end() { tiles_end(); }
};

} // namespace FSSEG_NS
} // namespace fsseg
