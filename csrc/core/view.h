// Views: a pointer, sizes and strides in elements. Plain structs without member functions, because
// every SIMD level includes them (an inline function here would be one symbol built in several ways).
#pragma once

#include <stdint.h>

namespace fsseg {

// [batch, channels, height, width] float32. One plane (height * width) is contiguous; the strides of
// batch and channels are free: zero and negative ones, too.
struct PlaneView {
    const float *data;
    int64_t batch, channels, height, width;
    int64_t batch_stride, channel_stride;
};

// [batch, rows, columns] float32 with contiguous columns, e.g. prototypes [B, P, C]. A batch_stride
// of 0 shares one [rows, columns] matrix between all batches.
struct RowsView {
    const float *data;
    int64_t batch, rows, columns;
    int64_t batch_stride, row_stride;
};

} // namespace fsseg
