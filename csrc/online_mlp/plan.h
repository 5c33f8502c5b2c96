// Sizes, and the layouts that all parts of online_mlp share.
//
// Hidden units come in panels of `panel_units` (two vectors), zeros behind the last one; weights of the
// hidden layer lie transposed, [panels][padded_channels][panel_units], so that every inner loop reads
// whole vectors of units, and a gradient has the layout of what it changes.
#pragma once

#include "core/cells.h"
#include "core/simd.h"
#include "online_mlp/online_mlp.h"

namespace fsseg {
namespace FSSEG_NS {

constexpr int64_t panel_units = 2 * lanes;

struct Plan {
    int64_t channels, padded_channels;
    int64_t hidden, panels, width; // width = panels * panel_units
    int64_t classes;
};

static inline Plan plan_of(const MlpWeights &mlp, int64_t channel_multiple) {
    const int64_t panels = divide_up(mlp.hidden, panel_units);
    return {mlp.channels,         round_up(mlp.channels, channel_multiple),
            mlp.hidden,           panels,
            panels * panel_units, mlp.classes};
}

// Vectors that hold units in a panel: the last one may need one only.
static inline bool whole_panel(const Plan &plan, int64_t panel) {
    return plan.hidden - panel * panel_units > lanes;
}

constexpr int64_t transposed_channels =
    64; // at once: their panel rows stay in the first-level cache

// weight [hidden, channels] -> panels, padding zero.
static void weights_in(const Plan &plan, const float *weight, float *panels) {
    memset(panels, 0, static_cast<size_t>(plan.width * plan.padded_channels) * sizeof(float));
    for (int64_t p = 0; p < plan.panels; ++p, panels += plan.padded_channels * panel_units) {
        const int64_t units = smaller(panel_units, plan.hidden - p * panel_units);
        for (int64_t begin = 0; begin < plan.channels; begin += transposed_channels) {
            const int64_t end = smaller(begin + transposed_channels, plan.channels);
            for (int64_t u = 0; u < units; ++u) {
                const float *row = weight + (p * panel_units + u) * plan.channels;
                for (int64_t c = begin; c < end; ++c) { panels[c * panel_units + u] = row[c]; }
            }
        }
    }
}

static void weights_out(const Plan &plan, const float *panels, float *weight) {
    for (int64_t p = 0; p < plan.panels; ++p, panels += plan.padded_channels * panel_units) {
        const int64_t units = smaller(panel_units, plan.hidden - p * panel_units);
        for (int64_t begin = 0; begin < plan.channels; begin += transposed_channels) {
            const int64_t end = smaller(begin + transposed_channels, plan.channels);
            for (int64_t u = 0; u < units; ++u) {
                float *row = weight + (p * panel_units + u) * plan.channels;
                for (int64_t c = begin; c < end; ++c) { row[c] = panels[c * panel_units + u]; }
            }
        }
    }
}

// rows [count, size] contiguous -> [count, width], padding zero; and back.
static inline void rows_in(const float *rows, int64_t count, int64_t size, int64_t width,
                           float *to) {
    memset(to, 0, static_cast<size_t>(count * width) * sizeof(float));
    for (int64_t r = 0; r < count; ++r) {
        memcpy(to + r * width, rows + r * size, static_cast<size_t>(size) * sizeof(float));
    }
}

static inline void rows_out(const float *from, int64_t count, int64_t size, int64_t width,
                            float *rows) {
    for (int64_t r = 0; r < count; ++r) {
        memcpy(rows + r * size, from + r * width, static_cast<size_t>(size) * sizeof(float));
    }
}

// False: one of them is infinite or NaN.
static bool all_finite(const float *values, int64_t n) {
    vf check = zero();
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes) { check = fma(load(values + i), zero(), check); }
    if (i < n) { check = fma(load_n(values + i, static_cast<int>(n - i)), zero(), check); }
    return sum(check) == 0.0f;
}

} // namespace FSSEG_NS
} // namespace fsseg
