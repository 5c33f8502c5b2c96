// Unit vectors in memory as the products want them: tiles of 64 vectors, each cut into chunks of 4 KB along the
// channels, so that what a block loads next is one run of memory.
//
//   bfloat16   a chunk holds 32 channels as [64 vectors][32]: 16 bytes of a vector are what a lane needs of it
//   float32    16 channels as [16][64 vectors]
//
// Channels that fill the last chunk up are zero. Rows stand by group: those of a group fill panels of 16, the
// last one up with one of them again, which changes no maximum. Where a row stands within its group may differ
// from run to run; no product and no maximum depends on it.
#pragma once

#include "cuda/cosine.h"
#include "nearest/nearest.h"

namespace fsseg {
namespace cuda {
namespace nearest_op {

constexpr int tile = 64, panel = 16;
constexpr int chunk_bytes = 4096, chunk_vectors = chunk_bytes / 16;
constexpr int bf16_depth = 32, fp32_depth = 16; // channels of a chunk

// Packed rows: int [panels], which group; then, 256-byte aligned, chunks [tiles][chunks].
struct Rows {
    int *group; // -1: the panel, and all after it, hold nothing
    char *data;
    int panels, tiles, chunks;
    int64_t bytes;
};
inline Rows rows_at(void *memory, const RowsView &rows, int64_t groups, bool bf16) {
    Rows r;
    // Whole pairs of tiles.
    const int64_t most = rows.rows / panel + (rows.rows < groups ? rows.rows : groups);
    r.tiles = static_cast<int>(divided_up(most * panel, 2 * tile)) * 2;
    r.panels = r.tiles * (tile / panel);
    r.chunks = static_cast<int>(divided_up(rows.columns, bf16 ? bf16_depth : fp32_depth));
    const int64_t numbers = (static_cast<int64_t>(r.panels) * 4 + 255) / 256 * 256;
    r.group = static_cast<int *>(memory);
    r.data = static_cast<char *>(memory) + (memory == nullptr ? 0 : numbers);
    r.bytes = numbers + static_cast<int64_t>(r.tiles) * r.chunks * chunk_bytes;
    return r;
}

// The position of this lane's row among those of its group, counted by `next`. Lanes of one group ask once.
__device__ inline int place_of(bool there, int64_t group, int *next) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    int found = 0;
    for (unsigned todo = __ballot_sync(all_lanes, there); todo != 0;) {
        const int leader = __ffs(static_cast<int>(todo)) - 1;
        const int64_t asked = __shfl_sync(all_lanes, group, leader);
        const unsigned same = __ballot_sync(all_lanes, there && group == asked);
        int first = 0;
        if (lane == leader) { first = atomicAdd(next + asked, __popc(same)); }
        first = __shfl_sync(all_lanes, first, leader);
        if (there && group == asked) { found = first + __popc(same & ((1u << lane) - 1u)); }
        todo &= ~same;
    }
    return found;
}

constexpr int arranging = 1024; // threads

// One block. member [panels * 16]: which row, or -1; next [groups]: scratch. A number that names no group is
// reported: its row is left out.
static __global__ void __launch_bounds__(arranging)
    arrange(const int64_t *group, int64_t rows, int groups, int panels, int *of_panel, int *member,
            int *next, int *report) {
    __shared__ int sums[arranging];
    const int thread = static_cast<int>(threadIdx.x);
    for (int i = thread; i < groups; i += arranging) { next[i] = 0; }
    for (int i = thread; i < panels; i += arranging) { of_panel[i] = -1; }
    for (int i = thread; i < panels * panel; i += arranging) { member[i] = -1; }
    __syncthreads();
    const auto each_row = [&](auto &&work) { // by whole warps
        for (int64_t first = thread / 32 * 32; first < rows; first += arranging) {
            const int64_t m = first + thread % 32;
            const int64_t g = m < rows ? group[m] : 0;
            const bool named = g >= 0 && g < groups;
            if (!named) { atomicOr(report, static_cast<int>(not_finite)); }
            work(m < rows && named, m, g);
        }
    };
    each_row([&](bool there, int64_t, int64_t g) { place_of(there, g, next); });
    __syncthreads();

    // From how many rows a group has to where its first one stands.
    const int share = (groups + arranging - 1) / arranging;
    const int begin = min(thread * share, groups), end = min(begin + share, groups);
    int own = 0;
    for (int g = begin; g < end; ++g) { own += (next[g] + panel - 1) / panel; }
    sums[thread] = own;
    __syncthreads();
    for (int step = 1; step < arranging; step *= 2) {
        const int other = thread >= step ? sums[thread - step] : 0;
        __syncthreads();
        sums[thread] += other;
        __syncthreads();
    }
    int at = sums[thread] - own; // panels before
    for (int g = begin; g < end; ++g) {
        const int count = (next[g] + panel - 1) / panel;
        next[g] = at * panel;
        at += count;
    }
    __syncthreads();
    each_row([&](bool there, int64_t m, int64_t g) {
        const int place = place_of(there, g, next);
        if (!there) { return; }
        member[place] = static_cast<int>(m);
        if (place % panel == 0) { of_panel[place / panel] = static_cast<int>(g); }
    });
}

// x / length for inverse = 1 / length, right where float cannot hold the inverse.
__device__ __forceinline__ float unit_value(float x, double inverse, float factor, bool extreme) {
    return extreme ? static_cast<float>(static_cast<double>(x) * inverse) : x * factor;
}
__device__ __forceinline__ bool is_extreme(double inverse) {
    return inverse > 1e18 || (inverse < 1e-18 && inverse > 0.0);
}
// 1 / sqrt(square); 0 of a zero vector, and of one that is not finite, which is reported.
__device__ __forceinline__ double inverse_length(double square, int *report) {
    if (!(square <= DBL_MAX)) {
        atomicOr(report, static_cast<int>(not_finite));
        return 0.0;
    }
    return square > 0.0 ? 1.0 / sqrt(square) : 0.0;
}

__device__ __forceinline__ uint4 rounded(const float (&x)[8]) {
    const auto pair = [&](int i) {
        return pair_of(from_float<__nv_bfloat16>(x[i]), from_float<__nv_bfloat16>(x[i + 1]));
    };
    return {pair(0), pair(2), pair(4), pair(6)};
}

constexpr int row_threads = 256, piece = 64;

// A block for each panel: lengths, then 64 channels at a time through shared memory.
template <bool BF16> __global__ void __launch_bounds__(row_threads, 4)
    pack_rows(RowsView rows, const int *member, int chunks, char *packed, int *report) {
    constexpr int depth = BF16 ? bf16_depth : fp32_depth;
    __shared__ double inverse[panel];
    __shared__ int row_of[panel];
    __shared__ float unit[panel][piece + 1];
    const int thread = static_cast<int>(threadIdx.x), channels = static_cast<int>(rows.columns);
    for (int r = thread / 32; r < panel; r += row_threads / 32) {
        const int own = member[blockIdx.x * panel + r];
        const int m = own >= 0 ? own : member[blockIdx.x * panel];
        const float *row = rows.data + max(m, 0) * rows.row_stride;
        const double square = m < 0 ? 0.0 : careful_dot(row, 1, row, 1, channels);
        if (thread % 32 == 0) {
            inverse[r] = inverse_length(square, report);
            row_of[r] = m;
        }
    }
    __syncthreads();
    char *to = packed + static_cast<int64_t>(blockIdx.x / (tile / panel)) * chunks * chunk_bytes;
    const int first = static_cast<int>(blockIdx.x) % (tile / panel) * panel; // in the tile
    for (int begin = 0; begin < chunks * depth; begin += piece) {
        for (int i = thread; i < panel * piece; i += row_threads) {
            const int r = i / piece, c = begin + i % piece;
            const bool there = row_of[r] >= 0 && c < channels;
            const float x = there ? rows.data[row_of[r] * rows.row_stride + c] : 0.0f;
            unit[r][i % piece] =
                unit_value(x, inverse[r], static_cast<float>(inverse[r]), is_extreme(inverse[r]));
        }
        __syncthreads();
        if (BF16) {
            for (int i = thread; i < panel * piece / 8; i += row_threads) {
                const int r = i / (piece / 8), c = i % (piece / 8) * 8, channel = begin + c;
                if (channel >= chunks * depth) { continue; }
                float x[8];
                for (int j = 0; j < 8; ++j) { x[j] = unit[r][c + j]; }
                char *chunk = to + static_cast<int64_t>(channel / depth) * chunk_bytes;
                *reinterpret_cast<uint4 *>(chunk + (first + r) * 64 + channel % depth * 2) =
                    rounded(x);
            }
        } else {
            for (int i = thread; i < panel * piece; i += row_threads) {
                const int r = i % panel, c = i / panel, channel = begin + c;
                if (channel >= chunks * depth) { continue; }
                char *chunk = to + static_cast<int64_t>(channel / depth) * chunk_bytes;
                reinterpret_cast<float *>(chunk)[channel % depth * tile + first + r] = unit[r][c];
            }
        }
        __syncthreads();
    }
}

constexpr int cell_threads = 512, cell_strip = 32;

// A block for each half of a tile of cells: one pass for the lengths, a second, from the cache, to write. The
// result becomes -1 here: what a group without rows keeps.
template <class T, bool BF16> __global__ void __launch_bounds__(cell_threads, 2)
    pack_cells(Planes<T> f, unsigned strips, int chunks, char *packed, int64_t groups, float *out,
               int *report) {
    constexpr int warps = cell_threads / 32, depth = BF16 ? bf16_depth : fp32_depth;
    __shared__ float part[warps][cell_strip];
    __shared__ double inverses[cell_strip];
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int64_t batch = blockIdx.x / strips;
    const int64_t start = static_cast<int64_t>(blockIdx.x % strips) * cell_strip, x = start + lane;
    const bool there = x < f.pixels;
    const int channels = static_cast<int>(f.channels);
    const T *picture = f.data + batch * f.batch_stride;
    const T *pixel = picture + (there ? x : 0);
    float square = 0.0f;
#pragma unroll 8
    for (int c = warp; c < channels; c += warps) {
        const float value = to_float(pixel[c * f.channel_stride]);
        square = fmaf(value, value, square);
    }
    part[warp][lane] = square;
    __syncthreads();
    if (warp == 0) {
        for (int w = 1; w < warps; ++w) { square += part[w][lane]; }
        part[0][lane] = there ? square : 1.0f;
        inverses[lane] = there ? 1.0 / sqrt(static_cast<double>(square)) : 0.0;
    }
    if (__syncthreads_or(warp == 0 && !fits_float(part[0][lane]))) {
        for (int i = warp; i < cell_strip; i += warps) {
            if (fits_float(part[0][i])) { continue; }
            const T *odd = picture + start + i;
            const double sum = careful_dot(odd, f.channel_stride, odd, f.channel_stride, channels);
            if (lane == 0) { inverses[i] = inverse_length(sum, report); }
        }
        __syncthreads();
    }
    for (int64_t g = warp; g < groups; g += warps) {
        if (there) { out[(batch * groups + g) * f.pixels + x] = -1.0f; }
    }

    const double inverse = inverses[lane];
    const float factor = static_cast<float>(inverse);
    const bool extreme = is_extreme(inverse);
    const auto value = [&](int c) {
        const float found = to_float(pixel[min(c, channels - 1) * f.channel_stride]);
        const float unit = unit_value(found, inverse, factor, extreme);
        return c < channels && there ? unit : 0.0f;
    };
    char *to = packed + static_cast<int64_t>(blockIdx.x / 2) * chunks * chunk_bytes;
    const int place = static_cast<int>(start % tile) + lane;
    if (BF16) {
        for (int c = warp * 8; c < chunks * depth; c += warps * 8) {
            float eight[8];
#pragma unroll
            for (int j = 0; j < 8; ++j) { eight[j] = value(c + j); }
            char *chunk = to + static_cast<int64_t>(c / depth) * chunk_bytes;
            *reinterpret_cast<uint4 *>(chunk + place * 64 + c % depth * 2) = rounded(eight);
        }
    } else {
#pragma unroll 4
        for (int c = warp; c < chunks * depth; c += warps) {
            char *chunk = to + static_cast<int64_t>(c / depth) * chunk_bytes;
            reinterpret_cast<float *>(chunk)[c % depth * tile + place] = value(c);
        }
    }
}

} // namespace nearest_op
} // namespace cuda
} // namespace fsseg
