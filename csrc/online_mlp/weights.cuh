// The weights: as operand of the forward pass, and their steps.
//
// Hidden weights and their velocities lie as the sums of the gradient's product leave the lanes, which is
// also how the left operand of the forward pass wants them: [panels][16s of channels][5 tiles][32 lanes][8
// floats], four pairs of channels of the units g and g + 8. So a step reads and writes 32 bytes a thread, in
// order, and nothing is transposed.
#pragma once

#include "online_mlp/cells.cuh"
#include "online_mlp/online_mlp.h"

namespace fsseg {
namespace cuda {
namespace mlp {

struct Sizes {
    int channels, hidden, classes;
    int panels;        // of hidden units
    int channel_depth; // 16s of channels, even
    // Lanes of 8 hidden weights.
    __host__ __device__ int64_t lanes() const {
        return static_cast<int64_t>(panels) * channel_depth * row_vectors;
    }
    // The small layers: output weights [classes][hidden], hidden biases, output biases.
    __host__ __device__ int64_t hidden_bias() const {
        return static_cast<int64_t>(classes) * hidden;
    }
    __host__ __device__ int64_t output_bias() const { return hidden_bias() + hidden; }
    __host__ __device__ int64_t small() const { return output_bias() + classes; }
};

struct State {
    float *weight, *velocity;             // [lanes][8]; of scores: null
    uint4 *operand;                       // [panels][channel_depth][PARTS][row_vectors]
    float *small_weight, *small_velocity; // [small]
    int *stopped;                         // a loss was not finite
};

struct Lane8 {
    int unit, channel; // and unit + 8; channel, + 1, + 8, + 9
    int64_t operand;   // of part 0
};
template <int PARTS> __device__ __forceinline__ Lane8 lane_at(const Sizes &s, int64_t index) {
    const int64_t block = index / row_vectors;
    const int rest = static_cast<int>(index - block * row_vectors);
    const int lane = rest % 32, panel = static_cast<int>(block / s.channel_depth);
    const int sixteen = static_cast<int>(block - static_cast<int64_t>(panel) * s.channel_depth);
    return {panel * panel_rows + rest / 32 * 16 + lane / 4, sixteen * 16 + lane % 4 * 2,
            block * PARTS * row_vectors + rest};
}

// Place of number i of a lane's 8 in [hidden][channels]; -1: padding.
__device__ __forceinline__ int64_t place_of(const Sizes &s, const Lane8 &at, int i) {
    const int unit = at.unit + i / 2 % 2 * 8, channel = at.channel + i % 2 + i / 4 * 8;
    if (unit >= s.hidden || channel >= s.channels) { return -1; }
    return static_cast<int64_t>(unit) * s.channels + channel;
}

__device__ __forceinline__ void load8(const float *from, float (&x)[8]) {
    const float4 a = *reinterpret_cast<const float4 *>(from);
    const float4 b = *reinterpret_cast<const float4 *>(from + 4);
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
    x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}
__device__ __forceinline__ void store8(float *to, const float (&x)[8]) {
    *reinterpret_cast<float4 *>(to) = make_float4(x[0], x[1], x[2], x[3]);
    *reinterpret_cast<float4 *>(to + 4) = make_float4(x[4], x[5], x[6], x[7]);
}

__device__ __forceinline__ float small_of(const Sizes &s, const MlpWeights &mlp, int64_t i) {
    if (i < s.hidden_bias()) { return mlp.output_weight[i]; }
    return i < s.output_bias() ? mlp.hidden_bias[i - s.hidden_bias()]
                               : mlp.output_bias[i - s.output_bias()];
}

// One block of weights as they come.
template <int PARTS> __device__ inline void prepare_weights(const Sizes &s, const MlpWeights &mlp,
                                                            const State &state, int64_t block,
                                                            int *report) {
    const int64_t index = block * product_threads + threadIdx.x;
    bool right = true;
    if (index < s.lanes()) {
        const Lane8 at = lane_at<PARTS>(s, index);
        float x[8];
        for (int i = 0; i < 8; ++i) {
            const int64_t from = place_of(s, at, i);
            x[i] = from >= 0 ? mlp.hidden_weight[from] : 0.0f;
            right = right && is_finite(x[i]);
        }
        store_words<PARTS>(x, state.operand + at.operand, row_vectors);
        if (state.weight != nullptr) {
            store8(state.weight + index * 8, x);
            for (int i = 0; i < 8; ++i) { x[i] = 0.0f; }
            store8(state.velocity + index * 8, x);
        }
    } else if (index - s.lanes() < s.small()) {
        const int64_t i = index - s.lanes();
        const float x = small_of(s, mlp, i);
        right = is_finite(x);
        state.small_weight[i] = x;
        if (state.small_velocity != nullptr) { state.small_velocity[i] = 0.0f; }
        if (i == 0 && state.stopped != nullptr) { *state.stopped = 0; }
    }
    if (!right) { atomicOr(report, static_cast<int>(not_finite)); }
}

// The first blocks: weights; the others: a panel of cells each.
template <int PARTS> __global__ void prepare(Sizes s, MlpWeights mlp, State state,
                                             int weight_blocks, Packing packing, int *report) {
    const int block = static_cast<int>(blockIdx.x);
    if (block < weight_blocks) {
        prepare_weights<PARTS>(s, mlp, state, block, report);
    } else {
        pack_panel<PARTS>(packing, block - weight_blocks, report);
    }
}

struct Step {
    float rate, momentum;
    __device__ __forceinline__ void take(float gradient, float &velocity, float &weight) const {
        velocity = fmaf(momentum, velocity, gradient);
        weight = fmaf(-rate, velocity, weight);
    }
};

// The gradient of the hidden weights over a share (`split`) of the cells, for 160 units x 128 channels a
// block: partial [splits][lanes][8].
template <int PARTS> __global__ void __launch_bounds__(product_threads, 1)
    weight_gradient(Sizes s, Operand deltas, Operand cells, const int *count, int splits,
                    int stages, float *partial) {
    using Block = Product<PARTS, 2, 4>;
    FSSEG_SHARED(uint4, memory);
    const int block = static_cast<int>(blockIdx.x), split = block % splits;
    const int row_blocks = (deltas.panels + 1) / 2, tile = block / splits;
    const int left = tile % row_blocks * 2, right = tile / row_blocks * 4;
    const int tiles = (*count + tile_cells - 1) / tile_cells, each = (tiles + splits - 1) / splits;
    constexpr int sixteens = tile_cells / 16;
    const int begin = min(split * each, tiles) * sixteens;
    const int end = min((split + 1) * each, tiles) * sixteens;
    float sums[row_tiles][column_tiles][4];
    Block::run(deltas, left, cells, right, begin, end, memory, stages, sums);
    const int panel = left + Block::warp_row(), column = right + Block::warp_column();
    if (panel >= deltas.panels || column >= cells.panels) { return; }
    const int64_t first = static_cast<int64_t>(panel) * s.channel_depth + column * 2;
    float *to = partial + (split * s.lanes() + first * row_vectors + threadIdx.x % 32) * 8;
#pragma unroll
    for (int n = 0; n < column_tiles; n += 2) {
#pragma unroll
        for (int m = 0; m < row_tiles; ++m) {
            const float (&a)[4] = sums[m][n], (&b)[4] = sums[m][n + 1];
            store8(to + (n / 2 * row_vectors + m * 32) * 8,
                   {a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]});
        }
    }
}

// What the blocks of the forward pass summed: rows [2 * blocks][small], two for the halves of a tile.
struct Summed {
    float *rows;
    double *losses; // [blocks]
    int blocks;
    __device__ __forceinline__ int in_use(int count) const {
        return min(blocks, (count + tile_cells - 1) / tile_cells);
    }
};

constexpr int small_columns = 32; // of a block that sums them

__device__ inline void step_small(const Sizes &s, const State &state, const Step &step,
                                  const Summed &summed, int rows, int64_t block) {
    __shared__ float partial[product_threads / small_columns][small_columns];
    const int column = static_cast<int>(threadIdx.x) % small_columns;
    const int group = static_cast<int>(threadIdx.x) / small_columns;
    constexpr int groups = product_threads / small_columns;
    const int64_t i = block * small_columns + column;
    float sum = 0.0f;
    if (i < s.small()) {
#pragma unroll 4
        for (int r = group; r < rows; r += groups) { sum += summed.rows[r * s.small() + i]; }
    }
    partial[group][column] = sum;
    __syncthreads();
    if (group != 0 || i >= s.small()) { return; }
    for (int other = 1; other < groups; ++other) { sum += partial[other][column]; }
    float velocity = state.small_velocity[i], weight = state.small_weight[i];
    step.take(sum, velocity, weight);
    state.small_velocity[i] = velocity;
    state.small_weight[i] = weight;
}

// Of one iteration. Once it is not finite, this and all that follow are infinite.
__device__ inline void sum_losses(const State &state, const double *losses, int n, float *loss,
                                  int *report) {
    __shared__ double partial[32];
    double sum = 0.0;
    for (int i = static_cast<int>(threadIdx.x); i < n; i += product_threads) { sum += losses[i]; }
    sum = block_sum(sum, partial);
    if (threadIdx.x != 0) { return; }
    const float found = static_cast<float>(sum);
    const bool stopped = *state.stopped != 0 || !is_finite(found);
    *loss = stopped ? INFINITY : found;
    if (stopped) {
        *state.stopped = 1;
        atomicOr(report, static_cast<int>(diverged));
    }
}

// Merges the gradients in their order and takes the step: blocks of hidden weights, of small layers, and
// one for the loss.
template <int PARTS> __global__ void __launch_bounds__(product_threads)
    take_step(Sizes s, State state, Step step, const float *partial, int splits, Summed summed,
              const int *count, int weight_blocks, float *loss, int *report) {
    int64_t block = blockIdx.x;
    if (block >= weight_blocks) {
        const int in_use = summed.in_use(*count);
        block -= weight_blocks;
        if (block * small_columns < s.small()) {
            step_small(s, state, step, summed, 2 * in_use, block);
        } else {
            sum_losses(state, summed.losses, in_use, loss, report);
        }
        return;
    }
    const int64_t index = block * product_threads + threadIdx.x;
    if (index >= s.lanes()) { return; }
    float gradient[8], velocity[8], weight[8];
    load8(state.velocity + index * 8, velocity);
    load8(state.weight + index * 8, weight);
    load8(partial + index * 8, gradient);
#pragma unroll 4
    for (int split = 1; split < splits; ++split) {
        float more[8];
        load8(partial + (split * s.lanes() + index) * 8, more);
#pragma unroll
        for (int i = 0; i < 8; ++i) { gradient[i] += more[i]; }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) { step.take(gradient[i], velocity[i], weight[i]); }
    store8(state.velocity + index * 8, velocity);
    store8(state.weight + index * 8, weight);
    store_words<PARTS>(weight, state.operand + lane_at<PARTS>(s, index).operand, row_vectors);
}

__global__ void write_weights(Sizes s, State state, MlpOut out, int *report) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * product_threads + threadIdx.x;
    bool right = true;
    if (index < s.lanes()) {
        const Lane8 at = lane_at<1>(s, index);
        float x[8];
        load8(state.weight + index * 8, x);
        for (int i = 0; i < 8; ++i) {
            const int64_t to = place_of(s, at, i);
            if (to < 0) { continue; }
            right = right && is_finite(x[i]);
            out.hidden_weight[to] = x[i];
        }
    } else if (index - s.lanes() < s.small()) {
        const int64_t i = index - s.lanes();
        const float x = state.small_weight[i];
        right = is_finite(x);
        if (i < s.hidden_bias()) {
            out.output_weight[i] = x;
        } else if (i < s.output_bias()) {
            out.hidden_bias[i - s.hidden_bias()] = x;
        } else {
            out.output_bias[i - s.output_bias()] = x;
        }
    }
    if (!right) { atomicOr(report, static_cast<int>(diverged)); }
}

} // namespace mlp
} // namespace cuda
} // namespace fsseg
