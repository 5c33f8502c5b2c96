// logistic_fit: G independent logistic regressions on the same cells, all steps in one call.
//
//   z[m, g] = weight[g] . cells[m] + bias[g]
//   loss[g] = sum over m of weights[m, g] * ce(targets[m, g], sigmoid(z[m, g])) + l2 / 2 |weight[g]|^2
//   ce(t, p) = -t log p - (1 - t) log(1 - p)
//
//   cells            [M, C] float32, each row contiguous
//   targets, weights [M, G] float32 contiguous, 0 <= targets <= 1, weights >= 0
//   weight, bias     (out) [G, C] and [G]; they start at 0
//   losses           (out) [steps, G], each before its step
//
//   step     velocity = momentum * velocity + gradient; parameters -= rate / bound * velocity
//   bound[g] = l2 + sum over m of weights[m, g] * (|cells[m]|^2 + 1) / 4
//
// The curvature of loss[g] is nowhere above bound[g] (the trace of its largest possible second
// derivative), so rates up to 2 suit cells of any length and any weights.
//
// Each step reads the cells once: a block goes forward, and back while it is in the first-level cache.
// The order of all sums depends on shapes and SIMD level alone. A class whose weights are all 0 stays
// at 0. Status::not_finite: an input is not finite or outside of its range, or a bound is outside of
// 1e-36 to 1e36.
#pragma once

#include "core/dispatch.h"
#include "core/view.h"

namespace fsseg {

struct LogisticFitArgs {
    RowsView cells;
    const float *targets, *weights;
    int64_t classes, steps;
    double rate, momentum, l2;
    float *weight, *bias, *losses;
    int threads;
};

FSSEG_OP(logistic_fit, LogisticFitArgs)

} // namespace fsseg
