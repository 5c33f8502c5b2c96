// The ops that learn, as Python calls them; see bound_ops.h.
#pragma once

#include "core/arrays.h"
#include "logistic_fit/logistic_fit.h"
#include "online_mlp/online_mlp.h"

#include <pybind11/stl.h>

#include <array>
#include <utility>
#include <vector>

namespace fsseg {

template <class A> bool logistic_fit_op(const A &cells, const A &targets, const A &weights,
                                        double rate, double momentum, double l2, A weight, A bias,
                                        A losses, int threads) {
    in_one_place(losses, cells, targets, weights, weight, bias);
    const RowsView x = rows_view(cells, "cells");
    if (x.batch != 1 || losses.ndim() != 2) { refuse("cells", "rank 2"); }
    const int64_t steps = losses.shape(0), classes = losses.shape(1);
    if (classes < 1 || x.rows < 1 || x.columns < 1) { refuse("cells", "at least one of each"); }
    const LogisticFitArgs args{x,
                               contiguous_floats(targets, "targets", x.rows * classes),
                               contiguous_floats(weights, "weights", x.rows * classes),
                               classes,
                               steps,
                               rate,
                               momentum,
                               l2,
                               output<float>(weight, "weight", {classes, x.columns}),
                               output<float>(bias, "bias", {classes}),
                               output<float>(losses, "losses", {steps, classes}),
                               checked_threads(threads)};
    return running(losses, [&](Device device) { return finished(run_logistic_fit(device, args)); });
}

// The four arrays of an Mlp, checked against each other.
template <class A> MlpWeights mlp_weights(const std::array<A, 4> &mlp, int64_t channels) {
    const char *names[4] = {"hidden_weight", "hidden_bias", "output_weight", "output_bias"};
    for (int i = 0; i < 4; ++i) {
        require_type<float>(mlp[i], names[i], i % 2 == 0 ? 2 : 1);
        if (!is_contiguous(mlp[i])) { refuse(names[i], "a contiguous array"); }
    }
    const int64_t hidden = mlp[0].shape(0), classes = mlp[2].shape(0);
    if (mlp[0].shape(1) != channels) { refuse(names[0], "the channels of features"); }
    if (mlp[1].shape(0) != hidden) { refuse(names[1], "one value for each hidden unit"); }
    if (mlp[2].shape(1) != hidden) { refuse(names[2], "the hidden units"); }
    if (mlp[3].shape(0) != classes) { refuse(names[3], "one value for each class"); }
    if (hidden < 1 || classes < 1 || channels < 1) { refuse("mlp", "at least one of each"); }
    const auto data = [&](int i) { return static_cast<const float *>(mlp[i].data()); };
    return {data(0), data(1), data(2), data(3), channels, hidden, classes};
}

// (finite, diverged)
template <class A> std::pair<bool, bool>
online_mlp_fit_op(const std::vector<std::pair<A, A>> &samples, const std::array<A, 4> &mlp,
                  double learning_rate, double momentum, double dropout, double length,
                  uint64_t seed, bool bf16, std::array<A, 4> out, A losses, int threads) {
    in_one_place(losses, mlp, out);
    if (samples.empty()) { refuse("samples", "at least one"); }
    std::vector<MlpSample> views;
    for (const auto &[features, targets] : samples) {
        in_one_place(losses, features, targets);
        const PlaneView f = feature_view(features, "features"), t = plane_view(targets, "targets");
        if (t.batch != f.batch || t.height != f.height || t.width != f.width) {
            refuse("targets", "the batch, height and width of features");
        }
        if (!views.empty() && f.channels != views[0].features.channels) {
            refuse("features", "the same channels in all samples");
        }
        views.push_back({f, t});
    }
    const MlpWeights w = mlp_weights(mlp, views[0].features.channels);
    for (const MlpSample &sample : views) {
        if (sample.targets.channels != w.classes) { refuse("targets", "the classes of mlp"); }
    }
    if (!(dropout >= 0.0 && dropout < 1.0)) { refuse("dropout", "0 <= dropout < 1"); }
    if (losses.ndim() != 1) { refuse("losses", "rank 1"); }
    const int64_t iterations = losses.shape(0);
    bool diverged = false;
    const MlpOut result{output<float>(out[0], "out", {w.hidden, w.channels}),
                        output<float>(out[1], "out", {w.hidden}),
                        output<float>(out[2], "out", {w.classes, w.hidden}),
                        output<float>(out[3], "out", {w.classes}),
                        output<float>(losses, "losses", {iterations}),
                        &diverged};
    const OnlineMlpFitArgs args{views.data(),
                                static_cast<int64_t>(views.size()),
                                w,
                                result,
                                iterations,
                                learning_rate,
                                momentum,
                                dropout,
                                length,
                                seed,
                                bf16,
                                checked_threads(threads)};
    const bool all_finite =
        running(losses, [&](Device device) { return finished(run_online_mlp_fit(device, args)); });
    return {all_finite, diverged};
}

template <class A> bool online_mlp_scores_op(const A &features, const std::array<A, 4> &mlp,
                                             double length, bool bf16, A out, int threads) {
    in_one_place(out, features, mlp);
    const PlaneView f = feature_view(features, "features");
    const MlpWeights w = mlp_weights(mlp, f.channels);
    float *result = output<float>(out, "out", {f.batch, w.classes, f.height, f.width});
    const OnlineMlpScoresArgs args{f, w, result, length, bf16, checked_threads(threads)};
    return running(out,
                   [&](Device device) { return finished(run_online_mlp_scores(device, args)); });
}

template <class A> void bind_learning(py::module_ &m) {
    m.def("logistic_fit", &logistic_fit_op<A>);
    m.def("online_mlp_fit", &online_mlp_fit_op<A>);
    m.def("online_mlp_scores", &online_mlp_scores_op<A>);
}

} // namespace fsseg
