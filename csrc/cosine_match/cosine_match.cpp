#include "cosine_match/cosine_match.h"

#include "core/cosine_tile.h"

namespace fsseg {
namespace FSSEG_NS {

namespace {

// In place on scores [vectors, tile].
void softmax_tile(float *scores, int64_t vectors, int64_t tile, int64_t n) {
    for (int64_t x = 0; x < n; x += lanes) {
        vf top = load(scores + x), total = zero();
        for (int64_t p = 1; p < vectors; ++p) { top = max(top, load(scores + p * tile + x)); }
        for (int64_t p = 0; p < vectors; ++p) {
            float *at = scores + p * tile + x;
            const vf power = exp(sub(load(at), top));
            store(at, power);
            total = add(total, power);
        }
        for (int64_t p = 0; p < vectors; ++p) {
            float *at = scores + p * tile + x;
            store(at, div(load(at), total));
        }
    }
}

} // namespace

Status cosine_match(const CosineMatchArgs &args) {
    const PlaneView &f = args.features;
    const RowsView &prototypes = args.prototypes;
    const int64_t channels = f.channels, vectors = prototypes.rows;
    const int64_t pixels = f.height * f.width;
    const double work = 4e-5 * static_cast<double>(f.batch * channels) *
                        static_cast<double>(pixels); // microseconds, roughly
    const int threads = worthwhile(args.threads, work);
    const Tiling tiling = tile_pixels_of(pixels, longest_tile, divide_up(threads, f.batch));

    const int64_t sets = prototypes.batch; // 1: shared by all batches
    const int64_t per_set = vectors * channels, per_worker = (vectors + 1) * tiling.tile;
    Scratch packed_memory(sets * per_set * static_cast<int64_t>(sizeof(float)));
    Scratch inverse_memory(vectors * static_cast<int64_t>(sizeof(double)));
    Scratch tile_memory(threads * per_worker * static_cast<int64_t>(sizeof(float)));
    if (packed_memory.data == nullptr || inverse_memory.data == nullptr ||
        tile_memory.data == nullptr) {
        return Status::no_memory;
    }
    float *packed = static_cast<float *>(packed_memory.data);
    double *inverse = static_cast<double *>(inverse_memory.data);
    float *tiles = static_cast<float *>(tile_memory.data);
    for (int64_t set = 0; set < sets; ++set) {
        if (!inverse_norms(prototypes, set, inverse)) { return Status::not_finite; }
        pack_vectors(prototypes.data + set * prototypes.batch_stride, prototypes.row_stride,
                     inverse, vectors, channels, packed + set * per_set);
    }

    int bad = 0; // only ever set to 1
    for_each(f.batch * tiling.count, threads, [&](int64_t task, int worker) {
        const int64_t b = task / tiling.count, start = task % tiling.count * tiling.tile;
        const int64_t n = smaller(tiling.tile, tiling.pixels - start);
        float *dots = tiles + worker * per_worker, *norms = dots + vectors * tiling.tile;
        const float *vectors_of_b = packed + (sets == 1 ? 0 : b) * per_set;
        if (!cosine_tile(f.data + b * f.batch_stride + start, f.channel_stride, channels, n,
                         vectors_of_b, vectors, static_cast<float>(args.scale), dots, tiling.tile,
                         norms)) {
            __atomic_store_n(&bad, 1, __ATOMIC_RELAXED);
            return;
        }
        if (args.softmax) { softmax_tile(dots, vectors, tiling.tile, n); }
        for (int64_t p = 0; p < vectors; ++p) {
            memcpy(args.out + (b * vectors + p) * tiling.pixels + start, dots + p * tiling.tile,
                   static_cast<size_t>(n) * sizeof(float));
        }
    });
    return bad != 0 ? Status::not_finite : Status::ok;
}

} // namespace FSSEG_NS
} // namespace fsseg
