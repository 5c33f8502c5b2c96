#include "weighted_pool/weighted_pool.h"

#include "core/simd.h"

namespace fsseg {
namespace FSSEG_NS {

namespace {

constexpr int64_t tile_pixels =
    768; // features of 8 channels and weights of 2 maps: first-level cache
constexpr int64_t exact_pixels = 4096; // sums of so many are float32; they are added up in double
constexpr int64_t block_channels = 32; // of one task: weights are read again for each block only
constexpr int64_t group_channels = 8;  // of one inner loop
#if defined(FSSEG_SIMD_AVX512) || defined(FSSEG_SIMD_NEON)
constexpr int row_sums = 8; // of one channel, that do not wait for each other
#else
constexpr int row_sums = 4; // more do not fit into the registers
#endif

// acc[m, c] += f[c] * w[m] over n pixels, a vector of partial sums for each; acc [MAPS, c_stride].
template <int CHANNELS, int MAPS> void dot_tile(const float *f, int64_t f_stride, const float *w,
                                                int64_t w_stride, int64_t n, float *acc,
                                                int64_t acc_stride) {
    vf sums[MAPS][CHANNELS];
    for (int m = 0; m < MAPS; ++m) {
        for (int c = 0; c < CHANNELS; ++c) { sums[m][c] = load(acc + m * acc_stride + c * lanes); }
    }
    int64_t x = 0;
    for (; x + lanes <= n; x += lanes) {
        vf weight[MAPS];
        for (int m = 0; m < MAPS; ++m) { weight[m] = load(w + m * w_stride + x); }
        for (int c = 0; c < CHANNELS; ++c) {
            vf feature = load(f + c * f_stride + x);
            keep(feature);
            for (int m = 0; m < MAPS; ++m) { sums[m][c] = fma(feature, weight[m], sums[m][c]); }
        }
    }
    for (int m = 0; m < MAPS; ++m) {
        for (int c = 0; c < CHANNELS; ++c) { store(acc + m * acc_stride + c * lanes, sums[m][c]); }
    }
    if (x == n) { return; }
    const int rest = static_cast<int>(n - x);
    for (int m = 0; m < MAPS; ++m) {
        const vf weight = load_n(w + m * w_stride + x, rest);
        for (int c = 0; c < CHANNELS; ++c) {
            float *at = acc + m * acc_stride + c * lanes;
            store(at, fma(load_n(f + c * f_stride + x, rest), weight, load(at)));
        }
    }
}

template <int CHANNELS> void dot_maps(const float *f, int64_t f_stride, const PlaneView &w,
                                      const float *weights, int64_t n, float *acc) {
    constexpr int64_t acc_stride = block_channels * lanes;
    int64_t m = 0;
    for (; m + 2 <= w.channels; m += 2) {
        dot_tile<CHANNELS, 2>(f, f_stride, weights + m * w.channel_stride, w.channel_stride, n,
                              acc + m * acc_stride, acc_stride);
    }
    if (m < w.channels) {
        dot_tile<CHANNELS, 1>(f, f_stride, weights + m * w.channel_stride, w.channel_stride, n,
                              acc + m * acc_stride, acc_stride);
    }
}

// The same for `count` <= 32 channels: groups of 8, then of 4, 2 and 1.
void dot_block(const float *f, int64_t f_stride, int64_t count, const PlaneView &w,
               const float *weights, int64_t n, float *acc) {
    int64_t c = 0;
    for (; c + group_channels <= count; c += group_channels) {
        dot_maps<group_channels>(f + c * f_stride, f_stride, w, weights, n, acc + c * lanes);
    }
    if (c + 4 <= count) {
        dot_maps<4>(f + c * f_stride, f_stride, w, weights, n, acc + c * lanes);
        c += 4;
    }
    if (c + 2 <= count) {
        dot_maps<2>(f + c * f_stride, f_stride, w, weights, n, acc + c * lanes);
        c += 2;
    }
    if (c < count) { dot_maps<1>(f + c * f_stride, f_stride, w, weights, n, acc + c * lanes); }
}

// acc[c] += f[c] * w over n pixels of `count` channels, for one map. One channel after another, in the
// order of memory, which prefetchers follow best; with more maps the weights would fall out of the
// first-level cache.
void dot_rows(const float *f, int64_t f_stride, int64_t count, const float *w, int64_t n,
              float *acc) {
    for (int64_t c = 0; c < count; ++c) {
        const float *row = f + c * f_stride;
        vf sums[row_sums];
        for (int s = 0; s < row_sums; ++s) { sums[s] = zero(); }
        int64_t x = 0;
        for (; x + row_sums * lanes <= n; x += row_sums * lanes) {
            for (int s = 0; s < row_sums; ++s) {
                vf feature = load(row + x + s * lanes);
                keep(feature);
                sums[s] = fma(feature, load(w + x + s * lanes), sums[s]);
            }
        }
        for (; x < n; x += lanes) {
            const int rest = static_cast<int>(smaller(lanes, n - x));
            sums[0] = fma(load_n(row + x, rest), load_n(w + x, rest), sums[0]);
        }
        for (int half = row_sums / 2; half > 0; half /= 2) {
            for (int s = 0; s < half; ++s) { sums[s] = add(sums[s], sums[s + half]); }
        }
        store(acc + c * lanes, add(load(acc + c * lanes), sums[0]));
    }
}

double plane_sum(const float *w, int64_t n) {
    double total = 0.0;
    for (int64_t start = 0; start < n; start += exact_pixels) {
        const int64_t end = smaller(start + exact_pixels, n);
        vf acc = zero();
        int64_t x = start;
        for (; x + lanes <= end; x += lanes) { acc = add(acc, load(w + x)); }
        if (x < end) { acc = add(acc, load_n(w + x, static_cast<int>(end - x))); }
        total += static_cast<double>(sum(acc));
    }
    return total;
}

double plane_dot_double(const float *f, const float *w, int64_t n) {
    double total = 0.0;
    for (int64_t x = 0; x < n; ++x) {
        total += static_cast<double>(f[x]) * static_cast<double>(w[x]);
    }
    return total;
}

} // namespace

Status weighted_pool(const WeightedPoolArgs &args) {
    const PlaneView &f = args.features;
    const PlaneView &w = args.weights;
    const int64_t n = f.height * f.width, maps = w.channels, channels = f.channels;
    const int64_t blocks = divide_up(channels, block_channels);
    const int64_t tile = maps == 1 ? exact_pixels : tile_pixels;
    const double work = 3e-5 * static_cast<double>(f.batch * channels * maps) *
                        static_cast<double>(n); // microseconds, roughly
    const int threads = worthwhile(args.threads, work);

    const int64_t per_worker = maps * block_channels;
    Scratch inverse_memory(f.batch * maps * static_cast<int64_t>(sizeof(double)));
    Scratch sums_memory(threads * per_worker * static_cast<int64_t>(sizeof(double)));
    Scratch acc_memory(threads * per_worker * lanes * static_cast<int64_t>(sizeof(float)));
    if (inverse_memory.data == nullptr || sums_memory.data == nullptr ||
        acc_memory.data == nullptr) {
        return Status::no_memory;
    }
    double *inverse = static_cast<double *>(inverse_memory.data);
    double *all_sums = static_cast<double *>(sums_memory.data);
    float *all_acc = static_cast<float *>(acc_memory.data);
    for (int64_t b = 0; b < f.batch; ++b) {
        for (int64_t m = 0; m < maps; ++m) {
            const float *plane = w.data + b * w.batch_stride + m * w.channel_stride;
            inverse[b * maps + m] = 1.0 / (plane_sum(plane, n) + args.eps);
        }
    }

    int bad = 0; // only ever set to 1
    for_each(f.batch * blocks, threads, [&](int64_t task, int worker) {
        const int64_t b = task / blocks, first = task % blocks * block_channels;
        const int64_t count = smaller(block_channels, channels - first);
        const float *planes = f.data + b * f.batch_stride + first * f.channel_stride;
        const float *weights = w.data + b * w.batch_stride;
        double *sums = all_sums + worker * per_worker;
        float *acc = all_acc + worker * per_worker * lanes;
        memset(sums, 0, static_cast<size_t>(per_worker) * sizeof(double));
        for (int64_t begin = 0; begin < n; begin += exact_pixels) {
            const int64_t end = smaller(begin + exact_pixels, n);
            memset(acc, 0, static_cast<size_t>(per_worker * lanes) * sizeof(float));
            for (int64_t x = begin; x < end; x += tile) {
                const int64_t size = smaller(tile, end - x);
                if (maps == 1) {
                    dot_rows(planes + x, f.channel_stride, count, weights + x, size, acc);
                } else {
                    dot_block(planes + x, f.channel_stride, count, w, weights + x, size, acc);
                }
            }
            for (int64_t i = 0; i < per_worker; ++i) {
                sums[i] += static_cast<double>(sum(load(acc + i * lanes)));
            }
        }
        for (int64_t m = 0; m < maps; ++m) {
            for (int64_t c = 0; c < count; ++c) {
                double value = sums[m * block_channels + c];
                if (!finite(value)) {
                    value = plane_dot_double(planes + c * f.channel_stride,
                                             weights + m * w.channel_stride, n);
                }
                const float result = static_cast<float>(value * inverse[b * maps + m]);
                if (!finite(result)) { __atomic_store_n(&bad, 1, __ATOMIC_RELAXED); }
                args.out[(b * maps + m) * channels + first + c] = result;
            }
        }
    });
    return bad != 0 ? Status::not_finite : Status::ok;
}

} // namespace FSSEG_NS
} // namespace fsseg
