// One op, several implementations: which SIMD levels were built, which run here, which is in use.
#pragma once

#include "core/status.h"

// setup.py defines FSSEG_HAVE_<LEVEL> for each level that it built beside generic.
#ifndef FSSEG_HAVE_AVX2
#define FSSEG_HAVE_AVX2 0
#endif
#ifndef FSSEG_HAVE_AVX512
#define FSSEG_HAVE_AVX512 0
#endif
#ifndef FSSEG_HAVE_NEON
#define FSSEG_HAVE_NEON 0
#endif

namespace fsseg {

enum class Level : int { generic = 0, avx2 = 1, avx512 = 2, neon = 3 };
constexpr int level_count = 4;

const char *level_name(Level level);
bool level_built(Level level);  // compiled into this library
bool level_usable(Level level); // built, and this processor has the instructions
Level best_level();
Level current_level();
bool set_level(Level level); // false: not usable; nothing changed

} // namespace fsseg

#if FSSEG_HAVE_AVX2
#define FSSEG_CASE_AVX2(name)                                                                      \
    case Level::avx2: return avx2::name(args);
#else
#define FSSEG_CASE_AVX2(name)
#endif
#if FSSEG_HAVE_AVX512
#define FSSEG_CASE_AVX512(name)                                                                    \
    case Level::avx512: return avx512::name(args);
#else
#define FSSEG_CASE_AVX512(name)
#endif
#if FSSEG_HAVE_NEON
#define FSSEG_CASE_NEON(name)                                                                      \
    case Level::neon: return neon::name(args);
#else
#define FSSEG_CASE_NEON(name)
#endif
#ifdef FSSEG_CUDA
#define FSSEG_DECLARE_CUDA(name, Args)                                                             \
    namespace cuda {                                                                               \
    Status name(const Args &args);                                                                 \
    }
#define FSSEG_ON_CUDA(name)                                                                        \
    if (device == Device::cuda) { return cuda::name(args); }
#else
#define FSSEG_DECLARE_CUDA(name, Args)
#define FSSEG_ON_CUDA(name)
#endif

// FSSEG_OP(name, Args): stands at the end of <op>.h, inside namespace fsseg. Declares the op at every
// level (<op>.cpp defines it in namespace FSSEG_NS) and its CUDA twin, and makes `run_<op>`, which
// picks the device, then the level in use. With FSSEG_CUDA each op has an <op>.cu that defines
// cuda::<op> on device pointers; one that has no kernel yet returns Status::no_device.
// `static inline`: internal linkage, so that no two SIMD levels share the symbol.
#define FSSEG_OP(name, Args)                                                                       \
    namespace generic {                                                                            \
    Status name(const Args &args);                                                                 \
    }                                                                                              \
    namespace avx2 {                                                                               \
    Status name(const Args &args);                                                                 \
    }                                                                                              \
    namespace avx512 {                                                                             \
    Status name(const Args &args);                                                                 \
    }                                                                                              \
    namespace neon {                                                                               \
    Status name(const Args &args);                                                                 \
    }                                                                                              \
    FSSEG_DECLARE_CUDA(name, Args)                                                                 \
    static inline Status run_##name(Device device, const Args &args) {                             \
        FSSEG_ON_CUDA(name)                                                                        \
        if (device != Device::cpu) { return Status::no_device; }                                   \
        switch (current_level()) {                                                                 \
            FSSEG_CASE_AVX2(name)                                                                  \
            FSSEG_CASE_AVX512(name)                                                                \
            FSSEG_CASE_NEON(name)                                                                  \
        default: return generic::name(args);                                                       \
        }                                                                                          \
    }
