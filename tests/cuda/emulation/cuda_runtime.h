// CUDA for a processor without a GPU, so that the .cu files compile with a C++ compiler and their logic is
// tested where no GPU is: device memory is the host's, streams are in order at once, the blocks of a grid run
// one after another, and the threads of a block are fibers that change places at barriers. What it finds:
// wrong results, reads outside of arrays (with AddressSanitizer), barriers that not all threads reach, and
// (FSSEG_EMULATED_ORDER=backward) results that depend on the order of threads. What it cannot find: anything
// about speed, memory of the real device, or its compiler.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "runtime_api.h"

#include <algorithm>
#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static // blocks run one after another

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
#define FSSEG_VECTOR2(type, name)                                                                  \
    struct alignas(2 * sizeof(type)) name##2 { type x, y; };                                       \
    static inline name##2 make_##name##2(type x, type y) { return {x, y}; }
#define FSSEG_VECTOR4(type, name)                                                                  \
    struct alignas(sizeof(type) == 8 ? 16 : 4 * sizeof(type)) name##4 { type x, y, z, w; };        \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
FSSEG_VECTOR2(float, float)
FSSEG_VECTOR4(float, float)
FSSEG_VECTOR2(int, int)
FSSEG_VECTOR4(int, int)
FSSEG_VECTOR2(unsigned, uint)
FSSEG_VECTOR4(unsigned, uint)
FSSEG_VECTOR2(double, double)
FSSEG_VECTOR2(unsigned char, uchar)
FSSEG_VECTOR4(unsigned char, uchar)
#undef FSSEG_VECTOR2
#undef FSSEG_VECTOR4

namespace emulation {

struct Thread {
    uint3 thread{}, block{};
    dim3 block_size, grid_size;
};
extern Thread *self; // the running one

// Runs kernel() once for every thread of the grid; `call` with `state` is one thread's work.
void run_grid(dim3 grid, dim3 block, size_t shared, void (*call)(void *), void *state);
void *dynamic_shared();

void block_barrier();
int block_barrier_count(int value); // of threads whose value is not 0
// Posts `size` bytes of this lane, waits for all lanes of the mask, and returns all 32 posted slots (64 bytes
// each), which stay valid until the second meeting after this one.
const unsigned char *warp_meet(unsigned mask, const void *value, size_t size);
constexpr size_t slot = 64;

template <class T> T from_lane(unsigned mask, T value, int lane) {
    static_assert(sizeof(T) <= slot, "too large for a lane");
    const unsigned char *all = warp_meet(mask, &value, sizeof(T));
    T other;
    memcpy(&other, all + slot * static_cast<size_t>(lane), sizeof(T));
    return other;
}

int lane();

// Now, or with each launch of the graph that records the stream.
template <class... P, class... A> void launch(cudaStream_t stream, void (*kernel)(P...), dim3 grid,
                                              dim3 block, size_t shared, A &&...given) {
    std::tuple<P...> arguments(std::forward<A>(given)...);
    struct State {
        void (*kernel)(P...);
        std::tuple<P...> *arguments;
    };
    enqueue_launch(stream, [=]() mutable {
        State state{kernel, &arguments};
        run_grid(
            grid, block, shared,
            [](void *p) {
                const State &s = *static_cast<State *>(p);
                std::apply(s.kernel, *s.arguments);
            },
            &state);
    });
}

} // namespace emulation

#define threadIdx (emulation::self->thread)
#define blockIdx (emulation::self->block)
#define blockDim (emulation::self->block_size)
#define gridDim (emulation::self->grid_size)
constexpr int warpSize = 32;

static inline void __syncthreads() { emulation::block_barrier(); }
static inline int __syncthreads_or(int p) { return emulation::block_barrier_count(p) > 0; }
static inline int __syncthreads_count(int p) { return emulation::block_barrier_count(p); }
static inline void __syncwarp(unsigned mask = ~0u) { emulation::warp_meet(mask, nullptr, 0); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}

template <class T> T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
    const int own = emulation::lane();
    return emulation::from_lane(mask, value, (own & ~(width - 1)) | (lane & (width - 1)));
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    const int own = emulation::lane(), other = own ^ bits;
    return emulation::from_lane(mask, value,
                                (other & ~(width - 1)) == (own & ~(width - 1)) ? other : own);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
    const int own = emulation::lane(), other = own + static_cast<int>(by);
    return emulation::from_lane(mask, value,
                                (other & ~(width - 1)) == (own & ~(width - 1)) ? other : own);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
    const int own = emulation::lane(), other = own - static_cast<int>(by);
    return emulation::from_lane(
        mask, value, other >= 0 && (other & ~(width - 1)) == (own & ~(width - 1)) ? other : own);
}
static inline unsigned __ballot_sync(unsigned mask, int p) {
    const unsigned char *all = emulation::warp_meet(mask, &p, sizeof p);
    unsigned found = 0;
    for (int i = 0; i < 32; ++i) {
        int other;
        memcpy(&other, all + emulation::slot * static_cast<size_t>(i), sizeof other);
        if ((mask >> i & 1u) != 0 && other != 0) { found |= 1u << i; }
    }
    return found;
}
static inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
static inline int __all_sync(unsigned mask, int p) { return __ballot_sync(mask, p) == mask; }
static inline unsigned __activemask() { return ~0u; }

template <class T> T fsseg_atomic(T *p, T next) {
    const T before = *p;
    *p = next;
    return before;
}
static inline int atomicAdd(int *p, int v) { return fsseg_atomic(p, *p + v); }
static inline unsigned atomicAdd(unsigned *p, unsigned v) { return fsseg_atomic(p, *p + v); }
static inline int atomicOr(int *p, int v) { return fsseg_atomic(p, *p | v); }
static inline unsigned atomicOr(unsigned *p, unsigned v) { return fsseg_atomic(p, *p | v); }
static inline int atomicMax(int *p, int v) { return fsseg_atomic(p, std::max(*p, v)); }
static inline unsigned atomicMax(unsigned *p, unsigned v) {
    return fsseg_atomic(p, std::max(*p, v));
}
static inline int atomicMin(int *p, int v) { return fsseg_atomic(p, std::min(*p, v)); }
static inline unsigned atomicMin(unsigned *p, unsigned v) {
    return fsseg_atomic(p, std::min(*p, v));
}
static inline int atomicExch(int *p, int v) { return fsseg_atomic(p, v); }
static inline unsigned atomicInc(unsigned *p, unsigned top) {
    return fsseg_atomic(p, *p >= top ? 0u : *p + 1u);
}

template <class T> T __ldg(const T *p) { return *p; }
template <class T> T __ldcs(const T *p) { return *p; }
template <class T> void __stcs(T *p, T v) { *p = v; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline float __saturatef(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }
template <class To, class From> To fsseg_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "of one size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline int __float_as_int(float x) { return fsseg_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return fsseg_bits<unsigned>(x); }
static inline float __int_as_float(int x) { return fsseg_bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return fsseg_bits<float>(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __float2int_rn(float x) { return static_cast<int>(lrintf(x)); }
static inline int __float2int_rd(float x) { return static_cast<int>(floorf(x)); }
static inline int __double2int_rd(double x) { return static_cast<int>(floor(x)); }
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned which) {
    const uint64_t bytes = static_cast<uint64_t>(y) << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        result |= static_cast<unsigned>(bytes >> 8 * (which >> 4 * i & 7u) & 255u) << 8 * i;
    }
    return result;
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
    return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> (by & 31u));
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32);
}
static inline uint64_t __umul64hi(uint64_t a, uint64_t b) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(a) * b) >> 64);
}
using std::max;
using std::min;
template <class A, class B> std::common_type_t<A, B> min(A a, B b) {
    return std::min<std::common_type_t<A, B>>(a, b);
}
template <class A, class B> std::common_type_t<A, B> max(A a, B b) {
    return std::max<std::common_type_t<A, B>>(a, b);
}
