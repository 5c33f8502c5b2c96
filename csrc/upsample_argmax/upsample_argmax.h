// upsample_argmax: labels at the image's size, without an array [P, H, W] in memory.
//
//   out[b, y, x] = labels[argmax over p of sum over i, j of logits[b, p, i, j] * W(y, i) * W(x, j)]
//
// W is bilinear interpolation (core/axis.h, align_corners = False). Ties go to the lowest p. Labels
// can differ from those of exact arithmetic only where the two largest scores agree to rounding.
//
//   logits  [B, P, h, w] float32, planes contiguous, strides of batch and P free
//   labels  [P] uint8: what each plane stands for; null: its number (then P <= 255). Several planes may
//           stand for the same: planes of 0 and one for each example is a threshold and an OR at once
//   extent  the part of the grid that the image covers, in cells; 0 < extent <= (h, w)
//   out     [B, H, W] uint8, contiguous
//
// 1 <= P <= 65535. Scratch memory: 4 (P + 1) w bytes a thread and 4 W + 4 P. Status::not_finite if logits hold NaN or
// infinity.
#pragma once

#include "core/dispatch.h"
#include "core/view.h"

namespace fsseg {

struct UpsampleArgmaxArgs {
    PlaneView logits;
    const uint8_t *labels;
    double extent_h, extent_w;
    int64_t height, width;
    uint8_t *out;
    int threads;
};

FSSEG_OP(upsample_argmax, UpsampleArgmaxArgs)

} // namespace fsseg
