// One launch: a block makes 32 x 16 pixels of the result. It filters the image rows of these down to 32 rows
// of floats in shared memory, then those across.
//
// At 1080 x 1920 to 473 x 473 that reads 6.2 MB of image (each byte 1.1 times) and writes 2.7 MB in 450
// blocks, 31 kB of shared memory each, all of them resident on 132 processors. A wider tile needs more shared
// memory, a smaller one reads more image twice; two launches would write and read 11 MB in between.
//
// Downwards a warp takes one row of the result and its lanes words of four bytes, so loads are whole
// lines. Across, lanes are rows, an odd number of floats apart: no two in one bank. Weights are computed where
// they are used (three instructions), so windows may have any length and nothing is kept of them.
#include "preprocess/preprocess.h"

#include "cuda/elements.h"

#include <algorithm>
#include <type_traits>

namespace fsseg {
namespace cuda {

namespace {

constexpr int tile_rows = 32, tile_columns = 16, threads = 256, warps = threads / 32;
constexpr int words = 60; // of four bytes of an image row at a time
constexpr int row_floats = 4 * words + 1;
constexpr int most_terms = 64;        // of a plain float32 sum: more would lose digits
constexpr double least_weight = 1e-9; // as on the CPU: less is rounding at the ends of the triangle

// The triangle filter along one axis, see triangle.h.
struct Filter {
    int size, result;
    double scale, support;
    float inverse_support;
};

// The weight of pixel start + k is `inverse_sum` * (1 - |place + k| / support).
struct Window {
    int start, count;
    float place, inverse_sum;
};

__device__ Window window_of(const Filter &filter, int x) {
    const double centre = (x + 0.5) * filter.scale, support = filter.support;
    int start = static_cast<int>(max(0.0, floor(centre - support)));
    int end = static_cast<int>(min(static_cast<double>(filter.size), ceil(centre + support)));
    const auto weight = [&](int i) { return 1.0 - fabs(i + 0.5 - centre) / support; };
    if (end - start > 1 && weight(start) < least_weight) { ++start; }
    if (end - start > 1 && weight(end - 1) < least_weight) { --end; }
    const double place = start + 0.5 - centre, n = end - start;
    const double left = min(n, max(0.0, ceil(-place))); // how many pixels lie left of the centre
    const double sum_left = left * place + left * (left - 1.0) / 2.0;
    const double sum_all = n * place + n * (n - 1.0) / 2.0;
    const double sum = n - (sum_all - 2.0 * sum_left) / support;
    return {start, end - start, static_cast<float>(place), static_cast<float>(1.0 / sum)};
}

__device__ __forceinline__ float weight_of(float place, float k, float inverse_support) {
    return fmaf(-fabsf(place + k), inverse_support, 1.0f);
}

// Byte i of a word; two instructions at full rate, which a conversion is not. (2^23 + byte) - 2^23.
template <int I> __device__ __forceinline__ float byte_of(uint32_t word) {
    return __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7440u + I)) - 8388608.0f;
}

// Pixels as they lie in memory: those of a row `pitch` bytes apart from `data` on, or (apart) anywhere.
struct Image {
    const uint8_t *data;
    int64_t row_stride, pixel_stride;
    int width, pitch; // 3 or 4
    bool mirrored;    // the row begins with the last column
    bool apart;
    bool aligned; // each row's first byte to four bytes
};

struct Normal {
    float factor[3], offset[3];
};

// Four bytes of a row from byte `first` on; 0 from byte `end` on.
__device__ __forceinline__ uint32_t gather_word(const Image &image, const uint8_t *row, int first,
                                                int end) {
    uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int byte = first + i;
        if (byte >= end) { break; }
        const int64_t at = image.apart ? byte / 3 * image.pixel_stride + byte % 3 : byte;
        word |= static_cast<uint32_t>(row[at]) << (8 * i);
    }
    return word;
}

__device__ __forceinline__ void add_word(float (&sums)[4], float weight, uint32_t word) {
    sums[0] = fmaf(weight, byte_of<0>(word), sums[0]);
    sums[1] = fmaf(weight, byte_of<1>(word), sums[1]);
    sums[2] = fmaf(weight, byte_of<2>(word), sums[2]);
    sums[3] = fmaf(weight, byte_of<3>(word), sums[3]);
}

// at[0..3] = sums, in an order in which eight lanes do not meet in one bank.
__device__ __forceinline__ void store_word(float *at, float (&sums)[4], int lane) {
    const int turn = lane / 8;
    if ((turn & 1) != 0) {
        const float first = sums[0];
        sums[0] = sums[1], sums[1] = sums[2], sums[2] = sums[3], sums[3] = first;
    }
    if ((turn & 2) != 0) {
        const float first = sums[0], second = sums[1];
        sums[0] = sums[2], sums[1] = sums[3], sums[2] = first, sums[3] = second;
    }
    for (int i = 0; i < 4; ++i) { at[(i + turn) & 3] = sums[i]; }
}

// out [4] = four bytes of a window's rows, filtered down; word_of(row) has those of one row.
template <int AT_ONCE, class WordOf>
__device__ __forceinline__ void filter_word(const Image &image, const Window &window,
                                            float inverse_support, int lane, float *out,
                                            WordOf &&word_of) {
    float sums[4] = {};
    const uint8_t *row = image.data + window.start * image.row_stride;
    for (int begin = 0; begin < window.count; begin += most_terms) {
        float part[4] = {}, k = static_cast<float>(begin);
        const int terms = min(most_terms, window.count - begin);
#pragma unroll AT_ONCE
        for (int i = 0; i < terms; ++i) {
            add_word(part, weight_of(window.place, k, inverse_support), word_of(row));
            row += image.row_stride;
            k += 1.0f;
        }
        for (int i = 0; i < 4; ++i) { sums[i] += part[i]; }
    }
    store_word(out, sums, lane);
}

using One = std::integral_constant<int, 1>;
using Four = std::integral_constant<int, 4>;

// out [4 * words] = the bytes from `first` to `end` of the window's rows, filtered down by one warp.
template <bool ALIGNED>
__device__ __forceinline__ void filter_down(const Image &image, const Window &window,
                                            float inverse_support, int first, int end, float *out) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int row_bytes = (image.width - 1) * image.pitch + 3; // a fourth one may not be ours
#pragma unroll 1
    for (int at = 4 * lane; first + at < end; at += 128) {
        const int byte = first + at;
        const auto filter = [&](auto at_once, auto &&word_of) {
            filter_word<decltype(at_once)::value>(image, window, inverse_support, lane, out + at,
                                                  word_of);
        };
        if (ALIGNED && byte + 4 <= row_bytes) {
            filter(Four(), [&](const uint8_t *row) {
                return *reinterpret_cast<const uint32_t *>(row + byte);
            });
        } else if (!ALIGNED && !image.apart && byte >= 4 && byte + 8 <= row_bytes) {
            filter(Four(), [&](const uint8_t *row) {
                const uintptr_t place = reinterpret_cast<uintptr_t>(row + byte);
                const auto *pair = reinterpret_cast<const uint32_t *>(place & ~uintptr_t{3});
                return __funnelshift_r(pair[0], pair[1], static_cast<unsigned>(place % 4 * 8));
            });
        } else {
            filter(One(),
                   [&](const uint8_t *row) { return gather_word(image, row, byte, row_bytes); });
        }
    }
}

// The pixels [low, end) of the image's rows in memory are in `row` (each three floats or four).
__device__ __forceinline__ void filter_across(const Image &image, const Window &window,
                                              float inverse_support, int low, int end,
                                              const float *row, float (&sums)[3]) {
    const int front = image.mirrored ? image.width - 1 - window.start : window.start;
    // The pixels of the window are front + k, or front - k.
    int from = image.mirrored ? front - (end - 1) : low - front;
    int to = image.mirrored ? front - low + 1 : end - front;
    from = max(from, 0);
    to = min(to, window.count);
    if (from >= to) { return; }
    const int step = image.mirrored ? -image.pitch : image.pitch;
    const float *at = row + (front - low) * image.pitch + from * step;
    float part[3] = {}, k = static_cast<float>(from);
#pragma unroll 4
    for (int i = from; i < to; ++i) {
        const float weight = weight_of(window.place, k, inverse_support);
        for (int c = 0; c < 3; ++c) { part[c] = fmaf(weight, at[c], part[c]); }
        at += step;
        k += 1.0f;
    }
    for (int c = 0; c < 3; ++c) { sums[c] += part[c]; }
}

template <bool ALIGNED, class Out> __global__ void __launch_bounds__(threads, 4)
    filter(Image image, Filter down, Filter across, Normal normal, int input_h, int input_w,
           Out *out) {
    __shared__ float rows[tile_rows * row_floats]; // later the result
    __shared__ Window windows_down[tile_rows], windows_across[tile_columns];
    const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
    const int tiles = (input_w + tile_columns - 1) / tile_columns;
    const int top = static_cast<int>(blockIdx.x) / tiles * tile_rows;
    const int left = static_cast<int>(blockIdx.x) % tiles * tile_columns;
    const int tall = min(tile_rows, down.result - top);
    const int wide = min(tile_columns, across.result - left); // of the content; else there is none
    const bool content = tall > 0 && wide > 0;

    constexpr int columns = tile_columns / warps; // of a warp
    float sums[columns][3] = {};
    if (content) {
        if (thread < tall) { windows_down[thread] = window_of(down, top + thread); }
        const int column = thread - tile_rows;
        if (column >= 0 && column < wide) {
            windows_across[column] = window_of(across, left + column);
        }
        __syncthreads();
        const Window &last = windows_across[wide - 1];
        int low = windows_across[0].start, end = last.start + last.count;
        if (image.mirrored) {
            const int front = low;
            low = image.width - end;
            end = image.width - front;
        }
        const int pixels = image.pitch == 4 ? words : words / 3 * 4; // at a time
        for (low = low / 4 * 4; low < end; low += pixels) {
            const int some = min(low + pixels, end);
            const int first = low * image.pitch, behind = some * image.pitch;
            for (int y = warp; y < tall; y += warps) {
                filter_down<ALIGNED>(image, windows_down[y], down.inverse_support, first, behind,
                                     rows + y * row_floats);
            }
            __syncthreads();
            for (int i = 0; i < columns; ++i) {
                const int x = warp + i * warps;
                if (lane < tall && x < wide) {
                    filter_across(image, windows_across[x], across.inverse_support, low, some,
                                  rows + lane * row_floats, sums[i]);
                }
            }
            __syncthreads();
        }
    }
    constexpr int wider = tile_columns + 1, plane = tile_rows * wider;
    static_assert(3 * plane <= tile_rows * row_floats, "the result fits");
    for (int i = 0; i < columns; ++i) {
        const int x = warp + i * warps;
        const bool inside = lane < tall && x < wide;
        const float scale =
            inside ? windows_down[lane].inverse_sum * windows_across[x].inverse_sum : 0.0f;
        for (int c = 0; c < 3; ++c) {
            rows[c * plane + lane * wider + x] =
                inside ? fmaf(sums[i][c] * scale, normal.factor[c], normal.offset[c]) : 0.0f;
        }
    }
    __syncthreads();
    for (int i = thread; i < 3 * tile_rows * tile_columns; i += threads) {
        const int x = i % tile_columns, y = i / tile_columns % tile_rows;
        const int c = i / (tile_columns * tile_rows);
        if (top + y < input_h && left + x < input_w) {
            out[(static_cast<int64_t>(c) * input_h + top + y) * input_w + left + x] =
                from_float<Out>(rows[c * plane + y * wider + x]);
        }
    }
}

Filter filter_of(int64_t size, int64_t result) {
    const double scale = static_cast<double>(size) / static_cast<double>(result);
    const double support = std::max(scale, 1.0);
    return {static_cast<int>(size), static_cast<int>(result), scale, support,
            static_cast<float>(1.0 / support)};
}

} // namespace

Status preprocess(const PreprocessArgs &args) {
    const int64_t step = args.pixel_stride;
    const bool mirrored = step == -3 || step == -4;
    Image image;
    image.apart = !mirrored && step != 3 && step != 4;
    image.data = args.image + (mirrored ? (args.width - 1) * step : 0);
    image.row_stride = args.row_stride;
    image.pixel_stride = step;
    image.width = static_cast<int>(args.width);
    image.pitch = step == 4 || step == -4 ? 4 : 3;
    image.mirrored = mirrored;
    image.aligned = !image.apart && reinterpret_cast<uintptr_t>(image.data) % 4 == 0 &&
                    args.row_stride % 4 == 0;
    Normal normal;
    for (int c = 0; c < 3; ++c) {
        normal.factor[c] = static_cast<float>(1.0 / (255.0 * args.deviation[c]));
        normal.offset[c] = static_cast<float>(-args.mean[c] / args.deviation[c]);
    }
    const unsigned blocks =
        divided_up(args.input_h, tile_rows) * divided_up(args.input_w, tile_columns);
    if (blocks == 0) { return Status::ok; }
    with_type(args.out_dtype, [&](auto zero) {
        using Out = decltype(zero);
        launch(image.aligned ? filter<true, Out> : filter<false, Out>, dim3(blocks), dim3(threads),
               0, image, filter_of(args.height, args.content_h),
               filter_of(args.width, args.content_w), normal, static_cast<int>(args.input_h),
               static_cast<int>(args.input_w), reinterpret_cast<Out *>(args.out));
    });
    return Status::ok;
}

} // namespace cuda
} // namespace fsseg
