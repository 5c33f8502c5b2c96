// What a method does to score maps [B, P, h, w] between ops. On the current context's stream; contiguous float32.
#pragma once

#include "core/status.h"

#include <cstdint>

namespace fsseg {
namespace cuda {

// out[b, 0] = the largest of the first `parts` planes, out[b, 1 + i] = planes[b, parts + i].
struct FirstLargestArgs {
    const float *planes;
    int64_t batch, count, parts, pixels; // count: planes of a picture
    float *out;                          // [batch, 1 + count - parts, pixels]
};
Status first_largest(const FirstLargestArgs &args);

// into = factor * into + other_factor * other, each product and the sum rounded, as numpy does it.
struct BlendArgs {
    float *into;
    const float *other;
    float factor, other_factor;
    int64_t size;
};
Status blend(const BlendArgs &args);

} // namespace cuda
} // namespace fsseg
