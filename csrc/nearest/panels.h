// Rows in panels: the rows of a group side by side, as many as an engine multiplies at once. The last
// panel of a group is filled up with one of its rows again, which changes no maximum.
#pragma once

#include "core/norms.h"
#include "nearest/nearest.h"

namespace fsseg {
namespace FSSEG_NS {

struct Panels {
    int64_t count;   // of panels
    int64_t *group;  // [count]
    int64_t *member; // [count][rows of a panel]: which row
};

// Most panels that this many rows in so many groups may need.
static inline int64_t most_panels(int64_t rows, int64_t groups, int64_t panel) {
    return rows / panel + smaller(rows, groups);
}

// to [channels] = row / |row|; a zero row stays zero. False: it is not finite.
static inline bool unit_row(const float *row, int64_t channels, float *to) {
    double inverse;
    if (!inverse_norms({row, 1, 1, channels, 0, 0}, 0, &inverse)) { return false; }
    const float factor = static_cast<float>(inverse);
    if (inverse > 1e18 || inverse < 1e-18) { // out of float32's range, or the product may be
        for (int64_t c = 0; c < channels; ++c) { to[c] = static_cast<float>(row[c] * inverse); }
        return true;
    }
    for (int64_t c = 0; c < channels; ++c) { to[c] = row[c] * factor; }
    return true;
}

// next [groups]: scratch.
static void list_panels(const NearestArgs &args, int64_t panel, int64_t *next, Panels &panels) {
    const int64_t rows = args.rows.rows;
    for (int64_t g = 0; g < args.groups; ++g) { next[g] = 0; }
    for (int64_t m = 0; m < rows; ++m) { ++next[args.group[m]]; }
    panels.count = 0;
    for (int64_t g = 0; g < args.groups; ++g) {
        const int64_t begin = panels.count;
        panels.count += divide_up(next[g], panel);
        for (int64_t p = begin; p < panels.count; ++p) { panels.group[p] = g; }
        next[g] = begin * panel;
    }
    for (int64_t i = 0; i < panels.count * panel; ++i) { panels.member[i] = -1; }
    for (int64_t m = 0; m < rows; ++m) { panels.member[next[args.group[m]]++] = m; }
    for (int64_t i = 0; i < panels.count * panel; ++i) {
        if (panels.member[i] < 0) { panels.member[i] = panels.member[i - 1]; }
    }
}

} // namespace FSSEG_NS
} // namespace fsseg
