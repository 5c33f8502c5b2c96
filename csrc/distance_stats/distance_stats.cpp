#include "distance_stats/distance_stats.h"

#include "core/cosine_tile.h"

namespace fsseg {
namespace FSSEG_NS {

namespace {

constexpr double constant_deviation = 1e-6;

struct Moments {
    double count, mean, m2, m3, m4; // m2..m4: sums of powers of d - mean, not divided by count
    float low, high;
};

Moments moments_of(const float *cosines, int64_t n) {
    double total = 0.0;
    for (int64_t x = 0; x < n; ++x) { total += 1.0 - static_cast<double>(cosines[x]); }
    Moments m{static_cast<double>(n), total / static_cast<double>(n), 0.0, 0.0, 0.0, 0.0f, 0.0f};
    float low = cosines[0], high = cosines[0];
    for (int64_t x = 0; x < n; ++x) {
        const double centred = 1.0 - static_cast<double>(cosines[x]) - m.mean;
        const double square = centred * centred;
        m.m2 += square;
        m.m3 += square * centred;
        m.m4 += square * square;
        low = cosines[x] < low ? cosines[x] : low;
        high = cosines[x] > high ? cosines[x] : high;
    }
    m.low = static_cast<float>(1.0 - static_cast<double>(high));
    m.high = static_cast<float>(1.0 - static_cast<double>(low));
    return m;
}

void merge(Moments &a, const Moments &b) {
    const double n = a.count + b.count, delta = b.mean - a.mean, step = delta / n;
    const double product = a.count * b.count;
    const double m4 =
        a.m4 + b.m4 +
        delta * step * step * step * product * (a.count * a.count - product + b.count * b.count) +
        6.0 * step * step * (a.count * a.count * b.m2 + b.count * b.count * a.m2) +
        4.0 * step * (a.count * b.m3 - b.count * a.m3);
    const double m3 = a.m3 + b.m3 + delta * step * step * product * (a.count - b.count) +
                      3.0 * step * (a.count * b.m2 - b.count * a.m2);
    a.m2 += b.m2 + delta * step * product;
    a.m3 = m3;
    a.m4 = m4;
    a.mean += step * b.count;
    a.count = n;
    a.low = b.low < a.low ? b.low : a.low;
    a.high = b.high > a.high ? b.high : a.high;
}

void write(const Moments &m, float *out) {
    const double variance = m.m2 / m.count;
    out[0] = m.low;
    out[1] = m.high;
    out[2] = out[3] = out[4] = 0.0f;
    if (variance >= constant_deviation * constant_deviation) {
        out[2] = static_cast<float>(variance);
        out[3] = static_cast<float>(m.m3 / m.count / (variance * ::sqrt(variance)));
        out[4] = static_cast<float>(m.m4 / m.count / (variance * variance));
    }
}

} // namespace

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
        if (!cosine_tile(f.data + b * f.batch_stride + start, f.channel_stride, channels, n, packed,
                         vectors, 1.0f, dots, tiling.tile, norms)) {
            __atomic_store_n(&bad, 1, __ATOMIC_RELAXED);
            return;
        }
        for (int64_t p = 0; p < vectors; ++p) {
            moments[task * vectors + p] = moments_of(dots + p * tiling.tile, n);
        }
    });
    if (bad != 0) { return Status::not_finite; }
    for (int64_t p = 0; p < vectors; ++p) {
        Moments total = moments[p];
        for (int64_t task = 1; task < tasks; ++task) { merge(total, moments[task * vectors + p]); }
        write(total, args.out + p * 5);
    }
    return Status::ok;
}

} // namespace FSSEG_NS
} // namespace fsseg
