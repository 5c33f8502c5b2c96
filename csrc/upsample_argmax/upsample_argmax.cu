#include "upsample_argmax/upsample_argmax.h"

#include "cuda/launch.h"

namespace fsseg {
namespace cuda {

Status upsample_argmax(const UpsampleArgmaxArgs &) { return Status::no_device; }

} // namespace cuda
} // namespace fsseg
