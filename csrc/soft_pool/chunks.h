// The cells of all pictures, cut into chunks that threads work on, and the sums of each class over them.
// The cut does not depend on the number of threads, and chunks are added up in order: the same bits.
#pragma once

#include "core/dot_planes.h"
#include "soft_pool/pooling.h"

namespace fsseg {
namespace FSSEG_NS {

static_assert(chunk_cells % strip_floats == 0, "chunks are whole strips");
constexpr int64_t cached_bytes = 512 * 1024; // of features that a second-level cache surely keeps

// Cells whose features of all channels stay in the second-level cache: whole strips of dot_planes.
static inline int64_t cached_strip(int64_t channels) {
    const int64_t of_strip = strip_floats * channels * static_cast<int64_t>(sizeof(float));
    return smaller(larger(cached_bytes / of_strip, 1) * strip_floats, chunk_cells);
}

struct Chunk {
    int64_t task, batch, start, n, way; // cells [start, start + n) of picture `batch`
    const float *f;
    float *owner, *weight; // [n], to be filled in (cells.h)
    ClassSums *sums;       // of the classes that the picture may speak for
};

class Chunks {
  public:
    Chunks(const PlaneView &features, int64_t classes, const int64_t *ways, int threads)
        : f_(features), classes_(classes), ways_(ways), slots_(slots_of(features, classes, ways)),
          each_(divide_up(features.height * features.width, chunk_cells)),
          sums_(threads * slots_ * static_cast<int64_t>(sizeof(ClassSums))),
          acc_(threads * slots_ * features.channels * lanes * static_cast<int64_t>(sizeof(float))),
          cells_(threads * 2 * chunk_cells * static_cast<int64_t>(sizeof(float))),
          mass_(count() * slots_ * static_cast<int64_t>(sizeof(double))),
          totals_(count() * slots_ * features.channels * static_cast<int64_t>(sizeof(double))),
          mean_(features.channels * static_cast<int64_t>(sizeof(double))) {}

    bool allocated() const {
        return sums_.data != nullptr && acc_.data != nullptr && cells_.data != nullptr &&
               mass_.data != nullptr && totals_.data != nullptr && mean_.data != nullptr;
    }

    int64_t count() const { return f_.batch * each_; }

    Chunk begin(int64_t task, int worker) const {
        const int64_t b = task / each_, start = task % each_ * chunk_cells;
        const int64_t n = smaller(chunk_cells, f_.height * f_.width - start);
        ClassSums *sums = static_cast<ClassSums *>(sums_.data) + worker * slots_;
        float *acc = static_cast<float *>(acc_.data) + worker * slots_ * f_.channels * lanes;
        for (int64_t s = 0; s < slots_; ++s) {
            double *mass = static_cast<double *>(mass_.data) + task * slots_ + s;
            *mass = 0.0;
            sums[s] = {acc + s * f_.channels * lanes, mass, false};
        }
        float *owner = static_cast<float *>(cells_.data) + worker * 2 * chunk_cells;
        return {task,     b,
                start,    n,
                ways_[b], f_.data + b * f_.batch_stride + start,
                owner,    owner + chunk_cells,
                sums};
    }

    // Adds the cells [x, x + n) of the chunk, which lie in a cache, to the sums of their classes.
    void add_strip(const Chunk &chunk, int64_t x, int64_t n) const {
        fetch(chunk, x + n, smaller(n, chunk.n - x - n));
        for (int64_t s = 0; s < slots_of_chunk(chunk); ++s) {
            OwnCells own;
            find_own(chunk.owner + x, chunk.weight + x, n, chunk.way < 0 ? s : chunk.way, own,
                     chunk.sums[s].mass);
            pool_strip(chunk.f + x, f_.channel_stride, f_.channels, own, chunk.sums[s]);
        }
    }

    // All cells of the chunk.
    void add(const Chunk &chunk) const {
        for (int64_t s = 0; s < slots_of_chunk(chunk); ++s) {
            OwnCells own;
            find_own(chunk.owner, chunk.weight, chunk.n, chunk.way < 0 ? s : chunk.way, own,
                     chunk.sums[s].mass);
            pool_rows(chunk.f, f_.channel_stride, f_.channels, own, chunk.sums[s]);
        }
    }

    void finish(const Chunk &chunk) const {
        for (int64_t s = 0; s < slots_of_chunk(chunk); ++s) {
            if (!chunk.sums[s].used) { continue; }
            double *out =
                static_cast<double *>(totals_.data) + (chunk.task * slots_ + s) * f_.channels;
            finish_class(chunk.f, f_.channel_stride, f_.channels, chunk.n, chunk.owner,
                         chunk.weight, chunk.way < 0 ? s : chunk.way, chunk.sums[s], out);
        }
    }

    // vectors [B, N, C] and mass [B, N] of soft_pool.h, after all chunks. False: one is not finite.
    bool means(float *vectors, float *mass) const {
        bool all_finite = true;
        for (int64_t b = 0; b < f_.batch; ++b) {
            for (int64_t n = 0; n < classes_; ++n) {
                const double total = mean_of(b, n);
                const double *mean = static_cast<const double *>(mean_.data);
                float *out = vectors + (b * classes_ + n) * f_.channels;
                mass[b * classes_ + n] = static_cast<float>(total);
                all_finite = all_finite && finite(static_cast<float>(total));
                for (int64_t c = 0; c < f_.channels; ++c) {
                    out[c] = static_cast<float>(mean[c]);
                    all_finite = all_finite && finite(out[c]);
                }
            }
        }
        return all_finite;
    }

    // The mass of picture b for class n; mean() is then the mean of its features, zero without mass.
    double mean_of(int64_t b, int64_t n) const {
        double *mean = static_cast<double *>(mean_.data), mass = 0.0;
        memset(mean, 0, static_cast<size_t>(f_.channels) * sizeof(double));
        if (ways_[b] >= 0 && ways_[b] != n) { return 0.0; }
        const int64_t slot = ways_[b] >= 0 ? 0 : n;
        for (int64_t task = b * each_; task < (b + 1) * each_; ++task) {
            const int64_t place = task * slots_ + slot;
            const double part = static_cast<const double *>(mass_.data)[place];
            if (!(part > 0.0)) { continue; }
            const double *total = static_cast<const double *>(totals_.data) + place * f_.channels;
            for (int64_t c = 0; c < f_.channels; ++c) { mean[c] += total[c]; }
            mass += part;
        }
        for (int64_t c = 0; mass > 0.0 && c < f_.channels; ++c) { mean[c] /= mass; }
        return mass;
    }
    const double *mean() const { return static_cast<const double *>(mean_.data); }

  private:
    // Asks for the first channels of the strip that comes next: dot_planes asks for the others on its way.
    void fetch(const Chunk &chunk, int64_t x, int64_t n) const {
        for (int64_t c = 0; c < smaller(f_.channels, floats_ahead / strip_floats); ++c) {
            const float *row = chunk.f + c * f_.channel_stride + x;
            for (int64_t i = 0; i < n; i += line_floats) { prefetch<2>(row, i); }
        }
    }
    // A picture that speaks for one class needs one sum.
    static int64_t slots_of(const PlaneView &f, int64_t classes, const int64_t *ways) {
        for (int64_t b = 0; b < f.batch; ++b) {
            if (ways[b] < 0) { return classes; }
        }
        return 1;
    }
    int64_t slots_of_chunk(const Chunk &chunk) const { return chunk.way < 0 ? classes_ : 1; }

    const PlaneView &f_;
    int64_t classes_;
    const int64_t *ways_;
    int64_t slots_, each_;
    Scratch sums_, acc_, cells_, mass_, totals_, mean_;
};

} // namespace FSSEG_NS
} // namespace fsseg
