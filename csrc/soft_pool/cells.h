// Which class has a cell, and how much the cell counts: y z t w of soft_pool.h, from cosines.
#pragma once

#include "core/simd.h"

#include <float.h>

namespace fsseg {
namespace FSSEG_NS {

struct CellRule {
    int64_t parts, classes;
    float scale;
    const float *radius; // [classes], or null
};

// For n cells: owner[x] is the class whose cell x is (anything where weight[x] is 0), weight[x] what it
// counts. cosines [parts + classes, tile] holds whole vectors, as owner and weight do; cover [n] may be
// null. way: the only class that counts, or -1. False: cover holds what no weight may be.
static bool cell_weights(const CellRule &rule, const float *cosines, int64_t tile, int64_t n,
                         const float *cover, int64_t way, float *owner, float *weight) {
    static const float ones[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    const vf scale = set1(rule.scale), nothing = zero();
    const float *classes = cosines + rule.parts * tile;
    bool allowed = true;
    for (int64_t x = 0; x < n; x += lanes) {
        const int count = static_cast<int>(smaller(lanes, n - x));
        const vf share = load_n(cover == nullptr ? ones : cover + x, count);
        allowed = allowed && all_within(share, 0.0f, FLT_MAX, count);
        vf background = mul(scale, load(cosines + x));
        for (int64_t p = 1; p < rule.parts; ++p) {
            background = max(background, mul(scale, load(cosines + p * tile + x)));
        }
        // distance < limit nowhere, where no class is larger than the background
        vf top = background, number = set1(-1.0f), distance = nothing, limit = set1(-1.0f);
        for (int64_t c = 0; c < rule.classes; ++c) {
            const vf cosine = load(classes + c * tile + x), score = mul(scale, cosine);
            const vf radius = set1(rule.radius == nullptr ? INFINITY : rule.radius[c]);
            number = select_greater(score, top, set1(static_cast<float>(c)), number);
            distance = select_greater(score, top, sub(set1(1.0f), cosine), distance);
            limit = select_greater(score, top, radius, limit);
            top = select_greater(score, top, score, top);
        }
        vf counts = select_greater(limit, distance, share, nothing);
        if (way >= 0) {
            const vf other = sub(number, set1(static_cast<float>(way)));
            counts = select_greater(mul(other, other), set1(0.25f), nothing, counts);
        }
        store(owner + x, number);
        if (differing(counts, nothing) == 0) {
            store(weight + x, nothing);
            continue;
        }
        vf total = exp(sub(background, top));
        for (int64_t c = 0; c < rule.classes; ++c) {
            total = add(total, exp(sub(mul(scale, load(classes + c * tile + x)), top)));
        }
        store(weight + x, select_greater(counts, nothing, div(counts, total), nothing));
    }
    return allowed;
}

} // namespace FSSEG_NS
} // namespace fsseg
