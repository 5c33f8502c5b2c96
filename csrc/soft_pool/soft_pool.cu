// Three launches: unit vectors; cosines and with them what each cell counts (cosines.cuh); the means of the cells
// that count (channel_sums.cuh), which reads no features of others. At 60x60x1024 in fp16 that is 7.4 MB once and a
// part of it a second time, from the second-level cache.
#include "soft_pool/soft_pool.h"

#include "soft_pool/cells.cuh"
#include "soft_pool/cosines.cuh"

namespace fsseg {
namespace cuda {

namespace {

constexpr int unit_threads = 256;

// A block for each row and each place that fills up the last group.
__global__ void __launch_bounds__(unit_threads)
    units_of_rows(RowsView rows, int together, float *packed, const float *radius, int64_t classes,
                  int *report) {
    __shared__ double partial[32];
    const int64_t number = blockIdx.x;
    const float *row = number < rows.rows ? rows.data + number * rows.row_stride : nullptr;
    const auto value = [&](int64_t c) { return row == nullptr ? 0.0f : row[c]; };
    bool good = pack_unit(value, rows.columns, number, together, packed, partial);
    for (int64_t c = threadIdx.x; number == 0 && radius != nullptr && c < classes;
         c += blockDim.x) {
        good = good && is_finite(radius[c]);
    }
    if (!good) { atomicOr(report, static_cast<int>(not_finite)); }
}

struct WeighTile {
    CellRule rule;
    __device__ void operator()(int64_t b, int64_t first, int count) const {
        for (int x = static_cast<int>(threadIdx.x); x < count; x += static_cast<int>(blockDim.x)) {
            rule.weigh(b, first + x);
        }
    }
};

} // namespace

Status soft_pool(const SoftPoolArgs &args) {
    Context &context = current();
    const RowsView &rows = args.prototypes;
    const int64_t classes = rows.rows - args.parts, batch = args.features.batch;
    const int64_t cells = args.features.height * args.features.width;
    const int64_t padded = padded_units(rows.rows);
    float *units = context.scratch_of<float>(padded * rows.columns);
    float *cosines = context.scratch_of<float>(batch * rows.rows * cells);
    int *owner = context.scratch_of<int>(batch * cells);
    float *weight = context.scratch_of<float>(batch * cells);
    const CellRule rule{args.parts,
                        classes,
                        cells,
                        static_cast<float>(args.scale),
                        args.radius,
                        args.ways,
                        args.weights.data,
                        args.weights.batch_stride,
                        cosines,
                        owner,
                        weight,
                        context.report()};
    const OwnCells own{owner,        weight,  cells,     classes,
                       args.vectors, nullptr, args.mass, context.report()};
    launch(units_of_rows, dim3(static_cast<unsigned>(padded)), dim3(unit_threads), 0, rows,
           units_together(rows.rows), units, args.radius, classes, context.report());
    return with_type(args.features.dtype, [&](auto zero) {
        const Planes<decltype(zero)> f = planes_of<decltype(zero)>(args.features);
        launch_cosines(f, Cosines{units, 0, rows.rows, rows.rows, cosines}, WeighTile{rule});
        pool_channels(f, own, true);
        return Status::ok;
    });
}

} // namespace cuda
} // namespace fsseg
