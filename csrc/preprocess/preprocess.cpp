// For each row of the result: the vertical filter over a tile of image columns into a float row,
// then the horizontal filter with one pixel (R, G, B and one idle lane) a vector.
#include "preprocess/preprocess.h"

#include "core/simd.h"
#include "preprocess/pixels.h"
#include "preprocess/triangle.h"

namespace fsseg {
namespace FSSEG_NS {

namespace {

constexpr int64_t tile_pixels = 1024; // of the image at a time; more only if one result needs more
constexpr int64_t task_rows = 8;
constexpr int64_t most_terms = 64; // of a plain float32 sum: more would lose digits
constexpr int64_t slack = 48;      // floats behind a row that vectors may touch

// sums[x] = (sums[x] if more) + sum over k of weights[k] * p[k * stride + x], n bytes.
void filter_down(const uint8_t *p, int64_t stride, const float *weights, int64_t count, int64_t n,
                 bool more, float *sums) {
    constexpr int wide = 4;
    int64_t x = 0;
    for (; x + wide * lanes <= n; x += wide * lanes) {
        vf sum[wide];
        for (int i = 0; i < wide; ++i) { sum[i] = zero(); }
        for (int64_t k = 0; k < count; ++k) {
            const vf weight = set1(weights[k]);
            for (int i = 0; i < wide; ++i) {
                sum[i] = fma(load_u8(p + k * stride + x + i * lanes), weight, sum[i]);
            }
        }
        for (int i = 0; i < wide; ++i) {
            float *out = sums + x + i * lanes;
            store(out, more ? add(load(out), sum[i]) : sum[i]);
        }
    }
    for (; x < n; x += lanes) {
        const int some = static_cast<int>(smaller(lanes, n - x));
        vf sum = zero();
        for (int64_t k = 0; k < count; ++k) {
            sum = fma(load_u8_n(p + k * stride + x, some), set1(weights[k]), sum);
        }
        store(sums + x, more ? add(load(sums + x), sum) : sum);
    }
}

// The same for n pixels that lie apart; they get packed.
void filter_down_apart(const uint8_t *p, int64_t stride, int64_t pixel_stride, const float *weights,
                       int64_t count, int64_t n, bool more, float *sums) {
    for (int64_t x = 0; x < n; ++x) {
        for (int64_t c = 0; c < 3; ++c) {
            float sum = 0.0f;
            for (int64_t k = 0; k < count; ++k) {
                sum += weights[k] * static_cast<float>(p[k * stride + x * pixel_stride + c]);
            }
            sums[3 * x + c] = more ? sums[3 * x + c] + sum : sum;
        }
    }
}

// Sum over the vectors [i, end) of a window.
template <int PITCH>
inline Pixels weigh(const float *pixel, const float *weight, int64_t i, int64_t end) {
    Pixels sum = no_pixels();
    for (; i < end; ++i) {
        const int64_t at = i * pixels_in_vector;
        sum = add_weighted<PITCH>(sum, weight + at, pixel + at * PITCH);
    }
    return sum;
}

// out[4 x ..] = result x for the results [first, end); `pixels` holds the image from pixel `low`.
// VECTORS: how many a window has, 0 if that is not known when compiling.
template <int PITCH, int VECTORS>
void filter_across(const float *pixels, int64_t low, const Window *windows, const float *weights,
                   int64_t stride, int64_t vectors, int64_t first, int64_t end, float *out) {
    if (VECTORS != 0) { vectors = VECTORS; }
    const int64_t few = VECTORS != 0 ? VECTORS : smaller(vectors, most_terms);
    for (int64_t x = first; x < end; ++x) {
        const float *pixel = pixels + (windows[x].start - low) * PITCH;
        const float *weight = weights + x * stride;
        Pixels sum = weigh<PITCH>(pixel, weight, 0, few);
        for (int64_t i = few; i < vectors; i += most_terms) {
            sum = plus(sum, weigh<PITCH>(pixel, weight, i, smaller(i + most_terms, vectors)));
        }
        store_sum<PITCH>(out + 4 * x, sum);
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
    const int64_t vectors = divide_up(most_across, pixels_in_vector);
    const int64_t stride = vectors * pixels_in_vector; // of the weights of a result
    const double work = 1e-4 * static_cast<double>(args.height) * static_cast<double>(args.width) +
                        2e-3 * static_cast<double>(args.input_h * args.input_w);
    const int threads = worthwhile(args.threads, work);
    // All windows are read as if they had `stride` pixels, those at the border, too.
    const int64_t row_pixels = larger(tile_pixels, most_across) + stride;
    const int64_t row_floats = round_up(row_pixels * pitch + slack, 16);
    const int64_t per_worker = row_floats + round_up(4 * args.content_w, 16);
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

    const auto filter = pitch == 3 ? filter_for<3>(vectors) : filter_for<4>(vectors);
    const int64_t plane = args.input_h * args.input_w;
    for_each(divide_up(args.input_h, task_rows), threads, [&](int64_t task, int worker) {
        float *between = static_cast<float *>(rows_memory.data) + worker * per_worker;
        float *pixels = between + row_floats;
        const int64_t stop = smaller((task + 1) * task_rows, args.input_h);
        for (int64_t y = task * task_rows; y < stop; ++y) {
            float *out = args.out + y * args.input_w;
            const int64_t filled = y < args.content_h ? args.content_w : 0;
            for (int c = 0; c < 3; ++c) { clear(out + c * plane + filled, args.input_w - filled); }
            if (filled == 0) { continue; }
            const uint8_t *rows = image + down[y].start * args.row_stride;
            const float *weights = weights_down + y * most_down;
            for (int64_t block = 0; block < blocks; ++block) {
                const int64_t first = starts[block], end = starts[block + 1];
                const Window &left = across[backwards ? end - 1 : first];
                const Window &right = across[backwards ? first : end - 1];
                const int64_t low = left.start, n = right.start + right.count - low;
                for (int64_t k = 0; k < down[y].count; k += most_terms) {
                    const uint8_t *row = rows + k * args.row_stride;
                    const int64_t count = smaller(most_terms, down[y].count - k);
                    if (apart) {
                        filter_down_apart(row + low * step, args.row_stride, step, weights + k,
                                          count, n, k > 0, between);
                    } else { // the fourth byte of the last pixel may not be ours
                        filter_down(row + low * pitch, args.row_stride, weights + k, count,
                                    (n - 1) * pitch + 3, k > 0, between);
                    }
                }
                filter(between, low, across, weights_across, stride, vectors, first, end, pixels);
            }
            split_channels(pixels, args.content_w, factor, offset, plane, out);
        }
    });
    return Status::ok;
}

} // namespace FSSEG_NS
} // namespace fsseg
