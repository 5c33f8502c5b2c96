// The loop over blocks: for each tile of cells the rows go by, a block of panels at a time; for each
// piece of the channels that fits the first-level cache all panels of the block, then the next piece.
#pragma once

#include "core/cells.h"
#include "nearest/panels.h"

namespace fsseg {
namespace FSSEG_NS {

constexpr int64_t block_rows =
    192; // their sums with a tile of cells stay in the second-level cache

// best [strip] = max(best, the largest of sums [panel][strip] over the panel).
template <class Engine> static inline void fold(const float *sums, float *best) {
    for (int64_t x = 0; x < Engine::strip; x += lanes) {
        vf one = load(sums + x), two = load(sums + Engine::strip + x);
        for (int64_t r = 2; r < Engine::panel; r += 2) {
            one = max(one, load(sums + r * Engine::strip + x));
            two = max(two, load(sums + (r + 1) * Engine::strip + x));
        }
        store(best + x, max(load(best + x), max(one, two)));
    }
}

template <class Engine> class Nearest {
  public:
    explicit Nearest(const NearestArgs &args)
        : args_(args), channels_(args.features.channels),
          padded_(round_up(channels_, Engine::channel_multiple)),
          panels_(most_panels(args.rows.rows, args.groups, Engine::panel)),
          packed_(args.packed != nullptr ? 0 : packed_bytes(args.rows, args.groups)),
          numbers_((panels_ * (Engine::panel + 1) + args.groups) *
                   static_cast<int64_t>(sizeof(int64_t))) {}

    Status run() {
        const PlaneView &f = args_.features;
        const int64_t pixels = f.height * f.width, tiles = divide_up(pixels, block_cells);
        const double work = 2e-5 * static_cast<double>(f.batch * pixels * args_.rows.rows) *
                            static_cast<double>(channels_); // microseconds, roughly
        const int threads = worthwhile(args_.threads, work);
        const int64_t sums = block_rows * block_cells, best = args_.groups * block_cells;
        const int64_t cell_floats = round_up(padded_, lanes) * block_cells;
        const int64_t floats = cell_floats + sums + best;
        const int64_t packed_cells = round_up(Engine::cell_bytes(padded_), 64);
        const int64_t per_worker = round_up(floats * float_bytes, 64) + packed_cells;
        Scratch scratch(threads * per_worker);
        if (packed_.data == nullptr || numbers_.data == nullptr || scratch.data == nullptr) {
            return Status::no_memory;
        }
        scratch_ = static_cast<char *>(scratch.data);
        list_rows();
        rows_ = static_cast<const char *>(args_.packed);
        if (rows_ == nullptr) {
            rows_ = static_cast<const char *>(packed_.data);
            if (!pack_rows(threads, per_worker, static_cast<char *>(packed_.data))) {
                return Status::not_finite;
            }
        }
        int bad = 0; // only ever set to 1
        for_each(f.batch * tiles, threads, [&](int64_t task, int worker) {
            const int64_t b = task / tiles, first = task % tiles * block_cells;
            const int64_t real = smaller(block_cells, pixels - first);
            char *own = scratch_ + worker * per_worker;
            float *cells = reinterpret_cast<float *>(own + packed_cells);
            const Run run{f.data + b * f.batch_stride + first, f.channel_stride, 0, real};
            if (!gather_block(&run, 1, real, channels_, 1.0, cells)) {
                __atomic_store_n(&bad, 1, __ATOMIC_RELAXED);
                return;
            }
            const void *packed = Engine::pack_cells(cells, channels_, padded_, own);
            float *found = cells + cell_floats + sums;
            for (int64_t i = 0; i < best; i += lanes) { store(found + i, set1(-1.0f)); }
            Engine::begin();
            for (int64_t p = 0; p < list_.count; p += block_panels) {
                const int64_t end = smaller(p + block_panels, list_.count);
                block(p, end, packed, cells + cell_floats, found);
            }
            Engine::end();
            for (int64_t g = 0; g < args_.groups; ++g) {
                memcpy(args_.out + (b * args_.groups + g) * pixels + first, found + g * block_cells,
                       static_cast<size_t>(real * float_bytes));
            }
        });
        return bad != 0 ? Status::not_finite : Status::ok;
    }

    static int64_t packed_bytes(const RowsView &rows, int64_t groups) {
        return most_panels(rows.rows, groups, Engine::panel) * Engine::channel_bytes *
               round_up(rows.columns, Engine::channel_multiple);
    }

    Status pack(void *packed) {
        const int64_t bytes = packed_bytes(args_.rows, args_.groups);
        const int threads = worthwhile(args_.threads, 4e-4 * static_cast<double>(bytes));
        const int64_t per_worker = round_up(Engine::panel * unit_stride() * float_bytes, 64);
        Scratch scratch(threads * per_worker);
        if (numbers_.data == nullptr || scratch.data == nullptr) { return Status::no_memory; }
        scratch_ = static_cast<char *>(scratch.data);
        list_rows();
        memset(packed, 0, static_cast<size_t>(bytes));
        return pack_rows(threads, per_worker, static_cast<char *>(packed)) ? Status::ok
                                                                           : Status::not_finite;
    }

  private:
    static constexpr int64_t float_bytes = static_cast<int64_t>(sizeof(float));
    static constexpr int64_t block_panels = block_rows / Engine::panel;
    static_assert(block_cells % Engine::strip == 0, "tiles are whole strips");
    static_assert(Engine::panel <= block_cells, "a panel of rows fits where cells are gathered");

    void list_rows() {
        int64_t *numbers = static_cast<int64_t *>(numbers_.data);
        list_ = {0, numbers, numbers + panels_};
        list_panels(args_, Engine::panel, numbers + panels_ * (Engine::panel + 1), list_);
    }

    // Of unit rows; 64 bytes more than whole vectors, so that rows do not share sets of the caches.
    int64_t unit_stride() const { return round_up(padded_, lanes) + 16; }

    // False: a row is not finite.
    bool pack_rows(int threads, int64_t per_worker, char *packed) {
        const int64_t stride = unit_stride();
        int bad = 0; // only ever set to 1
        for_each(list_.count, threads, [&](int64_t p, int worker) {
            float *units = reinterpret_cast<float *>(scratch_ + worker * per_worker);
            memset(units, 0, static_cast<size_t>(Engine::panel * stride * float_bytes));
            for (int64_t r = 0; r < Engine::panel; ++r) {
                const int64_t m = list_.member[p * Engine::panel + r];
                if (!unit_row(args_.rows.data + m * args_.rows.row_stride, channels_,
                              units + r * stride)) {
                    __atomic_store_n(&bad, 1, __ATOMIC_RELAXED);
                    return;
                }
            }
            for (int64_t c = 0; c < padded_; c += Engine::depth) {
                const int64_t n = smaller(Engine::depth, padded_ - c);
                Engine::pack_rows(units + c, stride, n, packed + place(p, c, n));
            }
        });
        return bad == 0;
    }

    // Of n channels of a panel from c on. The pieces of all panels lie side by side: one stream.
    int64_t place(int64_t p, int64_t c, int64_t n) const {
        return (c * list_.count + p * n) * Engine::channel_bytes;
    }

    void block(int64_t begin, int64_t end, const void *cells, float *sums, float *found) {
        for (int64_t c = 0; c < padded_; c += Engine::depth) {
            const int64_t n = smaller(Engine::depth, padded_ - c);
            for (int64_t x = 0; x < block_cells; x += Engine::strip) {
                for (int64_t p = begin; p < end; ++p) {
                    Engine::multiply(rows_ + place(p, c, n), cells, c, n, x, c > 0,
                                     sums_of(sums, p - begin, x));
                }
            }
        }
        for (int64_t p = begin; p < end; ++p) {
            for (int64_t x = 0; x < block_cells; x += Engine::strip) {
                fold<Engine>(sums_of(sums, p - begin, x), found + list_.group[p] * block_cells + x);
            }
        }
    }

    static float *sums_of(float *sums, int64_t panel, int64_t x) {
        return sums + panel * Engine::panel * block_cells + x * Engine::panel;
    }

    const NearestArgs &args_;
    const int64_t channels_, padded_, panels_;
    Scratch packed_, numbers_;
    char *scratch_ = nullptr;
    const char *rows_ = nullptr; // packed
    Panels list_{0, nullptr, nullptr};
};

template <class Engine> static Status nearest_with(const NearestArgs &args) {
    Nearest<Engine> nearest(args);
    return nearest.run();
}

template <class Engine> static Status pack_with(const NearestPackArgs &args) {
    *args.bytes = Nearest<Engine>::packed_bytes(args.rows, args.groups);
    if (args.packed == nullptr) { return Status::ok; }
    const PlaneView none{nullptr, 0, args.rows.columns, 0, 0, 0, 0};
    const NearestArgs given{none,      args.rows,   args.group, args.groups,
                            args.bf16, args.packed, nullptr,    args.threads};
    Nearest<Engine> nearest(given);
    return nearest.pack(args.packed);
}

} // namespace FSSEG_NS
} // namespace fsseg
