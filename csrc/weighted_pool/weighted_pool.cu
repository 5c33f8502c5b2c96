#include "weighted_pool/weighted_pool.h"

#include "weighted_pool/channel_sums.cuh"

#include <cfloat>

namespace fsseg {
namespace cuda {

namespace {

struct Pooled {
    Planes<float> weights;
    int64_t maps;
    double eps;
    float *out;
    int *report;
    static constexpr bool skips = false; // 0 times NaN is to be seen

    __device__ __forceinline__ const float *row(int64_t b, int64_t m) const {
        return weights.data + b * weights.batch_stride + m * weights.channel_stride;
    }
    __device__ __forceinline__ float one(int64_t b, int64_t m, int64_t x) const {
        return row(b, m)[x];
    }
    template <int V>
    __device__ __forceinline__ void several(int64_t b, int64_t m, int64_t x, float (&w)[V]) const {
        const float *from = row(b, m) + x;
#pragma unroll
        for (int j = 0; j < V; j += 4) {
            const Elements<float, 4> four = load<float, 4>(from + j);
#pragma unroll
            for (int i = 0; i < 4; ++i) { w[j + i] = four.at[i]; }
        }
    }

    // A sum of features or weights that has left the range of float32 is made again in double.
    template <class T> __device__ void finish(const Planes<T> &f, int64_t b, int64_t m, int64_t c,
                                              double sum, double weight) const {
        const int lane = static_cast<int>(threadIdx.x) % 32;
        if (!(fabs(sum) <= DBL_MAX && fabs(weight) <= DBL_MAX)) {
            const T *features = f.data + b * f.batch_stride + c * f.channel_stride;
            const float *w = row(b, m);
            sum = weight = 0.0;
            for (int64_t x = lane; x < f.pixels; x += 32) {
                sum += static_cast<double>(to_float(features[x])) * static_cast<double>(w[x]);
                weight += static_cast<double>(w[x]);
            }
            sum = warp_sum(sum);
            weight = warp_sum(weight);
        }
        if (lane != 0) { return; }
        const float mean = static_cast<float>(sum / (weight + eps));
        if (!is_finite(mean)) { atomicOr(report, static_cast<int>(not_finite)); }
        out[(b * maps + m) * f.channels + c] = mean;
    }
};

} // namespace

Status weighted_pool(const WeightedPoolArgs &args) {
    const Planes<float> w = planes_of<float>(args.weights);
    const Pooled rule{w, w.channels, args.eps, args.out, current().report()};
    return with_type(args.features.dtype, [&](auto zero) {
        pool_channels(planes_of<decltype(zero)>(args.features), rule, aligned_planes(w, 4));
        return Status::ok;
    });
}

} // namespace cuda
} // namespace fsseg
