// What a kernel reports. Plain values: this header is included by files built for different SIMD
// levels, so it must hold no code.
#pragma once

namespace fsseg {

enum class Status : int {
    ok = 0,
    not_finite = 1, // an input holds NaN or infinity (or the result has no finite value)
    no_memory = 2,  // scratch memory could not be allocated; nothing was written
    no_device = 3,  // the op has no implementation for the device
};

enum class Device : int { cpu = 0, cuda = 1 };

} // namespace fsseg
