// read_probe: reads an array once and does nearly nothing with it: the read bandwidth of this machine
// with the instructions of the level in use. Benchmarks compare the other ops with it.
//
//   data [n] float32 -> *out = sum of all (so that the reads cannot be left out)
//
// streams: 1 (in order), 2, 4 or 8 equal parts read side by side. One thread.
#pragma once

#include "core/dispatch.h"

#include <stdint.h>

namespace fsseg {

struct ReadProbeArgs {
    const float *data;
    int64_t n;
    int streams;
    float *out;
};

FSSEG_OP(read_probe, ReadProbeArgs)

} // namespace fsseg
