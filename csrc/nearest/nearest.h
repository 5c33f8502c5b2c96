// nearest: how close each cell comes to any row of a group (1-NN by cosine).
//
//   out[b, g, x] = max over the rows m of group g of cosine(features[b, :, x], rows[m, :])
//
//   features  [B, C, h, w] float32, planes contiguous, batch and channel strides free
//   rows      [M, C] float32, each row contiguous
//   group     [M] int64, 0 <= group < groups
//   out       [B, groups, h, w] float32, contiguous
//   bf16      unit cells and unit rows are rounded to bfloat16; sums stay float32
//   packed    null, or what nearest_pack made of the same rows, groups and bf16 at the same SIMD level
//             with the same unit for bfloat16 (core/bf16.h): then rows.data is not read
//
// One pass of blocks, panels of rows times tiles of cells: of the M x h*w cosines no more are in memory
// than one block of rows has with one tile of cells. The cosine with a zero vector is 0; a group
// without rows is -1 everywhere. The order of all sums depends on C and the SIMD level alone.
// Any finite float32 values. Status::not_finite for NaN or infinity in an input.
//
// Memory: a copy of the rows, packed, unless it is given; for each thread 384 (C + groups) + 73,728
// bytes, with bf16 192 C more.
//
// nearest_pack: sets *bytes to what the packed copy takes, and fills `packed` unless that is null.
#pragma once

#include "core/dispatch.h"
#include "core/view.h"

namespace fsseg {

struct NearestArgs {
    PlaneView features;
    RowsView rows;
    const int64_t *group;
    int64_t groups;
    bool bf16;
    const void *packed;
    float *out;
    int threads;
};

struct NearestPackArgs {
    RowsView rows;
    const int64_t *group;
    int64_t groups;
    bool bf16;
    void *packed;
    int64_t *bytes;
    int threads;
};

FSSEG_OP(nearest, NearestArgs)
FSSEG_OP(nearest_pack, NearestPackArgs)

} // namespace fsseg
