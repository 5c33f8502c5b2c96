// Lengths of prototypes and other rows, in double: right for every float32 input.
#pragma once

#include "core/simd.h"

namespace fsseg {
namespace FSSEG_NS {

// 1 / |row| in double for each of the rows; 0 for a zero row. False: a row is not finite.
static bool inverse_norms(const RowsView &rows, int64_t batch, double *inverse) {
    for (int64_t p = 0; p < rows.rows; ++p) {
        const float *row = rows.data + batch * rows.batch_stride + p * rows.row_stride;
        double parts[8] = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0}; // one would wait for itself
        int64_t c = 0;
        for (; c + 8 <= rows.columns; c += 8) {
            for (int i = 0; i < 8; ++i) {
                parts[i] += static_cast<double>(row[c + i]) * static_cast<double>(row[c + i]);
            }
        }
        for (; c < rows.columns; ++c) {
            parts[0] += static_cast<double>(row[c]) * static_cast<double>(row[c]);
        }
        double square = 0.0;
        for (int i = 0; i < 8; ++i) { square += parts[i]; }
        if (!finite(square)) { return false; }
        inverse[p] = square > 0.0 ? 1.0 / ::sqrt(square) : 0.0;
    }
    return true;
}

} // namespace FSSEG_NS
} // namespace fsseg
