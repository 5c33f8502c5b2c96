#include "linear_match/linear_match.h"

#include "cuda/cosine.h"

namespace fsseg {
namespace cuda {

namespace {

template <class S> __global__ void __launch_bounds__(S::threads, 512 / S::threads)
    match(Planes<typename S::Element> f, RowsView weights, Strips split, const float *bias,
          float *out, int *report) {
    __shared__ StripMemory<S, false> memory;
    const StripPlace place = strip_place<S>(split);
    const auto in = strip_input(f, weights, place, split.size);
    strip_sums<S, false>(in, memory);

    const int thread = static_cast<int>(threadIdx.x), pixels = min(S::pixels, in.left);
    const auto value = [&](int k, int x) {
        return memory.part[0][k * S::pixels + x] + bias[place.first + k];
    };
    float *at = out + (place.batch * weights.rows + place.first) * f.pixels + place.start;
    bool again = false;
    if (thread < pixels) {
        for (int k = 0; k < in.count; ++k) {
            at[k * f.pixels + thread] = value(k, thread);
            again = again || !is_finite(value(k, thread));
        }
    }
    // Products of large numbers may cancel: in double they still can.
    if (!__syncthreads_or(again)) { return; }
    for (int x = thread / 32; x < pixels; x += S::warps) {
        for (int k = 0; k < in.count; ++k) {
            if (is_finite(value(k, x))) { continue; }
            const float *row = in.vectors + k * in.row_stride;
            const double dot = careful_dot(in.planes + x, in.channel_stride, row, 1, in.channels);
            const float careful =
                static_cast<float>(dot + static_cast<double>(bias[place.first + k]));
            if (thread % 32 != 0) { continue; }
            if (!is_finite(careful)) { atomicOr(report, static_cast<int>(not_finite)); }
            at[k * f.pixels + x] = careful;
        }
    }
}

} // namespace

Status linear_match(const LinearMatchArgs &args) {
    return with_type(args.features.dtype, [&](auto zero) {
        const auto f = planes_of<decltype(zero)>(args.features);
        with_strips(f, args.weights, [&](auto strip, const Strips &split, unsigned blocks) {
            launch(match<decltype(strip)>, dim3(blocks), dim3(strip.threads), 0, f, args.weights,
                   split, args.bias, args.out, current().report());
        });
        return Status::ok;
    });
}

} // namespace cuda
} // namespace fsseg
