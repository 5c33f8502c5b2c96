#include "linear_match/linear_match.h"

#include "cuda/elements.h"
#include "cuda/reduce.h"

namespace fsseg {
namespace cuda {

namespace {

template <class T>
__global__ void scores(Planes<T> f, RowsView w, const float *bias, float *out, int *report) {
    const int64_t x = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (x >= f.pixels) { return; }
    const int64_t k = blockIdx.y, b = blockIdx.z;
    float sum = bias[k];
    for (int64_t c = 0; c < f.channels; ++c) {
        sum = fmaf(w.data[k * w.row_stride + c],
                   to_float(f.data[b * f.batch_stride + c * f.channel_stride + x]), sum);
    }
    if (!is_finite(sum)) { atomicOr(report, static_cast<int>(not_finite)); }
    out[(b * w.rows + k) * f.pixels + x] = sum;
}

} // namespace

Status linear_match(const LinearMatchArgs &args) {
    return with_type(args.features.dtype, [&](auto zero) {
        const Planes<decltype(zero)> f = planes_of<decltype(zero)>(args.features);
        const dim3 grid(divided_up(f.pixels, 128), static_cast<unsigned>(args.weights.rows),
                        static_cast<unsigned>(f.batch));
        launch(scores<decltype(zero)>, grid, dim3(128), 0, f, args.weights, args.bias, args.out,
               current().report());
        return Status::ok;
    });
}

} // namespace cuda
} // namespace fsseg
