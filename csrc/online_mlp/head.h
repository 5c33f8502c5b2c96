// What lies between the two large products, for one block of cells: bias, relu and dropout, the output
// layer, softmax and loss, and the way back to the gradient of the hidden layer.
//
// z [panels][block_cells][panel_units]; logits, targets [classes][block_cells]; output weights
// [classes][width].
#pragma once

#include "online_mlp/dropout.h"
#include "online_mlp/plan.h"

namespace fsseg {
namespace FSSEG_NS {

// z becomes the hidden layer. numbers [numbered]: of the cells, for dropout; the other cells are padding.
static void activate(const Plan &plan, const float *bias, const Dropout &dropout, uint64_t stream,
                     const int64_t *numbers, int64_t numbered, int64_t cells, float *z) {
    uint64_t keys[block_cells];
    for (int64_t i = 0; i < block_cells; ++i) {
        keys[i] = i < numbered ? row_key(stream, static_cast<uint64_t>(numbers[i])) : 0;
    }
    const vu threshold = set1_u(dropout.threshold);
    const vf scale = set1(dropout.scale);
    for (int64_t u = 0; u < plan.hidden; u += lanes) {
        const vf b = load(bias + u);
        const vu index = add_u(count_u(), set1_u(static_cast<uint32_t>(u)));
        float *at = z + u / panel_units * block_cells * panel_units + u % panel_units;
        for (int64_t i = 0; i < cells; ++i, at += panel_units) {
            vf value = max(zero(), add(load(at), b)); // in this order NaN stays NaN
            if (dropout.on) {
                const vu words = random_words(keys[i], index);
                value = select_less_u(words, threshold, zero(), mul(value, scale));
            }
            store(at, value);
        }
    }
}

// Dot products of a few cells with a few classes.
template <int CELLS, int CLASSES> static void
dots(const Plan &plan, const float *z, const float *weights, const float *bias, float *logits) {
    vf sums[CELLS][CLASSES];
    for (int i = 0; i < CELLS; ++i) {
        for (int k = 0; k < CLASSES; ++k) { sums[i][k] = zero(); }
    }
    for (int64_t u = 0; u < plan.hidden; u += lanes) {
        const float *at = z + u / panel_units * block_cells * panel_units + u % panel_units;
        vf weight[CLASSES];
        for (int k = 0; k < CLASSES; ++k) { weight[k] = load(weights + k * plan.width + u); }
        for (int i = 0; i < CELLS; ++i) {
            const vf value = load(at + i * panel_units);
            for (int k = 0; k < CLASSES; ++k) { sums[i][k] = fma(value, weight[k], sums[i][k]); }
        }
    }
    for (int i = 0; i < CELLS; ++i) {
        for (int k = 0; k < CLASSES; ++k) {
            logits[k * block_cells + i] = sum(sums[i][k]) + bias[k];
        }
    }
}

// logits of the first `cells` cells, a multiple of 2; hidden is what activate made.
static void output_layer(const Plan &plan, const float *hidden, const float *weights,
                         const float *bias, int64_t cells, float *logits) {
    for (int64_t i = 0; i < cells; i += 2) {
        const float *z = hidden + i * panel_units;
        int64_t k = 0;
        for (; k + 4 <= plan.classes; k += 4) {
            dots<2, 4>(plan, z, weights + k * plan.width, bias + k, logits + k * block_cells + i);
        }
        for (; k + 2 <= plan.classes; k += 2) {
            dots<2, 2>(plan, z, weights + k * plan.width, bias + k, logits + k * block_cells + i);
        }
        if (k < plan.classes) {
            dots<2, 1>(plan, z, weights + k * plan.width, bias + k, logits + k * block_cells + i);
        }
    }
}

// logits become their gradient, softmax * (sum of targets) - target. Returns the loss; NaN in any logit
// of the block makes it NaN.
static double softmax_loss(const Plan &plan, const float *targets, float *logits) {
    double loss = 0.0;
    for (int64_t x = 0; x < block_cells; x += lanes) {
        vf top = load(logits + x), weight = zero();
        for (int64_t k = 0; k < plan.classes; ++k) {
            top = max(top, load(logits + k * block_cells + x));
            weight = add(weight, load(targets + k * block_cells + x));
        }
        vf total = zero(), below = zero();
        for (int64_t k = 0; k < plan.classes; ++k) {
            float *at = logits + k * block_cells + x;
            const vf distance = sub(load(at), top), power = exp(distance);
            below = fma(load(targets + k * block_cells + x), distance, below);
            total = add(total, power);
            store(at, power);
        }
        const vf factor = div(weight, total);
        for (int64_t k = 0; k < plan.classes; ++k) {
            float *at = logits + k * block_cells + x;
            store(at, sub(mul(load(at), factor), load(targets + k * block_cells + x)));
        }
        loss += static_cast<double>(sum(sub(mul(weight, log(total)), below)));
    }
    return loss;
}

// Sums of gradients over the cells of a few blocks.
struct HeadSums {
    float *output_weight, *output_bias, *hidden_bias; // [classes][width], [classes], [width]
};

// One vector of units and CLASSES classes from class k on: adds to the gradient of their output
// weights and to dz; the last classes turn dz into the gradient of the layer before relu.
template <int CLASSES> static void back_units(const float *hidden, const float *logits,
                                              const float *weights, int64_t width, int64_t cells,
                                              bool first, bool last, vf scale, float *dz,
                                              float *sums, float *bias_sums) {
    vf weight[CLASSES], gradient[CLASSES], bias = load(bias_sums);
    for (int k = 0; k < CLASSES; ++k) {
        weight[k] = load(weights + k * width);
        gradient[k] = load(sums + k * width);
    }
    for (int64_t i = 0; i < cells; ++i, hidden += panel_units, dz += panel_units) {
        const vf value = load(hidden);
        vf delta = first ? zero() : load(dz);
        for (int k = 0; k < CLASSES; ++k) {
            const vf error = set1(logits[k * block_cells + i]);
            delta = fma(error, weight[k], delta);
            gradient[k] = fma(error, value, gradient[k]);
        }
        // A unit that relu or dropout put out is 0, and only such a one is.
        if (last) {
            delta = select_greater(value, zero(), mul(delta, scale), zero());
            bias = add(bias, delta);
        }
        store(dz, delta);
    }
    for (int k = 0; k < CLASSES; ++k) { store(sums + k * width, gradient[k]); }
    if (last) { store(bias_sums, bias); }
}

// dz, laid out as z, from the gradient of the logits; adds to the sums.
static void head_backward(const Plan &plan, const float *hidden, const float *errors,
                          const float *weights, const Dropout &dropout, int64_t cells, float *dz,
                          const HeadSums &sums) {
    const vf scale = set1(dropout.on ? dropout.scale : 1.0f);
    for (int64_t k = 0; k < plan.classes; ++k) {
        vf total = zero();
        for (int64_t x = 0; x < block_cells; x += lanes) {
            total = add(total, load(errors + k * block_cells + x));
        }
        sums.output_bias[k] += sum(total);
    }
    for (int64_t u = 0; u < plan.hidden; u += lanes) {
        const int64_t at = u / panel_units * block_cells * panel_units + u % panel_units;
        for (int64_t k = 0; k < plan.classes;) {
            const int64_t left = plan.classes - k, size = left >= 4 ? 4 : (left >= 2 ? 2 : 1);
            const auto run =
                size == 4 ? back_units<4> : (size == 2 ? back_units<2> : back_units<1>);
            run(hidden + at, errors + k * block_cells, weights + k * plan.width + u, plan.width,
                cells, k == 0, size == left, scale, dz + at,
                sums.output_weight + k * plan.width + u, sums.hidden_bias + u);
            k += size;
        }
    }
}

} // namespace FSSEG_NS
} // namespace fsseg
