// fsseg_sdk._kernels: a flat list. Every op writes into `out`, which fsseg_sdk/ops allocates, runs
// without the GIL and returns whether all it read was finite. Names with _ are for tests, benchmarks
// and fsseg_sdk/ops itself.
#include "core/arrays.h"
#include "core/bf16.h"
#include "core/dispatch.h"
#include "core/read_probe.h"
#include "cosine_match/cosine_match.h"
#include "distance_stats/distance_stats.h"
#include "grid_weights/grid_weights.h"
#include "linear_match/linear_match.h"
#include "logistic_fit/logistic_fit.h"
#include "nearest/nearest.h"
#include "online_mlp/online_mlp.h"
#include "preprocess/preprocess.h"
#include "prototype_fusion/prototype_fusion.h"
#include "soft_pool/soft_pool.h"
#include "upsample_argmax/upsample_argmax.h"
#include "weighted_pool/weighted_pool.h"

#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

namespace fsseg {

namespace {

void require_extent(double extent, int64_t grid) {
    if (!(extent > 0.0 && extent <= static_cast<double>(grid))) {
        refuse("extent", "more than 0 and at most the grid");
    }
}

bool weighted_pool_op(const py::array &features, const py::array &weights, double eps,
                      py::array out, int threads) {
    const PlaneView f = plane_view(features, "features");
    const PlaneView w = plane_view(weights, "weights");
    if (w.batch != f.batch || w.height != f.height || w.width != f.width) {
        refuse("weights", "the batch, height and width of features");
    }
    const WeightedPoolArgs args{f, w, output<float>(out, "out", {f.batch, w.channels, f.channels}),
                                eps, checked_threads(threads)};
    py::gil_scoped_release release;
    return finished(run_weighted_pool(Device::cpu, args));
}

bool cosine_match_op(const py::array &features, const py::array &prototypes, double scale,
                     bool softmax, py::array out, int threads) {
    const PlaneView f = plane_view(features, "features");
    const RowsView p = rows_view(prototypes, "prototypes");
    if (p.columns != f.channels || (prototypes.ndim() == 3 && p.batch != f.batch)) {
        refuse("prototypes", "the channels and batch of features");
    }
    float *result = output<float>(out, "out", {f.batch, p.rows, f.height, f.width});
    const CosineMatchArgs args{f, p, result, scale, softmax, checked_threads(threads)};
    py::gil_scoped_release release;
    return finished(run_cosine_match(Device::cpu, args));
}

bool linear_match_op(const py::array &features, const py::array &weights, const py::array &bias,
                     py::array out, int threads) {
    const PlaneView f = plane_view(features, "features");
    const RowsView w = rows_view(weights, "weights");
    require_type<float>(bias, "bias", 1);
    if (w.columns != f.channels || w.batch != 1) { refuse("weights", "the channels of features"); }
    if (bias.shape(0) != w.rows || (w.rows > 1 && stride_of(bias, "bias", 0) != 1)) {
        refuse("bias", "one contiguous value for each row of weights");
    }
    const LinearMatchArgs args{f, w, static_cast<const float *>(bias.data()),
                               output<float>(out, "out", {f.batch, w.rows, f.height, f.width}),
                               checked_threads(threads)};
    py::gil_scoped_release release;
    return finished(run_linear_match(Device::cpu, args));
}

const float *contiguous_floats(const py::array &array, const char *name, int64_t n) {
    if (!py::dtype::of<float>().equal(array.dtype()) || (array.flags() & py::array::c_style) == 0 ||
        array.size() != n) {
        refuse(name, "contiguous float32 of another size");
    }
    return static_cast<const float *>(array.data());
}

const int64_t *checked_groups(const py::array &group, int64_t rows, int64_t groups) {
    require_type<int64_t>(group, "group", 1);
    if (group.shape(0) != rows || (group.flags() & py::array::c_style) == 0) {
        refuse("group", "one contiguous number for each row");
    }
    const int64_t *number = static_cast<const int64_t *>(group.data());
    for (int64_t m = 0; m < rows; ++m) {
        if (number[m] < 0 || number[m] >= groups) { refuse("group", "0 to fewer than groups"); }
    }
    return number;
}

int64_t nearest_bytes(const RowsView &rows, const int64_t *group, int64_t groups, bool bf16) {
    int64_t bytes = 0;
    finished(run_nearest_pack(Device::cpu, {rows, group, groups, bf16, nullptr, &bytes, 1}));
    return bytes;
}

int64_t nearest_bytes_op(const py::array &rows, const py::array &group, int64_t groups, bool bf16) {
    const RowsView r = rows_view(rows, "rows");
    return nearest_bytes(r, checked_groups(group, r.rows, groups), groups, bf16);
}

bool nearest_pack_op(const py::array &rows, const py::array &group, int64_t groups, bool bf16,
                     py::array out, int threads) {
    const RowsView r = rows_view(rows, "rows");
    if (r.batch != 1) { refuse("rows", "rank 2"); }
    const int64_t *number = checked_groups(group, r.rows, groups);
    int64_t bytes = nearest_bytes(r, number, groups, bf16);
    uint8_t *packed = output<uint8_t>(out, "out", {bytes});
    const NearestPackArgs args{r, number, groups, bf16, packed, &bytes, checked_threads(threads)};
    py::gil_scoped_release release;
    return finished(run_nearest_pack(Device::cpu, args));
}

bool nearest_op(const py::array &features, const py::array &rows, const py::array &group,
                int64_t groups, bool bf16, const std::optional<py::array> &packed, py::array out,
                int threads) {
    const PlaneView f = plane_view(features, "features");
    const RowsView r = rows_view(rows, "rows");
    if (r.columns != f.channels || r.batch != 1) { refuse("rows", "the channels of features"); }
    const int64_t *number = checked_groups(group, r.rows, groups);
    const void *ready = nullptr;
    if (packed) {
        require_type<uint8_t>(*packed, "packed", 1);
        if (packed->shape(0) != nearest_bytes(r, number, groups, bf16) ||
            (packed->flags() & py::array::c_style) == 0) {
            refuse("packed", "what nearest_pack made of these rows");
        }
        ready = packed->data();
    }
    const NearestArgs args{f,
                           r,
                           number,
                           groups,
                           bf16,
                           ready,
                           output<float>(out, "out", {f.batch, groups, f.height, f.width}),
                           checked_threads(threads)};
    py::gil_scoped_release release;
    return finished(run_nearest(Device::cpu, args));
}

bool logistic_fit_op(const py::array &cells, const py::array &targets, const py::array &weights,
                     double rate, double momentum, double l2, py::array weight, py::array bias,
                     py::array losses, int threads) {
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
    py::gil_scoped_release release;
    return finished(run_logistic_fit(Device::cpu, args));
}

// [B, h, w] for the cells of features as [B, 1, h, w]; no data where there are none.
PlaneView cell_view(const std::optional<py::array> &weights, const PlaneView &f) {
    PlaneView view{nullptr, f.batch, 1, f.height, f.width, 0, 0};
    if (!weights) { return view; }
    require_type<float>(*weights, "weights", 3);
    if (weights->shape(0) != f.batch || weights->shape(1) != f.height ||
        weights->shape(2) != f.width) {
        refuse("weights", "the batch, height and width of features");
    }
    if (weights->size() > 0 && ((f.width > 1 && stride_of(*weights, "weights", 2) != 1) ||
                                (f.height > 1 && stride_of(*weights, "weights", 1) != f.width))) {
        refuse("weights", "contiguous planes");
    }
    view.data = static_cast<const float *>(weights->data());
    view.batch_stride = stride_of(*weights, "weights", 0);
    return view;
}

const int64_t *checked_ways(const py::array &ways, int64_t batch, int64_t classes) {
    require_type<int64_t>(ways, "ways", 1);
    if (ways.shape(0) != batch || (batch > 1 && stride_of(ways, "ways", 0) != 1)) {
        refuse("ways", "one contiguous number for each picture");
    }
    const int64_t *data = static_cast<const int64_t *>(ways.data());
    for (int64_t b = 0; b < batch; ++b) {
        if (data[b] < -1 || data[b] >= classes) { refuse("ways", "-1 or a class"); }
    }
    return data;
}

bool distance_stats_op(const py::array &features, const py::array &prototypes,
                       const std::optional<py::array> &weights, py::array out, int threads) {
    const PlaneView f = plane_view(features, "features");
    const RowsView p = rows_view(prototypes, "prototypes");
    if (p.columns != f.channels || p.batch != 1) {
        refuse("prototypes", "the channels of features");
    }
    const DistanceStatsArgs args{f, p, cell_view(weights, f),
                                 output<float>(out, "out", {p.rows, 6}), checked_threads(threads)};
    py::gil_scoped_release release;
    return finished(run_distance_stats(Device::cpu, args));
}

bool soft_pool_op(const py::array &features, const py::array &prototypes, const py::array &ways,
                  int64_t parts, double scale, const std::optional<py::array> &radius,
                  const std::optional<py::array> &weights, py::array vectors, py::array mass,
                  int threads) {
    const PlaneView f = plane_view(features, "features");
    const RowsView p = rows_view(prototypes, "prototypes");
    if (p.columns != f.channels || p.batch != 1) {
        refuse("prototypes", "the channels of features");
    }
    const int64_t classes = p.rows - parts;
    if (parts < 1 || classes < 1) { refuse("parts", "1 to fewer than the prototypes"); }
    const SoftPoolArgs args{f,
                            p,
                            checked_ways(ways, f.batch, classes),
                            parts,
                            scale,
                            radius ? contiguous_floats(*radius, "radius", classes) : nullptr,
                            cell_view(weights, f),
                            output<float>(vectors, "vectors", {f.batch, classes, f.channels}),
                            output<float>(mass, "mass", {f.batch, classes}),
                            checked_threads(threads)};
    py::gil_scoped_release release;
    return finished(run_soft_pool(Device::cpu, args));
}

using ThresholdArrays = std::tuple<py::array, py::array, py::array, double>;

bool prototype_fusion_op(const py::array &features, const py::array &ways,
                         const py::array &background, const py::array &sums,
                         const py::array &counts, double scale, bool distilled,
                         const std::optional<ThresholdArrays> &threshold, double radius,
                         const std::optional<py::array> &weights, std::array<py::array, 5> out,
                         int threads) {
    const PlaneView f = plane_view(features, "features");
    const RowsView back = rows_view(background, "background");
    if (back.columns != f.channels || back.batch != 1 || back.rows < 1) {
        refuse("background", "the channels of features");
    }
    if (sums.ndim() != 2 || out[3].ndim() != 3) { refuse("sums", "rank 2"); }
    const int64_t classes = sums.shape(0), steps = out[3].shape(0);
    if (classes < 1 || f.height * f.width < 1) { refuse("features", "cells, and classes"); }
    ThresholdWeights net{nullptr, nullptr, nullptr, 0.0, 0};
    if (threshold) {
        const auto &[hidden_weight, hidden_bias, output_weight, output_bias] = *threshold;
        net.hidden = hidden_bias.size();
        net.hidden_weight = contiguous_floats(hidden_weight, "hidden_weight", net.hidden * 5);
        net.hidden_bias = contiguous_floats(hidden_bias, "hidden_bias", net.hidden);
        net.output_weight = contiguous_floats(output_weight, "output_weight", net.hidden);
        net.output_bias = output_bias;
    }
    const FusionOut result{
        output<float>(out[0], "prototypes", {back.rows + classes, f.channels}),
        output<float>(out[1], "sums", {classes, f.channels}),
        output<float>(out[2], "counts", {classes}),
        output<float>(out[3], "mass", {steps, f.batch, classes}),
        output<float>(out[4], "thresholds", {steps, classes}),
    };
    const PrototypeFusionArgs args{f,
                                   checked_ways(ways, f.batch, classes),
                                   back,
                                   contiguous_floats(sums, "sums", classes * f.channels),
                                   contiguous_floats(counts, "counts", classes),
                                   classes,
                                   steps,
                                   scale,
                                   distilled,
                                   net,
                                   radius,
                                   cell_view(weights, f),
                                   result,
                                   checked_threads(threads)};
    py::gil_scoped_release release;
    return finished(run_prototype_fusion(Device::cpu, args));
}

float read_probe_op(const py::array &array, int streams) {
    if (!py::dtype::of<float>().equal(array.dtype()) || (array.flags() & py::array::c_style) == 0) {
        refuse("array", "contiguous float32");
    }
    float total = 0.0f;
    const ReadProbeArgs args{static_cast<const float *>(array.data()), array.size(), streams,
                             &total};
    py::gil_scoped_release release;
    run_read_probe(Device::cpu, args);
    return total;
}

bool grid_weights_op(const py::array &masks, double extent_h, double extent_w, py::array out,
                     int threads) {
    const bool bytes = masks.dtype().equal(py::dtype::of<uint8_t>());
    if (bytes) {
        require_type<uint8_t>(masks, "masks", 3);
    } else {
        require_type<float>(masks, "masks", 3);
    }
    const int64_t batch = masks.shape(0), height = masks.shape(1), width = masks.shape(2);
    if (width > 1 && stride_of(masks, "masks", 2) != 1) { refuse("masks", "contiguous rows"); }
    if (out.ndim() != 3) { refuse("out", "rank 3"); }
    const int64_t grid_h = out.shape(1), grid_w = out.shape(2);
    require_extent(extent_h, grid_h);
    require_extent(extent_w, grid_w);
    const GridWeightsArgs args{masks.data(),
                               bytes,
                               batch,
                               height,
                               width,
                               stride_of(masks, "masks", 0),
                               stride_of(masks, "masks", 1),
                               extent_h,
                               extent_w,
                               grid_h,
                               grid_w,
                               output<float>(out, "out", {batch, grid_h, grid_w}),
                               checked_threads(threads)};
    py::gil_scoped_release release;
    return finished(run_grid_weights(Device::cpu, args));
}

bool upsample_argmax_op(const py::array &logits, double extent_h, double extent_w,
                        const std::optional<py::array> &labels, py::array out, int threads) {
    const PlaneView view = plane_view(logits, "logits");
    const int64_t most = labels ? 65535 : 255;
    if (view.channels < 1 || view.channels > most) { refuse("logits", "1 to 255 classes"); }
    const uint8_t *names = nullptr;
    if (labels) {
        require_type<uint8_t>(*labels, "labels", 1);
        if (labels->shape(0) != view.channels || (labels->flags() & py::array::c_style) == 0) {
            refuse("labels", "one contiguous value for each plane");
        }
        names = static_cast<const uint8_t *>(labels->data());
    }
    if (out.ndim() != 3) { refuse("out", "rank 3"); }
    require_extent(extent_h, view.height);
    require_extent(extent_w, view.width);
    const int64_t height = out.shape(1), width = out.shape(2);
    const UpsampleArgmaxArgs args{view,
                                  names,
                                  extent_h,
                                  extent_w,
                                  height,
                                  width,
                                  output<uint8_t>(out, "out", {view.batch, height, width}),
                                  checked_threads(threads)};
    py::gil_scoped_release release;
    return finished(run_upsample_argmax(Device::cpu, args));
}

bool preprocess_op(const py::array &image, int64_t content_h, int64_t content_w,
                   const std::array<double, 3> &mean, const std::array<double, 3> &deviation,
                   py::array out, int threads) {
    require_type<uint8_t>(image, "image", 3);
    if (image.shape(2) != 3 || stride_of(image, "image", 2) != 1 || image.size() == 0) {
        refuse("image", "[H, W, 3] with contiguous channels");
    }
    if (out.ndim() != 4) { refuse("out", "rank 4"); }
    const int64_t input_h = out.shape(2), input_w = out.shape(3);
    if (content_h < 1 || content_h > input_h || content_w < 1 || content_w > input_w) {
        refuse("content", "a size from (1, 1) to that of the input");
    }
    // An axis of size 1 may have any stride; 3 is the fast one.
    const int64_t pixel_stride = image.shape(1) == 1 ? 3 : stride_of(image, "image", 1);
    const PreprocessArgs args{static_cast<const uint8_t *>(image.data()),
                              image.shape(0),
                              image.shape(1),
                              stride_of(image, "image", 0),
                              pixel_stride,
                              content_h,
                              content_w,
                              input_h,
                              input_w,
                              {mean[0], mean[1], mean[2]},
                              {deviation[0], deviation[1], deviation[2]},
                              output<float>(out, "out", {1, 3, input_h, input_w}),
                              checked_threads(threads)};
    py::gil_scoped_release release;
    return finished(run_preprocess(Device::cpu, args));
}

// The four arrays of an Mlp, checked against each other.
MlpWeights mlp_weights(const std::array<py::array, 4> &mlp, int64_t channels) {
    const char *names[4] = {"hidden_weight", "hidden_bias", "output_weight", "output_bias"};
    for (int i = 0; i < 4; ++i) {
        require_type<float>(mlp[i], names[i], i % 2 == 0 ? 2 : 1);
        if ((mlp[i].flags() & py::array::c_style) == 0) { refuse(names[i], "a contiguous array"); }
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
std::pair<bool, bool> online_mlp_fit_op(const std::vector<std::pair<py::array, py::array>> &samples,
                                        const std::array<py::array, 4> &mlp, double learning_rate,
                                        double momentum, double dropout, double length,
                                        uint64_t seed, bool bf16, std::array<py::array, 4> out,
                                        py::array losses, int threads) {
    if (samples.empty()) { refuse("samples", "at least one"); }
    std::vector<MlpSample> views;
    for (const auto &[features, targets] : samples) {
        const PlaneView f = plane_view(features, "features"), t = plane_view(targets, "targets");
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
    py::gil_scoped_release release;
    const bool all_finite = finished(run_online_mlp_fit(Device::cpu, args));
    return {all_finite, diverged};
}

bool online_mlp_scores_op(const py::array &features, const std::array<py::array, 4> &mlp,
                          double length, bool bf16, py::array out, int threads) {
    const PlaneView f = plane_view(features, "features");
    const MlpWeights w = mlp_weights(mlp, f.channels);
    float *result = output<float>(out, "out", {f.batch, w.classes, f.height, f.width});
    const OnlineMlpScoresArgs args{f, w, result, length, bf16, checked_threads(threads)};
    py::gil_scoped_release release;
    return finished(run_online_mlp_scores(Device::cpu, args));
}

py::list levels(bool (*condition)(Level)) {
    py::list names;
    for (int level = 0; level < level_count; ++level) {
        if (condition(static_cast<Level>(level))) {
            names.append(level_name(static_cast<Level>(level)));
        }
    }
    return names;
}

bool set_level_by_name(const std::string &name) {
    for (int level = 0; level < level_count; ++level) {
        if (name == level_name(static_cast<Level>(level))) {
            return set_level(static_cast<Level>(level));
        }
    }
    return false;
}

py::list bf16_units() {
    py::list names;
    for (int unit = 0; unit < bf16_count; ++unit) {
        if (bf16_usable(static_cast<Bf16>(unit))) {
            names.append(bf16_name(static_cast<Bf16>(unit)));
        }
    }
    return names;
}

bool set_bf16_by_name(const std::string &name) {
    for (int unit = 0; unit < bf16_count; ++unit) {
        if (name == bf16_name(static_cast<Bf16>(unit))) {
            return set_bf16(static_cast<Bf16>(unit));
        }
    }
    return false;
}

} // namespace

PYBIND11_MODULE(_kernels, m) {
    m.def("grid_weights", &grid_weights_op);
    m.def("preprocess", &preprocess_op);
    m.def("upsample_argmax", &upsample_argmax_op);
    m.def("weighted_pool", &weighted_pool_op);
    m.def("cosine_match", &cosine_match_op);
    m.def("linear_match", &linear_match_op);
    m.def("nearest", &nearest_op);
    m.def("nearest_pack", &nearest_pack_op);
    m.def("_nearest_bytes", &nearest_bytes_op);
    m.def("logistic_fit", &logistic_fit_op);
    m.def("distance_stats", &distance_stats_op);
    m.def("soft_pool", &soft_pool_op);
    m.def("prototype_fusion", &prototype_fusion_op);
    m.def("online_mlp_fit", &online_mlp_fit_op);
    m.def("online_mlp_scores", &online_mlp_scores_op);

    m.def("_simd", [] { return level_name(current_level()); });
    m.def("_set_simd", &set_level_by_name);
    m.def("_levels_built", [] { return levels(&level_built); });
    m.def("_levels_usable", [] { return levels(&level_usable); });
    m.def("_bf16", [] { return bf16_name(current_bf16()); });
    m.def("_set_bf16", &set_bf16_by_name);
    m.def("_bf16_usable", &bf16_units);
    m.def("_read_probe", &read_probe_op);
    m.attr("max_threads") = max_threads;
    m.attr("cuda_built") = static_cast<bool>(FSSEG_CUDA_BUILT);
    m.attr("cuda_reason") = FSSEG_CUDA_REASON;
}

} // namespace fsseg
