#include "cosine_match/cosine_match.h"

#include "cuda/cosine.h"

namespace fsseg {
namespace cuda {

namespace {

// The softmax of up to most_vectors scores is made where they are; of more by a second kernel.
template <class S> __global__ void __launch_bounds__(S::threads, 512 / S::threads)
    match(Planes<typename S::Element> f, RowsView prototypes, Strips split, float scale,
          bool softmax, float *out, int *report) {
    __shared__ StripMemory<S, true> memory;
    const StripPlace place = strip_place<S>(split);
    const auto in = strip_input(f, prototypes, place, split.size);
    strip_sums<S, true>(in, memory);
    make_cosines<S>(in, memory, report);

    const int x = static_cast<int>(threadIdx.x);
    if (x >= min(S::pixels, in.left)) { return; }
    float score[S::vectors];
#pragma unroll
    for (int p = 0; p < S::vectors; ++p) { score[p] = scale * memory.part[0][p * S::pixels + x]; }
    if (softmax) {
        float top = score[0], total = 0.0f;
#pragma unroll
        for (int p = 1; p < S::vectors; ++p) { top = p < in.count ? fmaxf(top, score[p]) : top; }
#pragma unroll
        for (int p = 0; p < S::vectors; ++p) {
            score[p] = expf(score[p] - top);
            total += p < in.count ? score[p] : 0.0f;
        }
#pragma unroll
        for (int p = 0; p < S::vectors; ++p) { score[p] /= total; }
    }
    float *at = out + (place.batch * prototypes.rows + place.first) * f.pixels + place.start + x;
#pragma unroll
    for (int p = 0; p < S::vectors; ++p) {
        if (p < in.count) { at[p * f.pixels] = score[p]; }
    }
}

// In place on [batch, vectors, pixels]; a thread for each pixel.
__global__ void softmax_of_many(float *scores, int64_t all, int64_t pixels, int64_t vectors) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= all) { return; }
    float *at = scores + i / pixels * vectors * pixels + i % pixels;
    float top = at[0], total = 0.0f;
    for (int64_t p = 1; p < vectors; ++p) { top = fmaxf(top, at[p * pixels]); }
    for (int64_t p = 0; p < vectors; ++p) { total += expf(at[p * pixels] - top); }
    for (int64_t p = 0; p < vectors; ++p) { at[p * pixels] = expf(at[p * pixels] - top) / total; }
}

} // namespace

Status cosine_match(const CosineMatchArgs &args) {
    const float scale = static_cast<float>(args.scale);
    return with_type(args.features.dtype, [&](auto zero) {
        const auto f = planes_of<decltype(zero)>(args.features);
        with_strips(f, args.prototypes, [&](auto strip, const Strips &split, unsigned blocks) {
            launch(match<decltype(strip)>, dim3(blocks), dim3(strip.threads), 0, f, args.prototypes,
                   split, scale, args.softmax && split.groups == 1, args.out, current().report());
            if (args.softmax && split.groups > 1) {
                const int64_t all = f.batch * f.pixels;
                launch(softmax_of_many, dim3(divided_up(all, 128)), dim3(128), 0, args.out, all,
                       f.pixels, args.prototypes.rows);
            }
        });
        return Status::ok;
    });
}

} // namespace cuda
} // namespace fsseg
