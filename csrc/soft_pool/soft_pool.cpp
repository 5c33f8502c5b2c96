#include "soft_pool/soft_pool.h"

#include "core/cosine_tile.h"
#include "soft_pool/cells.h"
#include "soft_pool/chunks.h"

namespace fsseg {
namespace FSSEG_NS {

Status soft_pool(const SoftPoolArgs &args) {
    const PlaneView &f = args.features;
    const RowsView &prototypes = args.prototypes;
    const int64_t channels = f.channels, vectors = prototypes.rows;
    const CellRule rule{args.parts, vectors - args.parts, static_cast<float>(args.scale),
                        args.radius};
    const double work = 6e-5 * static_cast<double>(f.batch * channels) *
                        static_cast<double>(f.height * f.width); // microseconds, roughly
    const int threads = worthwhile(args.threads, work);

    const int64_t strip = cached_strip(channels);
    const int64_t per_worker = (vectors + 1) * strip;
    Chunks chunks(f, rule.classes, args.ways, threads);
    Scratch packed_memory(vectors * channels * static_cast<int64_t>(sizeof(float)));
    Scratch inverse_memory(vectors * static_cast<int64_t>(sizeof(double)));
    Scratch tile_memory(threads * per_worker * static_cast<int64_t>(sizeof(float)));
    if (!chunks.allocated() || packed_memory.data == nullptr || inverse_memory.data == nullptr ||
        tile_memory.data == nullptr) {
        return Status::no_memory;
    }
    float *packed = static_cast<float *>(packed_memory.data);
    double *inverse = static_cast<double *>(inverse_memory.data);
    float *tiles = static_cast<float *>(tile_memory.data);
    for (int64_t c = 0; args.radius != nullptr && c < rule.classes; ++c) {
        if (!finite(args.radius[c])) { return Status::not_finite; }
    }
    if (!inverse_norms(prototypes, 0, inverse)) { return Status::not_finite; }
    pack_vectors(prototypes.data, prototypes.row_stride, inverse, vectors, channels, packed);

    int bad = 0; // only ever set to 1
    for_each(chunks.count(), threads, [&](int64_t task, int worker) {
        const Chunk chunk = chunks.begin(task, worker);
        float *dots = tiles + worker * per_worker, *norms = dots + vectors * strip;
        const float *weights = args.weights.data;
        if (weights != nullptr) {
            weights += chunk.batch * args.weights.batch_stride + chunk.start;
        }
        for (int64_t x = 0; x < chunk.n; x += strip) {
            const int64_t n = smaller(strip, chunk.n - x);
            if (!cosine_tile(chunk.f + x, f.channel_stride, channels, n, packed, vectors, 1.0f,
                             dots, strip, norms) ||
                !cell_weights(rule, dots, strip, n, weights == nullptr ? nullptr : weights + x,
                              chunk.way, chunk.owner + x, chunk.weight + x)) {
                __atomic_store_n(&bad, 1, __ATOMIC_RELAXED);
                return;
            }
            chunks.add_strip(chunk, x, n);
        }
        chunks.finish(chunk);
    });
    if (bad != 0) { return Status::not_finite; }
    return chunks.means(args.vectors, args.mass) ? Status::ok : Status::not_finite;
}

} // namespace FSSEG_NS
} // namespace fsseg
