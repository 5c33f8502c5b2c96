#include "core/dispatch.h"

#include <atomic>
#include <initializer_list>

namespace fsseg {

namespace {

bool processor_has(Level level) {
    switch (level) {
    case Level::generic: return true;
#if FSSEG_HAVE_AVX2
    case Level::avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#if FSSEG_HAVE_AVX512
    case Level::avx512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#if FSSEG_HAVE_NEON
    case Level::neon: return true; // part of every aarch64 processor
#endif
    default: return false;
    }
}

std::atomic<Level> &in_use() {
    static std::atomic<Level> level{best_level()};
    return level;
}

} // namespace

const char *level_name(Level level) {
    switch (level) {
    case Level::avx2: return "avx2";
    case Level::avx512: return "avx512";
    case Level::neon: return "neon";
    default: return "generic";
    }
}

bool level_built(Level level) {
    switch (level) {
    case Level::avx2: return FSSEG_HAVE_AVX2 != 0;
    case Level::avx512: return FSSEG_HAVE_AVX512 != 0;
    case Level::neon: return FSSEG_HAVE_NEON != 0;
    default: return true;
    }
}

bool level_usable(Level level) { return level_built(level) && processor_has(level); }

Level best_level() {
    for (Level level : {Level::avx512, Level::avx2, Level::neon}) {
        if (level_usable(level)) { return level; }
    }
    return Level::generic;
}

Level current_level() { return in_use().load(std::memory_order_relaxed); }

bool set_level(Level level) {
    if (!level_usable(level)) { return false; }
    in_use().store(level, std::memory_order_relaxed);
    return true;
}

} // namespace fsseg
