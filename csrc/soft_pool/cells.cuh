// Which class has a cell and how much the cell counts (y z t w of soft_pool.h), and the means of the features
// over these cells: device code of soft_pool and prototype_fusion.
#pragma once

#include "weighted_pool/channel_sums.cuh"

#include <cfloat>

namespace fsseg {
namespace cuda {

struct CellRule {
    int64_t parts, classes, cells;
    float scale;
    const float *radius; // [classes], or null
    const int64_t *ways; // [B]
    const float *cover;  // what the caller says a cell counts, or null
    int64_t cover_stride;
    const float *cosines; // [B, parts + classes, cells]
    int *owner;           // [B, cells]: the class (anything where the weight is 0), and
    float *weight;        // what the cell counts
    int *report;

    __device__ __forceinline__ float cover_of(int64_t b, int64_t x) const {
        return cover == nullptr ? 1.0f : cover[b * cover_stride + x];
    }
    __device__ __forceinline__ const float *cosines_of(int64_t b, int64_t row) const {
        return cosines + (b * (parts + classes) + row) * cells;
    }

    __device__ void weigh(int64_t b, int64_t x) const {
        const float share = cover_of(b, x);
        if (!(share >= 0.0f && share <= FLT_MAX)) {
            atomicOr(report, static_cast<int>(not_finite));
        }
        const float *at = cosines_of(b, 0) + x;
        float background = __fmul_rn(scale, at[0]);
        for (int64_t p = 1; p < parts; ++p) {
            background = max(background, __fmul_rn(scale, at[p * cells]));
        }
        const float *own = at + parts * cells;
        float top = background, distance = 0.0f,
              limit = -1.0f; // no class is larger than the background
        int number = -1;
        for (int64_t c = 0; c < classes; ++c) {
            const float cosine = own[c * cells], score = __fmul_rn(scale, cosine);
            if (!(score > top)) { continue; }
            top = score;
            number = static_cast<int>(c);
            distance = 1.0f - cosine;
            limit = radius == nullptr ? INFINITY : radius[c];
        }
        const bool counts = limit > distance && (ways[b] < 0 || ways[b] == number) && share > 0.0f;
        float result = 0.0f;
        if (counts) {
            float total = expf(background - top);
            for (int64_t c = 0; c < classes; ++c) {
                total += expf(__fmul_rn(scale, own[c * cells]) - top);
            }
            result = share / total;
        }
        owner[b * cells + x] = number;
        weight[b * cells + x] = result;
    }
};

constexpr double smallest_mass = 1e-3; // with less, products of weights and features may underflow

// The rule of channel_sums for these cells. A mean without mass is zero; sums that are not finite, or of hardly
// any weight, are made again in double.
struct OwnCells {
    const int *owner;
    const float *weight;
    int64_t cells, maps; // maps: classes
    float *vectors;      // [B, N, C], or null:
    double *means;       // the same
    float *mass;         // [B, N]
    int *report;
    static constexpr bool skips = true; // most cells count for no class

    __device__ __forceinline__ float one(int64_t b, int64_t m, int64_t x) const {
        return owner[b * cells + x] == static_cast<int>(m) ? weight[b * cells + x] : 0.0f;
    }
    template <int V>
    __device__ __forceinline__ void several(int64_t b, int64_t m, int64_t x, float (&w)[V]) const {
#pragma unroll
        for (int j = 0; j < V; j += 4) {
            const Elements<int, 4> owners = load<int, 4>(owner + b * cells + x + j);
            const Elements<float, 4> weights = load<float, 4>(weight + b * cells + x + j);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                w[j + i] = owners.at[i] == static_cast<int>(m) ? weights.at[i] : 0.0f;
            }
        }
    }

    template <class T> __device__ void finish(const Planes<T> &f, int64_t b, int64_t m, int64_t c,
                                              double sum, double total) const {
        const int lane = static_cast<int>(threadIdx.x) % 32;
        if (total > 0.0 && !(fabs(sum) <= DBL_MAX && total >= smallest_mass)) {
            const T *features = f.data + b * f.batch_stride + c * f.channel_stride;
            sum = 0.0;
            for (int64_t x = lane; x < cells; x += 32) {
                const float w = one(b, m, x);
                if (w > 0.0f) {
                    sum += static_cast<double>(to_float(features[x])) * static_cast<double>(w);
                }
            }
            sum = warp_sum(sum);
        }
        if (lane != 0) { return; }
        const double mean = total > 0.0 ? sum / total : 0.0;
        const int64_t at = (b * maps + m) * f.channels + c;
        if (vectors != nullptr) { vectors[at] = static_cast<float>(mean); }
        if (means != nullptr) { means[at] = mean; }
        bool good = is_finite(static_cast<float>(mean));
        if (c == 0) {
            const float all = static_cast<float>(total);
            mass[b * maps + m] = all;
            good = good && is_finite(all);
        }
        if (!good) { atomicOr(report, static_cast<int>(not_finite)); }
    }
};

} // namespace cuda
} // namespace fsseg
