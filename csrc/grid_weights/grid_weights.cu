// Each cell gathers its pixels: no sums are shared, so none has to wait for another, and the order is fixed.
//
// As a function of the pixel, W(y, i) is a hat: 1 - |place(y) - i|, 0 below that. A pixel has weight in four
// cells, so it is read four times, mostly from a cache: 473x473 bytes are 0.2 MB, 1080x1920 are 2 MB. A cell
// of 473x473 -> 60x60 has 256 pixels and a warp for it, 3,600 warps in 450 blocks; one of 1080x1920 -> 28x28
// has 10,600 pixels and a block of 256 threads, 784 blocks: 1 to 11 loads of 4 columns for a thread, all
// independent.
#include "grid_weights/grid_weights.h"

#include "core/axis.h"
#include "cuda/elements.h"
#include "cuda/reduce.h"

#include <algorithm>

namespace fsseg {
namespace cuda {

namespace {

constexpr int threads = 256, columns = 4; // of a block, of a load

template <class T> struct Masks {
    const T *data;
    int64_t batch_stride, row_stride;
};

struct Grid {
    GridAxis down, across;
    int64_t rows, columns, cells; // cells: of all pictures
    int warps;                    // for a cell
};

// The hat of one cell over the pixels begin, begin + 1, ..., end - 1, which include all that it covers.
struct Hat {
    int64_t begin, end;
    float first, step, low, high; // place - cell at begin; how far it goes for clamped pixels

    __device__ Hat(const GridAxis &axis, int64_t cell) {
        const int64_t last = axis.cells - 1;
        const double at = static_cast<double>(cell), pixels = static_cast<double>(axis.pixels);
        const double from = floor((at - 0.5) / axis.step - 0.5),
                     to = ceil((at + 1.5) / axis.step) + 1.0;
        begin = cell <= 0 ? 0 : static_cast<int64_t>(min(max(from, 0.0), pixels));
        end = cell >= last ? axis.pixels : static_cast<int64_t>(min(to, pixels));
        if (cell > last) { end = begin; } // no pixel touches it
        first = static_cast<float>((static_cast<double>(begin) + 0.5) * axis.step - 0.5 - at);
        step = static_cast<float>(axis.step);
        low = cell <= 0 ? 0.0f : -2.0f;
        high = cell >= last ? 0.0f : 2.0f;
    }
    // In float: `first` is exact enough, and from there it is less than two cells.
    __device__ __forceinline__ float operator()(int64_t pixel) const {
        const float place = fmaf(static_cast<float>(pixel - begin), step, first);
        return max(0.0f, 1.0f - fabsf(min(max(place, low), high)));
    }
};

template <class T, bool ALIGNED> __global__ void __launch_bounds__(threads)
    cells_of_grid(Masks<T> masks, Grid grid, float *out, int *report) {
    __shared__ double partial[threads / 32];
    const int warp = static_cast<int>(threadIdx.x) / 32, team = warp / grid.warps;
    const int64_t cell = static_cast<int64_t>(blockIdx.x) * (threads / 32 / grid.warps) + team;
    double total = 0.0;
    if (cell < grid.cells) {
        const int64_t j = cell % grid.columns, i = cell / grid.columns % grid.rows;
        const Hat down(grid.down, i), across(grid.across, j);
        const T *data = masks.data + cell / grid.columns / grid.rows * masks.batch_stride;
        // The team covers a rectangle of `wide` loads and `high` rows, then the next one.
        const int64_t left = ALIGNED ? across.begin / columns * columns : across.begin;
        int wide = 1;
        while (wide < 32 && wide * columns < across.end - left) { wide *= 2; }
        const int thread = static_cast<int>(threadIdx.x) - team * grid.warps * 32;
        const int column = thread % wide, high = grid.warps * 32 / wide;
        for (int64_t at = left; at < across.end; at += wide * columns) {
            // Neighbours where one load takes them, else those of neighbouring threads.
            const int64_t x = at + (ALIGNED ? column * columns : column);
            const int apart = ALIGNED ? 1 : wide;
            const bool whole = ALIGNED && x + columns <= grid.across.pixels;
            float sums[columns] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 4
            for (int64_t y = down.begin + thread / wide; y < down.end; y += high) {
                const T *row = data + y * masks.row_stride;
                Elements<T, columns> values;
                if (whole) { values = load<T, columns>(row + x); }
#pragma unroll
                for (int k = 0; k < columns && !whole; ++k) {
                    values.at[k] = x + k * apart < across.end ? row[x + k * apart] : T(0);
                }
                const float weight = down(y);
#pragma unroll
                for (int k = 0; k < columns; ++k) {
                    sums[k] = fmaf(static_cast<float>(values.at[k]), weight, sums[k]);
                }
            }
#pragma unroll
            for (int k = 0; k < columns; ++k) {
                const float weight = x < across.end ? across(x + k * apart) : 0.0f;
                total += static_cast<double>(sums[k]) * static_cast<double>(weight);
            }
        }
    }
    total = warp_sum(total);
    if (threadIdx.x % 32 == 0) { partial[warp] = total; }
    __syncthreads();
    if (cell >= grid.cells || threadIdx.x % (grid.warps * 32) != 0) { return; }
    double sum = 0.0;
    for (int k = 0; k < grid.warps; ++k) { sum += partial[warp + k]; }
    const float result = static_cast<float>(sum);
    if (!is_finite(result)) { atomicOr(report, static_cast<int>(not_finite)); }
    out[cell] = result;
}

template <class T> void gather(const GridWeightsArgs &args, const Grid &grid) {
    const Masks<T> masks{static_cast<const T *>(args.masks), args.batch_stride, args.row_stride};
    const bool aligned = reinterpret_cast<uintptr_t>(masks.data) % (columns * sizeof(T)) == 0 &&
                         masks.row_stride % columns == 0 && masks.batch_stride % columns == 0;
    const dim3 blocks(divided_up(grid.cells, threads / 32 / grid.warps));
    launch(aligned ? cells_of_grid<T, true> : cells_of_grid<T, false>, blocks, dim3(threads), 0,
           masks, grid, args.out, current().report());
}

} // namespace

Status grid_weights(const GridWeightsArgs &args) {
    Grid grid{grid_axis(args.extent_h, args.grid_h, args.height),
              grid_axis(args.extent_w, args.grid_w, args.width),
              args.grid_h,
              args.grid_w,
              args.batch * args.grid_h * args.grid_w,
              1};
    if (grid.cells == 0) { return Status::ok; }
    const auto span = [](const GridAxis &axis) {
        return std::min(2.0 / axis.step + 1.0, static_cast<double>(axis.pixels));
    };
    const double loads = span(grid.down) * span(grid.across) / columns;
    while (grid.warps < threads / 32 && loads > 4.0 * 32.0 * grid.warps) { grid.warps *= 2; }
    if (args.bytes) {
        gather<uint8_t>(args, grid);
    } else {
        gather<float>(args, grid);
    }
    return Status::ok;
}

} // namespace cuda
} // namespace fsseg
