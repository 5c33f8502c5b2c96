// The steps of online_mlp's two products, out [rows, columns] = sum over k of left[row, k] * right[k, column].
#pragma once

#include "cuda/copy_async.h"
#include "cuda/mma.h"
#include "online_mlp/product.cuh"

namespace ladder {

using namespace fsseg::cuda;
using namespace fsseg::cuda::mlp;

// left [rows, depth], k contiguous. right: with column_step 1 [depth, columns], else [columns, depth].
struct Matrices {
    const float *left, *right;
    int rows, columns, depth;
    int64_t k_step, column_step; // of right
    float *out;

    __device__ __forceinline__ float left_at(int row, int k) const {
        return row < rows && k < depth ? left[static_cast<int64_t>(row) * depth + k] : 0.0f;
    }
    __device__ __forceinline__ float right_at(int k, int column) const {
        return k < depth && column < columns ? right[k * k_step + column * column_step] : 0.0f;
    }
    __device__ __forceinline__ void set(int row, int column, float value) const {
        if (row < rows && column < columns) {
            out[static_cast<int64_t>(row) * columns + column] = value;
        }
    }
};

// ---- 1 one thread a sum ----
constexpr int naive_threads = 128;
__global__ void one_thread_a_sum(Matrices m) {
    const int column = static_cast<int>(blockIdx.x) * naive_threads + static_cast<int>(threadIdx.x);
    const int row = static_cast<int>(blockIdx.y);
    if (column >= m.columns) { return; }
    float sum = 0.0f;
    for (int k = 0; k < m.depth; ++k) { sum = fmaf(m.left_at(row, k), m.right_at(k, column), sum); }
    m.set(row, column, sum);
}

// i in [0, LONG * 32) of a tile LONG x 32 of right -> a column and a k, neighbours in memory side by side.
template <int COLUMNS, int DEPTH>
__device__ __forceinline__ void place_of(const Matrices &m, int i, int &column, int &k) {
    if (m.column_step == 1) {
        column = i % COLUMNS;
        k = i / COLUMNS;
    } else {
        column = i / DEPTH;
        k = i % DEPTH;
    }
}

// ---- 2 tiles in shared memory ----
constexpr int small = 32;
__global__ void __launch_bounds__(small *small) shared_tiles(Matrices m) {
    __shared__ float left[small][small + 1], right[small][small + 1]; // [row][k], [column][k]
    const int thread = static_cast<int>(threadIdx.x), x = thread % small, y = thread / small;
    const int row = static_cast<int>(blockIdx.y) * small,
              column = static_cast<int>(blockIdx.x) * small;
    float sum = 0.0f;
    for (int first = 0; first < m.depth; first += small) {
        left[y][x] = m.left_at(row + y, first + x);
        int of_column, of_k;
        place_of<small, small>(m, thread, of_column, of_k);
        right[of_column][of_k] = m.right_at(first + of_k, column + of_column);
        __syncthreads();
        for (int k = 0; k < small; ++k) { sum = fmaf(left[y][k], right[x][k], sum); }
        __syncthreads();
    }
    m.set(row + y, column + x, sum);
}

// ---- 3 8 x 8 sums a thread ----
constexpr int tile = 64, register_threads = 64, slab = 16, each = 8;
__global__ void __launch_bounds__(register_threads) register_tiles(Matrices m) {
    alignas(16) __shared__ float left[slab][tile + 4],
        right[slab][tile + 4]; // [k][row], [k][column]
    const int thread = static_cast<int>(threadIdx.x), x = thread % 8, y = thread / 8;
    const int row = static_cast<int>(blockIdx.y) * tile,
              column = static_cast<int>(blockIdx.x) * tile;
    float sums[each][each] = {};
    for (int first = 0; first < m.depth; first += slab) {
#pragma unroll 4
        for (int i = thread; i < tile * slab; i += register_threads) {
            left[i % slab][i / slab] = m.left_at(row + i / slab, first + i % slab);
            int of_column, of_k;
            place_of<tile, slab>(m, i, of_column, of_k);
            right[of_k][of_column] = m.right_at(first + of_k, column + of_column);
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < slab; ++k) {
            float a[each], b[each]; // 4 y .. 4 y + 3 of both halves of the tile; so of x
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const auto of_a = load<float, 4>(&left[k][half * 32 + 4 * y]);
                const auto of_b = load<float, 4>(&right[k][half * 32 + 4 * x]);
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    a[4 * half + i] = of_a.at[i];
                    b[4 * half + i] = of_b.at[i];
                }
            }
#pragma unroll
            for (int i = 0; i < each; ++i) {
#pragma unroll
                for (int j = 0; j < each; ++j) { sums[i][j] = fmaf(a[i], b[j], sums[i][j]); }
            }
        }
        __syncthreads();
    }
    for (int i = 0; i < each; ++i) {
        for (int j = 0; j < each; ++j) {
            m.set(row + i / 4 * 32 + 4 * y + i % 4, column + j / 4 * 32 + 4 * x + j % 4,
                  sums[i][j]);
        }
    }
}

// ---- 4 tensor cores ----
// Four warps, each 32 x 32 of the tile. Rows of 32 k in bfloat16 are 40 apart, 20 words: the eight rows and
// four words that the lanes of a warp read are in 32 banks.
constexpr int warp_tile = 32, mma_depth = 32, apart = mma_depth + 8;
constexpr int mma_threads = 128;
using MmaSums = float[2][4][4];

__device__ __forceinline__ uint32_t word_at(const __nv_bfloat16 *at) {
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

// left [64][apart] from the warp's first row on, right [64][apart] from its first column on.
__device__ __forceinline__ void multiply(const __nv_bfloat16 *left, const __nv_bfloat16 *right,
                                         MmaSums &sums) {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int k = 0; k < mma_depth; k += 16) {
        uint32_t a[2][4], b[4][2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int row = 16 * i + g + 8 * (j % 2);
                a[i][j] = word_at(left + row * apart + k + 2 * t + 8 * (j / 2));
            }
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                b[i][j] = word_at(right + (8 * i + g) * apart + k + 2 * t + 8 * j);
            }
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) { mma<__nv_bfloat16>(sums[i][j], a[i], b[j]); }
        }
    }
}

// put(row, column, value) for all sums of the thread, in the tile.
template <class Put> __device__ __forceinline__ void put_sums(const MmaSums &sums, Put &&put) {
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    const int row = warp / 2 * warp_tile + lane / 4, column = warp % 2 * warp_tile + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
#pragma unroll
            for (int n = 0; n < 4; ++n) {
                put(row + 16 * i + n / 2 * 8, column + 8 * j + n % 2, sums[i][j][n]);
            }
        }
    }
}

__global__ void __launch_bounds__(mma_threads) tensor_cores(Matrices m) {
    alignas(16) __shared__ __nv_bfloat16 left[tile * apart], right[tile * apart];
    const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
    const int row = static_cast<int>(blockIdx.y) * tile,
              column = static_cast<int>(blockIdx.x) * tile;
    MmaSums sums = {};
    for (int first = 0; first < m.depth; first += mma_depth) {
#pragma unroll 4
        for (int i = thread; i < tile * mma_depth; i += mma_threads) {
            const int y = i / mma_depth, k = i % mma_depth;
            left[y * apart + k] = from_float<__nv_bfloat16>(m.left_at(row + y, first + k));
            int of_column, of_k;
            place_of<tile, mma_depth>(m, i, of_column, of_k);
            right[of_column * apart + of_k] =
                from_float<__nv_bfloat16>(m.right_at(first + of_k, column + of_column));
        }
        __syncthreads();
        multiply(left + warp / 2 * warp_tile * apart, right + warp % 2 * warp_tile * apart, sums);
        __syncthreads();
    }
    put_sums(sums, [&](int y, int x, float value) { m.set(row + y, column + x, value); });
}

// ---- 5 packed operands, copies ahead ----
// In bfloat16, k contiguous, zeros behind the ends: rows and columns are whole tiles, k whole slabs.
struct Packed {
    const __nv_bfloat16 *left, *right; // [rows, depth], [columns, depth]
    int depth;
};

__global__ void pack(Matrices m, int of_left, int depth, __nv_bfloat16 *out) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const int line = static_cast<int>(i / depth), k = static_cast<int>(i % depth);
    const float value = of_left != 0 ? m.left_at(line, k) : m.right_at(k, line);
    out[i] = from_float<__nv_bfloat16>(value);
}

constexpr int stages = 3;
// Block (x, y, z) takes share z of the slabs; with several shares out is [shares, rows, columns].
__global__ void __launch_bounds__(mma_threads) copies_ahead(Packed packed, Matrices m, float *out) {
    constexpr int half = tile * apart, vectors = mma_depth * 2 / 16; // of a row's 16 bytes
    alignas(16) __shared__ __nv_bfloat16 memory[stages][2 * half];
    const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
    const int row = static_cast<int>(blockIdx.y) * tile,
              column = static_cast<int>(blockIdx.x) * tile;
    const int slabs = packed.depth / mma_depth, shares = static_cast<int>(gridDim.z);
    const int share = static_cast<int>(blockIdx.z);
    const int begin = slabs * share / shares, end = slabs * (share + 1) / shares;
    const auto fill = [&](int i) {
        if (i < end) {
            __nv_bfloat16 *to = memory[(i - begin) % stages];
            for (int n = thread; n < 2 * tile * vectors; n += mma_threads) {
                const int line = n / vectors % tile, k = n % vectors * 8;
                const bool of_left = n < tile * vectors;
                const __nv_bfloat16 *from = of_left ? packed.left : packed.right;
                const int64_t at =
                    static_cast<int64_t>((of_left ? row : column) + line) * packed.depth;
                copy_async16(to + (of_left ? 0 : half) + line * apart + k,
                             from + at + i * mma_depth + k);
            }
        }
        copies_end(); // an empty group where nothing is left
    };
    MmaSums sums = {};
    for (int i = begin; i < begin + stages - 1; ++i) { fill(i); }
    for (int i = begin; i < end; ++i) {
        copies_wait(stages - 2);
        __syncthreads(); // slab i is there for all, and all are done with the one before
        fill(i + stages - 1);
        const __nv_bfloat16 *slab_ = memory[(i - begin) % stages];
        multiply(slab_ + warp / 2 * warp_tile * apart, slab_ + half + warp % 2 * warp_tile * apart,
                 sums);
    }
    copies_wait(0);
    Matrices to = m;
    to.out = out + static_cast<int64_t>(share) * m.rows * m.columns;
    put_sums(sums, [&](int y, int x, float value) { to.set(row + y, column + x, value); });
}

// ---- 6 shares of k ----
__global__ void add_shares(Matrices m, const float *partial, int shares) {
    const int64_t all = static_cast<int64_t>(m.rows) * m.columns;
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= all) { return; }
    float sum = 0.0f;
    for (int share = 0; share < shares; ++share) { sum += partial[share * all + i]; }
    m.out[i] = sum;
}

// ---- 7 the shipped inner loop, see online_mlp/product.cuh ----
using Shipped = Product<1, 4, 2>; // 320 rows x 64 columns a block

// The order in which lanes want them, 16 bytes a thread.
__global__ void pack_for_lanes(Matrices m, int of_left, Operand to) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const int vectors = of_left != 0 ? row_vectors : column_vectors;
    if (i >= static_cast<int64_t>(to.panels) * to.depth * vectors) { return; }
    const int lane = static_cast<int>(i % 32), sixteen = static_cast<int>(i % vectors / 32);
    const int first = static_cast<int>(i / vectors % to.depth) * 16 + lane % 4 * 2;
    const int panel = static_cast<int>(i / vectors / to.depth);
    const int line = panel * (of_left != 0 ? panel_rows : panel_columns) + sixteen * 16 + lane / 4;
    const auto pair = [&](int lower, int k) {
        const float one = of_left != 0 ? m.left_at(line + lower, k) : m.right_at(k, line + lower);
        const float two =
            of_left != 0 ? m.left_at(line + lower, k + 1) : m.right_at(k + 1, line + lower);
        return pair_of(from_float<__nv_bfloat16>(one), from_float<__nv_bfloat16>(two));
    };
    uint4 v;
    v.x = pair(0, first);
    v.y = of_left != 0 ? pair(8, first) : pair(0, first + 8);
    v.z = of_left != 0 ? pair(0, first + 8) : pair(8, first);
    v.w = pair(8, first + 8);
    const_cast<uint4 *>(to.data)[i] = v;
}

// blockIdx.x: 2 panels of columns, y: 4 panels of rows, z: share of k.
__global__ void __launch_bounds__(product_threads, 1)
    shipped_loop(Operand left, Operand right, Matrices m, int memory_stages, float *out) {
    FSSEG_SHARED(uint4, memory);
    const int shares = static_cast<int>(gridDim.z), share = static_cast<int>(blockIdx.z);
    const int slabs = left.depth / Shipped::depth;
    const int begin = slabs * share / shares, end = slabs * (share + 1) / shares;
    const int left_panel = static_cast<int>(blockIdx.y) * 4,
              right_panel = static_cast<int>(blockIdx.x) * 2;
    Sums sums;
    Shipped::run(left, left_panel, right, right_panel, begin * Shipped::depth, end * Shipped::depth,
                 memory, memory_stages, sums);
    Matrices to = m;
    to.out = out + static_cast<int64_t>(share) * m.rows * m.columns;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int row = (left_panel + Shipped::warp_row()) * panel_rows + lane / 4;
    const int column = (right_panel + Shipped::warp_column()) * panel_columns + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < row_tiles; ++i) {
#pragma unroll
        for (int j = 0; j < column_tiles; ++j) {
#pragma unroll
            for (int n = 0; n < 4; ++n) {
                to.set(row + 16 * i + n / 2 * 8, column + 8 * j + n % 2, sums[i][j][n]);
            }
        }
    }
}

} // namespace ladder
