// A ladder for weighted_pool: out[m, c] = sum_x f[c, x] w[m, x] / (sum_x w[m, x] + eps), two maps.
//
// Each feature is used once for each map: the op is bound by memory. The floor is its bytes (features once,
// weights once) over the bandwidth of a copy. Pixels of a channel lie side by side in memory.
//
//   1 one thread a sum            The loop of the formula. Neighbouring threads read neighbouring channels,
//                                 whole planes apart: each load of a warp touches 32 lines of memory and
//                                 uses 2 or 4 bytes of each at a time.
//   2 one block a sum             Threads walk along the pixels of one channel, so a warp reads 32 pixels that
//                                 lie side by side: whole lines. Their sums meet in shuffles.
//   3 both maps at once           A feature that is in a register is used for both maps: half the reads.
//   4 16 bytes a load             4 or 8 pixels with one instruction: as many bytes on their way with a
//                                 quarter or an eighth of the instructions.
//   5 eight channels a block      The weights of a pixel stay in registers for eight channels (one channel a
//                                 block reads 28 KB of weights for 7 or 14 KB of features), and eight
//                                 loads of features are on their way before the first is used.
//   6 shipped                     cuda::weighted_pool: as step 5, with the sums of all channels and maps in one
//                                 run of shuffles, doubles across tiles, any size, alignment and number of
//                                 maps, and inputs that are not finite reported.
#include "ladder.h"

#include "cuda/reduce.h"
#include "weighted_pool/weighted_pool.h"

using namespace fsseg;
using namespace fsseg::cuda;

namespace {

constexpr int maps = 2, threads = 256, channels_at_once = 8;

template <class T>
__global__ void one_thread_a_sum(Planes<T> f, Planes<float> w, float eps, float *out) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= f.channels * maps) { return; }
    const int64_t b = blockIdx.y, c = i % f.channels, m = i / f.channels;
    const T *features = f.data + b * f.batch_stride + c * f.channel_stride;
    const float *weights = w.data + b * w.batch_stride + m * w.channel_stride;
    float sum = 0.0f, weight = 0.0f;
    for (int64_t x = 0; x < f.pixels; ++x) {
        sum = fmaf(to_float(features[x]), weights[x], sum);
        weight += weights[x];
    }
    out[(b * maps + m) * f.channels + c] = sum / (weight + eps);
}

template <class T>
__global__ void one_block_a_sum(Planes<T> f, Planes<float> w, float eps, float *out) {
    __shared__ float partial[32], partial_weight[32];
    const int64_t b = blockIdx.z, m = blockIdx.y, c = blockIdx.x;
    const T *features = f.data + b * f.batch_stride + c * f.channel_stride;
    const float *weights = w.data + b * w.batch_stride + m * w.channel_stride;
    float sum = 0.0f, weight = 0.0f;
    for (int64_t x = threadIdx.x; x < f.pixels; x += threads) {
        sum = fmaf(to_float(features[x]), weights[x], sum);
        weight += weights[x];
    }
    sum = block_sum(sum, partial);
    weight = block_sum(weight, partial_weight);
    if (threadIdx.x == 0) { out[(b * maps + m) * f.channels + c] = sum / (weight + eps); }
}

template <class T>
__global__ void maps_at_once(Planes<T> f, Planes<float> w, float eps, float *out) {
    __shared__ float partial[2 * maps][32];
    const int64_t b = blockIdx.y, c = blockIdx.x;
    const T *features = f.data + b * f.batch_stride + c * f.channel_stride;
    const float *weights = w.data + b * w.batch_stride;
    float sum[maps] = {}, weight[maps] = {};
    for (int64_t x = threadIdx.x; x < f.pixels; x += threads) {
        const float value = to_float(features[x]);
        for (int m = 0; m < maps; ++m) {
            const float factor = weights[m * w.channel_stride + x];
            sum[m] = fmaf(value, factor, sum[m]);
            weight[m] += factor;
        }
    }
    for (int m = 0; m < maps; ++m) {
        sum[m] = block_sum(sum[m], partial[m]);
        weight[m] = block_sum(weight[m], partial[maps + m]);
        if (threadIdx.x == 0) { out[(b * maps + m) * f.channels + c] = sum[m] / (weight[m] + eps); }
    }
}

// The weights of V pixels from x on, for both maps.
template <int V> __device__ __forceinline__ void load_weights(const float *weights, int64_t stride,
                                                              float (&values)[maps][V]) {
    for (int m = 0; m < maps; ++m) {
        for (int j = 0; j < V; j += 4) {
            const Elements<float, 4> four = load<float, 4>(weights + m * stride + j);
            for (int i = 0; i < 4; ++i) { values[m][j + i] = four.at[i]; }
        }
    }
}

template <class T> __global__ void wide_loads(Planes<T> f, Planes<float> w, float eps, float *out) {
    constexpr int V = 16 / static_cast<int>(sizeof(T));
    __shared__ float partial[2 * maps][32];
    const int64_t b = blockIdx.y, c = blockIdx.x;
    const T *features = f.data + b * f.batch_stride + c * f.channel_stride;
    const float *weights = w.data + b * w.batch_stride;
    float sum[maps] = {}, weight[maps] = {};
    for (int64_t x = threadIdx.x * V; x < f.pixels; x += threads * V) {
        const Elements<T, V> values = load<T, V>(features + x);
        float factors[maps][V];
        load_weights(weights + x, w.channel_stride, factors);
        for (int m = 0; m < maps; ++m) {
            for (int j = 0; j < V; ++j) {
                sum[m] = fmaf(to_float(values.at[j]), factors[m][j], sum[m]);
                weight[m] += factors[m][j];
            }
        }
    }
    for (int m = 0; m < maps; ++m) {
        sum[m] = block_sum(sum[m], partial[m]);
        weight[m] = block_sum(weight[m], partial[maps + m]);
        if (threadIdx.x == 0) { out[(b * maps + m) * f.channels + c] = sum[m] / (weight[m] + eps); }
    }
}

template <class T> __global__ void __launch_bounds__(threads)
    channels_together(Planes<T> f, Planes<float> w, float eps, float *out) {
    constexpr int V = 16 / static_cast<int>(sizeof(T)), N = channels_at_once;
    __shared__ float partial[maps][N + 1][threads / 32];
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    const int64_t b = blockIdx.y, first = static_cast<int64_t>(blockIdx.x) * N;
    const T *features = f.data + b * f.batch_stride + first * f.channel_stride;
    const float *weights = w.data + b * w.batch_stride;
    float sum[maps][N + 1] = {}; // the last one is of the weights
    for (int64_t x = thread * V; x < f.pixels; x += threads * V) {
        Elements<T, V> values[N];
#pragma unroll
        for (int n = 0; n < N; ++n) { // a channel that is not there: the first again
            const int64_t c = first + n < f.channels ? n : 0;
            values[n] = load<T, V>(features + c * f.channel_stride + x);
        }
        float factors[maps][V];
        load_weights(weights + x, w.channel_stride, factors);
#pragma unroll
        for (int m = 0; m < maps; ++m) {
#pragma unroll
            for (int j = 0; j < V; ++j) {
#pragma unroll
                for (int n = 0; n < N; ++n) {
                    sum[m][n] = fmaf(to_float(values[n].at[j]), factors[m][j], sum[m][n]);
                }
                sum[m][N] += factors[m][j];
            }
        }
    }
#pragma unroll
    for (int m = 0; m < maps; ++m) {
#pragma unroll
        for (int n = 0; n <= N; ++n) {
            const float whole = warp_sum(sum[m][n]);
            if (lane == 0) { partial[m][n][warp] = whole; }
        }
    }
    __syncthreads();
    const int m = thread / N, n = thread % N;
    if (m >= maps || first + n >= f.channels) { return; }
    float whole = 0.0f, weight = 0.0f;
    for (int i = 0; i < threads / 32; ++i) {
        whole += partial[m][n][i];
        weight += partial[m][N][i];
    }
    out[(b * maps + m) * f.channels + first + n] = whole / (weight + eps);
}

template <class T> void climb(ladder::Ladder &all, int64_t batch, int64_t channels, int64_t side) {
    constexpr double eps = 1e-5;
    const int64_t pixels = side * side;
    const auto features = ladder::random_values<T>(batch * channels * pixels, -1.0, 2.0, 1);
    const auto weights = ladder::random_values<float>(batch * maps * pixels, 0.0, 1.0, 2);
    const ladder::Device<T> on_device(features);
    const ladder::Device<float> weights_there(weights), out(batch * maps * channels);
    ladder::Expected expected{out.data(), std::vector<double>(out.size()), 1.0, 1e-5};
    ladder::for_each(batch * channels, [&](int64_t i) {
        const T *row = features.data() + i * pixels;
        for (int64_t m = 0; m < maps; ++m) {
            const float *factors = weights.data() + (i / channels * maps + m) * pixels;
            double sum = 0.0, weight = 0.0;
            for (int64_t x = 0; x < pixels; ++x) {
                sum += double(ladder::wide(row[x])) * double(factors[x]);
                weight += double(factors[x]);
            }
            const int64_t at = (i / channels * maps + m) * channels + i % channels;
            expected.values[static_cast<size_t>(at)] = sum / (weight + eps);
        }
    });
    float *result = out.data();
    const Planes<T> f{on_device.data(), batch, channels, pixels, channels * pixels, pixels};
    const Planes<float> w{weights_there.data(), batch, maps, pixels, maps * pixels, pixels};
    const WeightedPoolArgs args{{reinterpret_cast<const float *>(f.data), batch, channels, side,
                                 side, f.batch_stride, f.channel_stride, ladder::dtype_of<T>},
                                {w.data, batch, maps, side, side, w.batch_stride, w.channel_stride},
                                result,
                                eps,
                                1};
    const unsigned b = static_cast<unsigned>(batch), c = static_cast<unsigned>(channels);
    const auto step = [&](const char *name, auto kernel, dim3 grid) -> ladder::Step {
        return {
            name,
            [=] { launch(kernel, grid, dim3(threads), 0, f, w, static_cast<float>(eps), result); },
            &expected, 0.0};
    };
    const double bytes = double(sizeof(T)) * double(features.size()) +
                         4.0 * double(weights.size()) + 4.0 * double(out.size());
    const std::string name = std::to_string(batch) + "x" + std::to_string(channels) + "x" +
                             std::to_string(side) + "x" + std::to_string(side);
    all.climb(
        {name, ladder::name_of<T>, bytes, 2.0 * maps * double(features.size())},
        {step("one thread a sum", one_thread_a_sum<T>,
              dim3(divided_up(channels * maps, threads), b)),
         step("one block a sum", one_block_a_sum<T>, dim3(c, maps, b)),
         step("both maps at once", maps_at_once<T>, dim3(c, b)),
         step("16 bytes a load", wide_loads<T>, dim3(c, b)),
         step("eight channels a block", channels_together<T>,
              dim3(divided_up(channels, channels_at_once), b)),
         {"shipped: cuda::weighted_pool", [=] { cuda::weighted_pool(args); }, &expected, 0.0}});
}

} // namespace

int main(int argc, char **argv) {
    return ladder::run("weighted_pool", argc, argv, [](ladder::Ladder &all) {
        if (ladder::emulated) {
            climb<float>(all, 2, 11, 24);
            climb<__half>(all, 2, 11, 24);
            return;
        }
        for (const int64_t batch : {1, 16}) { // in the L2 of a large GPU, and beyond it
            climb<float>(all, batch, 1024, 60);
            climb<__half>(all, batch, 1024, 60);
        }
    });
}
