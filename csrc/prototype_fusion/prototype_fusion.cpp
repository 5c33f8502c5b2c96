#include "prototype_fusion/prototype_fusion.h"

#include "core/cosine_tile.h"
#include "prototype_fusion/threshold.h"
#include "soft_pool/cells.h"
#include "soft_pool/chunks.h"

namespace fsseg {
namespace FSSEG_NS {

namespace {

const float *weights_at(const PlaneView &w, int64_t batch, int64_t start) {
    return w.data == nullptr ? nullptr : w.data + batch * w.batch_stride + start;
}

// The prototypes of the classes from what has been added up so far.
void divide(const double *sums, const double *counts, int64_t classes, int64_t channels,
            float *prototypes) {
    for (int64_t n = 0; n < classes; ++n) {
        for (int64_t c = 0; c < channels; ++c) {
            const double total = counts[n] > 0.0 ? sums[n * channels + c] / counts[n] : 0.0;
            prototypes[n * channels + c] = static_cast<float>(total);
        }
    }
}

class Loop {
  public:
    explicit Loop(const PrototypeFusionArgs &args)
        : a_(args), f_(args.features), parts_(args.background.rows), classes_(args.classes),
          vectors_(parts_ + classes_), threads_(threads_of(args)),
          chunks_(f_, classes_, args.ways, threads_),
          packed_(vectors_ * f_.channels * static_cast<int64_t>(sizeof(float))),
          inverse_(vectors_ * static_cast<int64_t>(sizeof(double))),
          cosines_(chunks_.count() * vectors_ * chunk_cells * static_cast<int64_t>(sizeof(float))),
          norms_(threads_ * chunk_cells * static_cast<int64_t>(sizeof(float))),
          moments_(chunks_.count() * classes_ * static_cast<int64_t>(sizeof(Moments))),
          radius_(classes_ * static_cast<int64_t>(sizeof(float))),
          sums_(classes_ * (f_.channels + 1) * static_cast<int64_t>(sizeof(double))) {}

    Status run() {
        if (!allocated()) { return Status::no_memory; }
        if (!given_finite()) { return Status::not_finite; }
        for (int64_t p = 0; p < parts_; ++p) {
            memcpy(a_.out.prototypes + p * f_.channels,
                   a_.background.data + p * a_.background.row_stride,
                   static_cast<size_t>(f_.channels) * sizeof(float));
        }
        start_sums();
        divide(sums(), counts(), classes_, f_.channels, class_rows());
        for (int64_t step = 0; step < a_.steps; ++step) {
            if (!match(step == 0)) { return Status::not_finite; }
            if (!thresholds(a_.out.thresholds + step * classes_) || !pool()) {
                return Status::not_finite;
            }
            if (!fuse(a_.out.mass + step * f_.batch * classes_)) { return Status::not_finite; }
        }
        return write_sums() ? Status::ok : Status::not_finite;
    }

  private:
    static int threads_of(const PrototypeFusionArgs &args) {
        const PlaneView &f = args.features;
        const double work = 8e-5 * static_cast<double>(f.batch * f.channels) *
                            static_cast<double>(f.height * f.width); // microseconds, roughly
        return worthwhile(args.threads, work);
    }
    bool allocated() const {
        return chunks_.allocated() && packed_.data != nullptr && inverse_.data != nullptr &&
               cosines_.data != nullptr && norms_.data != nullptr && moments_.data != nullptr &&
               radius_.data != nullptr && sums_.data != nullptr;
    }
    // What no later result would show: the rows that are copied, weights behind a tanh.
    bool given_finite() const {
        const ThresholdWeights &net = a_.threshold;
        double total = 0.0; // NaN or infinite if one of them is
        for (int64_t i = 0; i < net.hidden * 5; ++i) { total += net.hidden_weight[i] * 0.0; }
        for (int64_t h = 0; h < net.hidden; ++h) {
            total += net.hidden_bias[h] * 0.0 + net.output_weight[h] * 0.0;
        }
        for (int64_t p = 0; p < parts_; ++p) {
            const float *row = a_.background.data + p * a_.background.row_stride;
            for (int64_t c = 0; c < f_.channels; ++c) { total += row[c] * 0.0; }
        }
        return finite(total);
    }
    double *sums() const { return static_cast<double *>(sums_.data); }
    double *counts() const { return sums() + classes_ * f_.channels; }
    float *class_rows() const { return a_.out.prototypes + parts_ * f_.channels; }
    Moments *moments() const { return static_cast<Moments *>(moments_.data); }
    float *cosines(int64_t task) const {
        return static_cast<float *>(cosines_.data) + task * vectors_ * chunk_cells;
    }

    void start_sums() const {
        for (int64_t i = 0; i < classes_ * f_.channels; ++i) { sums()[i] = a_.sums[i]; }
        for (int64_t n = 0; n < classes_; ++n) { counts()[n] = a_.counts[n]; }
    }

    // Cosines and moments of all chunks. The background does not change: it is matched once.
    bool match(bool first) {
        const int64_t from = first ? 0 : parts_, rows = vectors_ - from;
        const RowsView wanted{
            a_.out.prototypes + from * f_.channels, 1, rows, f_.channels, 0, f_.channels};
        float *packed = static_cast<float *>(packed_.data);
        double *inverse = static_cast<double *>(inverse_.data);
        if (!inverse_norms(wanted, 0, inverse)) { return false; }
        pack_vectors(wanted.data, wanted.row_stride, inverse, rows, f_.channels, packed);
        int bad = 0; // only ever set to 1
        for_each(chunks_.count(), threads_, [&](int64_t task, int worker) {
            const Chunk chunk = chunks_.begin(task, worker);
            float *dots = cosines(task);
            if (!cosine_tile(chunk.f, f_.channel_stride, f_.channels, chunk.n, packed, rows, 1.0f,
                             dots + from * chunk_cells, chunk_cells,
                             static_cast<float *>(norms_.data) + worker * chunk_cells)) {
                __atomic_store_n(&bad, 1, __ATOMIC_RELAXED);
                return;
            }
            for (int64_t n = 0; a_.distilled && n < classes_; ++n) {
                moments()[task * classes_ + n] =
                    moments_of(dots + (parts_ + n) * chunk_cells,
                               weights_at(a_.weights, chunk.batch, chunk.start), chunk.n);
            }
        });
        return bad == 0;
    }

    bool thresholds(float *gammas) const {
        bool all_finite = true;
        for (int64_t n = 0; n < classes_; ++n) {
            if (!a_.distilled) {
                gammas[n] = INFINITY;
                continue;
            }
            Moments total{0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0};
            for (int64_t task = 0; task < chunks_.count(); ++task) {
                merge(total, moments()[task * classes_ + n]);
            }
            gammas[n] = static_cast<float>(threshold_of(total, a_.threshold, a_.radius,
                                                        static_cast<float *>(radius_.data) + n));
            all_finite = all_finite && finite(gammas[n]);
        }
        return all_finite;
    }

    bool pool() {
        const float *radius = a_.distilled ? static_cast<const float *>(radius_.data) : nullptr;
        const CellRule rule{parts_, classes_, static_cast<float>(a_.scale), radius};
        int bad = 0; // only ever set to 1
        for_each(chunks_.count(), threads_, [&](int64_t task, int worker) {
            const Chunk chunk = chunks_.begin(task, worker);
            if (!cell_weights(rule, cosines(task), chunk_cells, chunk.n,
                              weights_at(a_.weights, chunk.batch, chunk.start), chunk.way,
                              chunk.owner, chunk.weight)) {
                __atomic_store_n(&bad, 1, __ATOMIC_RELAXED);
                return;
            }
            chunks_.add(chunk);
            chunks_.finish(chunk);
        });
        return bad == 0;
    }

    bool fuse(float *mass) {
        bool all_finite = true;
        start_sums();
        for (int64_t b = 0; b < f_.batch; ++b) {
            for (int64_t n = 0; n < classes_; ++n) {
                const double total = chunks_.mean_of(b, n);
                mass[b * classes_ + n] = static_cast<float>(total);
                all_finite = all_finite && finite(mass[b * classes_ + n]);
                if (!(total > 0.0)) { continue; }
                double *sum = sums() + n * f_.channels;
                for (int64_t c = 0; c < f_.channels; ++c) { sum[c] += chunks_.mean()[c]; }
                counts()[n] += 1.0;
            }
        }
        divide(sums(), counts(), classes_, f_.channels, class_rows());
        return all_finite;
    }

    bool write_sums() const {
        bool all_finite = true;
        for (int64_t i = 0; i < classes_ * f_.channels; ++i) {
            a_.out.sums[i] = static_cast<float>(sums()[i]);
            all_finite = all_finite && finite(a_.out.sums[i]) && finite(class_rows()[i]);
        }
        for (int64_t n = 0; n < classes_; ++n) {
            a_.out.counts[n] = static_cast<float>(counts()[n]);
            all_finite = all_finite && finite(a_.out.counts[n]);
        }
        return all_finite;
    }

    const PrototypeFusionArgs &a_;
    const PlaneView &f_;
    const int64_t parts_, classes_, vectors_;
    const int threads_;
    Chunks chunks_;
    Scratch packed_, inverse_, cosines_, norms_, moments_, radius_, sums_;
};

} // namespace

Status prototype_fusion(const PrototypeFusionArgs &args) { return Loop(args).run(); }

} // namespace FSSEG_NS
} // namespace fsseg
