#include "online_mlp/online_mlp.h"

#include "core/bf16.h"
#include "online_mlp/fit.h"
#include "online_mlp/fp32.h"
#include "online_mlp/scores.h"
#if defined(FSSEG_SIMD_AVX512)
#include "online_mlp/amx.h"
#include "online_mlp/pair_dots.h"
#endif

namespace fsseg {
namespace FSSEG_NS {

Status online_mlp_fit(const OnlineMlpFitArgs &args) {
    const int64_t all = all_cells(args);
    const MlpWeights &mlp = args.mlp;
    if (!all_finite(mlp.hidden_weight, mlp.hidden * mlp.channels) ||
        !all_finite(mlp.hidden_bias, mlp.hidden) ||
        !all_finite(mlp.output_weight, mlp.classes * mlp.hidden) ||
        !all_finite(mlp.output_bias, mlp.classes)) {
        return Status::not_finite;
    }
    Scratch counts(all);
    if (counts.data == nullptr) { return Status::no_memory; }
    const int64_t cells = mark_cells(args, static_cast<uint8_t *>(counts.data));
    if (cells < 0) { return Status::not_finite; }

    const int64_t blocks = block_count(cells), targets = blocks * mlp.classes * block_cells;
    Scratch runs(cells * static_cast<int64_t>(sizeof(Run)));
    Scratch numbers((cells + blocks + 1) * static_cast<int64_t>(sizeof(int64_t)));
    Scratch target_memory(targets * static_cast<int64_t>(sizeof(float)));
    if (runs.data == nullptr || numbers.data == nullptr || target_memory.data == nullptr) {
        return Status::no_memory;
    }
    memset(target_memory.data, 0, static_cast<size_t>(targets) * sizeof(float));
    int64_t *begins = static_cast<int64_t *>(numbers.data);
    Samples list{cells,
                 all,
                 static_cast<Run *>(runs.data),
                 begins,
                 begins + blocks + 1,
                 static_cast<float *>(target_memory.data)};
    list_cells(args, static_cast<const uint8_t *>(counts.data), list);
    if (!args.bf16) { return fit_with<Fp32<false>>(args, list); }
#if defined(FSSEG_SIMD_AVX512)
    if (current_bf16() == Bf16::amx) { return fit_with<Tiles>(args, list); }
    if (current_bf16() == Bf16::avx512) { return fit_with<PairDots>(args, list); }
#endif
    return fit_with<Fp32<true>>(args, list);
}

Status online_mlp_scores(const OnlineMlpScoresArgs &args) {
    if (!args.bf16) { return scores_with<Fp32<false>>(args); }
#if defined(FSSEG_SIMD_AVX512)
    if (current_bf16() == Bf16::amx) { return scores_with<Tiles>(args); }
    if (current_bf16() == Bf16::avx512) { return scores_with<PairDots>(args); }
#endif
    return scores_with<Fp32<true>>(args);
}

} // namespace FSSEG_NS
} // namespace fsseg
