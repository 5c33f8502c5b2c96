// Two launches a step: `descend` reads the cells, `take_step` merges what its blocks summed, in their order.
//
// A block has a chunk of cells, 32 of them at once: each warp the dot products of 4 with 4 classes (8 loads
// of 16 bytes for 16 x 4 products), then each thread the gradients of 4 channels over the same cells, which
// by then lie in the first-level cache. 7,200 cells of 1,024 channels are 225 chunks, 29 MB a step, from
// the second-level cache where that holds them; with 2 classes the partial sums are 1.8 MB.
#include "logistic_fit/logistic_fit.h"

#include "cuda/elements.h"
#include "cuda/reduce.h"

#include <algorithm>
#include <cfloat>

namespace fsseg {
namespace cuda {

namespace {

constexpr int threads = 256, warps = threads / 32;
constexpr int cells_of_warp = 4, classes_at_once = 4;
constexpr int block_cells = 256;                  // forward, then back
constexpr int chunk_unit = warps * cells_of_warp; // cells of a chunk are a multiple of it
constexpr int columns = 32;                       // of a block that merges
constexpr int64_t most_sums = int64_t{1} << 24;   // floats of all chunks
constexpr double smallest_bound = 1e-36, largest_bound = 1e36;

struct Problem {
    const float *cells, *targets, *weights;
    int64_t row_stride;
    int count, channels, classes, width; // width: floats of a class: C weights, the bias, padding
    int chunk, chunks;                   // cells of a chunk
};

struct Memory {
    float *parameters, *velocities, *rates; // [classes][width] twice; [classes]
    float *sums;                            // [chunks][classes][width]
    double *losses;                         // [chunks + 1][classes]; of bounds first
};

// Bounds of the chunk's cells for every class, and whether all inputs are right.
__global__ void measure(Problem p, double *bounds, int *report) {
    __shared__ double squares[chunk_unit];
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int begin = static_cast<int>(blockIdx.x) * p.chunk, end = min(begin + p.chunk, p.count);
    double *own = bounds + static_cast<int64_t>(blockIdx.x) * p.classes;
    bool right = true;
    for (int first = begin; first < end; first += chunk_unit) {
        for (int i = warp; i < chunk_unit; i += warps) {
            double square = 0.0;
            if (first + i < end) {
                const float *row = p.cells + (first + i) * p.row_stride;
                for (int c = lane; c < p.channels; c += 32) {
                    square += static_cast<double>(row[c]) * static_cast<double>(row[c]);
                }
            }
            square = warp_sum(square);
            right = right && square <= DBL_MAX; // false for NaN
            if (lane == 0) { squares[i] = square; }
        }
        __syncthreads();
        for (int k = static_cast<int>(threadIdx.x); k < p.classes; k += threads) {
            double bound = first == begin ? 0.0 : own[k];
            for (int m = first; m < min(first + chunk_unit, end); ++m) {
                const int64_t at = static_cast<int64_t>(m) * p.classes + k;
                const float target = p.targets[at], weight = p.weights[at];
                right = right && target >= 0.0f && target <= 1.0f && weight >= 0.0f;
                bound += 0.25 * (squares[m - first] + 1.0) * static_cast<double>(weight);
            }
            own[k] = bound;
        }
        __syncthreads();
    }
    if (!right) { atomicOr(report, static_cast<int>(not_finite)); }
}

__global__ void start(Problem p, Memory memory, double rate, double l2, int *report) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
    if (i < static_cast<int64_t>(p.classes) * p.width) {
        memory.parameters[i] = memory.velocities[i] = 0.0f;
    }
    if (i >= p.classes) { return; }
    double bound = 0.0;
    for (int chunk = 0; chunk < p.chunks; ++chunk) {
        bound += memory.losses[static_cast<int64_t>(chunk) * p.classes + i];
    }
    memory.rates[i] = 0.0f;
    if (bound == 0.0) { return; }
    bound += l2;
    if (!(bound >= smallest_bound && bound <= largest_bound)) {
        atomicOr(report, static_cast<int>(not_finite));
    }
    memory.rates[i] = static_cast<float>(rate / bound);
}

// What the cells of a block hand on to the way back.
struct Errors {
    float gradient[block_cells][classes_at_once], loss[block_cells][classes_at_once];
};

// weight * (sigmoid(z) - target), and the loss.
__device__ __forceinline__ float error_of(float z, float target, float weight, float &loss) {
    const float power = expf(-fabsf(z)), total = 1.0f + power;
    // log(1 + e^z) - t z, by the exponential that is at most 1.
    loss = weight * (fmaxf(z, 0.0f) + logf(total) - target * z);
    return weight * ((z > 0.0f ? 1.0f : power) / total - target);
}

// Errors of 4 cells from `cell` on, one after another a warp's, in 4 classes from k on.
template <int V>
__device__ __forceinline__ void go_forward(const Problem &p, const float *parameters, int cell,
                                           int end, int k, int place, Errors &errors) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const float *row[cells_of_warp], *of_class[classes_at_once];
    for (int i = 0; i < cells_of_warp; ++i) {
        row[i] = p.cells + min(cell + i, end - 1) * p.row_stride;
    }
    for (int j = 0; j < classes_at_once; ++j) {
        of_class[j] = parameters + static_cast<int64_t>(min(k + j, p.classes - 1)) * p.width;
    }
    float sums[cells_of_warp][classes_at_once] = {};
#pragma unroll 2
    for (int c = lane * V; c < p.channels; c += 32 * V) {
        Elements<float, V> x[cells_of_warp], w[classes_at_once];
#pragma unroll
        for (int i = 0; i < cells_of_warp; ++i) { x[i] = load<float, V>(row[i] + c); }
#pragma unroll
        for (int j = 0; j < classes_at_once; ++j) { w[j] = load<float, V>(of_class[j] + c); }
#pragma unroll
        for (int i = 0; i < cells_of_warp; ++i) {
#pragma unroll
            for (int j = 0; j < classes_at_once; ++j) {
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    sums[i][j] = fmaf(x[i].at[v], w[j].at[v], sums[i][j]);
                }
            }
        }
    }
    float own = 0.0f; // of cell lane / 4, class lane % 4
#pragma unroll
    for (int i = 0; i < cells_of_warp; ++i) {
#pragma unroll
        for (int j = 0; j < classes_at_once; ++j) {
            const float sum = warp_sum(sums[i][j]);
            if (lane == i * classes_at_once + j) { own = sum; }
        }
    }
    const int i = lane / classes_at_once, j = lane % classes_at_once;
    if (i >= cells_of_warp || cell + i >= end) { return; }
    float loss = 0.0f, gradient = 0.0f;
    if (k + j < p.classes) {
        const int64_t at = static_cast<int64_t>(cell + i) * p.classes + k + j;
        const float bias = parameters[static_cast<int64_t>(k + j) * p.width + p.channels];
        gradient = error_of(own + bias, p.targets[at], p.weights[at], loss);
    }
    errors.gradient[place + i][j] = gradient;
    errors.loss[place + i][j] = loss;
}

// sums [classes_at_once][width] (+)= gradients over the cells [cell, end).
template <int V> __device__ __forceinline__ void go_back(const Problem &p, int cell, int end,
                                                         int classes, bool more,
                                                         const Errors &errors, float *sums) {
    for (int c = static_cast<int>(threadIdx.x) * V; c < p.channels; c += threads * V) {
        float gradient[classes_at_once][V];
#pragma unroll
        for (int j = 0; j < classes_at_once; ++j) {
#pragma unroll
            for (int v = 0; v < V; ++v) {
                gradient[j][v] = more && j < classes ? sums[j * p.width + c + v] : 0.0f;
            }
        }
        const float *at = p.cells + cell * p.row_stride + c;
#pragma unroll 8
        for (int i = 0; i < end - cell; ++i) {
            const Elements<float, V> x = load<float, V>(at + i * p.row_stride);
#pragma unroll
            for (int j = 0; j < classes_at_once; ++j) {
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    gradient[j][v] = fmaf(errors.gradient[i][j], x.at[v], gradient[j][v]);
                }
            }
        }
#pragma unroll
        for (int j = 0; j < classes_at_once; ++j) {
#pragma unroll
            for (int v = 0; v < V; ++v) {
                if (j < classes) { sums[j * p.width + c + v] = gradient[j][v]; }
            }
        }
    }
}

// The biases' share of go_back, and the losses: a warp for each class.
__device__ __forceinline__ void sum_errors(const Problem &p, int cells, int classes, bool more,
                                           const Errors &errors, float *sums, double *losses) {
    const int lane = static_cast<int>(threadIdx.x) % 32, j = static_cast<int>(threadIdx.x) / 32;
    if (j >= classes) { return; }
    float bias = 0.0f;
    double loss = 0.0;
    for (int i = lane; i < cells; i += 32) {
        bias += errors.gradient[i][j];
        loss += static_cast<double>(errors.loss[i][j]);
    }
    bias = warp_sum(bias);
    loss = warp_sum(loss);
    if (lane != 0) { return; }
    float &sum = sums[j * p.width + p.channels];
    sum = (more ? sum : 0.0f) + bias;
    losses[j] = (more ? losses[j] : 0.0) + loss;
}

// The last block: what l2 adds to the losses; the others: a chunk of cells each.
template <int V> __global__ void descend(Problem p, Memory memory, double l2) {
    __shared__ Errors errors;
    const int chunk = static_cast<int>(blockIdx.x), warp = static_cast<int>(threadIdx.x) / 32;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    double *losses = memory.losses + static_cast<int64_t>(chunk) * p.classes;
    if (chunk == p.chunks) {
        for (int k = warp; k < p.classes; k += warps) {
            const float *of_class = memory.parameters + static_cast<int64_t>(k) * p.width;
            double square = 0.0;
            for (int c = lane; c < p.channels; c += 32) {
                square += static_cast<double>(of_class[c]) * static_cast<double>(of_class[c]);
            }
            square = warp_sum(square);
            if (lane == 0) { losses[k] = 0.5 * l2 * square; }
        }
        return;
    }
    const int begin = chunk * p.chunk, end = min(begin + p.chunk, p.count);
    for (int k = 0; k < p.classes; k += classes_at_once) {
        float *sums = memory.sums + (static_cast<int64_t>(chunk) * p.classes + k) * p.width;
        const int classes = min(classes_at_once, p.classes - k);
        for (int first = begin; first < end; first += block_cells) {
            const int last = min(first + block_cells, end);
            for (int i = warp * cells_of_warp; first + i < last; i += chunk_unit) {
                go_forward<V>(p, memory.parameters, first + i, last, k, i, errors);
            }
            __syncthreads();
            go_back<V>(p, first, last, classes, first > begin, errors, sums);
            sum_errors(p, last - first, classes, first > begin, errors, sums, losses + k);
            __syncthreads();
        }
    }
}

// Blocks of 32 parameters, 8 groups of threads for each; then blocks of 8 classes, a warp for each loss.
__global__ void take_step(Problem p, Memory memory, float momentum, float l2, int step_blocks,
                          float *losses) {
    __shared__ float partial[warps][columns];
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    int64_t block = blockIdx.x;
    if (block >= step_blocks) {
        const int64_t k = (block - step_blocks) * warps + warp;
        if (k >= p.classes) { return; }
        double loss = 0.0;
        for (int chunk = lane; chunk <= p.chunks; chunk += 32) {
            loss += memory.losses[static_cast<int64_t>(chunk) * p.classes + k];
        }
        loss = warp_sum(loss);
        if (lane == 0) { losses[k] = static_cast<float>(loss); }
        return;
    }
    const int64_t all = static_cast<int64_t>(p.classes) * p.width, i = block * columns + lane;
    const int64_t k = i / p.width;
    const int c = static_cast<int>(i - k * p.width);
    const bool used = i < all && c <= p.channels;
    float sum = 0.0f;
    if (used) {
#pragma unroll 8
        for (int chunk = warp; chunk < p.chunks; chunk += warps) {
            sum += memory.sums[chunk * all + i];
        }
    }
    partial[warp][lane] = sum;
    __syncthreads();
    if (warp != 0 || !used) { return; }
    for (int other = 1; other < warps; ++other) { sum += partial[other][lane]; }
    const float parameter = memory.parameters[i];
    if (c < p.channels) { sum = fmaf(l2, parameter, sum); }
    const float velocity = fmaf(momentum, memory.velocities[i], sum);
    memory.velocities[i] = velocity;
    memory.parameters[i] = fmaf(-memory.rates[k], velocity, parameter);
}

__global__ void write_out(Problem p, const float *parameters, float *weight, float *bias) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x, k = i / p.width;
    const int c = static_cast<int>(i - k * p.width);
    if (k >= p.classes || c > p.channels) { return; }
    (c < p.channels ? weight[k * p.channels + c] : bias[k]) = parameters[i];
}

Problem problem_of(const LogisticFitArgs &args) {
    Problem p{args.cells.data,
              args.targets,
              args.weights,
              args.cells.row_stride,
              static_cast<int>(args.cells.rows),
              static_cast<int>(args.cells.columns),
              static_cast<int>(args.classes),
              static_cast<int>((args.cells.columns + 4) / 4 * 4),
              0,
              0};
    const int64_t most = std::max<int64_t>(1, most_sums / (int64_t{p.classes} * p.width));
    const int64_t chunks = std::min<int64_t>(most, 2 * current().processors);
    p.chunk = static_cast<int>(divided_up(divided_up(p.count, chunks), chunk_unit)) * chunk_unit;
    p.chunks = static_cast<int>(divided_up(p.count, p.chunk));
    return p;
}

} // namespace

Status logistic_fit(const LogisticFitArgs &args) {
    Context &context = current();
    if (args.cells.rows == 0) { // all weights are 0: nothing moves
        const auto zero = [&](float *values, int64_t n) {
            check(
                cudaMemsetAsync(values, 0, static_cast<size_t>(n) * sizeof(float), context.stream),
                "cudaMemsetAsync");
        };
        zero(args.weight, args.classes * args.cells.columns);
        zero(args.bias, args.classes);
        zero(args.losses, args.steps * args.classes);
        return Status::ok;
    }
    const Problem p = problem_of(args);
    const int64_t size = int64_t{p.classes} * p.width;
    const Memory memory{context.scratch_of<float>(size), context.scratch_of<float>(size),
                        context.scratch_of<float>(p.classes),
                        context.scratch_of<float>(p.chunks * size),
                        context.scratch_of<double>(int64_t{p.chunks + 1} * p.classes)};
    const dim3 block(threads), chunks(static_cast<unsigned>(p.chunks));
    const dim3 all(divided_up(size, threads));
    launch(measure, chunks, block, 0, p, memory.losses, context.report());
    launch(start, all, block, 0, p, memory, args.rate, args.l2, context.report());
    const bool aligned = reinterpret_cast<uintptr_t>(p.cells) % 16 == 0 && p.row_stride % 4 == 0 &&
                         p.channels % 4 == 0;
    const auto run = aligned ? descend<4> : descend<1>;
    const dim3 descends(static_cast<unsigned>(p.chunks + 1));
    const unsigned step_blocks = divided_up(size, columns);
    const dim3 steps(step_blocks + divided_up(p.classes, warps));
    for (int64_t s = 0; s < args.steps; ++s) {
        launch(run, descends, block, 0, p, memory, args.l2);
        launch(take_step, steps, block, 0, p, memory, static_cast<float>(args.momentum),
               static_cast<float>(args.l2), static_cast<int>(step_blocks),
               args.losses + s * args.classes);
    }
    launch(write_out, all, block, 0, p, memory.parameters, args.weight, args.bias);
    return Status::ok;
}

} // namespace cuda
} // namespace fsseg
