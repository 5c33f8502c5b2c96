// Dot products of a few vectors with the channels of every pixel, and the squared norms of both: the pass over the
// features that cosine_match, linear_match and distance_stats have in common.
//
// With up to most_vectors vectors this is bound by memory, so a block takes a strip of pixels with all of their
// channels: each feature is read once, nothing is merged between blocks, and one launch does it. The channels of a
// strip are cut into slices, one for each group of threads that stand side by side over the pixels. A thread reads
// 16 bytes of four or eight channels before it uses the first, and the four numbers of each vector that belong to
// four channels; it keeps its sums in registers. The slices meet in shuffles and shared memory at the end.
//
// A map of 60x60x1024 holds 14.7 MB in float32 and 7.4 MB in 16 bits. Strips of 32 pixels make 113 blocks of it: one
// for almost each of 132 multiprocessors. 512 threads with 64 to 128 bytes each on their way are 32 to 64 KB for a
// multiprocessor; 4 TB/s times 0.7 us of latency need 21. Where there are strips enough to fill the device with
// them, they are 128 pixels wide: longer runs of memory and less to add up, and a second block on the
// multiprocessor reads while the first adds.
//
// More vectors are cut into groups, which are neighbours in the grid: they read the same strip at the same time,
// all but the first from the cache.
#pragma once

#include "cuda/elements.h"
#include "cuda/reduce.h"

namespace fsseg {
namespace cuda {

constexpr int most_vectors = 6;

// Squared norms within these lose nothing in float; others, zero and NaN among them, are done again in double.
__device__ __forceinline__ bool fits_float(float square) {
    return square >= 1e-24f && square <= 1e36f;
}

// How a block works. Aligned: 16 bytes of a plane, and of a vector, can be read at once.
template <class T, int VECTORS, bool WIDE, bool ALIGNED> struct Strip {
    using Element = T;
    static constexpr bool aligned = ALIGNED;
    static constexpr int vectors = VECTORS, pixels = WIDE ? 128 : 32, threads = WIDE ? 256 : 512;
    static constexpr int each = 16 / static_cast<int>(sizeof(T)); // pixels of a thread
    static constexpr int across = pixels / each;                  // threads side by side
    static constexpr int slices = threads / across, warps = threads / 32;
    static constexpr int kept = pixels / 32; // pixels that a lane keeps of a warp's sums
    static constexpr int quads =
        ALIGNED && VECTORS <= 4 ? 2 : 1; // four channels each, read at once

    // Of the thread's pixels, in the strip.
    __device__ static int place(int lane, int i) {
        return ALIGNED ? lane % across * each + i : lane % across + across * i;
    }
};

// The blocks of a grid, for all pictures: the groups of vectors of a strip are neighbours.
struct Strips {
    unsigned strips;  // of a picture
    int groups, size; // vectors of a group
};

// What a block reads.
template <class T> struct StripInput {
    const T *planes; // of the picture, at the strip
    int64_t channel_stride;
    int channels, left; // pixels from the strip on
    const float *vectors;
    int64_t row_stride;
    int count; // of vectors, 1 or more
};

// A block's place in the whole.
struct StripPlace {
    int64_t batch, start;
    int first; // vector
};

template <class S> __device__ __forceinline__ StripPlace strip_place(const Strips &split) {
    unsigned strip = blockIdx.x, group = 0, batch = 0; // most grids need no division
    if (split.groups > 1) {
        group = strip % static_cast<unsigned>(split.groups);
        strip /= static_cast<unsigned>(split.groups);
    }
    if (strip >= split.strips) {
        batch = strip / split.strips;
        strip %= split.strips;
    }
    return {batch, static_cast<int64_t>(strip) * S::pixels, static_cast<int>(group) * split.size};
}

template <class T> __device__ __forceinline__ StripInput<T>
strip_input(const Planes<T> &f, const RowsView &vectors, const StripPlace &place, int size) {
    const int64_t left = f.pixels - place.start;
    return {f.data + place.batch * f.batch_stride + place.start,
            f.channel_stride,
            static_cast<int>(f.channels),
            static_cast<int>(left < 4096 ? left : 4096),
            vectors.data + (vectors.batch == 1 ? 0 : place.batch) * vectors.batch_stride +
                place.first * vectors.row_stride,
            vectors.row_stride,
            min(size, static_cast<int>(vectors.rows) - place.first)};
}

template <class S, bool SQUARES> struct StripSums {
    float dot[S::vectors][S::each], square[S::each], own[S::vectors];
};

// Of each warp; then, in the first of them, of the block: dots [vectors][pixels], with SQUARES the squared norms of
// the pixels [pixels] and of the vectors [vectors].
template <class S, bool SQUARES> struct StripMemory {
    static constexpr int squares = S::vectors * S::pixels, own = squares + S::pixels;
    static constexpr int size = SQUARES ? own + S::vectors : squares;
    float part[S::warps][size];
};

template <class S, bool SQUARES> __device__ __forceinline__ void
add_channel(const float (&x)[S::each], const float (&w)[S::vectors], StripSums<S, SQUARES> &sums) {
    if (SQUARES) {
#pragma unroll
        for (int i = 0; i < S::each; ++i) { sums.square[i] = fmaf(x[i], x[i], sums.square[i]); }
    }
#pragma unroll
    for (int p = 0; p < S::vectors; ++p) {
        if (SQUARES) { sums.own[p] = fmaf(w[p], w[p], sums.own[p]); }
#pragma unroll
        for (int i = 0; i < S::each; ++i) { sums.dot[p][i] = fmaf(w[p], x[i], sums.dot[p][i]); }
    }
}

template <class S> __device__ __forceinline__ Elements<typename S::Element, S::each>
load_pixels(const typename S::Element *plane, const int (&offset)[S::each]) {
    using T = typename S::Element;
    if constexpr (S::aligned) {
        return load<T, S::each>(plane + offset[0]);
    } else {
        Elements<T, S::each> found;
#pragma unroll
        for (int i = 0; i < S::each; ++i) { found.at[i] = plane[offset[i]]; }
        return found;
    }
}

// The channels 4 quad .. 4 quad + 3, and QUADS - 1 times as many, each a round of slices further on.
template <class S, bool SQUARES, int QUADS> __device__ __forceinline__ void
add_quads(const StripInput<typename S::Element> &in, const int (&offset)[S::each],
          const float *const (&row)[S::vectors], int quad, StripSums<S, SQUARES> &sums) {
    Elements<typename S::Element, S::each> x[QUADS][4];
    Elements<float, 4> w[QUADS][S::vectors];
#pragma unroll
    for (int u = 0; u < QUADS; ++u) {
        const int c = 4 * (quad + u * S::slices);
        const typename S::Element *plane = in.planes + c * in.channel_stride;
#pragma unroll
        for (int j = 0; j < 4; ++j, plane += in.channel_stride) {
            x[u][j] = load_pixels<S>(plane, offset);
        }
#pragma unroll
        for (int p = 0; p < S::vectors; ++p) {
            if (S::aligned) {
                w[u][p] = load<float, 4>(row[p] + c);
            } else {
#pragma unroll
                for (int j = 0; j < 4; ++j) { w[u][p].at[j] = row[p][c + j]; }
            }
        }
    }
#pragma unroll
    for (int u = 0; u < QUADS; ++u) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            float values[S::each], factors[S::vectors];
#pragma unroll
            for (int i = 0; i < S::each; ++i) { values[i] = to_float(x[u][j].at[i]); }
#pragma unroll
            for (int p = 0; p < S::vectors; ++p) { factors[p] = w[u][p].at[j]; }
            add_channel<S, SQUARES>(values, factors, sums);
        }
    }
}

// Lanes a multiple of `across` apart hold sums of the same pixels. At each step two of them add theirs and share
// the pixels out: x[0 .. kept - 1] become the sums of the pixels from the returned one on.
template <class S> __device__ __forceinline__ int fold(float (&x)[S::each], int lane) {
    int first = 0;
#pragma unroll
    for (int bit = S::across, n = S::each / 2; bit < 32; bit *= 2, n /= 2) {
        const bool upper = (lane & bit) != 0;
#pragma unroll
        for (int i = 0; i < n; ++i) {
            const float given = upper ? x[i] : x[i + n];
            x[i] = (upper ? x[i + n] : x[i]) + __shfl_xor_sync(all_lanes, given, bit);
        }
        first += upper ? n : 0;
    }
    return first;
}

// The sums of the strip are memory.part[0] after it, for all threads. Always added in the same order.
template <class S, bool SQUARES> __device__ __forceinline__ void
strip_sums(const StripInput<typename S::Element> &in, StripMemory<S, SQUARES> &memory) {
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    const int slice = thread / S::across;
    // Beyond the last pixel, and the last vector, there are valid ones again, whose sums nobody asks for.
    int offset[S::each];
    const float *row[S::vectors];
#pragma unroll
    for (int i = 0; i < S::each; ++i) {
        const int x = S::place(lane, i);
        offset[i] = x < in.left ? x : 0;
    }
#pragma unroll
    for (int p = 0; p < S::vectors; ++p) {
        row[p] = in.vectors + min(p, in.count - 1) * in.row_stride;
    }
    StripSums<S, SQUARES> sums{};
    const int quads = in.channels / 4;
    int quad = slice;
    for (; quad + (S::quads - 1) * S::slices < quads; quad += S::quads * S::slices) {
        add_quads<S, SQUARES, S::quads>(in, offset, row, quad, sums);
    }
    for (; S::quads > 1 && quad < quads; quad += S::slices) {
        add_quads<S, SQUARES, 1>(in, offset, row, quad, sums);
    }
    if (slice < in.channels % 4) {
        const int c = 4 * quads + slice;
        const auto found = load_pixels<S>(in.planes + c * in.channel_stride, offset);
        float values[S::each], factors[S::vectors];
#pragma unroll
        for (int i = 0; i < S::each; ++i) { values[i] = to_float(found.at[i]); }
#pragma unroll
        for (int p = 0; p < S::vectors; ++p) { factors[p] = row[p][c]; }
        add_channel<S, SQUARES>(values, factors, sums);
    }

    float *part = memory.part[warp];
#pragma unroll
    for (int p = 0; p < S::vectors; ++p) {
        const int first = fold<S>(sums.dot[p], lane);
#pragma unroll
        for (int i = 0; i < S::kept; ++i) {
            part[p * S::pixels + S::place(lane, first + i)] = sums.dot[p][i];
        }
    }
    if (SQUARES) {
        const int first = fold<S>(sums.square, lane);
#pragma unroll
        for (int i = 0; i < S::kept; ++i) {
            part[memory.squares + S::place(lane, first + i)] = sums.square[i];
        }
#pragma unroll
        for (int p = 0; p < S::vectors; ++p) {
            float own = sums.own[p];
#pragma unroll
            for (int bit = S::across; bit < 32; bit *= 2) {
                own += __shfl_xor_sync(all_lanes, own, bit);
            }
            if (lane == 0) { part[memory.own + p] = own; }
        }
    }
    __syncthreads();
    for (int i = thread; i < memory.size; i += S::threads) {
        float sum = memory.part[0][i];
#pragma unroll
        for (int w = 1; w < S::warps; ++w) { sum += memory.part[w][i]; }
        memory.part[0][i] = sum;
    }
    __syncthreads();
}

// Sum of x[c] * y[c] in double, by a warp, to every lane.
template <class X, class Y> __device__ __forceinline__ double
careful_dot(const X *x, int64_t x_stride, const Y *y, int64_t y_stride, int channels) {
    double sum = 0.0;
    for (int c = static_cast<int>(threadIdx.x) % 32; c < channels; c += 32) {
        sum += static_cast<double>(to_float(x[c * x_stride])) *
               static_cast<double>(to_float(y[c * y_stride]));
    }
    return warp_sum(sum);
}

// The dots of memory.part[0] become cosines, for all threads. With a zero vector they are 0.
template <class S> __device__ __forceinline__ void
make_cosines(const StripInput<typename S::Element> &in, StripMemory<S, true> &memory, int *report) {
    float *sums = memory.part[0];
    const int thread = static_cast<int>(threadIdx.x), pixels = min(S::pixels, in.left);
    const auto odd = [&](int x) {
        bool fits = fits_float(sums[memory.squares + x]);
        for (int p = 0; p < S::vectors; ++p) { fits = fits && fits_float(sums[memory.own + p]); }
        return !fits;
    };
    bool again = false;
    if (thread < pixels) {
        again = odd(thread);
        const float length = sqrtf(sums[memory.squares + thread]);
#pragma unroll
        for (int p = 0; p < S::vectors; ++p) {
            sums[p * S::pixels + thread] /= length * sqrtf(sums[memory.own + p]);
        }
    }
    if (!__syncthreads_or(again)) { return; }
    const int64_t stride = in.channel_stride;
    for (int x = thread / 32; x < pixels; x += S::warps) {
        if (!odd(x)) { continue; }
        const auto *pixel = in.planes + x;
        const double square = careful_dot(pixel, stride, pixel, stride, in.channels);
        for (int p = 0; p < in.count; ++p) {
            const float *row = in.vectors + p * in.row_stride;
            const double own = careful_dot(row, 1, row, 1, in.channels);
            const double dot = careful_dot(pixel, stride, row, 1, in.channels);
            if (thread % 32 != 0) { continue; }
            if (!(square + own <= DBL_MAX)) { atomicOr(report, static_cast<int>(not_finite)); }
            const bool zero = square == 0.0 || own == 0.0;
            sums[p * S::pixels + x] =
                zero ? 0.0f : static_cast<float>(dot / sqrt(square) / sqrt(own));
        }
    }
    __syncthreads();
}

// work(Strip<...>(), Strips, blocks). Nothing where there is nothing to write.
template <class T, class Work>
void with_strips(const Planes<T> &f, const RowsView &vectors, Work &&work) {
    if (f.batch < 1 || f.pixels < 1 || vectors.rows < 1) { return; }
    const int groups = static_cast<int>(divided_up(vectors.rows, most_vectors));
    const int size = static_cast<int>(divided_up(vectors.rows, groups));
    const auto run = [&](auto strip) {
        const Strips split{divided_up(f.pixels, strip.pixels), groups, size};
        work(strip, split, static_cast<unsigned>(split.strips * f.batch * groups));
    };
    const bool rows_aligned = reinterpret_cast<uintptr_t>(vectors.data) % 16 == 0 &&
                              vectors.row_stride % 4 == 0 && vectors.batch_stride % 4 == 0;
    if (!rows_aligned || !aligned_planes(f, 16 / static_cast<int>(sizeof(T)))) {
        size <= 2 ? run(Strip<T, 2, false, false>()) : run(Strip<T, most_vectors, false, false>());
        return;
    }
    const int64_t wide_strips = static_cast<int64_t>(divided_up(f.pixels, 128)) * f.batch * groups;
    if (2 * wide_strips >= 3 * current().processors) {
        if (size <= 2) {
            run(Strip<T, 2, true, true>());
        } else {
            size <= 4 ? run(Strip<T, 4, true, true>()) : run(Strip<T, most_vectors, true, true>());
        }
    } else if (size <= 2) {
        run(Strip<T, 2, false, true>());
    } else {
        size <= 4 ? run(Strip<T, 4, false, true>()) : run(Strip<T, most_vectors, false, true>());
    }
}

} // namespace cuda
} // namespace fsseg
