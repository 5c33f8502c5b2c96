// online_mlp: a two-layer classifier of cells that is trained while it is used.
//
//   hidden = dropout(relu(hidden_weight . x + hidden_bias))       x: the features of one cell
//   logits = output_weight . hidden + output_bias
//
// online_mlp_fit: full-batch SGD on
//
//   loss = - sum over cells and classes of target * log(softmax(logits))
//
//   samples  features [B, C, h, w] and targets [B, K, h, w] float32 each, planes contiguous, batch and
//            channel strides free; targets >= 0. Cells whose targets are all 0 are no samples and are
//            not read.
//   mlp      hidden_weight [H, C], hidden_bias [H], output_weight [K, H], output_bias [K] float32,
//            contiguous: where to start, and (out) where it ended
//   losses   [iterations] float32, each before its step
//
//   step     velocity = momentum * velocity + gradient; weight -= learning_rate * velocity
//   length   > 0: the features of each cell are scaled to this Euclidean length first; zero stays zero
//   dropout  a hidden unit is kept with probability 1 - dropout and then divided by it. What is kept
//            depends on seed, iteration, number of the cell (in the given order, skipped ones counted)
//            and unit alone (online_mlp/dropout.h)
//   bf16     the inputs of the two large products (features, hidden_weight, gradients of the hidden
//            layer) are rounded to bfloat16; sums, weights and the output layer stay float32
//
// The order of all sums depends on shapes and SIMD level alone, not on threads. *diverged: a loss or a
// weight became infinite or NaN; `out` then holds nothing of use. Status::not_finite: an input is not
// finite, or a target is negative.
//
// online_mlp_scores: logits (no dropout) of all cells of features [B, C, h, w] -> out [B, K, h, w], both
// layers over tiles of cells: the hidden layer is never in memory as a whole.
#pragma once

#include "core/dispatch.h"
#include "core/view.h"

namespace fsseg {

struct MlpSample {
    PlaneView features, targets;
};

struct MlpWeights { // of H hidden units and K classes over C channels
    const float *hidden_weight, *hidden_bias, *output_weight, *output_bias;
    int64_t channels, hidden, classes;
};

struct MlpOut {
    float *hidden_weight, *hidden_bias, *output_weight, *output_bias, *losses;
    bool *diverged;
};

struct OnlineMlpFitArgs {
    const MlpSample *samples;
    int64_t sample_count;
    MlpWeights mlp;
    MlpOut out;
    int64_t iterations;
    double learning_rate, momentum, dropout, length;
    uint64_t seed;
    bool bf16;
    int threads;
};

struct OnlineMlpScoresArgs {
    PlaneView features;
    MlpWeights mlp;
    float *out;
    double length;
    bool bf16;
    int threads;
};

FSSEG_OP(online_mlp_fit, OnlineMlpFitArgs)
FSSEG_OP(online_mlp_scores, OnlineMlpScoresArgs)

} // namespace fsseg
