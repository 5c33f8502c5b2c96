#include "soft_pool/soft_pool.h"

#include "cuda/launch.h"

namespace fsseg {
namespace cuda {

Status soft_pool(const SoftPoolArgs &) { return Status::no_device; }

} // namespace cuda
} // namespace fsseg
