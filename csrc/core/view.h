// Views: a pointer, sizes and strides in elements. Plain structs without member functions, because
// every SIMD level includes them (an inline function here would be one symbol built in several ways).
#pragma once

#include <stdint.h>

namespace fsseg {

// Of elements. Kernels of the CPU know float32 alone.
enum class DType : int { f32 = 0, f16 = 1, bf16 = 2 };

// [batch, channels, height, width]. One plane (height * width) is contiguous; the strides of batch
// and channels are free: zero and negative ones, too. data: float32, or of another dtype, as which
// csrc/cuda/elements.h reads it.
struct PlaneView {
    const float *data;
    int64_t batch, channels, height, width;
    int64_t batch_stride, channel_stride;
    DType dtype = DType::f32;
};

// [batch, rows, columns] float32 with contiguous columns, e.g. prototypes [B, P, C]. A batch_stride
// of 0 shares one [rows, columns] matrix between all batches.
struct RowsView {
    const float *data;
    int64_t batch, rows, columns;
    int64_t batch_stride, row_stride;
};

} // namespace fsseg
