// What the op cases do not ask of preprocess and upsample_argmax on CUDA: results of 16 bits, and logits that are
// not finite wherever they are.
#include "cuda/context.h"
#include "cuda/elements.h"
#include "preprocess/preprocess.h"
#include "upsample_argmax/upsample_argmax.h"

#include <cmath>
#include <cstdio>
#include <vector>

using namespace fsseg;

namespace {

template <class Args>
int report_of(cuda::Context &context, Status (*op)(const Args &), const Args &args) {
    {
        const cuda::Scope scope(context);
        op(args);
    }
    return context.take_report();
}

// Of how many results the 16 bits are not the rounded float32.
int differences(cuda::Context &context) {
    constexpr int64_t height = 70, width = 91, tall = 40, wide = 37;
    std::vector<uint8_t> image(height * width * 3);
    for (size_t i = 0; i < image.size(); ++i) {
        image[i] = static_cast<uint8_t>(i * i * 7 + i / 5);
    }
    std::vector<float> floats(3 * tall * wide);
    std::vector<__half> halves(floats.size());
    std::vector<__nv_bfloat16> brains(floats.size());
    PreprocessArgs args{image.data(),
                        height,
                        width,
                        width * 3,
                        3,
                        33,
                        wide,
                        tall,
                        wide,
                        {0.485, 0.456, 0.406},
                        {0.229, 0.224, 0.225},
                        floats.data(),
                        1};
    report_of(context, cuda::preprocess, args);
    args.out_dtype = DType::f16;
    args.out = reinterpret_cast<float *>(halves.data());
    report_of(context, cuda::preprocess, args);
    args.out_dtype = DType::bf16;
    args.out = reinterpret_cast<float *>(brains.data());
    report_of(context, cuda::preprocess, args);
    int count = 0;
    for (size_t i = 0; i < floats.size(); ++i) {
        count += halves[i].bits != __float2half_rn(floats[i]).bits;
        count += brains[i].bits != __float2bfloat16_rn(floats[i]).bits;
    }
    return count;
}

// How many logits that are not finite stay unnoticed; the image does not cover all of the grid.
int unnoticed(cuda::Context &context) {
    constexpr int64_t planes = 3, side = 28, cells = side * side;
    std::vector<float> logits(2 * planes * cells, 0.5f);
    std::vector<uint8_t> labels(2 * 33 * 40);
    const UpsampleArgmaxArgs args{{logits.data(), 2, planes, side, side, planes * cells, cells},
                                  nullptr,
                                  21.0,
                                  15.5,
                                  33,
                                  40,
                                  labels.data(),
                                  1};
    int count = report_of(context, cuda::upsample_argmax, args) != 0 ? 1 : 0;
    for (const size_t place : {size_t{0}, size_t{17}, size_t{cells * 4 - 1}, logits.size() - 1}) {
        for (const float value : {NAN, INFINITY, -INFINITY}) {
            logits[place] = value;
            count += report_of(context, cuda::upsample_argmax, args) != cuda::not_finite;
            logits[place] = 0.5f;
        }
    }
    return count;
}

} // namespace

int main() {
    cuda::Context context(0, nullptr);
    const int wrong = differences(context), missed = unnoticed(context);
    printf("%s preprocess to 16 bits\n", wrong == 0 ? "passed" : "FAILED");
    printf("%s upsample_argmax of what is not finite\n", missed == 0 ? "passed" : "FAILED");
    return wrong + missed == 0 ? 0 : 1;
}
