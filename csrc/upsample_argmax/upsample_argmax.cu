// One launch: a thread labels 4 x 4 pixels, plane by plane, with the best scores so far in registers; a warp
// labels 128 columns, so that each of its stores is 128 bytes.
//
// At 1080 x 1920 from 60 x 60 the labels are 2.1 MB and the logits of P planes 14 kB each, which stay in L1.
// That is half a microsecond of memory and about nine instructions a pixel and plane, 1.2 us for P = 2 on 132
// processors: the launch costs more. Hence no pass before for the largest logit and none for NaN: each
// thread looks at some logits, and repeats its own pixels if their scores are too small for float32.
//
// Places on the grid are integers of 2^-40 cells: as good as double, which many devices hardly have.
#include "upsample_argmax/upsample_argmax.h"

#include "cuda/elements.h"

#include <algorithm>
#include <cmath>

namespace fsseg {
namespace cuda {

namespace {

constexpr int across = 4; // pixels of a thread
constexpr int block_lanes = 32, block_warps = 4;
constexpr int fraction_bits = 40;

// place(x) = (x + 0.5) * step - 0.5, clamped; see core/axis.h.
struct Axis {
    int64_t half_step; // of 2^-40 cells, as all places
    int64_t last;      // the last cell's place
    int pixels;
};

__device__ __forceinline__ int64_t place_of(const Axis &axis, int pixel) {
    constexpr int64_t half = int64_t{1} << (fraction_bits - 1);
    const int64_t place = (2 * static_cast<int64_t>(pixel) + 1) * axis.half_step - half;
    return min(max(place, int64_t{0}), axis.last);
}
__device__ __forceinline__ int cell_of(int64_t place) {
    return static_cast<int>(place >> fraction_bits);
}
__device__ __forceinline__ float fraction_of(int64_t place) {
    return static_cast<float>(static_cast<uint32_t>(place >> (fraction_bits - 32))) * 0x1p-32f;
}

// A logit, scaled; most: the largest magnitude so far.
__device__ __forceinline__ float scaled(float value, float scale, float &most) {
    most = fmaxf(most, fabsf(value));
    return value * scale;
}

// 4 x 4 pixels between at most three cells each way, as any four are where a cell has three pixels or more:
// value = cell 0 + first * (cell 1 - cell 0) + second * (cell 2 - cell 1).
struct Close {
    static constexpr int down = 4, cells = 3;
    int offset[cells][cells]; // of cells in a plane
    float first_x[across], second_x[across], first_y[down], second_y[down];

    template <int N> __device__ __forceinline__ static void
    weigh(const Axis &axis, int pixel, int (&cell)[cells], float (&first)[N], float (&second)[N]) {
        const int low = cell_of(place_of(axis, pixel)), last = cell_of(axis.last);
        for (int i = 0; i < cells; ++i) { cell[i] = min(low + i, last); }
        for (int i = 0; i < N; ++i) {
            const int64_t place = place_of(axis, pixel + i);
            const bool next = cell_of(place) != low;
            first[i] = next ? 1.0f : fraction_of(place);
            second[i] = next ? fraction_of(place) : 0.0f;
        }
    }

    __device__ __forceinline__ Close(const Axis &vertical, const Axis &horizontal, int width, int y,
                                     int x) {
        int row[cells], column[cells];
        weigh(vertical, y, row, first_y, second_y);
        weigh(horizontal, x, column, first_x, second_x);
        for (int i = 0; i < cells; ++i) {
            for (int j = 0; j < cells; ++j) { offset[i][j] = row[i] * width + column[j]; }
        }
    }

    __device__ __forceinline__ void scores(const float *plane, float scale,
                                           float (&out)[down][across], float &most) const {
        float row[cells][across];
        for (int i = 0; i < cells; ++i) {
            float cell[cells];
            for (int j = 0; j < cells; ++j) { cell[j] = scaled(plane[offset[i][j]], scale, most); }
            for (int k = 0; k < across; ++k) {
                row[i][k] = fmaf(second_x[k], cell[2] - cell[1],
                                 fmaf(first_x[k], cell[1] - cell[0], cell[0]));
            }
        }
        for (int k = 0; k < across; ++k) {
            const float one = row[1][k] - row[0][k], two = row[2][k] - row[1][k];
            for (int y = 0; y < down; ++y) {
                out[y][k] = fmaf(second_y[y], two, fmaf(first_y[y], one, row[0][k]));
            }
        }
    }
};

// Pixels anywhere on the grid: each has four cells of its own.
struct Anywhere {
    static constexpr int down = 1;
    int offset[2][across], next[across]; // of the left cell, and how far the right one is
    float weight_y, weight_x[across];

    __device__ __forceinline__ Anywhere(const Axis &vertical, const Axis &horizontal, int width,
                                        int y, int x) {
        const int64_t row = place_of(vertical, y);
        const int top = cell_of(row), bottom = min(top + 1, cell_of(vertical.last));
        weight_y = fraction_of(row);
        for (int k = 0; k < across; ++k) {
            const int64_t place = place_of(horizontal, x + k);
            const int cell = cell_of(place);
            weight_x[k] = fraction_of(place);
            next[k] = cell < cell_of(horizontal.last) ? 1 : 0;
            offset[0][k] = top * width + cell;
            offset[1][k] = bottom * width + cell;
        }
    }

    __device__ __forceinline__ void scores(const float *plane, float scale,
                                           float (&out)[down][across], float &most) const {
        for (int k = 0; k < across; ++k) {
            float row[2];
            for (int i = 0; i < 2; ++i) {
                const float left = scaled(plane[offset[i][k]], scale, most);
                const float right = scaled(plane[offset[i][k] + next[k]], scale, most);
                row[i] = fmaf(weight_x[k], right - left, left);
            }
            out[0][k] = fmaf(weight_y, row[1] - row[0], row[0]);
        }
    }
};

// labels [down] = those of a thread's pixels, a byte each. Returns the largest magnitude that it met.
template <class Pixels>
__device__ __forceinline__ float label_pixels(const PlaneView &logits, const float *plane,
                                              const uint8_t *names, const Pixels &pixels,
                                              float scale, uint32_t (&labels)[Pixels::down]) {
    float best[Pixels::down][across];
    for (auto &row : best) {
        for (float &value : row) { value = -FLT_MAX; } // scaled scores are above
    }
    float most = 0.0f;
    const int planes = static_cast<int>(logits.channels);
#pragma unroll 1
    for (int p = 0; p < planes; ++p, plane += logits.channel_stride) {
        const uint32_t name = names != nullptr ? names[p] : static_cast<uint32_t>(p);
        float score[Pixels::down][across];
        pixels.scores(plane, scale, score, most);
#pragma unroll
        for (int y = 0; y < Pixels::down; ++y) {
#pragma unroll
            for (unsigned k = 0; k < across; ++k) {
                if (score[y][k] > best[y][k]) { // ties stay with the lowest plane
                    best[y][k] = score[y][k];
                    labels[y] = __byte_perm(labels[y], name, 0x3210u + ((4u - k) << (4 * k)));
                }
            }
        }
    }
    return most;
}

template <class Pixels> __global__ void __launch_bounds__(block_lanes *block_warps, 5)
    label(PlaneView logits, Axis vertical, Axis horizontal, const uint8_t *names, uint8_t *out,
          bool aligned, int *report) {
    const int thread = static_cast<int>(threadIdx.x);
    const int64_t cells = logits.height * logits.width;
    const int64_t all = logits.batch * logits.channels * cells;
    const int64_t apart = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + thread; i < all; i += apart) {
        const int64_t plane = i / cells;
        const float value =
            logits.data[plane / logits.channels * logits.batch_stride +
                        plane % logits.channels * logits.channel_stride + i % cells];
        if (!is_finite(value)) { atomicOr(report, static_cast<int>(not_finite)); }
    }

    constexpr int down = Pixels::down;
    const int wide = (horizontal.pixels + across * block_lanes - 1) / (across * block_lanes);
    const int tall = (vertical.pixels + down * block_warps - 1) / (down * block_warps);
    const int tile = static_cast<int>(blockIdx.x) / wide;
    const int x =
        (static_cast<int>(blockIdx.x) % wide * block_lanes + thread % block_lanes) * across;
    const int y = (tile % tall * block_warps + thread / block_lanes) * down;
    const int64_t b = tile / tall;
    const int rows = min(down, vertical.pixels - y), columns = min(across, horizontal.pixels - x);
    if (rows <= 0 || columns <= 0) { return; }

    const Pixels pixels(vertical, horizontal, static_cast<int>(logits.width), y, x);
    const float *image = logits.data + b * logits.batch_stride;
    // Powers of two do not change the winner: the first keeps differences from overflowing, the second
    // small scores from losing bits.
    uint32_t labels[down] = {};
    for (float scale = 0.25f;; scale = 0x1p64f) {
        const float most = label_pixels(logits, image, names, pixels, scale, labels);
        if (scale > 1.0f || !(most > 0.0f && most < 0x1p-60f)) { break; }
    }

    uint8_t *at = out + (b * vertical.pixels + y) * horizontal.pixels + x;
#pragma unroll
    for (int i = 0; i < down; ++i) {
        if (i >= rows) { break; }
        if (aligned) { // then rows are whole words
            *reinterpret_cast<uint32_t *>(at) = labels[i];
        } else {
            for (int k = 0; k < across; ++k) {
                if (k < columns) { at[k] = static_cast<uint8_t>(labels[i] >> (8 * k)); }
            }
        }
        at += horizontal.pixels;
    }
}

Axis axis_of(double extent, int64_t grid, int64_t pixels) {
    const int64_t cells = std::min(static_cast<int64_t>(std::ceil(extent)), grid);
    const double step = extent / static_cast<double>(pixels);
    return {std::llrint(std::ldexp(step, fraction_bits - 1)),
            (std::max<int64_t>(cells, 1) - 1) << fraction_bits, static_cast<int>(pixels)};
}

} // namespace

Status upsample_argmax(const UpsampleArgmaxArgs &args) {
    const Axis vertical = axis_of(args.extent_h, args.logits.height, args.height);
    const Axis horizontal = axis_of(args.extent_w, args.logits.width, args.width);
    const bool aligned =
        args.width % across == 0 && reinterpret_cast<uintptr_t>(args.out) % across == 0;
    // So four neighbouring pixels lie less than one cell apart, or just one.
    const auto close = [](const Axis &axis, int pixels) {
        return 2 * axis.half_step * (pixels - 1) <= int64_t{1} << fraction_bits;
    };
    const auto enqueue = [&](auto kernel, int down) {
        const int64_t blocks = args.logits.batch *
                               static_cast<int64_t>(divided_up(args.width, across * block_lanes)) *
                               divided_up(args.height, down * block_warps);
        if (blocks == 0) { return; }
        launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(block_lanes * block_warps), 0,
               args.logits, vertical, horizontal, args.labels, args.out, aligned,
               current().report());
    };
    if (close(horizontal, across) && close(vertical, Close::down)) {
        enqueue(label<Close>, Close::down);
    } else {
        enqueue(label<Anywhere>, Anywhere::down);
    }
    return Status::ok;
}

} // namespace cuda
} // namespace fsseg
