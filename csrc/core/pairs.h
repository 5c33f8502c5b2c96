// Products of pairs of bfloat16 (AVX512_BF16), for the AVX-512 level.
#pragma once

#include "core/simd.h"

namespace fsseg {
namespace FSSEG_NS {

// Both numbers of each word of a, times those of b, added to the sum.
static inline vf dot_pairs(vf sum, vu a, vu b) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b)); // needs no flag of the compiler
    return sum;
}

} // namespace FSSEG_NS
} // namespace fsseg
