// The two large products of online_mlp in bfloat16 (fp32.h is the same in float32). Whatever sums run
// over, its numbers come in pairs, two bfloat16 in a word of 32 bits, first in the lower half:
//
//   weights  [panels][padded_channels / 2][panel_units] words: a pair of channels
//   deltas   [panels][all_cells / 2][panel_units] words: a pair of cells
//
// Features are packed twice, in pairs of channels for forward and of cells for backward. How they lie
// is the business of PairDots and Tiles.
#pragma once

#include "online_mlp/plan.h"

namespace fsseg {
namespace FSSEG_NS {

constexpr int64_t word_bytes = 4;

// What PairDots and Tiles have in common.
struct Pairs {
    static int64_t weight_bytes(const Plan &plan) {
        return plan.width * plan.padded_channels / 2 * word_bytes;
    }
    static int64_t delta_bytes(const Plan &plan, int64_t cells) {
        return plan.width * cells / 2 * word_bytes;
    }

    // Of the channels [first, first + count), after they changed.
    static void take_weights(const Plan &plan, const float *weights, int64_t first, int64_t count,
                             void *copy) {
        for (int64_t p = 0; p < plan.panels; ++p) {
            const int64_t at = (p * plan.padded_channels + first) * panel_units;
            pair_rows(weights + at, count, static_cast<uint32_t *>(copy) + at / 2);
        }
    }

    // dz [panels][block_cells][panel_units] of the cells [first, first + cells).
    static void take_deltas(const Plan &plan, const float *dz, int64_t first, int64_t cells,
                            int64_t all_cells, void *deltas) {
        for (int64_t p = 0; p < plan.panels; ++p) {
            const int64_t at = (p * all_cells + first) * panel_units;
            pair_rows(dz + p * block_cells * panel_units, cells,
                      static_cast<uint32_t *>(deltas) + at / 2);
        }
    }

    // rows [count][panel_units], count even -> pairs of rows.
    static void pair_rows(const float *rows, int64_t count, uint32_t *pairs) {
        for (int64_t r = 0; r < count; r += 2) {
            for (int64_t u = 0; u < panel_units; u += lanes) {
                const float *at = rows + r * panel_units + u;
                store_u(pairs + r / 2 * panel_units + u,
                        bf16_pair(load(at), load(at + panel_units)));
            }
        }
    }
};

// Channels c and c + 1 of the cells [cell, cell + lanes) of rows [channels][block_cells]; zero from
// plan.channels on.
static inline vu channel_pair(const Plan &plan, const float *rows, int64_t c, int64_t cell) {
    const float *at = rows + c * block_cells + cell;
    const vf low = c < plan.channels ? load(at) : zero();
    const vf high = c + 1 < plan.channels ? load(at + block_cells) : zero();
    return bf16_pair(low, high);
}

} // namespace FSSEG_NS
} // namespace fsseg
