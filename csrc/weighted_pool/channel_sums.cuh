// Weighted sums of the channels of a map, sum_x f[b, c, x] w[b, m, x], and of the weights: device code of
// weighted_pool and soft_pool.
//
// Features are read once and the weights once for each block: 60x60x1024 in fp16 are 7.4 MB, and 14 kB for
// each map and block. A thread keeps the weights of its pixels (16 bytes of features: 8 or 4) in registers
// and goes down the channels of its block, 4 of them in flight; where a row fits (4,096 pixels in
// fp16), the block holds all of it and a channel is one load a thread. A warp sums up 4 channels of 2 maps
// at once (warp_sums: 9 shuffles). At 60x60x1024 a block has 480 threads and 4 channels: 256 blocks, two
// for each of 132 processors, with 58 kB of loads in flight on each: above what latency times bandwidth
// asks for (17 bytes a cycle, about 1,000 cycles). Float32 for the 8 pixels of 32 lanes, then double.
#pragma once

#include "cuda/elements.h"
#include "cuda/reduce.h"

#include <algorithm>

namespace fsseg {
namespace cuda {

constexpr int pool_threads = 512, most_pool_channels = 32;

// Channels that a thread has in flight: with two blocks on a processor there are 64 registers.
template <bool ALIGNED> constexpr int pool_unrolled = ALIGNED ? 4 : 2;
template <int M, int V, bool ALIGNED> constexpr int pool_blocks =
    (M > 2 && V > 4) || !ALIGNED ? 1 : 2;

// How the work is cut into blocks. Maps are taken M at a time: `groups`.
struct PoolCut {
    int64_t channel_blocks, splits, groups;
    int64_t span; // pixels of a split: whole vectors
    int channels; // of a block
    int threads;
};

// Rule says what the weights are and what becomes of the sums:
//   maps, skips (pixels without weight need not be read: nothing is reported about them)
//   one(b, m, x), several(b, m, x, w): the weights of pixel x, or of those from x on; m < maps
//   finish(f, b, m, c, sum, weight): called by all lanes of one warp

template <class T, int M, bool ALIGNED, class Rule> __global__ void
__launch_bounds__(pool_threads, (pool_blocks<M, 16 / static_cast<int>(sizeof(T)), ALIGNED>))
    channel_sums(Planes<T> f, Rule rule, PoolCut cut, double *partial) {
    constexpr int V = 16 / static_cast<int>(sizeof(T)), U = pool_unrolled<ALIGNED>, N = U * M;
    FSSEG_SHARED(double, sums); // [warps][channels of the block * M], then of weights [warps][M]
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    const int threads = static_cast<int>(blockDim.x), warps = threads / 32;
    int64_t place = blockIdx.x;
    const int64_t first = place % cut.channel_blocks * cut.channels;
    place /= cut.channel_blocks;
    const int64_t split = place % cut.splits;
    place /= cut.splits;
    const int64_t first_map = place % cut.groups * M, b = place / cut.groups;
    const int count = static_cast<int>(min(static_cast<int64_t>(cut.channels), f.channels - first));
    const int maps = static_cast<int>(min(static_cast<int64_t>(M), rule.maps - first_map));
    const T *rows = f.data + b * f.batch_stride + first * f.channel_stride;
    double *all_weights = sums + warps * cut.channels * M;
    double *own = sums + warp * cut.channels * M, *own_weights = all_weights + warp * M;

    const int64_t begin = split * cut.span, end = min(begin + cut.span, f.pixels);
    for (int64_t at = begin; at < end; at += static_cast<int64_t>(threads) * V) {
        const bool fresh = at == begin;
        // Aligned: V pixels from x on. Else x, x + threads, ...: neighbours are of neighbouring lanes.
        const int64_t x = at + (ALIGNED ? thread * V : thread);
        float w[M][V];
        bool any = false;
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
            for (int j = 0; j < V; ++j) { w[m][j] = 0.0f; }
            if (m < maps && ALIGNED && x < end) { rule.several(b, first_map + m, x, w[m]); }
#pragma unroll
            for (int j = 0; j < V && !ALIGNED; ++j) {
                const int64_t pixel = x + j * threads;
                if (m < maps && pixel < end) { w[m][j] = rule.one(b, first_map + m, pixel); }
            }
#pragma unroll
            for (int j = 0; j < V; ++j) { any = any || w[m][j] != 0.0f; }
        }
        // Loads are unconditional, so that all are on their way at once: what has no weight reads what a
        // neighbour reads, and channels from `count` on are not kept.
        const bool reads = x < end && (any || !Rule::skips);
        const unsigned active = __ballot_sync(all_lanes, reads ? 1 : 0);
        const int64_t of_other =
            __shfl_sync(all_lanes, x, max(__ffs(static_cast<int>(active)) - 1, 0));
        const T *from = rows + (reads ? x : of_other);
        for (int i = lane; active == 0 && fresh && i < count * M; i += 32) { own[i] = 0.0; }
        for (int c = 0; active != 0 && c < count; c += U) {
            Elements<T, V> values[U];
#pragma unroll
            for (int u = 0; u < U; ++u) {
                const T *row = from + min(c + u, count - 1) * f.channel_stride;
                if (ALIGNED) {
                    values[u] = load<T, V>(row);
                } else {
#pragma unroll
                    for (int j = 0; j < V; ++j) {
                        values[u].at[j] = row[reads && x + j * threads < end ? j * threads : 0];
                    }
                }
            }
            float v[N];
#pragma unroll
            for (int i = 0; i < N; ++i) { v[i] = 0.0f; }
#pragma unroll
            for (int u = 0; u < U; ++u) {
#pragma unroll
                for (int j = 0; j < V; ++j) {
                    const float value = to_float(values[u].at[j]);
#pragma unroll
                    for (int m = 0; m < M; ++m) {
                        v[u * M + m] = fmaf(value, w[m][j], v[u * M + m]);
                    }
                }
            }
            const float sum = warp_sums(v);
            const int i = lane / (32 / N);
            if (lane % (32 / N) == 0 && c + i / M < count) {
                double &kept = own[c * M + i];
                kept = fresh ? static_cast<double>(sum) : kept + static_cast<double>(sum);
            }
        }
        float totals[M];
#pragma unroll
        for (int m = 0; m < M; ++m) {
            totals[m] = w[m][0];
#pragma unroll
            for (int j = 1; j < V; ++j) { totals[m] += w[m][j]; }
        }
        const float total = warp_sums(totals);
        if (lane % (32 / M) == 0) {
            double &kept = own_weights[lane / (32 / M)];
            kept = fresh ? static_cast<double>(total) : kept + static_cast<double>(total);
        }
        __syncwarp(); // before other lanes add to what was set to 0
    }

    __syncthreads();
    for (int i = warp; i < count * M; i += warps) {
        const int m = i % M;
        if (m >= maps) { continue; }
        const int64_t map = first_map + m, c = first + i / M;
        const double sum = warp_sum(lane < warps ? sums[lane * cut.channels * M + i] : 0.0);
        const double weight = warp_sum(lane < warps ? all_weights[lane * M + m] : 0.0);
        if (partial == nullptr) {
            rule.finish(f, b, map, c, sum, weight);
        } else if (lane == 0) {
            double *row = partial + ((b * rule.maps + map) * cut.splits + split) * (f.channels + 1);
            row[c] = sum;
            if (c == 0) { row[f.channels] = weight; }
        }
    }
}

// One warp for each result: adds up the splits, in order.
template <class T, class Rule>
__global__ void merge_splits(Planes<T> f, Rule rule, int64_t splits, const double *partial) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int64_t i = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
    if (i >= f.batch * rule.maps * f.channels) { return; }
    const int64_t c = i % f.channels, map = i / f.channels;
    double sum = 0.0, weight = 0.0;
    for (int64_t split = lane; split < splits; split += 32) {
        const double *row = partial + (map * splits + split) * (f.channels + 1);
        sum += row[c];
        weight += row[f.channels];
    }
    rule.finish(f, map / rule.maps, map % rule.maps, c, warp_sum(sum), warp_sum(weight));
}

inline PoolCut pool_cut(int64_t batch, int64_t channels, int64_t pixels, int64_t groups, int vector,
                        int unrolled) {
    const auto up = [](int64_t n, int64_t by) { return (n + by - 1) / by; };
    const int64_t processors = std::max(current().processors, 1), vectors = up(pixels, vector);
    const int64_t chunks = up(vectors, pool_threads);
    PoolCut cut{};
    cut.groups = groups;
    cut.splits = 1;
    const int64_t rows = batch * channels * groups;
    // One wave of blocks where that is possible, two on a processor, more where rows are short.
    const int64_t threads = std::min<int64_t>(up(vectors, 32) * 32, pool_threads);
    int64_t blocks = processors * (2 * pool_threads / threads);
    int64_t each = up(rows, blocks);
    if (each > unrolled) {
        each = std::min<int64_t>(up(each, unrolled) * unrolled, most_pool_channels);
    }
    if (chunks >= 8 && rows < processors * unrolled) { // few long rows
        each = unrolled;
        blocks = batch * groups * up(channels, each);
        cut.splits = std::max<int64_t>(1, std::min(chunks / 2, up(2 * processors, blocks)));
    }
    cut.channels = static_cast<int>(std::min(each, channels));
    cut.channel_blocks = up(channels, cut.channels);
    cut.span = up(vectors, cut.splits) * vector;
    const int64_t of_split = up(cut.span, vector);
    cut.threads = static_cast<int>(up(up(of_split, up(of_split, pool_threads)), 32) * 32);
    return cut;
}

template <class T, int M, class Rule>
void pool_maps(const Planes<T> &f, const Rule &rule, bool aligned) {
    constexpr int V = 16 / static_cast<int>(sizeof(T)), U = pool_unrolled<true>;
    const PoolCut cut = pool_cut(f.batch, f.channels, f.pixels, (rule.maps + M - 1) / M, V, U);
    const int64_t rows = f.batch * rule.maps;
    const int64_t blocks = f.batch * cut.groups * cut.splits * cut.channel_blocks;
    const size_t shared =
        static_cast<size_t>(cut.threads / 32 * (cut.channels + 1) * M) * sizeof(double);
    double *partial = cut.splits == 1
                          ? nullptr
                          : current().scratch_of<double>(rows * cut.splits * (f.channels + 1));
    launch(aligned ? channel_sums<T, M, true, Rule> : channel_sums<T, M, false, Rule>,
           dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(cut.threads)), shared, f,
           rule, cut, partial);
    if (partial == nullptr) { return; }
    launch(merge_splits<T, Rule>, dim3(divided_up(rows * f.channels, 8)), dim3(256), 0, f, rule,
           cut.splits, static_cast<const double *>(partial));
}

// aligned: of the weights; that of the features is seen to here.
template <class T, class Rule>
void pool_channels(const Planes<T> &f, const Rule &rule, bool aligned) {
    if (f.batch * f.channels * rule.maps == 0 || f.pixels == 0) { return; }
    aligned = aligned && aligned_planes(f, 16 / static_cast<int>(sizeof(T)));
    switch (rule.maps) {
    case 1: return pool_maps<T, 1>(f, rule, aligned);
    case 2: return pool_maps<T, 2>(f, rule, aligned);
    default: return pool_maps<T, 4>(f, rule, aligned);
    }
}

} // namespace cuda
} // namespace fsseg
