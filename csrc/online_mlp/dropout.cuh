// online_mlp/dropout.h once more, for a device.
#pragma once

#include "cuda/launch.h"

namespace fsseg {
namespace cuda {
namespace mlp {

constexpr uint64_t golden64 = 0x9E3779B97F4A7C15u;
constexpr uint32_t golden32 = 0x9E3779B9u;

__host__ __device__ inline uint64_t mix64(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}
inline uint64_t stream_key(uint64_t seed, uint64_t stream) {
    return mix64(seed + mix64((stream + 1) * golden64));
}
__device__ __forceinline__ uint64_t row_key(uint64_t stream, uint64_t row) {
    return mix64(stream + (row + 1) * golden64);
}
__device__ __forceinline__ uint32_t random_word(uint64_t row, uint32_t index) {
    uint32_t x = index * golden32 + static_cast<uint32_t>(row);
    x = (x ^ (x >> 16)) * 0x7FEB352Du;
    x += static_cast<uint32_t>(row >> 32);
    x = (x ^ (x >> 15)) * 0x846CA68Bu;
    return x ^ (x >> 16);
}

struct Dropout {
    bool on;
    uint32_t threshold; // words below it drop the unit
    float scale;        // of what is kept
};

inline Dropout dropout_of(double probability) {
    const double words = ::floor(probability * 4294967296.0 + 0.5);
    return {probability > 0.0, static_cast<uint32_t>(words < 4294967295.0 ? words : 4294967295.0),
            static_cast<float>(1.0 / (1.0 - probability))};
}

} // namespace mlp
} // namespace cuda
} // namespace fsseg
