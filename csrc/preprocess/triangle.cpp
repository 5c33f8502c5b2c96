#include "preprocess/triangle.h"

#include <algorithm>
#include <cmath>

namespace fsseg {

namespace {

// What is smaller is rounding at the ends of the triangle.
constexpr double least_weight = 1e-9;

} // namespace

int64_t triangle_most(int64_t size, int64_t result) {
    const double scale = static_cast<double>(size) / static_cast<double>(result);
    return std::min(size, static_cast<int64_t>(std::ceil(2.0 * std::max(scale, 1.0))));
}

void triangle_filter(int64_t size, int64_t result, bool mirrored, Window *windows, float *weights,
                     int64_t stride) {
    const double scale = static_cast<double>(size) / static_cast<double>(result);
    const double support = std::max(scale, 1.0);
    for (int64_t x = 0; x < result; ++x) {
        const double centre = (static_cast<double>(x) + 0.5) * scale;
        const auto weight = [&](int64_t i) {
            return 1.0 - std::abs(static_cast<double>(i) + 0.5 - centre) / support;
        };
        int64_t start = static_cast<int64_t>(std::max(0.0, std::floor(centre - support)));
        int64_t end = std::min(size, static_cast<int64_t>(std::ceil(centre + support)));
        while (end - start > 1 && weight(start) < least_weight) { ++start; }
        while (end - start > 1 && weight(end - 1) < least_weight) { --end; }
        double sum = 0.0;
        for (int64_t i = start; i < end; ++i) { sum += weight(i); }
        float *row = weights + x * stride;
        for (int64_t i = start; i < end; ++i) {
            row[mirrored ? end - 1 - i : i - start] = static_cast<float>(weight(i) / sum);
        }
        std::fill(row + (end - start), row + stride, 0.0f);
        windows[x] = {mirrored ? size - end : start, end - start};
    }
}

int64_t triangle_blocks(const Window *windows, int64_t result, int64_t wanted, int64_t *starts) {
    int64_t count = 0, low = 0, high = 0;
    for (int64_t x = 0; x < result; ++x) {
        const int64_t start = windows[x].start, end = start + windows[x].count;
        if (x == 0 || std::max(high, end) - std::min(low, start) > wanted) {
            starts[count++] = x;
            low = start;
            high = end;
        }
        low = std::min(low, start);
        high = std::max(high, end);
    }
    starts[count] = result;
    return count;
}

} // namespace fsseg
