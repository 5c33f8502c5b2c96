// Which cells take part, where they lie, and how a block of them is gathered: rows of channels, cells
// side by side, scaled to the wanted length.
#pragma once

#include "core/simd.h"

namespace fsseg {
namespace FSSEG_NS {

constexpr int64_t block_cells = 96; // gathered, pushed through the network and taken back at once

// Cells that lie side by side in memory and in one block.
struct Run {
    const float *at; // channel 0 of the first one
    int64_t stride;  // from channel to channel
    int64_t first;   // place in the block
    int64_t count;
};

constexpr int64_t rows_ahead = 12; // each channel lies in another page: no prefetcher follows

// One channel of the cells of long runs.
static inline void copy_runs(const Run *runs, int64_t run_count, int64_t c, float *row) {
    for (int64_t r = 0; r < run_count; ++r) {
        const float *from = runs[r].at + c * runs[r].stride;
        float *to = row + runs[r].first;
        int64_t i = 0;
        for (; i + lanes <= runs[r].count; i += lanes) {
            if (i % 16 == 0) { prefetch<1>(from + i, rows_ahead * runs[r].stride); }
            store(to + i, load(from + i));
        }
        for (; i < runs[r].count; ++i) { to[i] = from[i]; }
    }
}

// The same of scattered cells, one by one. Each lies in another cache line, where no prefetcher follows.
struct CellList {
    const float *at[block_cells];
    int64_t stride[block_cells];

    CellList(const Run *runs, int64_t run_count) {
        for (int64_t r = 0; r < run_count; ++r) {
            for (int64_t i = 0; i < runs[r].count; ++i) {
                at[runs[r].first + i] = runs[r].at + i;
                stride[runs[r].first + i] = runs[r].stride;
            }
        }
    }

    // Of the channel that each call moves on from, and asks for one some calls ahead.
    void next(int64_t cells, float *row) {
        for (int64_t i = 0; i < cells; ++i) {
            prefetch<1>(at[i], channels_ahead * stride[i]);
            row[i] = *at[i];
            at[i] += stride[i];
        }
    }

    static constexpr int64_t channels_ahead = 4;
};

// rows [channels, block_cells] = the cells of the runs; the places from `cells` on are zero.
// False: a feature is not finite.
static bool gather_block(const Run *runs, int64_t run_count, int64_t cells, int64_t channels,
                         double length, float *rows) {
    constexpr int64_t vectors = block_cells / lanes, run_of_squares = 64;
    constexpr float smallest_square = 1e-24f, largest_square = 1e36f;
    const bool scattered = run_count * 4 > cells;
    CellList list(runs, scattered ? run_count : 0);
    vf check = zero();
    float squares[block_cells], part[block_cells];
    memset(squares, 0, sizeof squares);
    for (int64_t begin = 0; begin < channels; begin += run_of_squares) {
        memset(part, 0, sizeof part);
        for (int64_t c = begin; c < smaller(begin + run_of_squares, channels); ++c) {
            float *row = rows + c * block_cells;
            if (scattered) {
                list.next(cells, row);
            } else {
                copy_runs(runs, run_count, c, row);
            }
            for (int64_t i = cells; i < block_cells; ++i) { row[i] = 0.0f; }
            for (int64_t v = 0; v < vectors; ++v) {
                const vf x = load(row + v * lanes);
                check = fma(x, zero(), check);
                store(part + v * lanes, fma(x, x, load(part + v * lanes)));
            }
        }
        for (int64_t v = 0; v < vectors; ++v) {
            store(squares + v * lanes, add(load(squares + v * lanes), load(part + v * lanes)));
        }
    }
    if (!(sum(check) == 0.0f)) { return false; }
    if (!(length > 0.0)) { return true; }
    for (int64_t i = 0; i < block_cells; ++i) {
        if (squares[i] >= smallest_square && squares[i] <= largest_square) {
            part[i] = static_cast<float>(length / ::sqrt(static_cast<double>(squares[i])));
            continue;
        }
        part[i] = 1.0f; // float32 squares lose digits here: this cell is scaled in double
        double square = 0.0;
        for (int64_t c = 0; c < channels; ++c) {
            const double x = rows[c * block_cells + i];
            square += x * x;
        }
        const double scale = square > 0.0 ? length / ::sqrt(square) : 0.0;
        for (int64_t c = 0; c < channels; ++c) {
            float *at = rows + c * block_cells + i;
            *at = static_cast<float>(*at * scale);
        }
    }
    for (int64_t c = 0; c < channels; ++c) {
        for (int64_t v = 0; v < vectors; ++v) {
            float *at = rows + c * block_cells + v * lanes;
            store(at, mul(load(at), load(part + v * lanes)));
        }
    }
    return true;
}

} // namespace FSSEG_NS
} // namespace fsseg
