#include "core/bf16.h"

#include "core/dispatch.h"

#include <atomic>
#include <initializer_list>

#if FSSEG_HAVE_AVX512 && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fsseg {

namespace {

#if FSSEG_HAVE_AVX512
bool processor_has_dots() {
#if defined(__linux__)
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 5 & 1) != 0;
#else
    return false;
#endif
}

// Tiles are 8 KB of state that Linux gives to a process only when it asks.
bool tiles_allowed() {
#if FSSEG_AMX_EMULATED
    return true;
#elif defined(__linux__)
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) { return false; }
    const bool processor = (d >> 22 & 1) != 0 && (d >> 24 & 1) != 0; // AMX_BF16, AMX_TILE
    constexpr long request_permission = 0x1023, tile_data = 18;
    return processor && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}
#endif

bool exists(Bf16 unit) {
#if FSSEG_HAVE_AVX512
    static const bool dots = processor_has_dots(), tiles = tiles_allowed();
    if (unit == Bf16::avx512) { return dots; }
    if (unit == Bf16::amx) { return tiles; }
#endif
    return unit == Bf16::rounding;
}

std::atomic<Bf16> &most() {
    static std::atomic<Bf16> unit{Bf16::amx};
    return unit;
}

} // namespace

const char *bf16_name(Bf16 unit) {
    switch (unit) {
    case Bf16::avx512: return "avx512-bf16";
    case Bf16::amx: return "amx";
    default: return "rounding";
    }
}

bool bf16_usable(Bf16 unit) {
    return unit == Bf16::rounding || (current_level() == Level::avx512 && exists(unit));
}

Bf16 current_bf16() {
    const Bf16 limit = most().load(std::memory_order_relaxed);
    for (Bf16 unit : {Bf16::amx, Bf16::avx512}) {
        if (unit <= limit && bf16_usable(unit)) { return unit; }
    }
    return Bf16::rounding;
}

bool set_bf16(Bf16 unit) {
    if (!bf16_usable(unit)) { return false; }
    most().store(unit, std::memory_order_relaxed);
    return true;
}

} // namespace fsseg
