// Chunks of cells, each with sums of its own; then strips of parameters, each summed over the chunks in
// their order, with its step. Neither depends on the number of threads.
#include "logistic_fit/logistic_fit.h"

#include "logistic_fit/block.h"
#include "online_mlp/step.h"

namespace fsseg {
namespace FSSEG_NS {

namespace {

constexpr int64_t float_bytes = static_cast<int64_t>(sizeof(float));
constexpr int64_t most_chunks = 64;
constexpr int64_t most_sums = 1 << 20; // floats of all chunks
constexpr int64_t strip = 256;         // parameters of a class that take their step together
constexpr double smallest_bound = 1e-36, largest_bound = 1e36;

class LogisticFit {
  public:
    explicit LogisticFit(const LogisticFitArgs &args)
        : args_(args), cells_(args.cells.rows), channels_(args.cells.columns),
          classes_(args.classes), width_(round_up(channels_ + 1, lanes)), size_(classes_ * width_),
          blocks_(divide_up(cells_, block_rows)),
          per_chunk_(divide_up(blocks_, smaller(most_chunks, larger(1, most_sums / size_)))),
          chunks_(divide_up(blocks_, per_chunk_)), padded_(blocks_ * block_rows),
          parameters_(2 * size_ * float_bytes), sums_(chunks_ * size_ * float_bytes),
          labels_(2 * classes_ * padded_ * float_bytes),
          doubles_((chunks_ + 1) * classes_ * static_cast<int64_t>(sizeof(double))) {}

    Status run() {
        if (parameters_.data == nullptr || sums_.data == nullptr || labels_.data == nullptr ||
            doubles_.data == nullptr) {
            return Status::no_memory;
        }
        if (!take_labels() || !find_rates()) { return Status::not_finite; }
        memset(parameters_.data, 0, static_cast<size_t>(2 * size_ * float_bytes));
        const double work = 4e-5 * static_cast<double>(cells_ * classes_) *
                            static_cast<double>(channels_); // microseconds a step, roughly
        const int threads = worthwhile(args_.threads, work);
        for (int64_t s = 0; s < args_.steps; ++s) {
            for_each(chunks_, threads, [&](int64_t chunk, int) { chunk_step(chunk); });
            for (int64_t k = 0; k < classes_; ++k) {
                double loss = 0.5 * args_.l2 * square_of(parameters() + k * width_, channels_);
                for (int64_t c = 0; c < chunks_; ++c) { loss += losses(c)[k]; }
                args_.losses[s * classes_ + k] = static_cast<float>(loss);
            }
            const int64_t strips = divide_up(width_, strip);
            for_each(classes_ * strips, threads,
                     [&](int64_t task, int) { take_strip(task / strips, task % strips * strip); });
        }
        for (int64_t k = 0; k < classes_; ++k) {
            memcpy(args_.weight + k * channels_, parameters() + k * width_,
                   static_cast<size_t>(channels_ * float_bytes));
            args_.bias[k] = parameters()[k * width_ + channels_];
        }
        return Status::ok;
    }

  private:
    float *parameters() { return static_cast<float *>(parameters_.data); }
    float *sums(int64_t chunk) { return static_cast<float *>(sums_.data) + chunk * size_; }
    float *targets() { return static_cast<float *>(labels_.data); }
    float *weights() { return targets() + classes_ * padded_; }
    double *rates() { return static_cast<double *>(doubles_.data); }
    double *losses(int64_t chunk) { return rates() + (chunk + 1) * classes_; }

    static double square_of(const float *values, int64_t n) {
        double parts[4] = {0.0, 0.0, 0.0, 0.0};
        for (int64_t c = 0; c < n; ++c) {
            parts[c % 4] += static_cast<double>(values[c]) * static_cast<double>(values[c]);
        }
        return (parts[0] + parts[1]) + (parts[2] + parts[3]);
    }

    // Class by class, zero behind the last cell. False: one is outside of its range.
    bool take_labels() {
        memset(labels_.data, 0, static_cast<size_t>(2 * classes_ * padded_ * float_bytes));
        bool right = true;
        for (int64_t k = 0; k < classes_; ++k) {
            for (int64_t m = 0; m < cells_; ++m) {
                const float target = args_.targets[m * classes_ + k];
                const float weight = args_.weights[m * classes_ + k];
                right = right && target >= 0.0f && target <= 1.0f && weight >= 0.0f;
                targets()[k * padded_ + m] = target;
                weights()[k * padded_ + m] = weight;
            }
        }
        return right;
    }

    // False: a cell is not finite, or a bound is too large or small.
    bool find_rates() {
        double *bound = losses(0);
        for (int64_t k = 0; k < classes_; ++k) { bound[k] = rates()[k] = 0.0; }
        for (int64_t m = 0; m < cells_; ++m) {
            const double square =
                square_of(args_.cells.data + m * args_.cells.row_stride, channels_);
            if (!finite(square)) { return false; }
            for (int64_t k = 0; k < classes_; ++k) {
                bound[k] += 0.25 * (square + 1.0) * static_cast<double>(weights()[k * padded_ + m]);
            }
        }
        for (int64_t k = 0; k < classes_; ++k) {
            if (bound[k] == 0.0) { continue; }
            bound[k] += args_.l2;
            if (!(bound[k] >= smallest_bound && bound[k] <= largest_bound)) { return false; }
            rates()[k] = args_.rate / bound[k];
        }
        return true;
    }

    void chunk_step(int64_t chunk) {
        const int64_t end = smaller((chunk + 1) * per_chunk_, blocks_);
        memset(sums(chunk), 0, static_cast<size_t>(size_ * float_bytes));
        for (int64_t k = 0; k < classes_; ++k) { losses(chunk)[k] = 0.0; }
        for (int64_t b = chunk * per_chunk_; b < end; ++b) {
            const int64_t first = b * block_rows;
            const Block block{args_.cells.data + first * args_.cells.row_stride,
                              args_.cells.row_stride, smaller(block_rows, cells_ - first),
                              channels_, width_};
            there_and_back(block, classes_, parameters(), targets() + first, weights() + first,
                           padded_, sums(chunk), losses(chunk));
        }
    }

    void take_strip(int64_t k, int64_t begin) {
        const int64_t n = smaller(strip, width_ - begin), at = k * width_ + begin;
        float *gradient = sums(0) + at;
        for (int64_t c = 1; c < chunks_; ++c) {
            for (int64_t i = 0; i < n; i += lanes) {
                store(gradient + i, add(load(gradient + i), load(sums(c) + at + i)));
            }
        }
        const float l2 = static_cast<float>(args_.l2);
        for (int64_t i = 0; i < smaller(n, channels_ - begin); ++i) {
            gradient[i] += l2 * parameters()[at + i];
        }
        const Step step{static_cast<float>(rates()[k]), static_cast<float>(args_.momentum)};
        take_step(step, gradient, parameters() + size_ + at, parameters() + at, n);
    }

    const LogisticFitArgs &args_;
    const int64_t cells_, channels_, classes_, width_, size_; // size: of all parameters
    const int64_t blocks_, per_chunk_, chunks_, padded_;
    Scratch parameters_, sums_, labels_, doubles_; // parameters, then their velocity
};

} // namespace

Status logistic_fit(const LogisticFitArgs &args) {
    LogisticFit fit(args);
    return fit.run();
}

} // namespace FSSEG_NS
} // namespace fsseg
