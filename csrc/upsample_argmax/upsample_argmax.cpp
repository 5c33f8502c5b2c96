// One image row at a time: interpolate the P scores at the w columns of the grid and take the
// argmax there. Between two columns the scores are straight lines, so where both ends have the same
// winner it wins everywhere in between and the run is filled; only else the pixels are looked at.
#include "upsample_argmax/upsample_argmax.h"

#include "core/axis.h"
#include "core/simd.h"

#include <float.h>

namespace fsseg {
namespace FSSEG_NS {

namespace {

constexpr int64_t task_rows = 32;

// Whether planes stand for labels of their own; if not, no table is looked at.
template <bool NAMED> struct Naming {
    static constexpr bool named = NAMED;
};

// Scores at the columns of the grid, `weight` of the way from row `top` to row `bottom`, times
// `scale`, and their argmax as floats. n columns; `values` and `labels` have room for n + lanes.
void score_row(const float *top, const float *bottom, int64_t plane_stride, float weight,
               float scale, int64_t classes, int64_t n, float *values, int64_t stride,
               float *labels) {
    const vf below = set1(scale * weight), above = set1(scale * (1.0f - weight));
    for (int64_t x = 0; x < n; x += lanes) {
        const int some = static_cast<int>(smaller(lanes, n - x));
        vf best = zero(), label = zero();
        for (int64_t k = 0; k < classes; ++k) {
            const float *p = top + k * plane_stride + x, *q = bottom + k * plane_stride + x;
            const vf high = some == lanes ? load(p) : load_n(p, some);
            const vf low = some == lanes ? load(q) : load_n(q, some);
            const vf value = fma(low, below, mul(high, above));
            store(values + k * stride + x, value);
            best = k == 0 ? value : best;
            label = select_greater(value, best, set1(static_cast<float>(k)), label);
            best = max(value, best);
        }
        store(labels + x, label);
    }
    store(labels + n, set1(labels[n - 1])); // no change behind the last column
}

// Labels of VECTORS * lanes pixels between two columns, whose scores are left[k], right[k].
template <int VECTORS, bool NAMED>
void label_pixels(const float *left, const float *right, int64_t stride, int64_t classes,
                  const float *names, const float *weights, vf *labels) {
    vf best[VECTORS], place[VECTORS];
    for (int i = 0; i < VECTORS; ++i) {
        place[i] = load(weights + i * lanes);
        best[i] = fma(place[i], set1(*right - *left), set1(*left));
        labels[i] = NAMED ? set1(names[0]) : zero();
    }
    for (int64_t k = 1; k < classes; ++k) {
        const float start = left[k * stride];
        const vf from = set1(start), slope = set1(right[k * stride] - start);
        const vf label = set1(NAMED ? names[k] : static_cast<float>(k));
        for (int i = 0; i < VECTORS; ++i) {
            const vf value = fma(place[i], slope, from);
            labels[i] = select_greater(value, best[i], label, labels[i]);
            best[i] = max(value, best[i]);
        }
    }
}

// The pixels [x, end) between two columns. May write more, up to the end of the row.
template <bool NAMED> void label_cell(const float *left, const float *right, int64_t stride,
                                      int64_t classes, const float *names, const float *weights,
                                      int64_t x, int64_t end, int64_t width, uint8_t *row) {
    vf labels[2];
    for (; end - x > lanes && width - x >= 2 * lanes; x += 2 * lanes) {
        label_pixels<2, NAMED>(left, right, stride, classes, names, weights + x, labels);
        store_u8(row + x, labels[0]);
        store_u8(row + x + lanes, labels[1]);
    }
    for (; x < end; x += lanes) {
        label_pixels<1, NAMED>(left, right, stride, classes, names, weights + x, labels);
        if (width - x >= lanes) {
            store_u8(row + x, labels[0]);
        } else {
            store_u8_n(row + x, labels[0], static_cast<int>(width - x));
        }
    }
}

void fill(uint8_t *row, int64_t x, int64_t end, float label) {
    if (x < end) { memset(row + x, static_cast<int>(label), static_cast<size_t>(end - x)); }
}

// The largest magnitude of n floats, or -1 if some are not finite.
float magnitude(const float *p, int64_t n) {
    vf most = zero();
    bool finite = true;
    for (int64_t x = 0; x < n; x += lanes) {
        const vf value = n - x >= lanes ? load(p + x) : load_n(p + x, static_cast<int>(n - x));
        finite = finite && all_within(value, -FLT_MAX, FLT_MAX, lanes);
        most = max(most, max(value, sub(zero(), value)));
    }
    return finite ? largest(most) : -1.0f;
}

// A power of two that keeps differences from overflowing and small scores from losing bits: the
// largest of a set of scores does not depend on it.
float harmless_scale(float most) {
    return most > 0x1p120f ? 0x1p-8f : (most < 0x1p-40f ? 0x1p80f : 1.0f);
}

} // namespace

Status upsample_argmax(const UpsampleArgmaxArgs &args) {
    const PlaneView &logits = args.logits;
    float most = 0.0f;
    for (int64_t b = 0; b < logits.batch; ++b) {
        for (int64_t k = 0; k < logits.channels; ++k) {
            const float *plane = logits.data + b * logits.batch_stride + k * logits.channel_stride;
            const float here = magnitude(plane, logits.height * logits.width);
            if (here < 0.0f) { return Status::not_finite; }
            most = here > most ? here : most;
        }
    }
    const float scale = harmless_scale(most);
    const GridAxis down = grid_axis(args.extent_h, logits.height, args.height);
    const GridAxis across = grid_axis(args.extent_w, logits.width, args.width);
    const int64_t stride = round_up(across.cells, lanes) + lanes;
    const int64_t per_worker = (logits.channels + 1) * stride;
    const int64_t tasks = divide_up(args.height, task_rows);
    const double work = static_cast<double>(logits.batch * args.height) * // microseconds, roughly
                        (5e-5 * static_cast<double>(args.width) +
                         2e-4 * static_cast<double>(logits.channels * across.cells));
    const int threads = worthwhile(args.threads, work);
    const Scratch values_memory(threads * per_worker * static_cast<int64_t>(sizeof(float)));
    const Scratch starts_memory((across.cells + 1) * static_cast<int64_t>(sizeof(int64_t)));
    const Scratch weights_memory((args.width + lanes) * static_cast<int64_t>(sizeof(float)));
    const Scratch names_memory(logits.channels * static_cast<int64_t>(sizeof(float)));
    if (values_memory.data == nullptr || starts_memory.data == nullptr ||
        weights_memory.data == nullptr || names_memory.data == nullptr) {
        return Status::no_memory;
    }
    int64_t *starts = static_cast<int64_t *>(starts_memory.data);
    float *weights = static_cast<float *>(weights_memory.data);
    for (int64_t j = 0; j <= across.cells; ++j) { starts[j] = first_pixel(across, j); }
    for (int64_t j = 0; j < across.cells; ++j) {
        for (int64_t x = starts[j]; x < starts[j + 1]; ++x) {
            weights[x] = static_cast<float>(grid_place(across, x) - static_cast<double>(j));
        }
    }
    store(weights + args.width, zero());
    float *names = static_cast<float *>(names_memory.data); // of planes
    for (int64_t k = 0; k < logits.channels; ++k) {
        names[k] = args.labels != nullptr ? args.labels[k] : static_cast<float>(k);
    }

    const auto label_rows = [&](auto naming, int64_t task, int worker) {
        constexpr bool named = decltype(naming)::named;
        const auto name_of = [&](float plane) {
            return named ? names[static_cast<int64_t>(plane)] : plane;
        };
        const int64_t b = task / tasks, first = task % tasks * task_rows;
        const float *planes = logits.data + b * logits.batch_stride;
        float *values = static_cast<float *>(values_memory.data) + worker * per_worker;
        float *winners =
            values + logits.channels * stride; // planes: two with one label have a bend
        for (int64_t y = first; y < smaller(first + task_rows, args.height); ++y) {
            const double place = grid_place(down, y);
            const int64_t i = static_cast<int64_t>(place), next = smaller(i + 1, down.cells - 1);
            score_row(planes + i * logits.width, planes + next * logits.width,
                      logits.channel_stride, static_cast<float>(place - static_cast<double>(i)),
                      scale, logits.channels, across.cells, values, stride, winners);
            uint8_t *row = args.out + (b * args.height + y) * args.width;
            int64_t done = 0;
            for (int64_t x = 0; x < across.cells; x += lanes) {
                uint32_t changes = differing(load(winners + x), load(winners + x + 1));
                for (; changes != 0; changes &= changes - 1) {
                    const int64_t j = x + __builtin_ctz(changes);
                    fill(row, done, starts[j], name_of(winners[j]));
                    label_cell<named>(values + j, values + j + 1, stride, logits.channels, names,
                                      weights, starts[j], starts[j + 1], args.width, row);
                    done = starts[j + 1];
                }
            }
            fill(row, done, args.width, name_of(winners[across.cells - 1]));
        }
    };
    if (args.labels != nullptr) {
        for_each(logits.batch * tasks, threads,
                 [&](int64_t task, int worker) { label_rows(Naming<true>(), task, worker); });
    } else {
        for_each(logits.batch * tasks, threads,
                 [&](int64_t task, int worker) { label_rows(Naming<false>(), task, worker); });
    }
    return Status::ok;
}

} // namespace FSSEG_NS
} // namespace fsseg
