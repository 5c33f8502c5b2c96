#include "distance_stats/distance_stats.h"

#include "core/cosine_tile.h"
#include "distance_stats/moments.h"

namespace fsseg {
namespace FSSEG_NS {

Status distance_stats(const DistanceStatsArgs &args) {
    const PlaneView &f = args.features;
    const RowsView &prototypes = args.prototypes;
    const int64_t channels = f.channels, vectors = prototypes.rows;
    // Moments are merged tile by tile: here the tiles must not depend on the number of threads.
    const Tiling tiling = tile_pixels_of(f.height * f.width, 1024, 1);
    const double work = 4e-5 * static_cast<double>(f.batch * channels) *
                        static_cast<double>(tiling.pixels); // microseconds, roughly
    const int threads = worthwhile(args.threads, work);

    const int64_t tasks = f.batch * tiling.count, per_worker = (vectors + 1) * tiling.tile;
    Scratch packed_memory(vectors * channels * static_cast<int64_t>(sizeof(float)));
    Scratch inverse_memory(vectors * static_cast<int64_t>(sizeof(double)));
    Scratch tile_memory(threads * per_worker * static_cast<int64_t>(sizeof(float)));
    Scratch moments_memory(tasks * vectors * static_cast<int64_t>(sizeof(Moments)));
    if (packed_memory.data == nullptr || inverse_memory.data == nullptr ||
        tile_memory.data == nullptr || moments_memory.data == nullptr) {
        return Status::no_memory;
    }
    float *packed = static_cast<float *>(packed_memory.data);
    double *inverse = static_cast<double *>(inverse_memory.data);
    float *tiles = static_cast<float *>(tile_memory.data);
    Moments *moments = static_cast<Moments *>(moments_memory.data);
    if (!inverse_norms(prototypes, 0, inverse)) { return Status::not_finite; }
    pack_vectors(prototypes.data, prototypes.row_stride, inverse, vectors, channels, packed);

    int bad = 0; // only ever set to 1
    for_each(tasks, threads, [&](int64_t task, int worker) {
        const int64_t b = task / tiling.count, start = task % tiling.count * tiling.tile;
        const int64_t n = smaller(tiling.tile, tiling.pixels - start);
        float *dots = tiles + worker * per_worker, *norms = dots + vectors * tiling.tile;
        const PlaneView &w = args.weights;
        const float *weights = w.data == nullptr ? nullptr : w.data + b * w.batch_stride + start;
        if ((weights != nullptr && !weights_allowed(weights, n)) ||
            !cosine_tile(f.data + b * f.batch_stride + start, f.channel_stride, channels, n, packed,
                         vectors, 1.0f, dots, tiling.tile, norms)) {
            __atomic_store_n(&bad, 1, __ATOMIC_RELAXED);
            return;
        }
        for (int64_t p = 0; p < vectors; ++p) {
            moments[task * vectors + p] = moments_of(dots + p * tiling.tile, weights, n);
        }
    });
    if (bad != 0) { return Status::not_finite; }
    for (int64_t p = 0; p < vectors; ++p) {
        Moments total = moments[p];
        for (int64_t task = 1; task < tasks; ++task) { merge(total, moments[task * vectors + p]); }
        const Shape s = shape_of(total);
        const double columns[6] = {s.low, s.high, s.variance, s.skewness, s.kurtosis, s.mean};
        for (int i = 0; i < 6; ++i) { args.out[p * 6 + i] = static_cast<float>(columns[i]); }
    }
    return Status::ok;
}

} // namespace FSSEG_NS
} // namespace fsseg
