// The cosines of all cells by the strips of cuda/cosine.h, kept in scratch memory (4 bytes for the 2 to 4 x C of
// the features); then their moments, around the mean of a chunk of cells, in double. At 60x60 one chunk holds all
// cells, and the second kernel, a block for each prototype, writes the result: two launches. Beyond that there are
// up to 32 chunks of a size that depends on the number of cells alone, and a third launch merges them in order.
#include "distance_stats/distance_stats.h"

#include "cuda/cosine.h"
#include "cuda/moments.h"

namespace fsseg {
namespace cuda {

namespace {

constexpr int64_t whole = 8192, most_chunks = 32; // cells of a chunk that needs no other; chunks
constexpr int moment_threads = 512;

// out [prototypes][batch][pixels]
template <class S> __global__ void __launch_bounds__(S::threads, 512 / S::threads)
    cosines(Planes<typename S::Element> f, RowsView prototypes, Strips split, float *out,
            int *report) {
    __shared__ StripMemory<S, true> memory;
    const StripPlace place = strip_place<S>(split);
    const auto in = strip_input(f, prototypes, place, split.size);
    strip_sums<S, true>(in, memory);
    make_cosines<S>(in, memory, report);
    const int x = static_cast<int>(threadIdx.x);
    if (x >= min(S::pixels, in.left)) { return; }
    float *at = out + (place.first * f.batch + place.batch) * f.pixels + place.start + x;
#pragma unroll
    for (int p = 0; p < S::vectors; ++p) {
        if (p < in.count) { at[p * f.batch * f.pixels] = memory.part[0][p * S::pixels + x]; }
    }
}

// Of the distances 1 - cosine(i) for i = begin .. end - 1, by a block of whole warps; to every thread.
// cosine(i) and weight(i) are asked for twice. partial: shared memory for 4 x 32 values.
template <class Cosine, class Weight>
__device__ Moments moments_of_block(int64_t begin, int64_t end, Cosine &&cosine, Weight &&weight,
                                    double *partial) {
    double total = 0.0, sum = 0.0;
    float low = FLT_MAX, high = -FLT_MAX; // of cosines
    for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
        const double w = weight(i);
        const float c = cosine(i);
        total += w;
        sum += w * (1.0 - static_cast<double>(c));
        low = w > 0.0 ? fminf(low, c) : low;
        high = w > 0.0 ? fmaxf(high, c) : high;
    }
    total = block_sum(total, partial);
    if (!(total > 0.0)) { return no_cells(); } // all threads of the block
    const double mean = block_sum(sum, partial + 32) / total;
    double m2 = 0.0, m3 = 0.0, m4 = 0.0;
    for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
        const double centred = 1.0 - static_cast<double>(cosine(i)) - mean;
        const double square = centred * centred, part = weight(i) * square;
        m2 += part;
        m3 += part * centred;
        m4 += part * square;
    }
    m2 = block_sum(m2, partial + 64);
    m3 = block_sum(m3, partial + 96);
    m4 = block_sum(m4, partial);
    // Both ends in one: the largest of a value and of the negative of the other.
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const double top = static_cast<double>(warp_max(high));
    const double bottom = static_cast<double>(warp_max(-low));
    if (lane == 0) {
        partial[32 + warp] = top;
        partial[64 + warp] = bottom;
    }
    __syncthreads();
    double largest = partial[32], negative = partial[64];
    for (int i = 1; i < static_cast<int>(blockDim.x) / 32; ++i) {
        largest = fmax(largest, partial[32 + i]);
        negative = fmax(negative, partial[64 + i]);
    }
    return {total, mean, m2, m3, m4, 1.0 - largest, 1.0 + negative};
}

__device__ __forceinline__ void write_shape(const Moments &m, float *row) {
    const Shape s = shape_of(m);
    row[0] = static_cast<float>(s.low);
    row[1] = static_cast<float>(s.high);
    row[2] = static_cast<float>(s.variance);
    row[3] = static_cast<float>(s.skewness);
    row[4] = static_cast<float>(s.kurtosis);
    row[5] = static_cast<float>(s.mean);
}

// A block for each chunk of each prototype. chunks [prototypes][chunks], or with one chunk the result itself.
__global__ void __launch_bounds__(moment_threads)
    moments(const float *cosines, PlaneView weights, int64_t pixels, int64_t cells, int64_t chunk,
            int count, Moments *chunks, float *out, int *report) {
    __shared__ double partial[4 * 32];
    const int64_t p = blockIdx.x / static_cast<unsigned>(count);
    const int64_t begin = blockIdx.x % static_cast<unsigned>(count) * chunk;
    const float *own = cosines + p * cells;
    bool bad = false;
    const Moments m = moments_of_block(
        begin, min(begin + chunk, cells), [&](int64_t i) { return own[i]; },
        [&](int64_t i) {
            if (weights.data == nullptr) { return 1.0; }
            const float w = i < pixels // no division for one picture
                                ? weights.data[i]
                                : weights.data[i / pixels * weights.batch_stride + i % pixels];
            bad = bad || !(w >= 0.0f && w <= FLT_MAX);
            return static_cast<double>(w);
        },
        partial);
    if (bad) { atomicOr(report, static_cast<int>(not_finite)); }
    if (threadIdx.x != 0) { return; }
    if (count == 1) {
        write_shape(m, out + p * 6);
    } else {
        chunks[blockIdx.x] = m;
    }
}

__global__ void merge_chunks(const Moments *chunks, int64_t vectors, int count, float *out) {
    const int64_t p = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (p >= vectors) { return; }
    Moments total = chunks[p * count];
    for (int i = 1; i < count; ++i) { merge(total, chunks[p * count + i]); }
    write_shape(total, out + p * 6);
}

} // namespace

Status distance_stats(const DistanceStatsArgs &args) {
    Context &context = current();
    const int64_t vectors = args.prototypes.rows;
    const int64_t pixels = args.features.height * args.features.width;
    const int64_t cells = args.features.batch * pixels;
    const int64_t chunk = max(whole, static_cast<int64_t>(divided_up(cells, most_chunks)));
    const int count = static_cast<int>(max(divided_up(cells, chunk), 1u));
    float *distances = context.scratch_of<float>(vectors * cells);
    Moments *chunks = context.scratch_of<Moments>(vectors * count);
    with_type(args.features.dtype, [&](auto zero) {
        const auto f = planes_of<decltype(zero)>(args.features);
        with_strips(f, args.prototypes, [&](auto strip, const Strips &split, unsigned blocks) {
            launch(cosines<decltype(strip)>, dim3(blocks), dim3(strip.threads), 0, f,
                   args.prototypes, split, distances, context.report());
        });
        return 0;
    });
    if (vectors < 1) { return Status::ok; }
    launch(moments, dim3(static_cast<unsigned>(vectors * count)), dim3(moment_threads), 0,
           static_cast<const float *>(distances), args.weights, pixels, cells, chunk, count, chunks,
           args.out, context.report());
    if (count > 1) {
        launch(merge_chunks, dim3(divided_up(vectors, 32)), dim3(32), 0,
               static_cast<const Moments *>(chunks), vectors, count, args.out);
    }
    return Status::ok;
}

} // namespace cuda
} // namespace fsseg
