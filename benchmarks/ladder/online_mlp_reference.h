// online_mlp in double, on the host.
#pragma once

#include "ladder.h"

namespace ladder {

using Numbers = std::vector<double>;

// [rows, columns] of left [rows, depth] and right [columns, depth].
inline Numbers product(const Numbers &left, const Numbers &right, int rows, int columns,
                       int depth) {
    Numbers result(static_cast<size_t>(rows) * columns);
    for_each(columns, [&](int64_t column) {
        const double *b = right.data() + column * depth;
        for (int row = 0; row < rows; ++row) {
            const double *a = left.data() + static_cast<int64_t>(row) * depth;
            double sums[8] = {};
            int k = 0;
            for (; k + 8 <= depth; k += 8) {
                for (int i = 0; i < 8; ++i) { sums[i] += a[k + i] * b[k + i]; }
            }
            for (; k < depth; ++k) { sums[0] += a[k] * b[k]; }
            double sum = 0.0;
            for (const double each : sums) { sum += each; }
            result[static_cast<size_t>(row) * columns + column] = sum;
        }
    });
    return result;
}

inline Numbers transposed(const Numbers &m, int rows, int columns) {
    Numbers result(m.size());
    for (int i = 0; i < rows; ++i) {
        for (int j = 0; j < columns; ++j) {
            result[static_cast<size_t>(j) * rows + i] = m[static_cast<size_t>(i) * columns + j];
        }
    }
    return result;
}

inline double largest(const Numbers &values) {
    double most = 0.0;
    for (const double value : values) { most = std::max(most, std::fabs(value)); }
    return most;
}

// A two-layer classifier of cells and its full-batch descent, without dropout; see online_mlp.h.
struct Network {
    int hidden, channels, cells, classes;
    Numbers features, by_cells; // [channels, cells], [cells, channels]
    Numbers targets;            // [classes, cells]
    Numbers weight, bias, output,
        offset; // [hidden, channels], [hidden], [classes, hidden], [classes]

    void train(int iterations, double rate, double momentum) {
        Numbers of_weight(weight.size()), of_bias(bias.size());
        Numbers of_output(output.size()), of_offset(offset.size());
        const auto step = [&](Numbers &values, Numbers &velocity, const Numbers &gradient) {
            for (size_t i = 0; i < values.size(); ++i) {
                velocity[i] = momentum * velocity[i] + gradient[i];
                values[i] -= rate * velocity[i];
            }
        };
        for (int i = 0; i < iterations; ++i) {
            Numbers active = product(weight, by_cells, hidden, cells, channels);
            for (size_t n = 0; n < active.size(); ++n) {
                active[n] = std::max(active[n] + bias[n / static_cast<size_t>(cells)], 0.0);
            }
            const Numbers errors = errors_of(active);
            Numbers deltas(active.size());
            for_each(hidden, [&](int64_t h) {
                for (int64_t cell = 0; cell < cells; ++cell) {
                    double delta = 0.0;
                    for (int k = 0; k < classes; ++k) {
                        delta += errors[at(k, cell)] * output[static_cast<size_t>(k * hidden + h)];
                    }
                    deltas[at(h, cell)] = active[at(h, cell)] > 0.0 ? delta : 0.0;
                }
            });
            const Numbers ones(static_cast<size_t>(cells), 1.0);
            const Numbers new_output = product(errors, active, classes, hidden, cells);
            step(weight, of_weight, product(deltas, features, hidden, channels, cells));
            step(bias, of_bias, product(deltas, ones, hidden, 1, cells));
            step(output, of_output, new_output);
            step(offset, of_offset, product(errors, ones, classes, 1, cells));
        }
    }

  private:
    size_t at(int64_t row, int64_t cell) const { return static_cast<size_t>(row * cells + cell); }

    // Gradients of the logits, [classes, cells].
    Numbers errors_of(const Numbers &active) const {
        Numbers errors(targets.size());
        for_each(cells, [&](int64_t cell) {
            double top = -INFINITY, total = 0.0, weights = 0.0;
            for (int k = 0; k < classes; ++k) {
                double logit = offset[static_cast<size_t>(k)];
                for (int h = 0; h < hidden; ++h) {
                    logit += output[static_cast<size_t>(k * hidden + h)] * active[at(h, cell)];
                }
                errors[at(k, cell)] = logit;
                top = std::max(top, logit);
                weights += targets[at(k, cell)];
            }
            for (int k = 0; k < classes; ++k) { total += std::exp(errors[at(k, cell)] - top); }
            for (int k = 0; k < classes; ++k) {
                const double share = std::exp(errors[at(k, cell)] - top) / total;
                errors[at(k, cell)] = weights * share - targets[at(k, cell)];
            }
        });
        return errors;
    }
};

} // namespace ladder
