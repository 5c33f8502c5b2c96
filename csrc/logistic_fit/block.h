// A block of cells forward, and back while it is in the first-level cache.
//
// Parameters and gradients of a class: [width] floats, C weights, the bias, zeros up to whole vectors.
#pragma once

#include "core/simd.h"

namespace fsseg {
namespace FSSEG_NS {

constexpr int64_t block_rows = 16; // a whole number of vectors at every level

struct Block {
    const float *cells;
    int64_t stride, count, channels, width;
};

// Dot products of CELLS cells with CLASSES classes, bias included: z[k * block_rows + i].
template <int CELLS, int CLASSES>
static void dots(const Block &block, int64_t first, const float *parameters, float *z) {
    const float *cells = block.cells + first * block.stride;
    const int64_t whole = block.channels / lanes * lanes;
    vf sums[CELLS][CLASSES];
    for (int i = 0; i < CELLS; ++i) {
        for (int k = 0; k < CLASSES; ++k) { sums[i][k] = zero(); }
    }
    for (int64_t c = 0; c < block.channels; c += lanes) {
        const int rest = static_cast<int>(block.channels - c);
        vf factor[CLASSES];
        for (int k = 0; k < CLASSES; ++k) { factor[k] = load(parameters + k * block.width + c); }
        for (int i = 0; i < CELLS; ++i) {
            const float *at = cells + i * block.stride + c;
            const vf x = c < whole ? load(at) : load_n(at, rest);
            for (int k = 0; k < CLASSES; ++k) { sums[i][k] = fma(x, factor[k], sums[i][k]); }
        }
    }
    for (int i = 0; i < CELLS; ++i) {
        for (int k = 0; k < CLASSES; ++k) {
            z[k * block_rows + first + i] =
                sum(sums[i][k]) + parameters[k * block.width + block.channels];
        }
    }
}

template <int CLASSES>
static void forward_classes(const Block &block, const float *parameters, float *z) {
    int64_t i = 0;
    for (; i + 4 <= block.count; i += 4) { dots<4, CLASSES>(block, i, parameters, z); }
    for (; i < block.count; ++i) { dots<1, CLASSES>(block, i, parameters, z); }
}

// gradient [CLASSES][width] += sum over the cells of errors[k * block_rows + i] * cell i.
template <int CLASSES>
static void back_classes(const Block &block, const float *errors, float *gradient) {
    const int64_t whole = block.channels / lanes * lanes;
    for (int64_t c = 0; c < block.channels; c += lanes) {
        const int rest = static_cast<int>(block.channels - c);
        const float *at = block.cells + c;
        vf sums[CLASSES];
        for (int k = 0; k < CLASSES; ++k) { sums[k] = load(gradient + k * block.width + c); }
        for (int64_t i = 0; i < block.count; ++i, at += block.stride) {
            const vf x = c < whole ? load(at) : load_n(at, rest);
            for (int k = 0; k < CLASSES; ++k) {
                sums[k] = fma(set1(errors[k * block_rows + i]), x, sums[k]);
            }
        }
        for (int k = 0; k < CLASSES; ++k) { store(gradient + k * block.width + c, sums[k]); }
    }
    for (int k = 0; k < CLASSES; ++k) {
        float total = 0.0f;
        for (int64_t i = 0; i < block.count; ++i) { total += errors[k * block_rows + i]; }
        gradient[k * block.width + block.channels] += total;
    }
}

// z [block_rows] becomes weights * (sigmoid(z) - targets). Returns the loss.
static double errors_of(const float *targets, const float *weights, float *z) {
    vf loss = zero();
    for (int64_t i = 0; i < block_rows; i += lanes) {
        const vf value = load(z + i), target = load(targets + i), weight = load(weights + i);
        const vf size = max(value, sub(zero(), value)), power = exp(sub(zero(), size));
        const vf total = add(set1(1.0f), power);
        // log(1 + e^z) - t z, by the exponential that is at most 1.
        const vf more = add(max(value, zero()), log(total));
        loss = fma(weight, sub(more, mul(target, value)), loss);
        const vf upper = select_greater(value, zero(), set1(1.0f), power);
        store(z + i, mul(weight, sub(div(upper, total), target)));
    }
    return static_cast<double>(sum(loss));
}

// One block of all classes; targets, weights [classes][stride]. Adds to losses and gradient.
static void there_and_back(const Block &block, int64_t classes, const float *parameters,
                           const float *targets, const float *weights, int64_t stride,
                           float *gradient, double *losses) {
    float z[4 * block_rows];
    for (int64_t k = 0; k < classes;) {
        const int64_t left = classes - k, size = left >= 4 ? 4 : (left >= 2 ? 2 : 1);
        const float *own = parameters + k * block.width;
        const auto forward =
            size == 4 ? forward_classes<4> : (size == 2 ? forward_classes<2> : forward_classes<1>);
        const auto back =
            size == 4 ? back_classes<4> : (size == 2 ? back_classes<2> : back_classes<1>);
        memset(z, 0, sizeof z);
        forward(block, own, z);
        for (int64_t i = 0; i < size; ++i) {
            losses[k + i] += errors_of(targets + (k + i) * stride, weights + (k + i) * stride,
                                       z + i * block_rows);
        }
        back(block, z, gradient + k * block.width);
        k += size;
    }
}

} // namespace FSSEG_NS
} // namespace fsseg
