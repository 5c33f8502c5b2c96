// The cells that count: those with a target above 0, in blocks, as runs that lie side by side.
#pragma once

#include "online_mlp/plan.h"

namespace fsseg {
namespace FSSEG_NS {

struct Samples {
    int64_t cells;    // that count
    int64_t all;      // in all samples
    Run *runs;        // of all blocks, one after another
    int64_t *begins;  // [blocks + 1]: the first run of each block
    int64_t *numbers; // [cells]: places among all
    float *targets;   // [blocks][classes][block_cells], zero behind the last cell
};

static inline int64_t block_count(int64_t cells) { return divide_up(cells, block_cells); }

static int64_t all_cells(const OnlineMlpFitArgs &args) {
    int64_t total = 0;
    for (int64_t s = 0; s < args.sample_count; ++s) {
        const PlaneView &t = args.samples[s].targets;
        total += t.batch * t.height * t.width;
    }
    return total;
}

// counts [all]: 1 for a cell that counts, else 0. Returns how many do; -1: a target is negative or not
// finite.
static int64_t mark_cells(const OnlineMlpFitArgs &args, uint8_t *counts) {
    int64_t total = 0;
    for (int64_t s = 0; s < args.sample_count; ++s) {
        const PlaneView &t = args.samples[s].targets;
        const int64_t pixels = t.height * t.width;
        for (int64_t b = 0; b < t.batch; ++b, counts += pixels) {
            memset(counts, 0, static_cast<size_t>(pixels));
            for (int64_t k = 0; k < t.channels; ++k) {
                const float *plane = t.data + b * t.batch_stride + k * t.channel_stride;
                uint8_t wrong = 0;
                for (int64_t x = 0; x < pixels; ++x) {
                    counts[x] = static_cast<uint8_t>(counts[x] | (plane[x] > 0.0f));
                    wrong =
                        static_cast<uint8_t>(wrong | !(plane[x] >= 0.0f && plane[x] <= 3.4e38f));
                }
                if (wrong != 0) { return -1; }
            }
            for (int64_t x = 0; x < pixels; ++x) { total += counts[x]; }
        }
    }
    return total;
}

static void list_cells(const OnlineMlpFitArgs &args, const uint8_t *counts, Samples &list) {
    const int64_t classes = args.mlp.classes;
    int64_t cell = 0, run = -1, number = 0;
    const float *next = nullptr; // where the run would go on
    for (int64_t s = 0; s < args.sample_count; ++s) {
        const PlaneView &f = args.samples[s].features, &t = args.samples[s].targets;
        const int64_t pixels = t.height * t.width;
        for (int64_t b = 0; b < t.batch; ++b) {
            const float *from = f.data + b * f.batch_stride;
            const float *target = t.data + b * t.batch_stride;
            next = nullptr;
            for (int64_t x = 0; x < pixels; ++x, ++number) {
                if (counts[number] == 0) { continue; }
                const int64_t block = cell / block_cells, place = cell % block_cells;
                if (place == 0) { list.begins[block] = run + 1; }
                if (place == 0 || from + x != next) {
                    list.runs[++run] = {from + x, f.channel_stride, place, 0};
                }
                ++list.runs[run].count;
                next = from + x + 1;
                list.numbers[cell] = number;
                float *to = list.targets + block * classes * block_cells + place;
                for (int64_t k = 0; k < classes; ++k) {
                    to[k * block_cells] = target[k * t.channel_stride + x];
                }
                ++cell;
            }
        }
    }
    list.begins[block_count(cell)] = run + 1;
}

} // namespace FSSEG_NS
} // namespace fsseg
