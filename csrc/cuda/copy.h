// copy_strided: a strided array of the device to a contiguous one. Rank 4 at most; sizes and strides in elements.
#pragma once

#include "core/status.h"

#include <cstddef>
#include <cstdint>

namespace fsseg {
namespace cuda {

struct CopyArgs {
    const void *from;
    void *to;
    size_t item; // bytes of an element: 1, 2, 4 or 8
    int64_t size[4], stride[4];
};

Status copy_strided(const CopyArgs &args); // on the current context's stream

} // namespace cuda
} // namespace fsseg
