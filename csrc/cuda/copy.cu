// Not of the hot path: what is copied here should have come contiguous.
#include "cuda/copy.h"

#include "cuda/launch.h"

namespace fsseg {
namespace cuda {

namespace {

struct Layout {
    int64_t size[4], stride[4];
};

template <class T> __global__ void copy(const T *from, T *to, Layout layout, int64_t n) {
    const int64_t all = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += all) {
        int64_t rest = i, place = 0;
        for (int axis = 3; axis >= 0; --axis) {
            place += rest % layout.size[axis] * layout.stride[axis];
            rest /= layout.size[axis];
        }
        to[i] = from[place];
    }
}

template <class T> void run(const CopyArgs &args, const Layout &layout, int64_t n) {
    const int64_t blocks = (n + 255) / 256;
    const unsigned most = static_cast<unsigned>(current().processors) * 8;
    const dim3 grid(blocks < most ? static_cast<unsigned>(blocks) : most);
    launch(copy<T>, grid, dim3(256), 0, static_cast<const T *>(args.from),
           static_cast<T *>(args.to), layout, n);
}

} // namespace

Status copy_strided(const CopyArgs &args) {
    Layout layout;
    int64_t n = 1;
    for (int axis = 0; axis < 4; ++axis) {
        layout.size[axis] = args.size[axis];
        layout.stride[axis] = args.stride[axis];
        n *= args.size[axis];
    }
    if (n == 0) { return Status::ok; }
    switch (args.item) {
    case 1: run<uint8_t>(args, layout, n); break;
    case 2: run<uint16_t>(args, layout, n); break;
    case 4: run<uint32_t>(args, layout, n); break;
    default: run<uint64_t>(args, layout, n); break;
    }
    return Status::ok;
}

} // namespace cuda
} // namespace fsseg
