#include "linear_match/linear_match.h"

#include "core/dot_planes.h"

namespace fsseg {
namespace FSSEG_NS {

namespace {

constexpr int64_t most_values = 1 << 16; // of a tile, in floats

// One value in double; the slow path.
float careful_value(const float *f, int64_t stride, const float *weights, int64_t channels,
                    float bias) {
    double total = bias;
    for (int64_t c = 0; c < channels; ++c) {
        total += static_cast<double>(f[c * stride]) * static_cast<double>(weights[c]);
    }
    return static_cast<float>(total);
}

} // namespace

Status linear_match(const LinearMatchArgs &args) {
    const PlaneView &f = args.features;
    const RowsView &weights = args.weights;
    const int64_t channels = f.channels, vectors = weights.rows;
    const int64_t pixels = f.height * f.width;
    const double work = 4e-5 * static_cast<double>(f.batch * channels) *
                        static_cast<double>(pixels); // microseconds, roughly
    const int threads = worthwhile(args.threads, work);
    // With many classifiers short tiles: what a tile gives is read again while it is in a cache.
    const int64_t longest = smaller(longest_tile, larger(strip_floats, most_values / vectors));
    const Tiling tiling = tile_pixels_of(pixels, longest, divide_up(threads, f.batch));

    const int64_t per_worker = vectors * tiling.tile;
    Scratch packed_memory(vectors * channels * static_cast<int64_t>(sizeof(float)));
    Scratch ones_memory(vectors * static_cast<int64_t>(sizeof(double)));
    Scratch tile_memory(threads * per_worker * static_cast<int64_t>(sizeof(float)));
    if (packed_memory.data == nullptr || ones_memory.data == nullptr ||
        tile_memory.data == nullptr) {
        return Status::no_memory;
    }
    float *packed = static_cast<float *>(packed_memory.data);
    double *ones = static_cast<double *>(ones_memory.data);
    float *tiles = static_cast<float *>(tile_memory.data);
    for (int64_t k = 0; k < vectors; ++k) { ones[k] = 1.0; }
    pack_vectors(weights.data, weights.row_stride, ones, vectors, channels, packed);

    int bad = 0; // only ever set to 1
    for_each(f.batch * tiling.count, threads, [&](int64_t task, int worker) {
        const int64_t b = task / tiling.count, start = task % tiling.count * tiling.tile;
        const int64_t n = smaller(tiling.tile, tiling.pixels - start);
        const float *planes = f.data + b * f.batch_stride + start;
        float *dots = tiles + worker * per_worker;
        dot_planes(planes, f.channel_stride, channels, n, packed, vectors, dots, tiling.tile,
                   nullptr);
        for (int64_t k = 0; k < vectors; ++k) {
            float *row = dots + k * tiling.tile;
            vf check = zero(); // x - x is 0 for a finite x, else NaN, which the sum keeps
            for (int64_t x = 0; x < n; x += lanes) {
                const vf value = add(load(row + x), set1(args.bias[k]));
                store(row + x, value);
                check = add(check, sub(value, value));
            }
            if (!finite(sum(check))) {
                for (int64_t x = 0; x < n; ++x) {
                    row[x] = careful_value(planes + x, f.channel_stride,
                                           weights.data + k * weights.row_stride, channels,
                                           args.bias[k]);
                    if (!finite(row[x])) { __atomic_store_n(&bad, 1, __ATOMIC_RELAXED); }
                }
            }
            memcpy(args.out + (b * vectors + k) * tiling.pixels + start, row,
                   static_cast<size_t>(n) * sizeof(float));
        }
    });
    return bad != 0 ? Status::not_finite : Status::ok;
}

} // namespace FSSEG_NS
} // namespace fsseg
