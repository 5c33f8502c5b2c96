// online_mlp_scores: a block of cells through both layers, then the next.
#pragma once

#include "online_mlp/head.h"

namespace fsseg {
namespace FSSEG_NS {

template <class Engine> static Status scores_with(const OnlineMlpScoresArgs &args) {
    const PlaneView &f = args.features;
    const MlpWeights &mlp = args.mlp;
    const Plan plan = plan_of(mlp, Engine::channel_multiple);
    const int64_t pixels = f.height * f.width, blocks = divide_up(pixels, block_cells);
    const int64_t float_bytes = static_cast<int64_t>(sizeof(float));
    const double work = 2e-5 * static_cast<double>(f.batch * pixels * plan.width) *
                        static_cast<double>(plan.channels); // microseconds, roughly
    const int threads = worthwhile(args.threads, work);

    const int64_t all_weights = plan.width * plan.padded_channels;
    const int64_t per_worker =
        larger(plan.padded_channels, plan.width) * block_cells + plan.classes * block_cells;
    const int64_t packed_bytes = round_up(Engine::feature_bytes(plan, block_cells), 64);
    Scratch weights_memory((all_weights + plan.width * (plan.classes + 1)) * float_bytes);
    Scratch copy(Engine::weight_bytes(plan)), packed(threads * packed_bytes);
    Scratch scratch(threads * per_worker * float_bytes);
    if (weights_memory.data == nullptr || copy.data == nullptr || packed.data == nullptr ||
        scratch.data == nullptr) {
        return Status::no_memory;
    }
    float *weights = static_cast<float *>(weights_memory.data);
    float *output_weight = weights + all_weights, *bias = output_weight + plan.width * plan.classes;
    if (!all_finite(mlp.hidden_weight, plan.hidden * plan.channels) ||
        !all_finite(mlp.hidden_bias, plan.hidden) ||
        !all_finite(mlp.output_weight, plan.classes * plan.hidden) ||
        !all_finite(mlp.output_bias, plan.classes)) {
        return Status::not_finite;
    }
    weights_in(plan, mlp.hidden_weight, weights);
    rows_in(mlp.output_weight, plan.classes, plan.hidden, plan.width, output_weight);
    rows_in(mlp.hidden_bias, 1, plan.hidden, plan.width, bias);
    Engine::take_weights(plan, weights, 0, plan.padded_channels, copy.data);
    memset(scratch.data, 0, static_cast<size_t>(threads * per_worker * float_bytes));

    int bad = 0; // only ever set to 1
    for_each(f.batch * blocks, threads, [&](int64_t task, int worker) {
        const int64_t b = task / blocks, first = task % blocks * block_cells;
        const int64_t real = smaller(block_cells, pixels - first);
        const int64_t cells = round_up(real, Engine::panel);
        float *rows = static_cast<float *>(scratch.data) + worker * per_worker;
        float *logits = rows + per_worker - plan.classes * block_cells;
        void *features = static_cast<char *>(packed.data) + worker * packed_bytes;
        const Run run{f.data + b * f.batch_stride + first, f.channel_stride, 0, real};
        if (!gather_block(&run, 1, real, plan.channels, args.length, rows)) {
            __atomic_store_n(&bad, 1, __ATOMIC_RELAXED);
            return;
        }
        Engine::pack(plan, rows, 0, cells, features);
        float *z = rows;
        Engine::forward(plan, features, weights, copy.data, 0, cells, z);
        activate(plan, bias, {false, 0, 1.0f}, 0, nullptr, 0, cells, z);
        output_layer(plan, z, output_weight, mlp.output_bias, cells, logits);
        for (int64_t k = 0; k < plan.classes; ++k) {
            float *out = args.out + (b * plan.classes + k) * pixels + first;
            if (!all_finite(logits + k * block_cells, real)) {
                __atomic_store_n(&bad, 1, __ATOMIC_RELAXED);
            }
            memcpy(out, logits + k * block_cells, static_cast<size_t>(real * float_bytes));
        }
    });
    return bad != 0 ? Status::not_finite : Status::ok;
}

} // namespace FSSEG_NS
} // namespace fsseg
