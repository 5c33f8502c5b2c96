#include "nearest/nearest.h"

#include "core/bf16.h"
#include "nearest/blocks.h"
#include "nearest/fp32.h"
#if defined(FSSEG_SIMD_AVX512)
#include "nearest/amx.h"
#include "nearest/pair_dots.h"
#endif

namespace fsseg {
namespace FSSEG_NS {

Status nearest(const NearestArgs &args) {
    if (!args.bf16) { return nearest_with<NearestFp32<false>>(args); }
#if defined(FSSEG_SIMD_AVX512)
    if (current_bf16() == Bf16::amx) { return nearest_with<NearestTiles>(args); }
    if (current_bf16() == Bf16::avx512) { return nearest_with<NearestPairs>(args); }
#endif
    return nearest_with<NearestFp32<true>>(args);
}

Status nearest_pack(const NearestPackArgs &args) {
    if (!args.bf16) { return pack_with<NearestFp32<false>>(args); }
#if defined(FSSEG_SIMD_AVX512)
    if (current_bf16() == Bf16::amx) { return pack_with<NearestTiles>(args); }
    if (current_bf16() == Bf16::avx512) { return pack_with<NearestPairs>(args); }
#endif
    return pack_with<NearestFp32<true>>(args);
}

} // namespace FSSEG_NS
} // namespace fsseg
