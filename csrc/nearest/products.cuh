// Tiles of rows times tiles of cells, and what is left of them: for each cell the largest product with the rows of
// each group. The chunks of the next channels come by asynchronous copies while those at hand are multiplied. A
// block raises the result where it found more: maxima may be taken in any order.
#pragma once

#include "cuda/copy_async.h"
#include "cuda/mma.h"
#include "nearest/packed.cuh"

namespace fsseg {
namespace cuda {
namespace nearest_op {

struct Problem {
    Rows rows;
    const char *cells; // packed
    int cell_tiles, picture_tiles;
    int64_t pixels, groups;
    float *out;
};

// *at = max(*at, value) for values at memory that is -1 or more. Floats of one sign are ordered as their bits.
__device__ __forceinline__ void raise(float *at, float value) {
    value += 0.0f; // -0 becomes 0
    if (value >= 0.0f) {
        atomicMax(reinterpret_cast<int *>(at), __float_as_int(value));
    } else if (value > -1.0f) {
        atomicMin(reinterpret_cast<unsigned *>(at), __float_as_uint(value));
    }
}

// work(slab) for the chunks of all channels, one after another: ROWS tiles of rows, then CELLS tiles of cells, in
// shared memory. Tiles that are not there are the last one.
template <int ROWS, int CELLS, int THREADS, class Work> __device__ __forceinline__ void
each_slab(const Problem &in, int row_tile, int cell_tile, uint4 *memory, int stages, Work &&work) {
    constexpr int tiles = ROWS + CELLS, copies = tiles * chunk_vectors / THREADS;
    const int thread = static_cast<int>(threadIdx.x), chunks = in.rows.chunks;
    const uint4 *from[tiles];
#pragma unroll
    for (int i = 0; i < tiles; ++i) {
        const int64_t number = i < ROWS ? min(row_tile + i, in.rows.tiles - 1)
                                        : min(cell_tile + i - ROWS, in.cell_tiles - 1);
        from[i] = reinterpret_cast<const uint4 *>((i < ROWS ? in.rows.data : in.cells) +
                                                  number * chunks * chunk_bytes);
    }
    int fetched = 0, to = 0;
    const auto fetch = [&] {
        if (fetched < chunks) {
#pragma unroll
            for (int i = 0; i < copies; ++i) {
                const int at = i * THREADS + thread;
                copy_async16(memory + to * tiles * chunk_vectors + at,
                             from[i * THREADS / chunk_vectors] +
                                 static_cast<int64_t>(fetched) * chunk_vectors +
                                 at % chunk_vectors);
            }
        }
        copies_end();
        ++fetched;
        to = to + 1 == stages ? 0 : to + 1;
    };
    for (int i = 0; i < stages - 1; ++i) { fetch(); }
    for (int chunk = 0, at = 0; chunk < chunks; ++chunk) {
        copies_wait(stages - 2);
        __syncthreads(); // and all are done with the slab before, which is fetched anew
        fetch();
        work(memory + at * tiles * chunk_vectors);
        at = at + 1 == stages ? 0 : at + 1;
    }
    copies_wait(0);
}

// Where the results of a tile of cells begin; null: there is no such tile. left: its cells.
__device__ __forceinline__ float *result_of(const Problem &in, int cell_tile, int64_t *left) {
    if (cell_tile >= in.cell_tiles) { return nullptr; }
    const int64_t batch = cell_tile / in.picture_tiles;
    const int64_t start = static_cast<int64_t>(cell_tile % in.picture_tiles) * tile;
    *left = in.pixels - start;
    return in.out + batch * in.groups * in.pixels + start;
}

// bfloat16: a warp has DOWN x ACROSS products of 16 x 8. With LDS of 16 bytes a lane gets eight neighbouring
// channels, which stand for the k of two mma in the same way on both sides, so their order does not matter.
template <int DOWN_, int ACROSS_, int WARPS_DOWN, int WARPS_ACROSS> struct Bf16Tiles {
    static constexpr bool bf16 = true;
    static constexpr int down = DOWN_, across = ACROSS_;
    static constexpr int warps_down = WARPS_DOWN, threads = WARPS_DOWN * WARPS_ACROSS * 32;
    static constexpr int rows = DOWN_ * 16 * WARPS_DOWN / tile;
    static constexpr int cells = ACROSS_ * 8 * WARPS_ACROSS / tile;
    static constexpr int most_stages = 4;
    static_assert(tile % (ACROSS_ * 8) == 0, "a warp's cells lie in one tile");
};
// 24 KB for 2,097,152 products: with 16 KB for 128 x 128 the second-level cache would be the limit.
using Bf16Large = Bf16Tiles<4, 8, 2, 4>; // 128 rows x 256 cells, 128 sums a thread
using Bf16Small = Bf16Tiles<2, 4, 2, 2>; // 64 x 64, where the large ones would not fill the device

template <class S> __global__ void __launch_bounds__(S::threads)
    bf16_products(Problem in, int row_blocks, int stages) {
    FSSEG_SHARED(uint4, memory);
    const int row_tile = static_cast<int>(blockIdx.x) % row_blocks * S::rows;
    const int cell_tile = static_cast<int>(blockIdx.x) / row_blocks * S::cells;
    const int *group = in.rows.group + row_tile * (tile / panel);
    if (group[0] < 0) { return; } // the whole block
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int first_row = warp % S::warps_down * S::down * 16;
    const int first_cell = warp / S::warps_down * S::across * 8;
    float sums[S::down][S::across][4] = {};
    each_slab<S::rows, S::cells, S::threads>(
        in, row_tile, cell_tile, memory, stages, [&](const uint4 *slab) {
            // Four lanes for the 64 bytes of a vector.
            const uint4 *row = slab + first_row * 4 + lane;
            const uint4 *cell = slab + S::rows * chunk_vectors + first_cell * 4 + lane;
            uint4 b[S::across];
#pragma unroll
            for (int j = 0; j < S::across; ++j) { b[j] = cell[j * 32]; }
#pragma unroll
            for (int i = 0; i < S::down; ++i) {
                const uint4 low = row[i * 64], high = row[i * 64 + 32];
                const uint32_t a[2][4] = {{low.x, high.x, low.y, high.y},
                                          {low.z, high.z, low.w, high.w}};
#pragma unroll
                for (int j = 0; j < S::across; ++j) {
                    const uint32_t pairs[2] = {b[j].x, b[j].y};
                    mma<__nv_bfloat16>(sums[i][j], a[0], pairs);
                }
#pragma unroll
                for (int j = 0; j < S::across; ++j) { // no sum twice in a row
                    const uint32_t pairs[2] = {b[j].z, b[j].w};
                    mma<__nv_bfloat16>(sums[i][j], a[1], pairs);
                }
            }
        });

    int64_t left = 0;
    float *out = result_of(in, cell_tile + first_cell / tile, &left);
    const int place = first_cell % tile + lane % 4 * 2;
    float best[S::across][2];
#pragma unroll
    for (int i = 0; i < S::down; ++i) {
        const int own = group[first_row / panel + i];
        const int before = i == 0 ? -1 : group[first_row / panel + i - 1];
        const int after = i + 1 == S::down ? -1 : group[first_row / panel + i + 1];
#pragma unroll
        for (int j = 0; j < S::across; ++j) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const float found = fmaxf(sums[i][j][e], sums[i][j][e + 2]);
                best[j][e] = own == before ? fmaxf(best[j][e], found) : found;
            }
        }
        if (own == after || own < 0) { continue; } // the same for the whole warp
#pragma unroll
        for (int j = 0; j < S::across; ++j) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                float most = best[j][e];
#pragma unroll
                for (int bit = 4; bit < 32; bit *= 2) {
                    most = fmaxf(most, __shfl_xor_sync(all_lanes, most, bit));
                }
                const int x = place + j * 8 + e;
                if (lane < 4 && out != nullptr && x < left) {
                    raise(out + own * in.pixels + x, most);
                }
            }
        }
    }
}

// float32: a thread has 8 x 8 products, of 4 + 4 rows and 4 + 4 cells that lie half a block apart. A warp's
// 4 x 8 threads read 16 neighbouring rows, a panel, and 32 neighbouring cells.
template <int HALF> struct Fp32Tiles {
    static constexpr bool bf16 = false;
    static constexpr int half = HALF, side = HALF / 4, threads = side * side;
    static constexpr int rows = 2 * HALF / tile, cells = rows;
    static constexpr int most_stages = 3;
    __device__ static int at(int vector, int k) { // of a tile's chunk, in floats
        return vector / tile * (chunk_bytes / 4) + k * tile + vector % tile;
    }
};
using Fp32Large = Fp32Tiles<64>; // 128 x 128
using Fp32Small = Fp32Tiles<32>; // 64 x 64

template <class S> __global__ void __launch_bounds__(S::threads, 512 / S::threads)
    fp32_products(Problem in, int row_blocks, int stages) {
    FSSEG_SHARED(uint4, memory);
    const int row_tile = static_cast<int>(blockIdx.x) % row_blocks * S::rows;
    const int cell_tile = static_cast<int>(blockIdx.x) / row_blocks * S::cells;
    const int *group = in.rows.group + row_tile * (tile / panel);
    if (group[0] < 0) { return; }
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    constexpr int warps_down = S::side / 4;
    const int row = (warp % warps_down * 4 + lane / 8) * 4;
    const int cell = (warp / warps_down * 8 + lane % 8) * 4;
    float sums[8][8] = {};
    each_slab<S::rows, S::cells, S::threads>(
        in, row_tile, cell_tile, memory, stages, [&](const uint4 *slab) {
            const float *rows = reinterpret_cast<const float *>(slab);
            const float *cells = rows + S::rows * (chunk_bytes / 4);
#pragma unroll
            for (int k = 0; k < fp32_depth; ++k) {
                float a[8], b[8];
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const auto r = load<float, 4>(rows + S::at(row + h * S::half, k));
                    const auto c = load<float, 4>(cells + S::at(cell + h * S::half, k));
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        a[4 * h + i] = r.at[i];
                        b[4 * h + i] = c.at[i];
                    }
                }
#pragma unroll
                for (int i = 0; i < 8; ++i) {
#pragma unroll
                    for (int j = 0; j < 8; ++j) { sums[i][j] = fmaf(a[i], b[j], sums[i][j]); }
                }
            }
        });

    float *out[2];
    int64_t left[2] = {0, 0};
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        out[h] = result_of(in, cell_tile + (cell + h * S::half) / tile, left + h);
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int own = group[(row + h * S::half) / panel]; // of the whole warp
        if (own < 0) { continue; }
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            float most = sums[4 * h][j];
#pragma unroll
            for (int i = 1; i < 4; ++i) { most = fmaxf(most, sums[4 * h + i][j]); }
            most = fmaxf(most, __shfl_xor_sync(all_lanes, most, 8));
            most = fmaxf(most, __shfl_xor_sync(all_lanes, most, 16));
            const int x = (cell + j / 4 * S::half) % tile + j % 4;
            if (lane < 8 && out[j / 4] != nullptr && x < left[j / 4]) {
                raise(out[j / 4] + own * in.pixels + x, most);
            }
        }
    }
}

} // namespace nearest_op
} // namespace cuda
} // namespace fsseg
