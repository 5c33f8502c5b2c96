// Bilinear weights are linear within a cell: pixels of the rows between cells i and i + 1 give
// (1 - f) to i and f to i + 1, and f grows by one step a row. So the vertical pass only needs
// sum(m) and sum(k m), and for bytes both are running sums of whole numbers.
#include "grid_weights/grid_weights.h"

#include "core/axis.h"
#include "core/simd.h"

#include <float.h>

namespace fsseg {
namespace FSSEG_NS {

namespace {

constexpr int group = 16;           // grid rows of one task, and lanes of the horizontal pass
constexpr int64_t tile = 512;       // columns at a time
constexpr int64_t chunk = 16;       // image rows at a time: 255 * (0 + ... + 15) fits 16 bits
constexpr int64_t wide = 2 * lanes; // columns of one step of the vertical pass

// The last step of a row may be partial: n < wide.
inline vi16 load_some(const uint8_t *p, int n) {
    return n == wide ? load_u8_i16(p) : load_u8_i16_n(p, n);
}

inline void add_to(float *p, vf s, vf t, float a, float b) {
    store(p, fma(s, set1(a), fma(t, set1(b), load(p))));
}

// rows <= chunk image rows with weights f, f + step, ... on `next`, the rest on `current`.
void add_rows(const uint8_t *p, int64_t stride, int64_t rows, double f, double step, int64_t n,
              float *current, float *next) {
    // later = sum of (rows - 1 - k) m_k; so sum of f_k m_k = f_last * total - step * later
    const double f_last = f + step * static_cast<double>(rows - 1);
    const float here = static_cast<float>(1.0 - f_last), there = static_cast<float>(f_last);
    const float slope = static_cast<float>(step);
    for (int64_t x = 0; x < n; x += wide) {
        const int some = static_cast<int>(smaller(wide, n - x));
        vi16 total = zero_i16(), later = zero_i16();
        for (int64_t k = 0; k < rows; ++k) {
            later = add_i16(later, total);
            total = add_i16(total, load_some(p + k * stride + x, some));
        }
        add_to(current + x, low_floats(total), low_floats(later), here, slope);
        add_to(current + x + lanes, high_floats(total), high_floats(later), here, slope);
        add_to(next + x, low_floats(total), low_floats(later), there, -slope);
        add_to(next + x + lanes, high_floats(total), high_floats(later), there, -slope);
    }
}

void add_rows(const float *p, int64_t stride, int64_t rows, double f, double step, int64_t n,
              float *current, float *next) {
    for (int64_t x = 0; x < n; x += lanes) {
        const int some = static_cast<int>(smaller(lanes, n - x));
        vf here = zero(), there = zero();
        for (int64_t k = 0; k < rows; ++k) {
            const double weight = f + step * static_cast<double>(k);
            const float *row = p + k * stride + x;
            const vf m = some == lanes ? load(row) : load_n(row, some);
            here = fma(m, set1(static_cast<float>(1.0 - weight)), here);
            there = fma(m, set1(static_cast<float>(weight)), there);
        }
        store(current + x, add(load(current + x), here));
        store(next + x, add(load(next + x), there));
    }
}

// All image rows of grid row `cell`, n columns from p.
template <class T> void add_cell(const T *p, int64_t stride, const GridAxis &axis, int64_t cell,
                                 int64_t n, float *current, float *next) {
    const int64_t end = first_pixel(axis, cell + 1), inner = first_inner_pixel(axis);
    int64_t y = first_pixel(axis, cell);
    while (y < end) {
        const bool clamped = y < inner || cell == axis.cells - 1;
        const int64_t stop = smaller(y < inner && inner < end ? inner : end, y + chunk);
        const double f = grid_place(axis, y) - static_cast<double>(cell);
        add_rows(p + y * stride, stride, stop - y, f, clamped ? 0.0 : axis.step, n, current, next);
        y = stop;
    }
}

struct Sums { // of `group` rows: within a cell, of values and of values times their weight
    double plain[group], weighted[group], carried[group];
};

// Columns [x, end), all within one grid column: rows[r][x] are the vertical sums.
void add_columns(const float *rows, const float *weights, int64_t x, int64_t end, Sums *sums) {
    float plain[group], weighted[group];
    for (int r = 0; r < group; ++r) { plain[r] = weighted[r] = 0.0f; }
    for (; x < end; ++x) {
        for (int r = 0; r < group; ++r) {
            const float value = rows[r * tile + x];
            plain[r] += value;
            weighted[r] += weights[x] * value;
        }
    }
    for (int r = 0; r < group; ++r) {
        sums->plain[r] += static_cast<double>(plain[r]);
        sums->weighted[r] += static_cast<double>(weighted[r]);
    }
}

template <class T> bool rows_of_grid(const GridWeightsArgs &args, const T *mask,
                                     const GridAxis &down, const float *weights,
                                     const int64_t *starts, int64_t first_row, float *vertical,
                                     float *out) {
    const int64_t rows = smaller(group, args.grid_h - first_row);
    Sums sums;
    memset(&sums, 0, sizeof sums);
    bool good = true;
    int64_t column = 0;
    const auto finish_column = [&] {
        for (int r = 0; r < group; ++r) {
            const double value = sums.plain[r] - sums.weighted[r] + sums.carried[r];
            const float result = static_cast<float>(value);
            if (r < rows) { out[r * args.grid_w + column] = result; }
            good = good && finite(static_cast<double>(result));
            sums.carried[r] = sums.weighted[r];
            sums.plain[r] = sums.weighted[r] = 0.0;
        }
        ++column;
    };
    for (int64_t start = 0; start < args.width; start += tile) {
        const int64_t n = smaller(tile, args.width - start);
        // The first row collects what belongs to the grid row above this task's.
        memset(vertical, 0, static_cast<size_t>((group + 2) * tile) * sizeof(float));
        for (int64_t r = -1; r < rows; ++r) {
            const int64_t cell = first_row + r;
            if (cell < 0 || cell >= down.cells) { continue; }
            add_cell(mask + start, args.row_stride, down, cell, n, vertical + (r + 1) * tile,
                     vertical + (r + 2) * tile);
        }
        for (int64_t x = start; x < start + n;) {
            while (x >= starts[column + 1]) { finish_column(); }
            const int64_t end = smaller(smaller(starts[column + 1], start + n), x + 64);
            add_columns(vertical + tile, weights + start, x - start, end - start, &sums);
            x = end;
        }
    }
    while (column < args.grid_w) { finish_column(); }
    return good;
}

} // namespace

Status grid_weights(const GridWeightsArgs &args) {
    const GridAxis down = grid_axis(args.extent_h, args.grid_h, args.height);
    const GridAxis across = grid_axis(args.extent_w, args.grid_w, args.width);
    const int64_t groups = divide_up(args.grid_h, group);
    const double work = 1e-4 * static_cast<double>(args.batch * args.height) *
                        static_cast<double>(args.width); // microseconds, roughly
    const int threads = worthwhile(args.threads, work);

    Scratch weights_memory(args.width * static_cast<int64_t>(sizeof(float)));
    Scratch starts_memory((args.grid_w + 2) * static_cast<int64_t>(sizeof(int64_t)));
    const int64_t per_worker = (group + 2) * tile;
    Scratch vertical_memory(threads * per_worker * static_cast<int64_t>(sizeof(float)));
    if (weights_memory.data == nullptr || starts_memory.data == nullptr ||
        vertical_memory.data == nullptr) {
        return Status::no_memory;
    }
    float *weights = static_cast<float *>(weights_memory.data);
    int64_t *starts = static_cast<int64_t *>(starts_memory.data);
    for (int64_t j = 0; j < args.grid_w + 2; ++j) { starts[j] = first_pixel(across, j); }
    for (int64_t j = 0; j < across.cells; ++j) {
        for (int64_t x = starts[j]; x < starts[j + 1]; ++x) {
            weights[x] = static_cast<float>(grid_place(across, x) - static_cast<double>(j));
        }
    }

    int bad = 0; // only ever set to 1
    for_each(args.batch * groups, threads, [&](int64_t task, int worker) {
        const int64_t b = task / groups, row = task % groups * group;
        float *vertical = static_cast<float *>(vertical_memory.data) + worker * per_worker;
        float *out = args.out + (b * args.grid_h + row) * args.grid_w;
        const int64_t offset = b * args.batch_stride;
        const bool good =
            args.bytes ? rows_of_grid(args, static_cast<const uint8_t *>(args.masks) + offset, down,
                                      weights, starts, row, vertical, out)
                       : rows_of_grid(args, static_cast<const float *>(args.masks) + offset, down,
                                      weights, starts, row, vertical, out);
        if (!good) { __atomic_store_n(&bad, 1, __ATOMIC_RELAXED); }
    });
    return bad != 0 ? Status::not_finite : Status::ok;
}

} // namespace FSSEG_NS
} // namespace fsseg
