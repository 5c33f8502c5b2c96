#include "core/axis.h"

#include <algorithm>
#include <cmath>

namespace fsseg {

namespace {

double unclamped(const GridAxis &axis, int64_t pixel) {
    return (static_cast<double>(pixel) + 0.5) * axis.step - 0.5;
}

// The smallest pixel whose unclamped place is at least `place`.
int64_t first_at_least(const GridAxis &axis, double place) {
    const double guess = std::ceil((place + 0.5) / axis.step - 0.5);
    const double last = static_cast<double>(axis.pixels);
    int64_t pixel = static_cast<int64_t>(std::min(std::max(guess, 0.0), last));
    while (pixel > 0 && unclamped(axis, pixel - 1) >= place) { --pixel; }
    while (pixel < axis.pixels && unclamped(axis, pixel) < place) { ++pixel; }
    return pixel;
}

} // namespace

GridAxis grid_axis(double extent, int64_t grid, int64_t pixels) {
    const int64_t cells = std::min(static_cast<int64_t>(std::ceil(extent)), grid);
    return {pixels, std::max<int64_t>(cells, 1), extent / static_cast<double>(pixels)};
}

double grid_place(const GridAxis &axis, int64_t pixel) {
    return std::min(std::max(unclamped(axis, pixel), 0.0), static_cast<double>(axis.cells - 1));
}

int64_t first_pixel(const GridAxis &axis, int64_t cell) {
    if (cell <= 0) { return 0; }
    return cell >= axis.cells ? axis.pixels : first_at_least(axis, static_cast<double>(cell));
}

int64_t first_inner_pixel(const GridAxis &axis) { return first_at_least(axis, 0.0); }

} // namespace fsseg
