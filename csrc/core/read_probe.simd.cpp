#include "core/read_probe.h"

#include "core/simd.h"

namespace fsseg {
namespace FSSEG_NS {

namespace {

template <int STREAMS> float read_all(const float *data, int64_t n) {
    constexpr int each = STREAMS >= 8 ? 1 : 8 / STREAMS; // 8 sums hide the latency of add
    const int64_t part = n / STREAMS / (each * lanes) * (each * lanes);
    vf acc[STREAMS][each];
    for (int s = 0; s < STREAMS; ++s) {
        for (int i = 0; i < each; ++i) { acc[s][i] = zero(); }
    }
    for (int64_t x = 0; x < part; x += each * lanes) {
        for (int s = 0; s < STREAMS; ++s) {
            for (int i = 0; i < each; ++i) {
                acc[s][i] = add(acc[s][i], load(data + s * part + x + i * lanes));
            }
        }
    }
    float total = 0.0f;
    for (int s = 0; s < STREAMS; ++s) {
        for (int i = 0; i < each; ++i) { total += sum(acc[s][i]); }
    }
    for (int64_t x = part * STREAMS; x < n; ++x) { total += data[x]; }
    return total;
}

} // namespace

Status read_probe(const ReadProbeArgs &args) {
    switch (args.streams) {
    case 2: *args.out = read_all<2>(args.data, args.n); break;
    case 4: *args.out = read_all<4>(args.data, args.n); break;
    case 8: *args.out = read_all<8>(args.data, args.n); break;
    default: *args.out = read_all<1>(args.data, args.n); break;
    }
    return Status::ok;
}

} // namespace FSSEG_NS
} // namespace fsseg
