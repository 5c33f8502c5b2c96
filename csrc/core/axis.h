// One axis of the bilinear map between an image and a feature grid (align_corners = False):
//
//   place(x) = clamp((x + 0.5) * extent / pixels - 0.5, 0, cells - 1),  cells = ceil(extent)
//
// extent is the part of the grid, in cells, that the image covers. Pixel x lies between the cells
// floor(place) and floor(place) + 1 with weight place - floor(place) on the latter. In double: in
// float the places err by 1e-6. Declarations only: every SIMD level includes this file.
#pragma once

#include <stdint.h>

namespace fsseg {

struct GridAxis {
    int64_t pixels;
    int64_t cells; // that pixels can touch; a grid may have more
    double step;   // cells a pixel
};

GridAxis grid_axis(double extent, int64_t grid, int64_t pixels);

double grid_place(const GridAxis &axis, int64_t pixel);

// The pixels of cell c, those with floor(place) == c, are first_pixel(c) .. first_pixel(c + 1) - 1.
int64_t first_pixel(const GridAxis &axis, int64_t cell);

// The first pixel right of the clamped ones: from here to the last cell's first pixel, place(x)
// grows by step.
int64_t first_inner_pixel(const GridAxis &axis);

} // namespace fsseg
