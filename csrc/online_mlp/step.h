// A step of SGD, and the small layers, which take theirs together.
#pragma once

#include "core/simd.h"

namespace fsseg {
namespace FSSEG_NS {

struct Step {
    float rate, momentum;
};

static inline void take_step(const Step &step, const float *gradient, float *velocity,
                             float *weight, int64_t n) {
    const vf momentum = set1(step.momentum), rate = set1(-step.rate);
    for (int64_t i = 0; i < n; i += lanes) {
        const vf v = fma(momentum, load(velocity + i), load(gradient + i));
        store(velocity + i, v);
        store(weight + i, fma(rate, v, load(weight + i)));
    }
}

// The small layers: [classes][width] output weights, [width] hidden biases, [classes] output biases, one
// after another, whole vectors.
struct SmallLayers {
    int64_t width, classes;
    int64_t hidden_bias() const { return width * classes; }
    int64_t output_bias() const { return width * (classes + 1); }
    int64_t size() const { return output_bias() + round_up(classes, lanes); }
};

} // namespace FSSEG_NS
} // namespace fsseg
