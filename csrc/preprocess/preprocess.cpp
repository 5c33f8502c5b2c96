// For a few rows of the result at once: the vertical filter over a tile of image columns into float
// rows, then the horizontal filter over these, then channel by channel into the result. Meanwhile
// the image rows that are next come from memory.
#include "preprocess/preprocess.h"

#include "core/simd.h"
#include "preprocess/pixels.h"
#include "preprocess/triangle.h"
#include "preprocess/vertical.h"

namespace fsseg {
namespace FSSEG_NS {

namespace {

constexpr int64_t tile_pixels = 512; // of the image at a time; more only if one result needs more
constexpr int64_t most_terms = 64;   // of a plain float32 sum: more would lose digits
constexpr int64_t slack = 48;        // floats behind a row that vectors may touch
constexpr int64_t most_ahead = 32;   // rows asked for early, so that they fit beside the others

// sums[row] += the vectors [i, end) of a window.
template <int PITCH> inline void weigh(const float *pixel, int64_t row_floats, const float *weight,
                                       int64_t i, int64_t end, Pixels *sums) {
    constexpr int many = pixels_in_vector(PITCH);
    for (; i < end; ++i) {
        const Pixels weights = load_weights<PITCH>(weight + i * many);
        for (int row = 0; row < rows_at_once; ++row) {
            const float *p = pixel + row * row_floats + i * many * PITCH;
            sums[row] = add_weighted(sums[row], weights, p);
        }
    }
}

// out [end - first, rows_at_once, 4] = the results [first, end); `pixels` holds `rows_at_once` rows
// of the image from pixel `low`. VECTORS: how many a window has, 0 if that is not known when
// compiling.
template <int PITCH, int VECTORS>
void filter_across(const float *pixels, int64_t row_floats, int64_t low, const Window *windows,
                   const float *weights, int64_t stride, int64_t vectors, int64_t first,
                   int64_t end, float *out) {
    if (VECTORS != 0) { vectors = VECTORS; }
    const int64_t few = VECTORS != 0 ? VECTORS : smaller(vectors, most_terms);
    for (int64_t x = first; x < end; ++x, out += 4 * rows_at_once) {
        const float *pixel = pixels + (windows[x].start - low) * PITCH;
        const float *weight = weights + x * stride;
        Pixels sums[rows_at_once];
        for (Pixels &sum : sums) { sum = no_pixels(); }
        weigh<PITCH>(pixel, row_floats, weight, 0, few, sums);
        for (int64_t i = few; i < vectors; i += most_terms) {
            Pixels more[rows_at_once];
            for (Pixels &sum : more) { sum = no_pixels(); }
            weigh<PITCH>(pixel, row_floats, weight, i, smaller(i + most_terms, vectors), more);
            for (int row = 0; row < rows_at_once; ++row) { sums[row] = plus(sums[row], more[row]); }
        }
        store_sums<PITCH>(out, sums);
    }
}

// Loops of known length are a fifth faster; these are the usual ones.
template <int PITCH> auto filter_for(int64_t vectors) {
    switch (vectors) {
    case 1: return filter_across<PITCH, 1>;
    case 2: return filter_across<PITCH, 2>;
    case 3: return filter_across<PITCH, 3>;
    case 4: return filter_across<PITCH, 4>;
    case 5: return filter_across<PITCH, 5>;
    case 6: return filter_across<PITCH, 6>;
    default: return filter_across<PITCH, 0>;
    }
}

void clear(float *p, int64_t n) { memset(p, 0, static_cast<size_t>(n) * sizeof(float)); }

int64_t bytes_of(int64_t floats) { return floats * static_cast<int64_t>(sizeof(float)); }

} // namespace

Status preprocess(const PreprocessArgs &args) {
    const int64_t step = args.pixel_stride;
    const bool backwards = step == -3 || step == -4;
    const bool apart = !(step == 3 || step == 4 || backwards);
    const int64_t pitch = step == 4 || step == -4 ? 4 : 3; // floats a pixel in the row between
    const uint8_t *image = args.image + (backwards ? (args.width - 1) * step : 0);

    const int64_t most_down = triangle_most(args.height, args.content_h);
    const int64_t most_across = triangle_most(args.width, args.content_w);
    const int64_t vectors = divide_up(most_across, pixels_in_vector(pitch));
    const int64_t stride = vectors * pixels_in_vector(pitch); // of the weights of a result
    const double work = 1e-4 * static_cast<double>(args.height) * static_cast<double>(args.width) +
                        2e-3 * static_cast<double>(args.input_h * args.input_w);
    const int threads = worthwhile(args.threads, work);
    // All windows are read as if they had `stride` pixels, those at the border, too.
    const int64_t row_pixels = larger(tile_pixels, most_across) + stride;
    const int64_t row_floats = round_up(row_pixels * pitch + slack, 16);
    const int64_t per_worker = rows_at_once * (row_floats + 4 * args.content_w);
    const Scratch down_windows(args.content_h * static_cast<int64_t>(sizeof(Window)));
    const Scratch across_windows(args.content_w * static_cast<int64_t>(sizeof(Window)));
    const Scratch down_weights(bytes_of(args.content_h * most_down));
    const Scratch across_weights(bytes_of(args.content_w * stride + slack));
    const Scratch block_starts((args.content_w + 1) * static_cast<int64_t>(sizeof(int64_t)));
    const Scratch rows_memory(bytes_of(threads * per_worker));
    if (down_windows.data == nullptr || across_windows.data == nullptr ||
        down_weights.data == nullptr || across_weights.data == nullptr ||
        block_starts.data == nullptr || rows_memory.data == nullptr) {
        return Status::no_memory;
    }
    Window *down = static_cast<Window *>(down_windows.data);
    Window *across = static_cast<Window *>(across_windows.data);
    float *weights_down = static_cast<float *>(down_weights.data);
    float *weights_across = static_cast<float *>(across_weights.data);
    int64_t *starts = static_cast<int64_t *>(block_starts.data);
    triangle_filter(args.height, args.content_h, false, down, weights_down, most_down);
    triangle_filter(args.width, args.content_w, backwards, across, weights_across, stride);
    clear(weights_across + args.content_w * stride, slack);
    clear(static_cast<float *>(rows_memory.data), threads * per_worker); // 0 * what is there is 0
    const int64_t blocks = triangle_blocks(across, args.content_w, tile_pixels, starts);
    float factor[3], offset[3];
    for (int c = 0; c < 3; ++c) {
        factor[c] = static_cast<float>(1.0 / (255.0 * args.deviation[c]));
        offset[c] = static_cast<float>(-args.mean[c] / args.deviation[c]);
    }

    // between [filled, row_floats] = the image's n pixels from `low`, filtered down to the rows from
    // `top`.
    const auto add_down = [&](int64_t top, int64_t filled, int64_t low, int64_t n, float *between) {
        const int64_t left = low * (apart ? step : pitch);
        const int64_t bytes = (n - 1) * pitch + 3; // the last pixel's fourth may not be ours
        const auto rows_of = [&](int64_t y, int64_t k) -> Rows {
            return {image + (down[y].start + k) * args.row_stride + left,
                    weights_down + y * most_down + k, smaller(most_terms, down[y].count - k), k > 0,
                    between + (y - top) * row_floats};
        };
        for (int64_t y = top; y < top + filled; ++y) {
            const bool two = y + 1 < top + filled && most_down <= most_terms && !apart;
            // What the same rows of the next task need and this task does not.
            Ahead ahead = {nullptr, 0};
            const int64_t next = y + rows_at_once;
            if (next < args.content_h) {
                const Window &from = down[next - 1];
                const Window &to = down[smaller(two ? next + 1 : next, args.content_h - 1)];
                ahead.p = image + (from.start + from.count) * args.row_stride + left;
                ahead.rows = smaller(to.start + to.count - from.start - from.count, most_ahead);
            }
            if (two) {
                filter_down_two(rows_of(y, 0), rows_of(y + 1, 0), down[y + 1].start - down[y].start,
                                args.row_stride, bytes, ahead);
                ++y;
                continue;
            }
            for (int64_t k = 0; k < down[y].count; k += most_terms) {
                if (apart) {
                    filter_down_apart(rows_of(y, k), args.row_stride, step, n);
                } else {
                    filter_down(rows_of(y, k), args.row_stride, 0, bytes, ahead);
                }
                ahead.rows = 0;
            }
        }
    };

    const auto filter = pitch == 3 ? filter_for<3>(vectors) : filter_for<4>(vectors);
    const int64_t plane = args.input_h * args.input_w;
    for_each(divide_up(args.input_h, rows_at_once), threads, [&](int64_t task, int worker) {
        float *between = static_cast<float *>(rows_memory.data) + worker * per_worker;
        float *pixels = between + rows_at_once * row_floats;
        const int64_t top = task * rows_at_once;
        const int64_t rows = smaller(rows_at_once, args.input_h - top);
        const int64_t filled = larger(0, smaller(rows, args.content_h - top));
        for (int64_t row = 0; row < rows; ++row) {
            const int64_t columns = row < filled ? args.content_w : 0;
            float *out = args.out + (top + row) * args.input_w + columns;
            for (int c = 0; c < 3; ++c) { clear(out + c * plane, args.input_w - columns); }
        }
        for (int64_t block = 0; block < (filled > 0 ? blocks : 0); ++block) {
            const int64_t first = starts[block], end = starts[block + 1];
            const Window &left = across[backwards ? end - 1 : first];
            const Window &right = across[backwards ? first : end - 1];
            const int64_t low = left.start, n = right.start + right.count - low;
            add_down(top, filled, low, n, between);
            filter(between, row_floats, low, across, weights_across, stride, vectors, first, end,
                   pixels);
            for (int64_t row = 0; row < filled; ++row) {
                float *out = args.out + (top + row) * args.input_w + first;
                split_channels(pixels + 4 * row, end - first, factor, offset, plane, out);
            }
        }
    });
    return Status::ok;
}

} // namespace FSSEG_NS
} // namespace fsseg
