// Runs the cases of a file on this processor's kernels, at every SIMD level, and compares with the
// references in it: how the NEON code is tested on a machine without NEON (see run.sh).
#include "case_file.h"

#include "core/dispatch.h"
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

#ifdef FSSEG_CUDA
#include "cuda/context.h"
#endif

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>

using namespace fsseg;

namespace {

Device where = Device::cpu;
constexpr int64_t pad = 131; // elements around the result, as in tests/ops/raw.py

PlaneView planes(const Array &a) {
    return {a.data<float>(), a.shape[0],   a.shape[1],  a.shape[2],
            a.shape[3],      a.strides[0], a.strides[1]};
}

RowsView rows(const Array &a) {
    if (a.shape.size() == 2) {
        return {a.data<float>(), 1, a.shape[0], a.shape[1], 0, a.strides[0]};
    }
    return {a.data<float>(), a.shape[0], a.shape[1], a.shape[2], a.strides[0], a.strides[1]};
}

int64_t size_of_result(const Case &c, int axis) {
    return static_cast<int64_t>(c.array("sizes").data<double>()[axis]);
}

Status grid_weights_case(const Case &c, void *out, int threads) {
    const Array &masks = c.array("masks");
    const bool bytes = masks.type == "u1";
    const void *data = masks.data<uint8_t>();
    if (!bytes) { data = masks.data<float>(); }
    return run_grid_weights(where, {data, bytes, masks.shape[0], masks.shape[1], masks.shape[2],
                                    masks.strides[0], masks.strides[1], c.number("extent_h"),
                                    c.number("extent_w"), size_of_result(c, 1),
                                    size_of_result(c, 2), static_cast<float *>(out), threads});
}

Status upsample_argmax_case(const Case &c, void *out, int threads) {
    const uint8_t *labels =
        c.arrays.count("labels") == 0 ? nullptr : c.array("labels").data<uint8_t>();
    return run_upsample_argmax(where, {planes(c.array("logits")), labels, c.number("extent_h"),
                                       c.number("extent_w"), size_of_result(c, 1),
                                       size_of_result(c, 2), static_cast<uint8_t *>(out), threads});
}

Status preprocess_case(const Case &c, void *out, int threads) {
    const Array &image = c.array("image");
    const double *mean = c.array("mean").data<double>(), *std = c.array("std").data<double>();
    const auto content = [&](const char *name) { return static_cast<int64_t>(c.number(name)); };
    return run_preprocess(where, {image.data<uint8_t>(),
                                  image.shape[0],
                                  image.shape[1],
                                  image.strides[0],
                                  image.shape[1] == 1 ? 3 : image.strides[1],
                                  content("content_h"),
                                  content("content_w"),
                                  size_of_result(c, 2),
                                  size_of_result(c, 3),
                                  {mean[0], mean[1], mean[2]},
                                  {std[0], std[1], std[2]},
                                  static_cast<float *>(out),
                                  threads});
}

MlpWeights mlp_weights(const Case &c) {
    const auto data = [&](const char *name) { return c.array(name).data<float>(); };
    const std::vector<int64_t> &first = c.array("mlp.0").shape, &last = c.array("mlp.2").shape;
    return {data("mlp.0"), data("mlp.1"), data("mlp.2"), data("mlp.3"),
            first[1],      first[0],      last[0]};
}

Status online_mlp_fit_case(const Case &c, void *out, int threads) {
    std::vector<MlpSample> samples;
    for (int i = 0; i < static_cast<int>(c.number("sample_count")); ++i) {
        const std::string name = "samples." + std::to_string(i);
        samples.push_back({planes(c.array(name + ".0")), planes(c.array(name + ".1"))});
    }
    const MlpWeights mlp = mlp_weights(c);
    float *hidden_weight = static_cast<float *>(out);
    float *hidden_bias = hidden_weight + mlp.hidden * mlp.channels;
    float *output_weight = hidden_bias + mlp.hidden;
    float *output_bias = output_weight + mlp.classes * mlp.hidden;
    bool diverged = true;
    const MlpOut result{
        hidden_weight, hidden_bias, output_weight, output_bias, output_bias + mlp.classes,
        &diverged};
    const Status status = run_online_mlp_fit(
        where, {samples.data(), static_cast<int64_t>(samples.size()), mlp, result,
                static_cast<int64_t>(c.number("iterations")), c.number("learning_rate"),
                c.number("momentum"), c.number("dropout"), c.number("length"),
                static_cast<uint64_t>(c.number("seed")), c.number("bf16") != 0, threads});
    return diverged ? Status::not_finite : status;
}

Status online_mlp_scores_case(const Case &c, void *out, int threads) {
    return run_online_mlp_scores(where, {planes(c.array("features")), mlp_weights(c),
                                         static_cast<float *>(out), c.number("length"),
                                         c.number("bf16") != 0, threads});
}

const float *floats_or_null(const Case &c, const char *name) {
    return c.arrays.count(name) == 0 ? nullptr : c.array(name).data<float>();
}

// [B, h, w] for the cells of features, or none.
PlaneView cell_weights(const Case &c, const PlaneView &f) {
    const float *data = floats_or_null(c, "weights");
    return {data, f.batch, 1, f.height, f.width, data ? c.array("weights").strides[0] : 0, 0};
}

Status soft_pool_case(const Case &c, void *out, int threads) {
    const PlaneView f = planes(c.array("features"));
    const RowsView prototypes = rows(c.array("prototypes"));
    const int64_t parts = static_cast<int64_t>(c.number("parts"));
    float *vectors = static_cast<float *>(out);
    return run_soft_pool(where,
                         {f, prototypes, c.array("ways").data<int64_t>(), parts, c.number("scale"),
                          floats_or_null(c, "radius"), cell_weights(c, f), vectors,
                          vectors + f.batch * (prototypes.rows - parts) * f.channels, threads});
}

Status prototype_fusion_case(const Case &c, void *out, int threads) {
    const PlaneView f = planes(c.array("features"));
    const RowsView background = rows(c.array("background"));
    const int64_t classes = c.array("sums").shape[0];
    const int64_t steps = static_cast<int64_t>(c.number("steps"));
    ThresholdWeights net{nullptr, nullptr, nullptr, 0.0, 0};
    if (c.arrays.count("threshold.0") != 0) {
        net = {c.array("threshold.0").data<float>(), c.array("threshold.1").data<float>(),
               c.array("threshold.2").data<float>(), c.number("threshold.3"),
               c.array("threshold.1").shape[0]};
    }
    FusionOut result;
    result.prototypes = static_cast<float *>(out);
    result.sums = result.prototypes + (background.rows + classes) * f.channels;
    result.counts = result.sums + classes * f.channels;
    result.mass = result.counts + classes;
    result.thresholds = result.mass + steps * f.batch * classes;
    return run_prototype_fusion(where,
                                {f, c.array("ways").data<int64_t>(), background,
                                 c.array("sums").data<float>(), c.array("counts").data<float>(),
                                 classes, steps, c.number("scale"), c.number("distilled") != 0, net,
                                 c.number("radius"), cell_weights(c, f), result, threads});
}

Status nearest_case(const Case &c, void *out, int threads) {
    return run_nearest(where,
                       {planes(c.array("features")), rows(c.array("rows")),
                        c.array("group").data<int64_t>(), static_cast<int64_t>(c.number("groups")),
                        c.number("bf16") != 0, nullptr, static_cast<float *>(out), threads});
}

Status logistic_fit_case(const Case &c, void *out, int threads) {
    const RowsView cells = rows(c.array("cells"));
    const int64_t classes = c.array("targets").shape[1];
    float *weight = static_cast<float *>(out), *bias = weight + classes * cells.columns;
    return run_logistic_fit(
        where, {cells, c.array("targets").data<float>(), c.array("weights").data<float>(), classes,
                static_cast<int64_t>(c.number("steps")), c.number("rate"), c.number("momentum"),
                c.number("l2"), weight, bias, bias + classes, threads});
}

using Run = std::function<Status(const Case &, void *out, int threads)>;

const std::map<std::string, Run> &runs() {
    static const std::map<std::string, Run> table = {
        {"nearest", nearest_case},
        {"logistic_fit", logistic_fit_case},
        {"soft_pool", soft_pool_case},
        {"prototype_fusion", prototype_fusion_case},
        {"online_mlp_fit", online_mlp_fit_case},
        {"online_mlp_scores", online_mlp_scores_case},
        {"grid_weights", grid_weights_case},
        {"upsample_argmax", upsample_argmax_case},
        {"preprocess", preprocess_case},
        {"weighted_pool",
         [](const Case &c, void *out, int threads) {
             return run_weighted_pool(where,
                                      {planes(c.array("features")), planes(c.array("weights")),
                                       static_cast<float *>(out), c.number("eps"), threads});
         }},
        {"cosine_match",
         [](const Case &c, void *out, int threads) {
             return run_cosine_match(where, {planes(c.array("features")),
                                             rows(c.array("prototypes")), static_cast<float *>(out),
                                             c.number("scale"), c.number("softmax") != 0, threads});
         }},
        {"linear_match",
         [](const Case &c, void *out, int threads) {
             return run_linear_match(where, {planes(c.array("features")), rows(c.array("weights")),
                                             c.array("bias").data<float>(),
                                             static_cast<float *>(out), threads});
         }},
        {"distance_stats",
         [](const Case &c, void *out, int threads) {
             const PlaneView f = planes(c.array("features"));
             return run_distance_stats(where, {f, rows(c.array("prototypes")), cell_weights(c, f),
                                               static_cast<float *>(out), threads});
         }},
    };
    return table;
}

// Empty if the result is right. Written with !(a <= b), so that NaN is wrong.
std::string compare(const Case &c, const void *result, int64_t size) {
    if (c.arrays.count("values") != 0) { // labels: within the margin of the best
        const Array &values = c.array("values");
        const int64_t classes = values.shape[1], pixels = values.shape[2] * values.shape[3];
        for (int64_t i = 0; i < size; ++i) {
            const double *at = values.data<double>() + i / pixels * classes * pixels + i % pixels;
            const int label = static_cast<const uint8_t *>(result)[i];
            double best = at[0];
            for (int64_t p = 1; p < classes; ++p) { best = std::max(best, at[p * pixels]); }
            if (label >= classes || !(best - at[label * pixels] <= c.number("margin"))) {
                return "label " + std::to_string(label) + " at " + std::to_string(i);
            }
        }
        return "";
    }
    const double *expected = c.array("expected").data<double>();
    const float *got = static_cast<const float *>(result);
    double errors = 0.0, energy = 0.0;
    for (int64_t i = 0; i < size; ++i) {
        double limit = 0.0, error = std::fabs(static_cast<double>(got[i]) - expected[i]);
        if (static_cast<double>(got[i]) == expected[i]) { error = 0.0; } // infinities, too
        if (c.arrays.count("limits") != 0) {
            limit = c.array("limits").data<double>()[i];
        } else {
            const double top = c.number("top"), unit = top > 0.0 ? top : 1.0;
            limit = c.number("max_error") * top;
            error = error <= c.number("smallest") ? 0.0 : error - c.number("smallest");
            errors += error / unit * error / unit;
            energy += expected[i] / unit * expected[i] / unit;
        }
        if (!(error <= limit)) {
            return "value " + std::to_string(got[i]) + ", expected " + std::to_string(expected[i]) +
                   " at " + std::to_string(i);
        }
    }
    if (c.arrays.count("limits") == 0 && !(errors <= c.number("nmse") * energy)) {
        return "NMSE " + std::to_string(errors / energy);
    }
    return "";
}

Status run_there(const Case &c, void *out, int threads) {
#ifdef FSSEG_CUDA
    if (where == Device::cuda) {
        static cuda::Context context(0, nullptr);
        Status status;
        {
            const cuda::Scope scope(context);
            status = runs().at(c.op)(c, out, threads);
        }
        if (status != Status::ok) { return status; }
        return context.take_report() == 0 ? Status::ok : Status::not_finite;
    }
#endif
    return runs().at(c.op)(c, out, threads);
}

std::string run_case(const Case &c) {
    const bool labels = c.op == "upsample_argmax";
    const int64_t item = labels ? 1 : 4;
    int64_t size = 1;
    for (int64_t i = 0; i < c.array("sizes").size(); ++i) {
        size *= static_cast<int64_t>(c.array("sizes").data<double>()[i]);
    }
    std::vector<unsigned char> first;
    for (int threads : {1, 3}) {
        const int fill = threads == 1 ? 0x55 : 0xff;
        std::vector<unsigned char> buffer((size + 2 * pad) * item, static_cast<uint8_t>(fill));
        unsigned char *out = buffer.data() + pad * item;
        if (runs().count(c.op) == 0) { return "the replayer does not know this op"; }
        const Status status = run_there(c, out, threads);
        if (status == Status::no_device) { return "no kernel for this device"; }
        if (status != Status::ok) { return "status is not ok"; }
        for (int64_t i = 0; i < pad * item; ++i) {
            if (buffer[i] != fill || buffer[buffer.size() - 1 - i] != fill) {
                return "wrote outside of the result";
            }
        }
        const std::string wrong = compare(c, out, size);
        if (!wrong.empty()) { return wrong; }
        std::vector<unsigned char> bytes(out, out + size * item);
        if (threads == 1) { first = bytes; }
        if (bytes != first) { return "1 and 3 threads differ"; }
    }
    return "";
}

// From several threads at the same time, as users call from theirs.
std::string run_from_all(const Case &c, int callers) {
    std::vector<std::string> wrong(callers);
    std::vector<std::thread> threads;
    for (int i = 1; i < callers; ++i) {
        threads.emplace_back([&c, &wrong, i] { wrong[i] = run_case(c); });
    }
    wrong[0] = run_case(c);
    for (std::thread &thread : threads) { thread.join(); }
    for (const std::string &each : wrong) {
        if (!each.empty()) { return each; }
    }
    return "";
}

} // namespace

// usage: replay FILE [CALLERS | cuda]
int main(int argc, char **argv) {
    const bool cuda =
        argc == 3 && std::strcmp(argv[2], "cuda") == 0; // emulated: on the host's memory
    if (cuda) { where = Device::cuda; }
    const int callers = argc == 3 && !cuda ? std::atoi(argv[2]) : 1;
    if (argc < 2 || argc > 3 || callers < 1) { return 2; }
    std::ifstream file(argv[1], std::ios::binary);
    std::map<std::string, int> passed;
    int failed = 0, total = 0;
    Case c;
    while (read_case(file, c)) {
        for (int level = 0; level < level_count; ++level) {
            if (cuda ? level > 0 : !set_level(static_cast<Level>(level))) { continue; }
            const char *name = cuda ? "cuda" : level_name(static_cast<Level>(level));
            const std::string wrong = run_from_all(c, callers);
            ++total;
            if (wrong.empty()) {
                ++passed[std::string(name) + " " + c.op];
            } else {
                ++failed;
                std::printf("FAILED %s %s %s: %s\n", name, c.op.c_str(), c.name.c_str(),
                            wrong.c_str());
            }
        }
    }
    for (const auto &entry : passed) {
        std::printf("%5d passed  %s\n", entry.second, entry.first.c_str());
    }
    std::printf("%d failed of %d\n", failed, total);
    return failed != 0 || total == 0 ? 1 : 0;
}
