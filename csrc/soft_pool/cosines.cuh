// Cosines of a few vectors with the cells of all pictures: device code of soft_pool and prototype_fusion.
//
// Each block has 32 cells and all channels of them: 113 blocks for 60x60, of 16 warps at C = 1024. A load of 16
// bytes takes 8 or 4 cells of one channel, so that a warp reads 8 (4) channels at a time and a thread 8 or 16 of
// them all in all, 8 at once for 2 vectors and 4 for 4 in fp16: 32 to 64 kB in flight on each processor, above
// the 17 bytes a cycle times 1,000 cycles that are needed. Vectors are taken 4 at a time, for which the features
// are read once; the next 4 find them in the caches, where 32 cells of 1,024 channels are 64 or 128 kB.
// With more blocks than processors they are half as large, and two share one.
// What After does with the cosines of a tile follows in the same launch.
#pragma once

#include "cuda/cosine.h"

#include <algorithm>
#include <cfloat>

namespace fsseg {
namespace cuda {

constexpr int tile_cells = 32, cosine_threads = 512;
// Of one thread, in flight: what its registers hold beside the sums.
template <int G, int V> constexpr int cosine_loads = G * V > 16 ? 4 : 8;

inline int units_together(int64_t rows) { return rows <= 2 ? 2 : 4; }
inline int64_t padded_units(int64_t rows) {
    const int together = units_together(rows);
    return (rows + together - 1) / together * together;
}

// The unit vector of row `number`, as launch_cosines wants them: [group][channels][together]; zeros from
// `rows` on. By all threads of a block; the row is in memory that this thread has written where value is its
// own, i.e. value(c) is asked for c = thread, thread + threads, ... alone. False: the row is not finite.
template <class Value> __device__ bool pack_unit(const Value &value, int64_t channels,
                                                 int64_t number, int together, float *packed,
                                                 double *partial) {
    double square = 0.0;
    for (int64_t c = threadIdx.x; c < channels; c += blockDim.x) {
        const double x = static_cast<double>(value(c));
        square = fma(x, x, square);
    }
    square = block_sum(square, partial);
    const double inverse = square > 0.0 ? 1.0 / sqrt(square) : 0.0;
    float *to = packed + number / together * together * channels + number % together;
    for (int64_t c = threadIdx.x; c < channels; c += blockDim.x) {
        to[c * together] = static_cast<float>(static_cast<double>(value(c)) * inverse);
    }
    return fabs(square) <= DBL_MAX;
}

struct Cosines {
    const float *units;      // packed
    int64_t from, rows, all; // the rows from, from + 1, ... of `all`
    float *values;           // [B, all, cells]
};

// The cells whose squares leave float32's range, in double. By one warp, for one cell; -> whether it is finite.
template <class T, int G> __device__ bool careful_cosines(const T *cell, int64_t stride,
                                                          int channels, const float *units,
                                                          int count, float *to, int64_t to_stride) {
    const double square = careful_dot(cell, stride, cell, stride, channels);
    const double inverse = square > 0.0 ? 1.0 / sqrt(square) : 0.0;
    for (int g = 0; g < count; ++g) {
        const double dot = careful_dot(cell, stride, units + g, G, channels);
        if (threadIdx.x % 32 == 0) { to[g * to_stride] = static_cast<float>(dot * inverse); }
    }
    return square <= DBL_MAX;
}

// Adds the products of V cells with G vectors, and their squares, over the channels c, c + apart, ... to
// v[V][G + 1]; ENDS: those from `channels` on are none. Loads are unconditional: all are on their way at once.
template <class T, int G, int V, bool ENDS>
__device__ __forceinline__ void add_channels(const T *cells, int64_t stride, const float *units,
                                             int c, int apart, int channels,
                                             float (&v)[V * (G + 1)]) {
    constexpr int loads = cosine_loads<G, V>;
    Elements<T, V> values[loads];
    const int last = channels - 1;
    const T *at = cells + (ENDS ? min(c, last) : c) * stride;
#pragma unroll
    for (int u = 0; u < loads; ++u) {
        values[u] = load<T, V>(at);
        at += !ENDS ? apart * stride
                    : (min(c + (u + 1) * apart, last) - min(c + u * apart, last)) * stride;
    }
#pragma unroll
    for (int u = 0; u < loads; ++u) {
        const int channel = c + u * apart;
        const bool there = !ENDS || channel < channels;
        const Elements<float, G> unit =
            load<float, G>(units + (there ? channel : 0) * static_cast<int64_t>(G));
#pragma unroll
        for (int j = 0; j < V; ++j) {
            const float value = there ? to_float(values[u].at[j]) : 0.0f;
#pragma unroll
            for (int g = 0; g < G; ++g) {
                v[j * (G + 1) + g] = fmaf(value, unit.at[g], v[j * (G + 1) + g]);
            }
            v[j * (G + 1) + G] = fmaf(value, value, v[j * (G + 1) + G]);
        }
    }
}

// after(b, first, count): called by all threads of a block when the cosines of the cells first, first + 1, ...
// of picture b are written, for the rows of this launch.
template <class T, int G, bool ALIGNED, class After>
__global__ void __launch_bounds__(cosine_threads, 1)
    cosines_of_cells(Planes<T> f, Cosines to, After after, int *report) {
    constexpr int V = ALIGNED ? 16 / static_cast<int>(sizeof(T)) : 1;
    constexpr int steps = V == 8 ? 3 : V == 4 ? 2 : 0, across = tile_cells / V;
    __shared__ float partial[cosine_threads / 32][(G + 1) * tile_cells];
    __shared__ float totals[(G + 1) * tile_cells]; // dots, then squares
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
    const int lane = thread % 32, warp = thread / 32, warps = threads / 32;
    const int64_t tiles = (f.pixels + tile_cells - 1) / tile_cells;
    const int64_t b = blockIdx.x / tiles, first = blockIdx.x % tiles * tile_cells;
    const int count = static_cast<int>(min(static_cast<int64_t>(tile_cells), f.pixels - first));
    const T *cells = f.data + b * f.batch_stride + first;
    const int x = lane % across * V; // of this thread, and x + 1, ..., x + V - 1
    const int own = warp * V + lane / across, apart = warps * V,
              channels = static_cast<int>(f.channels);

    const T *from = cells + (x < count ? x : 0); // cells from `count` on are not kept

    for (int64_t row = 0; row < to.rows; row += G) {
        const float *units = to.units + row * f.channels;
        float v[V * (G + 1)];
#pragma unroll
        for (int i = 0; i < V * (G + 1); ++i) { v[i] = 0.0f; }
        for (int c = 0; c < channels; c += cosine_loads<G, V> * apart) {
            if (c + cosine_loads<G, V> * apart <= channels) {
                add_channels<T, G, V, false>(from, f.channel_stride, units, c + own, apart,
                                             channels, v);
            } else {
                add_channels<T, G, V, true>(from, f.channel_stride, units, c + own, apart, channels,
                                            v);
            }
        }
        scatter_sums<steps>(v); // over the channels of the warp: each lane keeps one cell
        const int kept = x + lane / across;
#pragma unroll
        for (int g = 0; g <= G; ++g) { partial[warp][g * tile_cells + kept] = v[g]; }
        __syncthreads();
        for (int i = thread; i < (G + 1) * tile_cells; i += threads) {
            float sum = 0.0f;
            for (int k = 0; k < warps; ++k) { sum += partial[k][i]; }
            totals[i] = sum;
        }
        __syncthreads();
        const int rows = static_cast<int>(min(static_cast<int64_t>(G), to.rows - row));
        float *out = to.values + (b * to.all + to.from + row) * f.pixels + first;
        for (int i = thread; i < rows * tile_cells; i += threads) {
            const int cell = i % tile_cells;
            const float square = totals[G * tile_cells + cell];
            if (cell < count && fits_float(square)) {
                out[i / tile_cells * f.pixels + cell] = totals[i] * (1.0f / sqrtf(square));
            }
        }
        for (int cell = warp; cell < count; cell += warps) {
            if (fits_float(totals[G * tile_cells + cell])) { continue; }
            if (!careful_cosines<T, G>(cells + cell, f.channel_stride, channels, units, rows,
                                       out + cell, f.pixels)) {
                atomicOr(report, static_cast<int>(not_finite));
            }
        }
    }
    __syncthreads();
    after(b, first, count);
}

template <class T, class After>
void launch_cosines(const Planes<T> &f, const Cosines &to, const After &after) {
    if (f.batch * f.pixels == 0) { return; }
    const bool aligned = aligned_planes(f, 16 / static_cast<int>(sizeof(T))),
               two = units_together(to.rows) == 2;
    const int64_t vector = aligned ? 16 / static_cast<int64_t>(sizeof(T)) : 1;
    const int64_t blocks = f.batch * divided_up(f.pixels, tile_cells);
    // More blocks than processors: two of half the size on each, of which one loads while the other adds up.
    const int64_t most = cosine_threads / 32 / (blocks > current().processors ? 2 : 1);
    const int64_t warps = std::min(std::max<int64_t>(f.channels / (vector * 8), 1), most);
    const dim3 grid(static_cast<unsigned>(blocks));
    launch(two       ? aligned ? cosines_of_cells<T, 2, true, After>
                               : cosines_of_cells<T, 2, false, After>
           : aligned ? cosines_of_cells<T, 4, true, After>
                     : cosines_of_cells<T, 4, false, After>,
           grid, dim3(static_cast<unsigned>(warps * 32)), 0, f, to, after, current().report());
}

} // namespace cuda
} // namespace fsseg
