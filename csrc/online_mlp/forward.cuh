// A tile of 64 cells through both layers and, while it learns, back to the gradients of the hidden layer.
//
// The hidden layer stays in the registers of the block: 320 units x 64 cells, 80 sums a thread. More units
// are done in chunks of 320, each kept in memory as it lies in the registers until it is needed again. Lane
// 4 g + t of a warp holds units g + 8 i and cells 2 t, 2 t + 1 + 8 j: the gradients of the hidden layer are
// then where the left operand of weight_gradient wants them.
#pragma once

#include "online_mlp/dropout.cuh"
#include "online_mlp/weights.cuh"

namespace fsseg {
namespace cuda {
namespace mlp {

constexpr int chunk_panels = 4; // of hidden units at once
constexpr int classes_at_once = 4;
constexpr int classes_in_shared = 8;

struct ForwardArgs {
    Sizes sizes;
    Operand weights, cells;
    const float *small; // output weights, hidden biases, output biases
    const int *count;   // cells; null: known_count
    int known_count;
    int stages;
    float *logits; // [blocks][classes][tile_cells] where classes > classes_in_shared
    float *hidden; // [blocks][chunks][80][threads] where there are several chunks
    // of scores
    float *out;
    int64_t first, pixels; // number of the first cell; cells of a picture
    // of the fit
    const int64_t *number;
    const float *targets;
    Dropout dropout;
    uint64_t stream;
    uint4 *deltas;
    int cell_depth;
    Summed summed;
};

// What a block shares.
struct TileMemory {
    uint64_t keys[tile_cells]; // of dropout
    float parts[classes_at_once][chunk_panels][tile_cells];
    float logits[classes_in_shared][tile_cells];
    double losses[2];
};

struct Place { // of a thread
    int unit;  // and unit + 8, + 16, ... of the chunk's first panel row
    int cell;  // in the tile; and + 1, + 8, + 9, ...
    int lane;
};

// sums, the chunk's inputs, become its hidden layer.
__device__ __forceinline__ void activate(const ForwardArgs &args, const Place &at,
                                         const uint64_t *keys, bool drop, Sums &sums) {
    const float *bias = args.small + args.sizes.hidden_bias();
#pragma unroll
    for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int unit = at.unit + m * 16 + half * 8;
            const float b = unit < args.sizes.hidden ? bias[unit] : 0.0f;
#pragma unroll
            for (int n = 0; n < column_tiles; ++n) {
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    float &value = sums[m][n][half * 2 + j];
                    value += b;
                    value = value <= 0.0f ? 0.0f : value; // NaN stays NaN
                    if (drop) {
                        const uint32_t word =
                            random_word(keys[at.cell + n * 8 + j], static_cast<uint32_t>(unit));
                        value = word < args.dropout.threshold ? 0.0f : value * args.dropout.scale;
                    }
                }
            }
        }
    }
}

// logits [classes][tile_cells] (+)= what the chunk adds; the first one sets them, with the bias.
__device__ __forceinline__ void add_logits(const ForwardArgs &args, const Place &at, bool first,
                                           const Sums &hidden, TileMemory &shared, float *logits) {
    const int classes = args.sizes.classes, warp_row = static_cast<int>(threadIdx.x) / 32 % 4;
    for (int begin = 0; begin < classes; begin += classes_at_once) {
        const int end = min(begin + classes_at_once, classes);
        for (int k = begin; k < end; ++k) {
            const float *weight = args.small + static_cast<int64_t>(k) * args.sizes.hidden;
            float part[column_tiles * 2] = {};
#pragma unroll
            for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const int unit = at.unit + m * 16 + half * 8;
                    const float w = unit < args.sizes.hidden ? weight[unit] : 0.0f;
#pragma unroll
                    for (int i = 0; i < column_tiles * 2; ++i) {
                        part[i] = fmaf(hidden[m][i / 2][half * 2 + i % 2], w, part[i]);
                    }
                }
            }
#pragma unroll
            for (int i = 0; i < column_tiles * 2; ++i) {
                for (int bit = 4; bit < 32; bit *= 2) {
                    part[i] += __shfl_xor_sync(all_lanes, part[i], bit);
                }
                if (at.lane < 4) {
                    shared.parts[k - begin][warp_row][at.cell + i / 2 * 8 + i % 2] = part[i];
                }
            }
        }
        __syncthreads();
        const int k = begin + static_cast<int>(threadIdx.x) / tile_cells;
        const int cell = static_cast<int>(threadIdx.x) % tile_cells;
        if (k < end) {
            const auto &part = shared.parts[k - begin];
            const float sum = (part[0][cell] + part[1][cell]) + (part[2][cell] + part[3][cell]);
            float &logit = logits[k * tile_cells + cell];
            logit = (first ? args.small[args.sizes.output_bias() + k] : logit) + sum;
        }
        __syncthreads();
    }
}

// The logits of a cell become their gradients. Returns its loss; NaN of any logit makes that NaN.
__device__ inline double softmax_loss(int classes, const float *targets, bool real, float *logits) {
    if (!real) {
        for (int k = 0; k < classes; ++k) { logits[k * tile_cells] = 0.0f; }
        return 0.0;
    }
    float top = logits[0], weight = 0.0f, total = 0.0f, below = 0.0f;
    for (int k = 0; k < classes; ++k) {
        top = fmaxf(top, logits[k * tile_cells]);
        weight += targets[k * tile_cells];
    }
    for (int k = 0; k < classes; ++k) {
        const float distance = logits[k * tile_cells] - top, power = expf(distance);
        below = fmaf(targets[k * tile_cells], distance, below);
        total += power;
        logits[k * tile_cells] = power;
    }
    const float factor = weight / total;
    for (int k = 0; k < classes; ++k) {
        logits[k * tile_cells] = logits[k * tile_cells] * factor - targets[k * tile_cells];
    }
    return static_cast<double>(weight * logf(total) - below);
}

__device__ __forceinline__ void add_to(float &sum, float value, bool first) {
    sum = first ? value : sum + value;
}

// From the gradients of the logits to those of the hidden layer (16 units at a time), and the sums over
// cells that the small layers need. row: of this warp's 32 cells.
template <int PARTS> __device__ __forceinline__ void go_back(const ForwardArgs &args,
                                                             const Place &at, const Sums &hidden,
                                                             const float *errors, bool first,
                                                             int panel, int64_t tile, float *row) {
    const Sizes &s = args.sizes;
    const int lane = at.lane, half_tile = at.cell / panel_columns;
    const float scale = args.dropout.on ? args.dropout.scale : 1.0f;
#pragma unroll
    for (int m = 0; m < row_tiles; ++m) {
        const int upper = at.unit + m * 16, lower = upper + 8;
        float delta[column_tiles][4] = {};
        for (int k = 0; k < s.classes; ++k) {
            const int64_t of_class = static_cast<int64_t>(k) * s.hidden;
            const float w0 = upper < s.hidden ? args.small[of_class + upper] : 0.0f;
            const float w1 = lower < s.hidden ? args.small[of_class + lower] : 0.0f;
            float g0 = 0.0f, g1 = 0.0f;
#pragma unroll
            for (int n = 0; n < column_tiles; ++n) {
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    const float error = errors[k * tile_cells + at.cell + n * 8 + j];
                    delta[n][j] = fmaf(error, w0, delta[n][j]);
                    delta[n][2 + j] = fmaf(error, w1, delta[n][2 + j]);
                    g0 = fmaf(error, hidden[m][n][j], g0);
                    g1 = fmaf(error, hidden[m][n][2 + j], g1);
                }
            }
            for (int bit = 1; bit < 4; bit *= 2) {
                g0 += __shfl_xor_sync(all_lanes, g0, bit);
                g1 += __shfl_xor_sync(all_lanes, g1, bit);
            }
            if (lane % 4 == 0 && upper < s.hidden) { add_to(row[of_class + upper], g0, first); }
            if (lane % 4 == 0 && lower < s.hidden) { add_to(row[of_class + lower], g1, first); }
        }
        float b0 = 0.0f, b1 = 0.0f;
#pragma unroll
        for (int n = 0; n < column_tiles; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) { // a unit that relu or dropout put out is 0, no other is
                delta[n][i] = hidden[m][n][i] > 0.0f ? delta[n][i] * scale : 0.0f;
            }
            b0 += delta[n][0] + delta[n][1];
            b1 += delta[n][2] + delta[n][3];
        }
        for (int bit = 1; bit < 4; bit *= 2) {
            b0 += __shfl_xor_sync(all_lanes, b0, bit);
            b1 += __shfl_xor_sync(all_lanes, b1, bit);
        }
        float *bias = row + s.hidden_bias();
        if (lane % 4 == 0 && upper < s.hidden) { add_to(bias[upper], b0, first); }
        if (lane % 4 == 0 && lower < s.hidden) { add_to(bias[lower], b1, first); }
        if (panel < s.panels) {
#pragma unroll
            for (int n = 0; n < column_tiles; n += 2) {
                const float (&a)[4] = delta[n], (&b)[4] = delta[n + 1];
                const int64_t k = static_cast<int64_t>(panel) * args.cell_depth +
                                  tile * (tile_cells / 16) + half_tile * 2 + n / 2;
                store_words<PARTS>({a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]},
                                   args.deltas + k * PARTS * row_vectors + m * 32 + lane,
                                   row_vectors);
            }
        }
    }
}

// What follows on the logits of a tile of the fit: their gradients, and the sums of them.
__device__ inline void take_errors(const ForwardArgs &args, int64_t tile, int count, bool first,
                                   TileMemory &shared, float *logits) {
    const Sizes &s = args.sizes;
    const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
    if (thread < tile_cells) {
        const int64_t slot = tile * tile_cells + thread;
        const double loss =
            softmax_loss(s.classes, args.targets + tile * s.classes * tile_cells + thread,
                         slot < count, logits + thread);
        const double sum = warp_sum(loss);
        if (lane == 0) { shared.losses[warp] = sum; }
    }
    __syncthreads();
    if (thread == 0) {
        double &sum = args.summed.losses[blockIdx.x];
        sum = (first ? 0.0 : sum) + (shared.losses[0] + shared.losses[1]);
    }
    for (int i = warp; i < 2 * s.classes; i += product_threads / 32) {
        const int k = i / 2, half = i % 2;
        const float sum = warp_sum(logits[k * tile_cells + half * panel_columns + lane]);
        float *row = args.summed.rows + (static_cast<int64_t>(blockIdx.x) * 2 + half) * s.small();
        if (lane == 0) { add_to(row[s.output_bias() + k], sum, first); }
    }
}

__device__ inline void write_scores(const ForwardArgs &args, int64_t tile, int count,
                                    const float *logits, int *report) {
    const int classes = args.sizes.classes;
    for (int i = static_cast<int>(threadIdx.x); i < classes * tile_cells; i += product_threads) {
        const int k = i / tile_cells;
        const int64_t slot = tile * tile_cells + i % tile_cells;
        if (slot >= count) { continue; }
        const int64_t number = args.first + slot, batch = number / args.pixels;
        if (!is_finite(logits[i])) { atomicOr(report, static_cast<int>(not_finite)); }
        args.out[(batch * classes + k) * args.pixels + (number - batch * args.pixels)] = logits[i];
    }
}

// Tiles blockIdx.x, blockIdx.x + gridDim.x, ...
template <int PARTS, bool FIT> __global__ void __launch_bounds__(product_threads, 1)
    forward(ForwardArgs args, int *report) {
    using Block = Product<PARTS, chunk_panels, cell_panels>;
    FSSEG_SHARED(uint4, memory);
    __shared__ TileMemory shared;
    const Sizes &s = args.sizes;
    const int count = args.count != nullptr ? *args.count : args.known_count;
    const int tiles = (count + tile_cells - 1) / tile_cells, block = static_cast<int>(blockIdx.x);
    const int chunks = (s.panels + chunk_panels - 1) / chunk_panels;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
    const int cell = Block::warp_column() * panel_columns + lane % 4 * 2;
    const int unit = Block::warp_row() * panel_rows + lane / 4;
    float *logits = s.classes <= classes_in_shared
                        ? shared.logits[0]
                        : args.logits + static_cast<int64_t>(block) * s.classes * tile_cells;
    const auto in_memory = [&](int chunk, int i) -> float & {
        return args
            .hidden[((static_cast<int64_t>(block) * chunks + chunk) * 80 + i) * product_threads +
                    thread];
    };
    float sums[row_tiles][column_tiles][4];

    for (int tile = block; tile < tiles; tile += static_cast<int>(gridDim.x)) {
        const bool first = tile == block;
        if (FIT && args.dropout.on && thread < tile_cells) {
            const int slot = tile * tile_cells + thread;
            shared.keys[thread] =
                slot < count ? row_key(args.stream, static_cast<uint64_t>(args.number[slot])) : 0;
        }
        for (int chunk = 0; chunk < chunks; ++chunk) {
            const Place at{chunk * chunk_panels * panel_rows + unit, cell, lane};
            Block::run(args.weights, chunk * chunk_panels, args.cells, tile * cell_panels, 0,
                       s.channel_depth, memory, args.stages, sums);
            activate(args, at, shared.keys, FIT && args.dropout.on, sums);
            if (FIT && chunks > 1) {
#pragma unroll
                for (int i = 0; i < 80; ++i) {
                    in_memory(chunk, i) = sums[i / 16][i / 4 % 4][i % 4];
                }
            }
            add_logits(args, at, chunk == 0, sums, shared, logits);
        }
        if constexpr (!FIT) {
            write_scores(args, tile, count, logits, report);
        } else {
            take_errors(args, tile, count, first, shared, logits);
            float *row = args.summed.rows +
                         (static_cast<int64_t>(block) * 2 + Block::warp_column()) * s.small();
            for (int chunk = 0; chunk < chunks; ++chunk) {
                const int panel = chunk * chunk_panels + Block::warp_row();
                const Place at{chunk * chunk_panels * panel_rows + unit, cell, lane};
                if (chunks > 1) {
#pragma unroll
                    for (int i = 0; i < 80; ++i) {
                        sums[i / 16][i / 4 % 4][i % 4] = in_memory(chunk, i);
                    }
                }
                go_back<PARTS>(args, at, sums, logits, first, panel, tile, row);
            }
        }
        __syncthreads(); // what the block shares is free
    }
}

} // namespace mlp
} // namespace cuda
} // namespace fsseg
