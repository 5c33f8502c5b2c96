// The ops as Python calls them, for any kind of array (core/arrays.h): every op writes into `out`, which
// fsseg_sdk/ops allocates, and returns whether all it read was finite. The ops that learn: bound_learning.h.
#pragma once

#include "core/arrays.h"
#include "cosine_match/cosine_match.h"
#include "distance_stats/distance_stats.h"
#include "grid_weights/grid_weights.h"
#include "linear_match/linear_match.h"
#include "nearest/nearest.h"
#include "preprocess/preprocess.h"
#include "prototype_fusion/prototype_fusion.h"
#include "soft_pool/soft_pool.h"
#include "upsample_argmax/upsample_argmax.h"
#include "weighted_pool/weighted_pool.h"

#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <tuple>

namespace fsseg {

inline void require_extent(double extent, int64_t grid) {
    if (!(extent > 0.0 && extent <= static_cast<double>(grid))) {
        refuse("extent", "more than 0 and at most the grid");
    }
}

template <class A>
bool weighted_pool_op(const A &features, const A &weights, double eps, A out, int threads) {
    in_one_place(out, features, weights);
    const PlaneView f = feature_view(features, "features");
    const PlaneView w = plane_view(weights, "weights");
    if (w.batch != f.batch || w.height != f.height || w.width != f.width) {
        refuse("weights", "the batch, height and width of features");
    }
    const WeightedPoolArgs args{f, w, output<float>(out, "out", {f.batch, w.channels, f.channels}),
                                eps, checked_threads(threads)};
    return running(out, [&](Device device) { return finished(run_weighted_pool(device, args)); });
}

template <class A> bool cosine_match_op(const A &features, const A &prototypes, double scale,
                                        bool softmax, A out, int threads) {
    in_one_place(out, features, prototypes);
    const PlaneView f = feature_view(features, "features");
    const RowsView p = rows_view(prototypes, "prototypes");
    if (p.columns != f.channels || (prototypes.ndim() == 3 && p.batch != f.batch)) {
        refuse("prototypes", "the channels and batch of features");
    }
    float *result = output<float>(out, "out", {f.batch, p.rows, f.height, f.width});
    const CosineMatchArgs args{f, p, result, scale, softmax, checked_threads(threads)};
    return running(out, [&](Device device) { return finished(run_cosine_match(device, args)); });
}

template <class A>
bool linear_match_op(const A &features, const A &weights, const A &bias, A out, int threads) {
    in_one_place(out, features, weights, bias);
    const PlaneView f = feature_view(features, "features");
    const RowsView w = rows_view(weights, "weights");
    require_type<float>(bias, "bias", 1);
    if (w.columns != f.channels || w.batch != 1) { refuse("weights", "the channels of features"); }
    if (bias.shape(0) != w.rows || (w.rows > 1 && stride_of(bias, "bias", 0) != 1)) {
        refuse("bias", "one contiguous value for each row of weights");
    }
    const LinearMatchArgs args{f, w, static_cast<const float *>(bias.data()),
                               output<float>(out, "out", {f.batch, w.rows, f.height, f.width}),
                               checked_threads(threads)};
    return running(out, [&](Device device) { return finished(run_linear_match(device, args)); });
}

template <class A> const int64_t *checked_groups(const A &group, int64_t rows, int64_t groups) {
    return checked_numbers(group, "group", rows, 0, groups, "0 to fewer than groups");
}

template <class A>
int64_t nearest_bytes(const A &rows, const int64_t *group, int64_t groups, bool bf16) {
    const RowsView r = rows_view(rows, "rows");
    int64_t bytes = 0;
    const NearestPackArgs args{r, group, groups, bf16, nullptr, &bytes, 1};
    running(rows, [&](Device device) { return finished(run_nearest_pack(device, args)); });
    return bytes;
}

template <class A>
int64_t nearest_bytes_op(const A &rows, const A &group, int64_t groups, bool bf16) {
    in_one_place(rows, group);
    const RowsView r = rows_view(rows, "rows");
    return nearest_bytes(rows, checked_groups(group, r.rows, groups), groups, bf16);
}

template <class A>
bool nearest_pack_op(const A &rows, const A &group, int64_t groups, bool bf16, A out, int threads) {
    in_one_place(out, rows, group);
    const RowsView r = rows_view(rows, "rows");
    if (r.batch != 1) { refuse("rows", "rank 2"); }
    const int64_t *number = checked_groups(group, r.rows, groups);
    int64_t bytes = nearest_bytes(rows, number, groups, bf16);
    uint8_t *packed = output<uint8_t>(out, "out", {bytes});
    const NearestPackArgs args{r, number, groups, bf16, packed, &bytes, checked_threads(threads)};
    return running(out, [&](Device device) { return finished(run_nearest_pack(device, args)); });
}

template <class A> bool nearest_op(const A &features, const A &rows, const A &group, int64_t groups,
                                   bool bf16, const std::optional<A> &packed, A out, int threads) {
    in_one_place(out, features, rows, group, packed);
    const PlaneView f = feature_view(features, "features");
    const RowsView r = rows_view(rows, "rows");
    if (r.columns != f.channels || r.batch != 1) { refuse("rows", "the channels of features"); }
    const int64_t *number = checked_groups(group, r.rows, groups);
    const void *ready = nullptr;
    if (packed) {
        require_type<uint8_t>(*packed, "packed", 1);
        if (packed->shape(0) != nearest_bytes(rows, number, groups, bf16) ||
            !is_contiguous(*packed)) {
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
    return running(out, [&](Device device) { return finished(run_nearest(device, args)); });
}

// [B, h, w] for the cells of features as [B, 1, h, w]; no data where there are none.
template <class A> PlaneView cell_view(const std::optional<A> &weights, const PlaneView &f) {
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

template <class A> const int64_t *checked_ways(const A &ways, int64_t batch, int64_t classes) {
    return checked_numbers(ways, "ways", batch, -1, classes, "-1 or a class");
}

template <class A> bool distance_stats_op(const A &features, const A &prototypes,
                                          const std::optional<A> &weights, A out, int threads) {
    in_one_place(out, features, prototypes, weights);
    const PlaneView f = feature_view(features, "features");
    const RowsView p = rows_view(prototypes, "prototypes");
    if (p.columns != f.channels || p.batch != 1) {
        refuse("prototypes", "the channels of features");
    }
    const DistanceStatsArgs args{f, p, cell_view(weights, f),
                                 output<float>(out, "out", {p.rows, 6}), checked_threads(threads)};
    return running(out, [&](Device device) { return finished(run_distance_stats(device, args)); });
}

template <class A> bool soft_pool_op(const A &features, const A &prototypes, const A &ways,
                                     int64_t parts, double scale, const std::optional<A> &radius,
                                     const std::optional<A> &weights, A vectors, A mass,
                                     int threads) {
    in_one_place(vectors, features, prototypes, ways, radius, weights, mass);
    const PlaneView f = feature_view(features, "features");
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
    return running(vectors, [&](Device device) { return finished(run_soft_pool(device, args)); });
}

template <class A> using ThresholdArrays = std::tuple<A, A, A, double>;

template <class A>
bool prototype_fusion_op(const A &features, const A &ways, const A &background, const A &sums,
                         const A &counts, double scale, bool distilled,
                         const std::optional<ThresholdArrays<A>> &threshold, double radius,
                         const std::optional<A> &weights, std::array<A, 5> out, int threads) {
    in_one_place(out[0], features, ways, background, sums, counts, weights, out);
    const PlaneView f = feature_view(features, "features");
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
        in_one_place(out[0], hidden_weight, hidden_bias, output_weight);
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
    return running(out[0],
                   [&](Device device) { return finished(run_prototype_fusion(device, args)); });
}

template <class A>
bool grid_weights_op(const A &masks, double extent_h, double extent_w, A out, int threads) {
    in_one_place(out, masks);
    const bool bytes = is_of<uint8_t>(masks);
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
    return running(out, [&](Device device) { return finished(run_grid_weights(device, args)); });
}

template <class A> bool upsample_argmax_op(const A &logits, double extent_h, double extent_w,
                                           const std::optional<A> &labels, A out, int threads) {
    in_one_place(out, logits, labels);
    const PlaneView view = plane_view(logits, "logits");
    const int64_t most = labels ? 65535 : 255;
    if (view.channels < 1 || view.channels > most) { refuse("logits", "1 to 255 classes"); }
    const uint8_t *names = nullptr;
    if (labels) {
        require_type<uint8_t>(*labels, "labels", 1);
        if (labels->shape(0) != view.channels || !is_contiguous(*labels)) {
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
    return running(out, [&](Device device) { return finished(run_upsample_argmax(device, args)); });
}

template <class A> bool preprocess_op(const A &image, int64_t content_h, int64_t content_w,
                                      const std::array<double, 3> &mean,
                                      const std::array<double, 3> &deviation, A out, int threads) {
    in_one_place(out, image);
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
    return running(out, [&](Device device) { return finished(run_preprocess(device, args)); });
}

template <class A> void bind_ops(py::module_ &m) {
    m.def("grid_weights", &grid_weights_op<A>);
    m.def("preprocess", &preprocess_op<A>);
    m.def("upsample_argmax", &upsample_argmax_op<A>);
    m.def("weighted_pool", &weighted_pool_op<A>);
    m.def("cosine_match", &cosine_match_op<A>);
    m.def("linear_match", &linear_match_op<A>);
    m.def("nearest", &nearest_op<A>);
    m.def("nearest_pack", &nearest_pack_op<A>);
    m.def("_nearest_bytes", &nearest_bytes_op<A>);
    m.def("distance_stats", &distance_stats_op<A>);
    m.def("soft_pool", &soft_pool_op<A>);
    m.def("prototype_fusion", &prototype_fusion_op<A>);
}

} // namespace fsseg
