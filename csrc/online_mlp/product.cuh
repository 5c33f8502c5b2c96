// A block's part of a matrix product on the tensor cores, from operands that lie in memory as the lanes want
// them (cuda/mma.h), so that nothing is transposed or swizzled on the way and no two lanes want one bank:
//
//   left    [panels of 80 rows]   [16s of k][PARTS][5 tiles of 16 rows]   [32 lanes] of 16 bytes
//   right   [panels of 32 columns][16s of k][PARTS][2 tiles of 16 columns][32 lanes] of 16 bytes
//
// A lane's 16 bytes: of left what mma calls a[0..3]; of right b[0], b[1] of columns 0-7, then of 8-15. Each
// of the 8 warps has 80 x 32 sums, 80 a thread, of which the 16s of k read 3.5 KB of shared memory for 20
// products of 16 x 8 x 16. Slabs of k arrive by asynchronous copies, some ahead of their use.
//
// PARTS = 1: operands are bfloat16. PARTS = 3: they are floats, split exactly (cuda/split.h): six products
// for one, which on a data centre's GPU is still faster than its float units, and needs no other kernel.
#pragma once

#include "cuda/copy_async.h"
#include "cuda/split.h"

namespace fsseg {
namespace cuda {
namespace mlp {

constexpr int panel_rows = 80, panel_columns = 32;
constexpr int row_tiles = 5, column_tiles = 4; // of 16 rows, of 8 columns
constexpr int product_threads = 256;
constexpr int row_vectors = row_tiles * 32,
              column_vectors = column_tiles / 2 * 32; // of a part, 16 of k

using Sums = float[row_tiles][column_tiles][4];

struct Operand {
    const uint4 *data;
    int panels;
    int depth; // in 16s of k, even
};

// ROWS x COLUMNS panels, a warp for each pair.
template <int PARTS, int ROWS, int COLUMNS> struct Product {
    static_assert(ROWS * COLUMNS * 32 == product_threads, "a warp for each pair of panels");
    static constexpr int depth = PARTS == 1 ? 2 : 1; // of a slab
    static constexpr int left_vectors = depth * PARTS * row_vectors;
    static constexpr int right_vectors = depth * PARTS * column_vectors;
    static constexpr int slab = ROWS * left_vectors + COLUMNS * right_vectors; // of 16 bytes
    static constexpr int most_stages = 4; // slabs in shared memory

    static int stages(int shared_limit) {
        const int fit = shared_limit / (slab * 16);
        return fit < 1 ? 1 : (fit < most_stages ? fit : most_stages);
    }
    static size_t shared(int stages) { return static_cast<size_t>(stages) * slab * 16; }

    __device__ static int warp_row() { return static_cast<int>(threadIdx.x) / 32 % ROWS; }
    __device__ static int warp_column() { return static_cast<int>(threadIdx.x) / 32 / ROWS; }

    // sums = the panels from left_panel and right_panel on, over [begin, end) of the 16s of k, a multiple
    // of `depth` each. Warps of panels that do not exist get zeros. memory: shared(stages) bytes.
    __device__ static void run(const Operand &left, int left_panel, const Operand &right,
                               int right_panel, int begin, int end, uint4 *memory, int stages,
                               Sums &sums) {
        const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
        const int rows = min(ROWS, left.panels - left_panel);
        const int columns = min(COLUMNS, right.panels - right_panel);
        const bool active = warp_row() < rows && warp_column() < columns;
#pragma unroll
        for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
            for (int n = 0; n < column_tiles; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) { sums[m][n][i] = 0.0f; }
            }
        }
        const int64_t left_stride = static_cast<int64_t>(left.depth) * PARTS * row_vectors;
        const int64_t right_stride = static_cast<int64_t>(right.depth) * PARTS * column_vectors;
        const uint4 *from_left = left.data + left_panel * left_stride;
        const uint4 *from_right = right.data + right_panel * right_stride;
        // Where this thread's vectors of a slab come from; of three parts there are too many to keep.
        const auto left_from = [&](int i) {
            const int panel = i / left_vectors;
            return static_cast<uint32_t>(panel * left_stride + (i - panel * left_vectors));
        };
        const auto right_from = [&](int i) {
            const int panel = i / right_vectors;
            return static_cast<uint32_t>(panel * right_stride + (i - panel * right_vectors));
        };
        constexpr int left_each = (ROWS * left_vectors - 1) / product_threads + 1;
        constexpr int right_each = (COLUMNS * right_vectors - 1) / product_threads + 1;
        uint32_t offsets[left_each + right_each];
        if constexpr (PARTS == 1) {
#pragma unroll
            for (int j = 0; j < left_each; ++j) {
                offsets[j] = left_from(thread + j * product_threads);
            }
#pragma unroll
            for (int j = 0; j < right_each; ++j) {
                offsets[left_each + j] = right_from(thread + j * product_threads);
            }
        }
        const auto fill = [&](int k, int slot) {
            uint4 *to = memory + slot * slab;
            const uint4 *from = from_left + static_cast<int64_t>(k) * PARTS * row_vectors;
            const uint4 *other = from_right + static_cast<int64_t>(k) * PARTS * column_vectors;
            if constexpr (PARTS == 1) {
#pragma unroll
                for (int j = 0; j < left_each; ++j) {
                    const int i = thread + j * product_threads;
                    if (i < rows * left_vectors) { copy_async16(to + i, from + offsets[j]); }
                }
                to += ROWS * left_vectors;
#pragma unroll
                for (int j = 0; j < right_each; ++j) {
                    const int i = thread + j * product_threads;
                    if (i < columns * right_vectors) {
                        copy_async16(to + i, other + offsets[left_each + j]);
                    }
                }
            } else {
#pragma unroll 1
                for (int i = thread; i < rows * left_vectors; i += product_threads) {
                    copy_async16(to + i, from + left_from(i));
                }
                to += ROWS * left_vectors;
#pragma unroll 1
                for (int i = thread; i < columns * right_vectors; i += product_threads) {
                    copy_async16(to + i, other + right_from(i));
                }
            }
        };
        const int ahead = stages - 1;
        int next = begin; // to be filled
        for (int s = 0; s < ahead; ++s) {
            if (next < end) { fill(next, s); }
            copies_end();
            next += depth;
        }
        int slot = 0, free_slot = ahead;
        for (int k = begin; k < end; k += depth) {
            const uint4 *slab_at = memory + slot * slab;
            if (ahead > 0) {
                copies_wait(ahead - 1);
            } else {
                __syncthreads();
                fill(k, 0);
                copies_end();
                copies_wait(0);
            }
            __syncthreads(); // the slab is there for all, and the free slot has been read by all
            if (active) { multiply(slab_at, 0, lane, sums); }
            if (ahead > 0) { // while the tensor cores are at work
                if (next < end) { fill(next, free_slot); }
                copies_end();
            }
#pragma unroll
            for (int d = 1; d < depth; ++d) {
                if (active) { multiply(slab_at, d, lane, sums); }
            }
            next += depth;
            free_slot = slot;
            slot = slot + 1 == stages ? 0 : slot + 1;
        }
        copies_wait(0);
        __syncthreads(); // memory is free
    }

  private:
    // One 16 of k.
    __device__ __forceinline__ static void multiply(const uint4 *slab_at, int d, int lane,
                                                    Sums &sums) {
        const uint4 *left = slab_at + warp_row() * left_vectors + d * PARTS * row_vectors + lane;
        const uint4 *right = slab_at + ROWS * left_vectors + warp_column() * right_vectors +
                             d * PARTS * column_vectors + lane;
        uint32_t b[PARTS][column_tiles][2];
#pragma unroll
        for (int p = 0; p < PARTS; ++p) {
#pragma unroll
            for (int n = 0; n < column_tiles; n += 2) {
                const uint4 v = right[p * column_vectors + n / 2 * 32];
                b[p][n][0] = v.x;
                b[p][n][1] = v.y;
                b[p][n + 1][0] = v.z;
                b[p][n + 1][1] = v.w;
            }
        }
#pragma unroll
        for (int m = 0; m < row_tiles; ++m) {
            if (PARTS > 1) { __syncwarp(); } // fewer loads ahead, or registers do not suffice
            uint32_t a[PARTS][4];
#pragma unroll
            for (int p = 0; p < PARTS; ++p) {
                const uint4 v = left[p * row_vectors + m * 32];
                a[p][0] = v.x;
                a[p][1] = v.y;
                a[p][2] = v.z;
                a[p][3] = v.w;
            }
            products<column_tiles>(sums[m], a, b);
        }
    }
};

} // namespace mlp
} // namespace cuda
} // namespace fsseg
