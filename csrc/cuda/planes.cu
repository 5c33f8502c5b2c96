// A few kilobytes a call: the launch is what it costs.
#include "cuda/planes.h"

#include "cuda/launch.h"

namespace fsseg {
namespace cuda {

namespace {

__global__ void largest(FirstLargestArgs a, int64_t n) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= n) { return; }
    const int64_t kept = 1 + a.count - a.parts;
    const int64_t x = i % a.pixels, plane = i / a.pixels % kept, b = i / a.pixels / kept;
    const float *from = a.planes + b * a.count * a.pixels + x;
    float value = from[(plane == 0 ? 0 : plane - 1 + a.parts) * a.pixels];
    for (int64_t p = 1; plane == 0 && p < a.parts; ++p) {
        const float other = from[p * a.pixels];
        value = other > value ? other : value;
    }
    a.out[i] = value;
}

__global__ void blended(BlendArgs a) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= a.size) { return; }
    a.into[i] = __fadd_rn(__fmul_rn(a.into[i], a.factor), __fmul_rn(a.other[i], a.other_factor));
}

} // namespace

Status first_largest(const FirstLargestArgs &args) {
    const int64_t n = args.batch * (1 + args.count - args.parts) * args.pixels;
    if (n > 0) { launch(largest, dim3(divided_up(n, 256)), dim3(256), 0, args, n); }
    return Status::ok;
}

Status blend(const BlendArgs &args) {
    if (args.size > 0) { launch(blended, dim3(divided_up(args.size, 256)), dim3(256), 0, args); }
    return Status::ok;
}

} // namespace cuda
} // namespace fsseg
