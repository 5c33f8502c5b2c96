// csrc/cuda/mma.h and split.h against plain sums: where each element lies in the lanes, and (on a real device)
// whether the tensor cores agree with that. Compiled and run by run.sh.
#include "cuda/split.h"

#include <cmath>
#include <cstdio>
#include <vector>

using namespace fsseg::cuda;

namespace {

constexpr int rows = 16, columns = 16, depth = 16;

// d [16][16] = 3 + a [16][16] b [16 of k][16], in the way that WAY says.
template <class T, int WAY> __global__ void product(const float *a, const float *b, float *d) {
    const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
    constexpr int parts = WAY < 2 ? 1 : 3;
    uint32_t left[parts][4], right[parts][2][2], words[parts];
    for (int i = 0; i < 4; ++i) {
        const float *at = a + (g + i % 2 * 8) * depth + 2 * t + i / 2 * 8;
        if (WAY < 2) {
            words[0] = pair_of(from_float<T>(at[0]), from_float<T>(at[1]));
        } else {
            split<parts>(at[0], at[1], words);
        }
        for (int p = 0; p < parts; ++p) { left[p][i] = words[p]; }
    }
    for (int n = 0; n < 2; ++n) {
        for (int i = 0; i < 2; ++i) {
            const float *at = b + (2 * t + i * 8) * columns + n * 8 + g;
            if (WAY < 2) {
                words[0] = pair_of(from_float<T>(at[0]), from_float<T>(at[columns]));
            } else {
                split<parts>(at[0], at[columns], words);
            }
            for (int p = 0; p < parts; ++p) { right[p][n][i] = words[p]; }
        }
    }
    float sums[2][4];
    for (int n = 0; n < 2; ++n) {
        for (int i = 0; i < 4; ++i) { sums[n][i] = 3.0f; }
    }
    if constexpr (WAY == 0) {
        for (int n = 0; n < 2; ++n) { mma<T>(sums[n], left[0], right[0][n]); }
    } else if constexpr (WAY == 1) {
        for (int n = 0; n < 2; ++n) { mma_by_hand<T>(sums[n], left[0], right[0][n]); }
    } else if constexpr (WAY == 2) {
        products<2>(sums, left, right);
    } else {
        split_by_hand<2>(sums, left, right);
    }
    for (int n = 0; n < 2; ++n) {
        for (int i = 0; i < 4; ++i) {
            d[(g + i / 2 * 8) * columns + n * 8 + 2 * t + i % 2] = sums[n][i];
        }
    }
}

// A number that a T is, or (exact: false) any float.
float number(int seed, bool exact) {
    const uint32_t bits = (static_cast<uint32_t>(seed) + 1u) * 2654435761u;
    const float x = static_cast<float>(static_cast<int>(bits >> 8) - (1 << 23)) / (1 << 21);
    return exact ? std::round(x * 16.0f) / 16.0f : x;
}

template <class T, int WAY> int failures(const char *name, float limit) {
    float *memory = nullptr;
    check(cudaMalloc(&memory, 3 * 256 * sizeof(float)), "cudaMalloc");
    std::vector<float> numbers(3 * 256);
    for (int i = 0; i < 512; ++i) { numbers[static_cast<size_t>(i)] = number(i, WAY < 2); }
    const size_t bytes = numbers.size() * sizeof(float);
    check(cudaMemcpyAsync(memory, numbers.data(), bytes, cudaMemcpyHostToDevice), "copy");
    const float *a = memory, *b = memory + 256;
    launch(product<T, WAY>, dim3(1), dim3(32), 0, a, b, memory + 512);
    check(cudaMemcpyAsync(numbers.data(), memory, bytes, cudaMemcpyDeviceToHost), "copy");
    check(cudaDeviceSynchronize(), "the kernel");
    check(cudaFree(memory), "cudaFree");
    int wrong = 0;
    for (int i = 0; i < rows; ++i) {
        for (int j = 0; j < columns; ++j) {
            double sum = 3.0;
            for (int k = 0; k < depth; ++k) {
                sum += static_cast<double>(numbers[static_cast<size_t>(i * depth + k)]) *
                       static_cast<double>(numbers[static_cast<size_t>(256 + k * columns + j)]);
            }
            const double found =
                static_cast<double>(numbers[static_cast<size_t>(512 + i * columns + j)]);
            if (!(std::fabs(found - sum) <= static_cast<double>(limit))) { ++wrong; }
        }
    }
    std::printf("%s %s\n", wrong == 0 ? "passed" : "FAILED", name);
    return wrong;
}

} // namespace

int main() {
    Context context(0, nullptr);
    const Scope scope(context);
    int wrong = 0;
    wrong += failures<__nv_bfloat16, 0>("mma of bfloat16", 2e-5f);
    wrong += failures<__half, 0>("mma of half", 2e-5f);
    wrong += failures<__nv_bfloat16, 1>("mma of bfloat16 by hand", 2e-5f);
    wrong += failures<__half, 1>("mma of half by hand", 2e-5f);
    wrong += failures<__nv_bfloat16, 2>("products of three parts", 1e-4f);
    wrong += failures<__nv_bfloat16, 3>("products of three parts by hand", 1e-4f);
    return wrong == 0 ? 0 : 1;
}
