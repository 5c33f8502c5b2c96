// Which cells count, and their features as operands of product.cuh. Cells that count are numbered through
// ("slots") in the order of the samples; their number is known on the device alone, so launches are sized
// for all cells, and blocks behind the last one leave.
//
// Packing reads the features from memory once: a block has 32 cells, takes their lengths first (8 warps,
// each another channel of all 32 cells, 16 loads on their way in each thread), and finds the features
// again in the second-level cache.
#pragma once

#include "cuda/reduce.h"
#include "online_mlp/product.cuh"

#include "core/view.h"

namespace fsseg {
namespace cuda {
namespace mlp {

constexpr int tile_cells = 64; // of a block of the forward pass
constexpr int cell_panels = tile_cells / panel_columns;
constexpr int mark_cells = 256; // of a block that marks them

struct CellSample { // features and targets
    const void *features;
    const float *targets;
    int64_t pixels, features_batch, features_channel, targets_batch, targets_channel;
    int64_t first, end; // of its cells among all
    DType dtype;
};

constexpr int samples_at_once = 16;
struct CellSamples {
    CellSample at[samples_at_once];
};

__global__ void write_samples(CellSamples some, int count, CellSample *table) {
    const int i = static_cast<int>(threadIdx.x);
    if (i < count) { table[i] = some.at[i]; }
}

// The sample of cell `number`. There are few.
__device__ inline const CellSample &sample_of(const CellSample *table, int count, int64_t number) {
    int i = 0;
    while (i + 1 < count && number >= table[i].end) { ++i; }
    return table[i];
}

struct Cells {
    const CellSample *table;
    int samples, classes;
    int64_t all;
};

struct Listed {
    int *marked;     // [blocks]: cells that count, by the block that marked them
    int64_t *number; // [slots] among all cells
    float *targets;  // [tiles][classes][tile_cells]
    int *count;      // slots in use
};

__device__ inline const float *targets_of(const Cells &cells, int64_t number, int64_t &stride) {
    const CellSample &sample = sample_of(cells.table, cells.samples, number);
    const int64_t place = number - sample.first, batch = place / sample.pixels;
    stride = sample.targets_channel;
    return sample.targets + batch * sample.targets_batch + (place - batch * sample.pixels);
}

__device__ inline bool counts(const Cells &cells, int64_t number, int *report) {
    if (number >= cells.all) { return false; }
    int64_t stride = 0;
    const float *at = targets_of(cells, number, stride);
    bool some = false, right = true;
    for (int k = 0; k < cells.classes; ++k) {
        const float target = at[k * stride];
        some = some || target > 0.0f;
        right = right && target >= 0.0f && is_finite(target);
    }
    if (!right && report != nullptr) { atomicOr(report, static_cast<int>(not_finite)); }
    return some;
}

__global__ void mark(Cells cells, Listed list, int *report) {
    const int64_t number = static_cast<int64_t>(blockIdx.x) * mark_cells + threadIdx.x;
    const int found = __syncthreads_count(counts(cells, number, report));
    if (threadIdx.x == 0) { list.marked[blockIdx.x] = found; }
}

__global__ void place(Cells cells, Listed list) {
    __shared__ int partial[32], in_warp[mark_cells / 32];
    const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
    const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
    int before = 0;
    for (int i = thread; i < block; i += mark_cells) { before += list.marked[i]; }
    before = block_sum(before, partial);

    const int64_t number = static_cast<int64_t>(block) * mark_cells + thread;
    const bool own = counts(cells, number, nullptr);
    const unsigned lanes = __ballot_sync(all_lanes, own);
    if (thread % 32 == 0) { in_warp[warp] = __popc(lanes); }
    __syncthreads();
    for (int w = 0; w < warp; ++w) { before += in_warp[w]; }
    before += __popc(lanes & ((1u << (thread % 32)) - 1u));
    if (own) {
        int64_t stride = 0;
        const float *at = targets_of(cells, number, stride);
        const int tile = before / tile_cells;
        float *to = list.targets + static_cast<int64_t>(tile) * cells.classes * tile_cells +
                    before % tile_cells;
        list.number[before] = number;
        for (int k = 0; k < cells.classes; ++k) { to[k * tile_cells] = at[k * stride]; }
    }
    if (block == blocks - 1 && thread == mark_cells - 1) { *list.count = before + (own ? 1 : 0); }
}

__device__ __forceinline__ float feature(const void *data, DType dtype, int64_t at) {
    switch (dtype) {
    case DType::f16: return to_float(static_cast<const __half *>(data)[at]);
    case DType::bf16: return to_float(static_cast<const __nv_bfloat16 *>(data)[at]);
    default: return static_cast<const float *>(data)[at];
    }
}

struct Packing {
    const CellSample *table; // or the only one, where table is null
    CellSample only;
    int samples;
    const int64_t *number; // of each slot; null: slot + first
    int64_t first;
    const int *count; // slots in use; null: known_count
    int known_count;
    int channels;
    double length;      // 0: cells stay as they are
    int channel_depth;  // 16s of channels
    int cell_depth;     // 16s of cells
    uint4 *by_channels; // right operand of the forward pass: k are channels
    uint4 *by_cells;    // right operand of the gradient: k are cells; null: not wanted
};

constexpr int pack_channels = 64; // at once
constexpr int pack_row = 36;      // floats of a channel in shared memory: no bank twice

// How a lane reads its cell, and what brings it to the wanted length.
struct CellReader {
    const void *data = nullptr; // null: behind the last cell
    DType dtype = DType::f32;
    int64_t start = 0, stride = 0;
    float scale = 1.0f;
    double exact = 0.0; // instead of scale, where that has not the digits

    __device__ __forceinline__ float raw(int c) const {
        return feature(data, dtype, start + c * stride);
    }
    __device__ __forceinline__ float scaled(float x) const {
        return exact != 0.0 ? static_cast<float>(static_cast<double>(x) * exact) : x * scale;
    }
};

__device__ inline CellReader reader_of(const Packing &p, int64_t slot, int count) {
    CellReader reader;
    if (slot >= count) { return reader; }
    const int64_t number = p.number != nullptr ? p.number[slot] : slot + p.first;
    const CellSample &sample = p.table != nullptr ? sample_of(p.table, p.samples, number) : p.only;
    const int64_t cell = number - sample.first, batch = cell / sample.pixels;
    reader.data = sample.features;
    reader.dtype = sample.dtype;
    reader.start = batch * sample.features_batch + (cell - batch * sample.pixels);
    reader.stride = sample.features_channel;
    return reader;
}

// The lane's cell is of its length from now on. parts [8][33] in shared memory.
__device__ inline void find_scale(const Packing &p, CellReader &reader, float *parts) {
    constexpr int warps = product_threads / 32, ahead = 16;
    constexpr float smallest_square = 1e-24f, largest_square = 1e36f;
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    float square = 0.0f;
    if (reader.data != nullptr) {
        for (int c = warp; c < p.channels; c += warps * ahead) {
            float x[ahead];
#pragma unroll
            for (int i = 0; i < ahead; ++i) {
                x[i] = c + i * warps < p.channels ? reader.raw(c + i * warps) : 0.0f;
            }
#pragma unroll
            for (int i = 0; i < ahead; ++i) { square = fmaf(x[i], x[i], square); }
        }
    }
    parts[warp * 33 + lane] = square;
    __syncthreads();
    square = 0.0f;
    for (int w = 0; w < warps; ++w) { square += parts[w * 33 + lane]; }
    if (reader.data == nullptr) { return; }
    if (square >= smallest_square && square <= largest_square) {
        reader.scale = static_cast<float>(p.length / sqrt(static_cast<double>(square)));
        return;
    }
    double exact = 0.0; // float32 squares lose digits here
    for (int c = 0; c < p.channels; ++c) {
        const double x = static_cast<double>(reader.raw(c));
        exact += x * x;
    }
    reader.scale = 0.0f; // of a cell that is zero
    if (exact > 0.0) { reader.exact = p.length / sqrt(exact); }
    if (exact != exact) { reader.scale = static_cast<float>(exact); } // NaN stays
}

// Two numbers that lie side by side along k, as part p of PARTS; one after another for each of 4 words.
template <int PARTS>
__device__ __forceinline__ void store_words(const float (&x)[8], uint4 *to, int part_stride) {
    uint32_t words[4][PARTS];
#pragma unroll
    for (int i = 0; i < 4; ++i) { split<PARTS>(x[2 * i], x[2 * i + 1], words[i]); }
#pragma unroll
    for (int p = 0; p < PARTS; ++p) {
        to[p * part_stride] = make_uint4(words[0][p], words[1][p], words[2][p], words[3][p]);
    }
}

// Both operands of the 32 cells of a panel from tile [pack_channels][pack_row], channels from c on.
template <int PARTS>
__device__ inline void write_operands(const Packing &p, int panel, int c, const float *tile) {
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
    const int g = lane / 4, t = lane % 4, half = thread / 32 % 2, sixteen = thread / 64;
    if (c / 16 + sixteen >= p.channel_depth) { return; }
    float x[8];
    const float *at = tile + (sixteen * 16 + 2 * t) * pack_row + half * 16 + g;
#pragma unroll
    for (int i = 0; i < 8; ++i) { // cell g: channels 2t, 2t+1, 2t+8, 2t+9; then cell g + 8
        x[i] = at[(i % 2 + i / 2 % 2 * 8) * pack_row + i / 4 * 8];
    }
    const int64_t k = static_cast<int64_t>(panel) * p.channel_depth + c / 16 + sixteen;
    store_words<PARTS>(x, p.by_channels + k * PARTS * column_vectors + half * 32 + lane,
                       column_vectors);
    if (p.by_cells == nullptr) { return; }
    // Here 16 cells (`half`), and 16 channels: half of a panel of 32.
    at = tile + (sixteen * 16 + g) * pack_row + half * 16 + 2 * t;
#pragma unroll
    for (int i = 0; i < 8; ++i) { x[i] = at[i / 4 * 8 * pack_row + i % 2 + i / 2 % 2 * 8]; }
    const int channel_panel = (c / 16 + sixteen) / 2;
    const int64_t cells = static_cast<int64_t>(channel_panel) * p.cell_depth + panel * 2 + half;
    store_words<PARTS>(x, p.by_cells + cells * PARTS * column_vectors + sixteen % 2 * 32 + lane,
                       column_vectors);
}

template <int PARTS> __device__ inline void pack_panel(const Packing &p, int panel, int *report) {
    __shared__ float tile[pack_channels * pack_row];
    constexpr int warps = product_threads / 32, own = pack_channels / warps;
    const int count = p.count != nullptr ? *p.count : p.known_count;
    if (panel >= (count + tile_cells - 1) / tile_cells * cell_panels) { return; }
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    CellReader reader = reader_of(p, static_cast<int64_t>(panel) * panel_columns + lane, count);
    if (p.length > 0.0) { find_scale(p, reader, tile); }
    bool right = true;
    float x[own];
    const auto read = [&](int begin) {
#pragma unroll
        for (int i = 0; i < own; ++i) {
            const int c = begin + warp + i * warps;
            x[i] = reader.data != nullptr && c < p.channels ? reader.raw(c) : 0.0f;
        }
    };
    read(0);
    for (int c = 0; c < p.channel_depth * 16; c += pack_channels) {
        __syncthreads(); // the tile has been read
#pragma unroll
        for (int i = 0; i < own; ++i) {
            right = right && is_finite(x[i]);
            tile[(warp + i * warps) * pack_row + lane] = reader.scaled(x[i]);
        }
        __syncthreads();
        read(c + pack_channels); // on their way while these are written
        write_operands<PARTS>(p, panel, c, tile);
    }
    if (!right) { atomicOr(report, static_cast<int>(not_finite)); }
}

} // namespace mlp
} // namespace cuda
} // namespace fsseg
