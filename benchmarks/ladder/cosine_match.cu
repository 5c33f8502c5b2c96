// A ladder for cosine_match: out[p, x] = scale * f[:, x] . v[p] / (|f[:, x]| |v[p]|), two vectors.
//
// Each feature takes part in three sums (two products, one square): the op is bound by memory. The floor is
// the features, once, over the bandwidth of a copy. The sums run over channels, which lie a plane apart;
// pixels lie side by side.
//
//   1 one thread a result         The formula. Loads are whole lines already (neighbouring threads, neighbouring
//                                 pixels), but features are read once for each vector, and a map of 60 x 60
//                                 has 7,200 threads for a device that wants 200,000.
//   2 both vectors at once        A feature in a register is used for both vectors and the square: half the reads.
//                                 Half the threads, too: on a small map that costs what it gains.
//   3 channels in slices          A block takes 32 pixels, and 16 warps of it a slice of the channels each; their
//                                 sums meet in shared memory. Sixteen times as many loads on their way.
//   4 16 bytes a load             A thread takes 4 or 8 pixels, so the same 32 pixels leave room for four or
//                                 eight times as many slices: more bytes on their way, fewer instructions.
//                                 Slices of one warp meet in shuffles.
//   5 four channels at once       Four loads of features and one of each vector (four neighbouring numbers)
//                                 before the first is used: the latency is paid once for four.
//   6 shipped                     cuda::cosine_match: eight channels at once, fewer shuffles (lanes that add
//                                 share the pixels out), wider strips where the map is large, 1 to any number
//                                 of vectors, any alignment; tiny and huge features are done again in double.
#include "ladder.h"

#include "cosine_match/cosine_match.h"
#include "cuda/reduce.h"

using namespace fsseg;
using namespace fsseg::cuda;

namespace {

constexpr int vectors = 2, strip = 32, threads = 512;

// Vectors [vectors, channels], contiguous.
template <class T>
__global__ void one_thread_a_result(Planes<T> f, const float *v, float scale, float *out) {
    const int64_t x = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (x >= f.pixels) { return; }
    const int64_t p = blockIdx.y, b = blockIdx.z;
    const T *features = f.data + b * f.batch_stride + x;
    float dot = 0.0f, square = 0.0f, own = 0.0f;
    for (int64_t c = 0; c < f.channels; ++c) {
        const float value = to_float(features[c * f.channel_stride]),
                    factor = v[p * f.channels + c];
        dot = fmaf(value, factor, dot);
        square = fmaf(value, value, square);
        own = fmaf(factor, factor, own);
    }
    out[(b * vectors + p) * f.pixels + x] = scale * dot / (sqrtf(square) * sqrtf(own));
}

struct Sums { // of one pixel, and of the vectors
    float dot[vectors] = {}, square = 0.0f, own[vectors] = {};

    __device__ __forceinline__ void add(float value, const float (&factors)[vectors]) {
        square = fmaf(value, value, square);
        for (int p = 0; p < vectors; ++p) { dot[p] = fmaf(value, factors[p], dot[p]); }
    }
    __device__ __forceinline__ void add_own(const float (&factors)[vectors]) {
        for (int p = 0; p < vectors; ++p) { own[p] = fmaf(factors[p], factors[p], own[p]); }
    }
    __device__ __forceinline__ float cosine(int p) const {
        return dot[p] / (sqrtf(square) * sqrtf(own[p]));
    }
};

template <class T>
__global__ void vectors_at_once(Planes<T> f, const float *v, float scale, float *out) {
    const int64_t x = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (x >= f.pixels) { return; }
    const int64_t b = blockIdx.y;
    const T *features = f.data + b * f.batch_stride + x;
    Sums sums;
    for (int64_t c = 0; c < f.channels; ++c) {
        const float factors[vectors] = {v[c], v[f.channels + c]};
        sums.add(to_float(features[c * f.channel_stride]), factors);
        sums.add_own(factors);
    }
    for (int p = 0; p < vectors; ++p) {
        out[(b * vectors + p) * f.pixels + x] = scale * sums.cosine(p);
    }
}

// A block's sums: rows[s] of each of `strip_slices` slices, then the first of all. Every thread calls it, those
// with `writes` put the sums of V pixels from `place` on into row `slice`.
constexpr int kept = 1 + 2 * vectors, strip_slices = threads / strip;
template <int V> __device__ __forceinline__ void meet(float (&rows)[strip_slices][kept][strip],
                                                      bool writes, int slice, int place,
                                                      const Sums (&sums)[V], float scale,
                                                      int64_t left, int64_t pixels, float *out) {
    if (writes) {
#pragma unroll
        for (int i = 0; i < V; ++i) {
            rows[slice][0][place + i] = sums[i].square;
            for (int p = 0; p < vectors; ++p) {
                rows[slice][1 + p][place + i] = sums[i].dot[p];
                rows[slice][1 + vectors + p][place + i] = sums[0].own[p];
            }
        }
    }
    __syncthreads();
    const int x = static_cast<int>(threadIdx.x) % strip,
              row = static_cast<int>(threadIdx.x) / strip;
    if (row < kept) {
        float sum = 0.0f;
        for (int s = 0; s < strip_slices; ++s) { sum += rows[s][row][x]; }
        rows[0][row][x] = sum;
    }
    __syncthreads();
    if (row < vectors && x < left) {
        out[row * pixels + x] = scale * rows[0][1 + row][x] /
                                (sqrtf(rows[0][0][x]) * sqrtf(rows[0][1 + vectors + row][x]));
    }
}

template <class T> __global__ void __launch_bounds__(threads)
    channels_in_slices(Planes<T> f, const float *v, float scale, float *out) {
    constexpr int slices = strip_slices;
    __shared__ float rows[slices][kept][strip];
    const int thread = static_cast<int>(threadIdx.x), slice = thread / strip,
              place = thread % strip;
    const int64_t b = blockIdx.y, start = static_cast<int64_t>(blockIdx.x) * strip;
    const int64_t left = f.pixels - start;
    const T *features = f.data + b * f.batch_stride + start + (place < left ? place : 0);
    Sums sums[1];
    for (int64_t c = slice; c < f.channels; c += slices) {
        const float factors[vectors] = {v[c], v[f.channels + c]};
        sums[0].add(to_float(features[c * f.channel_stride]), factors);
        sums[0].add_own(factors);
    }
    meet(rows, true, slice, place, sums, scale, left, f.pixels,
         out + b * vectors * f.pixels + start);
}

// CHANNELS at once: neighbours, so that the numbers of a vector come with one load.
template <class T, int CHANNELS> __global__ void __launch_bounds__(threads)
    wide_slices(Planes<T> f, const float *v, float scale, float *out) {
    constexpr int V = 16 / static_cast<int>(sizeof(T)), across = strip / V;
    constexpr int slices = threads / across;
    __shared__ float rows[strip_slices][kept][strip];
    const int thread = static_cast<int>(threadIdx.x);
    const int slice = thread / across, place = thread % across * V;
    const int64_t b = blockIdx.y, start = static_cast<int64_t>(blockIdx.x) * strip;
    const int64_t left = f.pixels - start; // whole vectors
    const T *features = f.data + b * f.batch_stride + start + (place < left ? place : 0);
    Sums sums[V];
    for (int64_t c = slice * CHANNELS; c < f.channels; c += slices * CHANNELS) {
        Elements<T, V> values[CHANNELS];
        Elements<float, CHANNELS> factors[vectors];
#pragma unroll
        for (int n = 0; n < CHANNELS; ++n) {
            values[n] = load<T, V>(features + (c + n) * f.channel_stride);
        }
#pragma unroll
        for (int p = 0; p < vectors; ++p) {
            factors[p] = load<float, CHANNELS>(v + p * f.channels + c);
        }
#pragma unroll
        for (int n = 0; n < CHANNELS; ++n) {
            const float both[vectors] = {factors[0].at[n], factors[1].at[n]};
#pragma unroll
            for (int i = 0; i < V; ++i) { sums[i].add(to_float(values[n].at[i]), both); }
            sums[0].add_own(both);
        }
    }
    for (int bit = across; bit < 32; bit *= 2) { // the slices of a warp
#pragma unroll
        for (int i = 0; i < V; ++i) {
            sums[i].square += __shfl_xor_sync(all_lanes, sums[i].square, bit);
            for (int p = 0; p < vectors; ++p) {
                sums[i].dot[p] += __shfl_xor_sync(all_lanes, sums[i].dot[p], bit);
            }
        }
        for (int p = 0; p < vectors; ++p) {
            sums[0].own[p] += __shfl_xor_sync(all_lanes, sums[0].own[p], bit);
        }
    }
    meet(rows, thread % 32 < across, thread / 32, place, sums, scale, left, f.pixels,
         out + b * vectors * f.pixels + start);
}

template <class T> void climb(ladder::Ladder &all, int64_t batch, int64_t channels, int64_t side) {
    constexpr double scale = 20.0;
    const int64_t pixels = side * side;
    const auto features = ladder::random_values<T>(batch * channels * pixels, -1.0, 2.0, 1);
    const auto rows = ladder::random_values<float>(vectors * channels, -1.0, 2.0, 2);
    const ladder::Device<T> on_device(features);
    const ladder::Device<float> rows_there(rows), out(batch * vectors * pixels);
    float *result = out.data();
    const float *v = rows_there.data();
    ladder::Expected expected{result, std::vector<double>(out.size()), scale, 1e-5};
    ladder::for_each(batch * side, [&](int64_t i) { // a row of pixels, channel by channel
        const int64_t b = i / side, first = i % side * side;
        std::vector<double> square(side), dot[vectors];
        double own[vectors] = {};
        for (auto &each : dot) { each.resize(side); }
        for (int64_t c = 0; c < channels; ++c) {
            const T *plane = features.data() + (b * channels + c) * pixels + first;
            for (int p = 0; p < vectors; ++p) {
                const double factor = double(rows[p * channels + c]);
                own[p] += factor * factor;
                for (int64_t x = 0; x < side; ++x) {
                    dot[p][x] += factor * double(ladder::wide(plane[x]));
                }
            }
            for (int64_t x = 0; x < side; ++x) {
                const double value = double(ladder::wide(plane[x]));
                square[x] += value * value;
            }
        }
        for (int p = 0; p < vectors; ++p) {
            for (int64_t x = 0; x < side; ++x) {
                expected.values[(b * vectors + p) * pixels + first + x] =
                    scale * dot[p][x] / std::sqrt(square[x] * own[p]);
            }
        }
    });
    const Planes<T> f{on_device.data(), batch, channels, pixels, channels * pixels, pixels};
    const CosineMatchArgs args{{reinterpret_cast<const float *>(f.data), batch, channels, side,
                                side, f.batch_stride, f.channel_stride, ladder::dtype_of<T>},
                               {v, 1, vectors, channels, 0, channels},
                               result,
                               scale,
                               false,
                               1};
    const unsigned b = static_cast<unsigned>(batch), strips = divided_up(pixels, strip);
    const auto step = [&](const char *name, auto kernel, dim3 grid, int block) -> ladder::Step {
        return {name,
                [=] {
                    launch(kernel, grid, dim3(static_cast<unsigned>(block)), 0, f, v,
                           static_cast<float>(scale), result);
                },
                &expected, 0.0};
    };
    const double bytes = double(sizeof(T)) * double(features.size()) + 4.0 * double(rows.size()) +
                         4.0 * double(out.size());
    const std::string name = std::to_string(batch) + "x" + std::to_string(channels) + "x" +
                             std::to_string(side) + "x" + std::to_string(side);
    all.climb(
        {name, ladder::name_of<T>, bytes, 2.0 * (vectors + 1) * double(features.size())},
        {step("one thread a result", one_thread_a_result<T>,
              dim3(divided_up(pixels, 128), vectors, b), 128),
         step("both vectors at once", vectors_at_once<T>, dim3(divided_up(pixels, 128), b), 128),
         step("channels in slices", channels_in_slices<T>, dim3(strips, b), threads),
         step("16 bytes a load", wide_slices<T, 1>, dim3(strips, b), threads),
         step("four channels at once", wide_slices<T, 4>, dim3(strips, b), threads),
         {"shipped: cuda::cosine_match", [=] { cuda::cosine_match(args); }, &expected, 0.0}});
}

} // namespace

int main(int argc, char **argv) {
    return ladder::run("cosine_match", argc, argv, [](ladder::Ladder &all) {
        if (ladder::emulated) {
            climb<float>(all, 2, 24, 12);
            climb<__half>(all, 2, 24, 12);
            return;
        }
        for (const int64_t batch : {1, 16}) { // in the L2 of a large GPU, and beyond it
            climb<float>(all, batch, 1024, 60);
            climb<__half>(all, batch, 1024, 60);
        }
    });
}
