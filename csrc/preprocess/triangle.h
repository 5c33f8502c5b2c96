// The triangle filter along one axis, as Pillow's BILINEAR defines it (antialiased):
//
//   scale = size / result, support = max(scale, 1), centre(x) = (x + 0.5) * scale
//   weight(x, i) = max(0, 1 - |i + 0.5 - centre(x)| / support), divided by the sum over i in the
//   image
//
// Computed in double, then rounded. Declarations only: every SIMD level includes this file.
#pragma once

#include <stdint.h>

namespace fsseg {

struct Window { // result x is the weighted sum of `count` pixels from `start`
    int64_t start, count;
};

// The most pixels that a window can have.
int64_t triangle_most(int64_t size, int64_t result);

// windows [result], weights [result, stride], 0 behind a window's own; stride >= triangle_most.
// mirrored: counts the pixels from the other end.
void triangle_filter(int64_t size, int64_t result, bool mirrored, Window *windows, float *weights,
                     int64_t stride);

// Splits the results into blocks, each of which needs at most max(most pixels of a window, wanted)
// neighbouring pixels. starts [result + 1] gets the first result of each block and `result` behind
// the last. Returns how many there are.
int64_t triangle_blocks(const Window *windows, int64_t result, int64_t wanted, int64_t *starts);

} // namespace fsseg
