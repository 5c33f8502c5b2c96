// What multiplies bfloat16 here, beside the SIMD level: asked for by precision "bf16" alone.
#pragma once

namespace fsseg {

enum class Bf16 : int {
    rounding = 0, // no instruction: float32 products of rounded numbers
    avx512 = 1,   // dot products of pairs (AVX512_BF16), at the AVX-512 level
    amx = 2,      // tiles (AMX_BF16), at the AVX-512 level; the system was asked for permission
};
constexpr int bf16_count = 3;

const char *bf16_name(Bf16 unit);
bool bf16_usable(Bf16 unit); // by this processor and system, at the SIMD level in use
Bf16 current_bf16();         // the best usable one, or a lesser one that was chosen
bool set_bf16(Bf16 unit);    // false: not usable; nothing changed

} // namespace fsseg
