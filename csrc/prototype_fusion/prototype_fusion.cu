// Four launches a step, and one at the end: the prototypes (from what was pooled in the step before) and their
// unit vectors; cosines (soft_pool/cosines.cuh) with the moments of each tile, whose last block makes the
// thresholds of them; what each cell counts; the means of the cells that count. The background's cosines are
// kept from the first step on. At 60x60x1024 in fp16 a step reads 7.4 MB and the part of them that counts
// once more, all of it from the second-level cache.
#include "prototype_fusion/prototype_fusion.h"

#include "prototype_fusion/thresholds.cuh"
#include "soft_pool/cells.cuh"
#include "soft_pool/cosines.cuh"

namespace fsseg {
namespace cuda {

namespace {

constexpr int row_threads = 256;

// What a step starts from, and what is known after the last one.
struct Rows {
    RowsView background;
    const float *sums, *counts;
    ThresholdWeights net;
    FusionOut out;
    int64_t classes, channels, batch; // batch: pictures of the step before
    const double *means;              // [B, N, C]
    const float *mass;                // [B, N]
    int together;
    float *units;  // null: no step follows
    int *finished; // of blocks of the next launch
    bool first;    // the background, too

    // What no later result would show: weights behind a tanh.
    __device__ bool net_finite() const {
        bool good = true;
        for (int64_t i = threadIdx.x; i < net.hidden * 5; i += blockDim.x) {
            good = good && is_finite(net.hidden_weight[i]);
        }
        for (int64_t i = threadIdx.x; i < net.hidden; i += blockDim.x) {
            good = good && is_finite(net.hidden_bias[i]) && is_finite(net.output_weight[i]);
        }
        return good;
    }

    // The row of class n: the support's sum and what the pictures said, by how many they are.
    __device__ bool write_class(int64_t n, float *row) const {
        double count = static_cast<double>(counts[n]);
        for (int64_t b = 0; b < batch; ++b) { count += mass[b * classes + n] > 0.0f ? 1.0 : 0.0; }
        bool good = is_finite(static_cast<float>(count)) || units != nullptr;
        if (threadIdx.x == 0) { out.counts[n] = static_cast<float>(count); }
        for (int64_t c = threadIdx.x; c < channels; c += blockDim.x) {
            double total = static_cast<double>(sums[n * channels + c]);
            for (int64_t b = 0; b < batch; ++b) {
                if (mass[b * classes + n] > 0.0f) {
                    total += means[(b * classes + n) * channels + c];
                }
            }
            const float sum = static_cast<float>(total);
            row[c] = count > 0.0 ? static_cast<float>(total / count) : 0.0f;
            out.sums[n * channels + c] = sum;
            good = good && is_finite(row[c]) && (is_finite(sum) || units != nullptr);
        }
        return good;
    }
};

// A block for each row and each place that fills up the last group.
__global__ void __launch_bounds__(row_threads) next_rows(Rows rows, int *report) {
    __shared__ double partial[32];
    const int64_t number = blockIdx.x, parts = rows.background.rows, from = rows.first ? 0 : parts;
    const int64_t place = from + number; // among the prototypes
    float *row =
        place < parts + rows.classes ? rows.out.prototypes + place * rows.channels : nullptr;
    bool good = true;
    if (number == 0) {
        if (threadIdx.x == 0) { *rows.finished = 0; }
        good = !rows.first || rows.net_finite();
    }
    if (place < parts) {
        for (int64_t c = threadIdx.x; c < rows.channels; c += blockDim.x) {
            row[c] = rows.background.data[place * rows.background.row_stride + c];
            good = good && is_finite(row[c]);
        }
    } else if (row != nullptr) {
        good = rows.write_class(place - parts, row) && good;
    }
    if (rows.units != nullptr) {
        const auto value = [&](int64_t c) { return row == nullptr ? 0.0f : row[c]; };
        good = pack_unit(value, rows.channels, number, rows.together, rows.units, partial) && good;
    }
    if (!good) { atomicOr(report, static_cast<int>(not_finite)); }
}

// After the cosines of a tile: its moments, and in the last block the thresholds; or, where every cell is near
// enough, what the cells count.
struct TileOfStep {
    CellRule rule;
    Thresholds thresholds; // moments: null where there are none
    int *finished;

    __device__ void operator()(int64_t b, int64_t first, int count) const {
        const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
        if (thresholds.moments == nullptr) {
            for (int x = thread; x < count; x += threads) { rule.weigh(b, first + x); }
            return;
        }
        __shared__ Moments partial[cosine_threads / 32];
        __shared__ int last;
        const int lane = thread % 32;
        const int64_t classes = rule.classes;
        for (int64_t n = thread / 32; n < classes; n += threads / 32) {
            const bool mine = lane < count;
            const float weight = mine ? rule.cover_of(b, first + lane) : 0.0f;
            const float cosine = mine ? rule.cosines_of(b, rule.parts + n)[first + lane] : 0.0f;
            const Moments m = moments_of_warp(cosine, weight);
            if (lane == 0) { thresholds.moments[blockIdx.x * classes + n] = m; }
        }
        __threadfence();
        __syncthreads();
        if (thread == 0) {
            last = atomicAdd(finished, 1) == static_cast<int>(gridDim.x) - 1 ? 1 : 0;
        }
        __syncthreads();
        if (last == 0) { return; }
        __threadfence();
        thresholds.decide_all(partial);
    }
};

// Where there are no pictures.
__global__ void thresholds_alone(Thresholds thresholds) {
    __shared__ Moments partial[1];
    thresholds.decide_all(partial);
}

__global__ void __launch_bounds__(256) cells_of_step(CellRule rule, int64_t cells) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < cells) { rule.weigh(i / rule.cells, i % rule.cells); }
}

template <class T> void run(const PrototypeFusionArgs &args) {
    Context &context = current();
    const Planes<T> f = planes_of<T>(args.features);
    const int64_t parts = args.background.rows, classes = args.classes, all = parts + classes;
    const int64_t cells = f.batch * f.pixels, tiles = f.batch * divided_up(f.pixels, tile_cells);
    const bool walks = args.steps > 0, moments = walks && args.distilled;
    int *finished = context.scratch_of<int>(1), *owner = context.scratch_of<int>(walks ? cells : 0);
    float *units = context.scratch_of<float>(padded_units(all) * f.channels);
    float *cosines = context.scratch_of<float>(walks ? cells * all : 0);
    float *weight = context.scratch_of<float>(walks ? cells : 0);
    float *radius = context.scratch_of<float>(classes);
    double *means = context.scratch_of<double>(walks ? f.batch * classes * f.channels : 0);
    Moments *parts_of_moments = context.scratch_of<Moments>(moments ? tiles * classes : 0);

    Rows rows{args.background, args.sums, args.counts, args.threshold, args.out, classes,
              f.channels,      0,         means,       nullptr,        0,        units,
              finished,        true};
    const CellRule rule{parts,
                        classes,
                        f.pixels,
                        static_cast<float>(args.scale),
                        args.distilled ? radius : nullptr,
                        args.ways,
                        args.weights.data,
                        args.weights.batch_stride,
                        cosines,
                        owner,
                        weight,
                        context.report()};
    Thresholds thresholds{
        args.threshold, args.radius, classes,         tiles, moments ? parts_of_moments : nullptr,
        radius,         nullptr,     context.report()};
    for (int64_t step = 0; step <= args.steps; ++step) {
        const int64_t from = rows.first ? 0 : parts, count = all - from;
        const bool ends = step == args.steps;
        rows.together = units_together(count);
        if (ends) { rows.units = nullptr; }
        launch(next_rows, dim3(static_cast<unsigned>(ends ? count : padded_units(count))),
               dim3(row_threads), 0, rows, context.report());
        if (ends) { break; }
        float *mass = args.out.mass + step * f.batch * classes;
        thresholds.gamma = args.out.thresholds + step * classes;
        launch_cosines(f, Cosines{units, from, count, all, cosines},
                       TileOfStep{rule, thresholds, finished});
        if (args.distilled && cells == 0) {
            launch(thresholds_alone, dim3(1), dim3(32), 0, thresholds);
        }
        if (args.distilled && cells > 0) {
            launch(cells_of_step, dim3(divided_up(cells, 256)), dim3(256), 0, rule, cells);
        }
        pool_channels(
            f, OwnCells{owner, weight, f.pixels, classes, nullptr, means, mass, context.report()},
            true);
        rows.batch = f.batch;
        rows.mass = mass;
        rows.first = false;
    }
}

__global__ void fill(float *out, int64_t n, float value) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n) { out[i] = value; }
}

} // namespace

Status prototype_fusion(const PrototypeFusionArgs &args) {
    const int64_t gammas = args.steps * args.classes;
    if (!args.distilled && gammas > 0) {
        launch(fill, dim3(divided_up(gammas, 256)), dim3(256), 0, args.out.thresholds, gammas,
               INFINITY);
    }
    return with_type(args.features.dtype, [&](auto zero) {
        run<decltype(zero)>(args);
        return Status::ok;
    });
}

} // namespace cuda
} // namespace fsseg
