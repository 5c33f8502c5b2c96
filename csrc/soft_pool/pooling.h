// Weighted sums of the features of those cells that count: most vectors of cells hold none of a class,
// and are not read. Two orders: channel after channel over the cells of a chunk (pool_rows), and, for a
// strip of cells that lies in a cache, a few vectors of cells down all channels (pool_strip).
#pragma once

#include "core/simd.h"

namespace fsseg {
namespace FSSEG_NS {

constexpr int64_t chunk_cells = 960; // float32 sums add up so many; threads share the chunks
constexpr int block_cells = 8;       // vectors of cells whose weights stay in registers

// The sums of one class over the cells of one chunk.
struct ClassSums {
    float *acc;   // [channels, lanes], not yet written if not used
    double *mass; // of all cells that count
    bool used;
};

// The vectors of cells that count for a class: where they are, and what they count.
struct OwnCells {
    int64_t at[chunk_cells / lanes];
    alignas(64) float weights[chunk_cells];
    int count; // of whole vectors
    int rest;  // cells of one more vector, the last of the plane: at[count]
};

// Of n cells; owner and weight hold whole vectors (cells.h). Adds what they count to the mass.
static void find_own(const float *owner, const float *weight, int64_t n, int64_t number,
                     OwnCells &own, double *mass) {
    const vf nothing = zero(), wanted = set1(static_cast<float>(number));
    own.count = own.rest = 0;
    for (int64_t x = 0; x < n; x += lanes) {
        const vf other = sub(load(owner + x), wanted);
        const vf counts = select_greater(mul(other, other), set1(0.25f), nothing, load(weight + x));
        if (differing(counts, nothing) == 0) { continue; }
        float *weights = own.weights + own.count * lanes;
        store(weights, counts);
        for (int i = 0; i < lanes; ++i) { *mass += static_cast<double>(weights[i]); }
        own.at[own.count] = x;
        if (x + lanes <= n) {
            ++own.count;
        } else {
            own.rest = static_cast<int>(n - x);
        }
    }
}

// acc[c] += sum of K vectors of cells at `at` times their weights, lane by lane, for all channels.
template <int K, bool FRESH> static void pool_block(const float *f, int64_t stride,
                                                    int64_t channels, const int64_t *at,
                                                    const float *weights, float *acc) {
    vf w[K];
    for (int k = 0; k < K; ++k) { w[k] = load(weights + k * lanes); }
    for (int64_t c = 0; c < channels; ++c) {
        const float *row = f + c * stride;
        vf total = FRESH ? zero() : load(acc + c * lanes);
        for (int k = 0; k < K; ++k) { total = fma(load(row + at[k]), w[k], total); }
        store(acc + c * lanes, total);
    }
}

template <bool FRESH> static void pool_blocks(int count, const float *f, int64_t stride,
                                              int64_t channels, const int64_t *at,
                                              const float *weights, float *acc) {
    switch (count) {
    case 1: return pool_block<1, FRESH>(f, stride, channels, at, weights, acc);
    case 2: return pool_block<2, FRESH>(f, stride, channels, at, weights, acc);
    case 3: return pool_block<3, FRESH>(f, stride, channels, at, weights, acc);
    case 4: return pool_block<4, FRESH>(f, stride, channels, at, weights, acc);
    case 5: return pool_block<5, FRESH>(f, stride, channels, at, weights, acc);
    case 6: return pool_block<6, FRESH>(f, stride, channels, at, weights, acc);
    case 7: return pool_block<7, FRESH>(f, stride, channels, at, weights, acc);
    default: return pool_block<8, FRESH>(f, stride, channels, at, weights, acc);
    }
}

// The last cells of a plane, fewer than a vector.
static void pool_rest(const float *f, int64_t stride, int64_t channels, const OwnCells &own,
                      ClassSums &sums) {
    if (!sums.used) { memset(sums.acc, 0, static_cast<size_t>(channels * lanes) * sizeof(float)); }
    sums.used = true;
    const vf w = load(own.weights + own.count * lanes);
    for (int64_t c = 0; c < channels; ++c) {
        float *acc = sums.acc + c * lanes;
        store(acc, fma(load_n(f + c * stride + own.at[own.count], own.rest), w, load(acc)));
    }
}

static void pool_strip(const float *f, int64_t stride, int64_t channels, const OwnCells &own,
                       ClassSums &sums) {
    for (int first = 0; first < own.count; first += block_cells) {
        const int count = own.count - first < block_cells ? own.count - first : block_cells;
        const int64_t *at = own.at + first;
        const float *weights = own.weights + first * lanes;
        if (sums.used) {
            pool_blocks<false>(count, f, stride, channels, at, weights, sums.acc);
        } else {
            pool_blocks<true>(count, f, stride, channels, at, weights, sums.acc);
        }
        sums.used = true;
    }
    if (own.rest > 0) { pool_rest(f, stride, channels, own, sums); }
}

// All cells of a chunk at once, into sums that are not used yet.
static void pool_rows(const float *f, int64_t stride, int64_t channels, const OwnCells &own,
                      ClassSums &sums) {
    for (int64_t c = 0; c < channels && own.count > 0; ++c) {
        const float *row = f + c * stride, *w = own.weights;
        vf s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
        int k = 0;
        for (; k + 4 <= own.count; k += 4) {
            s0 = fma(load(row + own.at[k]), load(w + k * lanes), s0);
            s1 = fma(load(row + own.at[k + 1]), load(w + (k + 1) * lanes), s1);
            s2 = fma(load(row + own.at[k + 2]), load(w + (k + 2) * lanes), s2);
            s3 = fma(load(row + own.at[k + 3]), load(w + (k + 3) * lanes), s3);
        }
        for (; k < own.count; ++k) { s0 = fma(load(row + own.at[k]), load(w + k * lanes), s0); }
        store(sums.acc + c * lanes, add(add(s0, s1), add(s2, s3)));
        sums.used = true;
    }
    if (own.rest > 0) { pool_rest(f, stride, channels, own, sums); }
}

constexpr double smallest_mass = 1e-3; // with less, products of weights and features may underflow

// The sums of a chunk in double. One that is not finite is made again from the features, in double, as
// are all of a chunk with hardly any weight.
static void finish_class(const float *f, int64_t stride, int64_t channels, int64_t n,
                         const float *owner, const float *weight, int64_t number,
                         const ClassSums &sums, double *out) {
    for (int64_t c = 0; c < channels; ++c) {
        double total = static_cast<double>(sum(load(sums.acc + c * lanes)));
        if (!finite(total) || *sums.mass < smallest_mass) {
            total = 0.0;
            for (int64_t x = 0; x < n; ++x) {
                if (weight[x] > 0.0f && owner[x] == static_cast<float>(number)) {
                    total += static_cast<double>(f[c * stride + x]) * weight[x];
                }
            }
        }
        out[c] = total;
    }
}

} // namespace FSSEG_NS
} // namespace fsseg
