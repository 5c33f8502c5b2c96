// preprocess: an image of any size to the encoder's input, in one pass over the image.
//
//   small[c, y, x] = sum over i, j of image[i, j, c] * T(y, i) * T(x, j)      for (y, x) in content
//   out[0, c, y, x] = (small[c, y, x] / 255 - mean[c]) / std[c], and 0 outside the content
//
// T is the antialiasing triangle filter (triangle.h), not rounded to bytes in between: within 1/255
// of Pillow's BILINEAR, which is.
//
//   image   [H, W, 3] uint8, channels contiguous, strides of rows and pixels free (pixel strides of
//   3
//           and 4 either way are fast)
//   content (h, w), 1 <= h <= S_h, 1 <= w <= S_w: what the image covers, from the top left
//   out     [1, 3, S_h, S_w] float32, contiguous; on CUDA of out_dtype, as encoders take it
//
// Scratch memory: about 30 kB and 64 bytes a content column for each thread, and the weights of the
// filters, about 8 (H + W) bytes. (A result that needs more than 512 columns takes 100 bytes for
// each.)
#pragma once

#include "core/dispatch.h"
#include "core/view.h"

#include <stdint.h>

namespace fsseg {

struct PreprocessArgs {
    const uint8_t *image;
    int64_t height, width;
    int64_t row_stride, pixel_stride; // in bytes
    int64_t content_h, content_w;
    int64_t input_h, input_w;
    double mean[3], deviation[3];
    float *out;
    int threads;
    DType out_dtype = DType::f32; // the CPU writes float32 alone
};

FSSEG_OP(preprocess, PreprocessArgs)

} // namespace fsseg
