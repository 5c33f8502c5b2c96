#include "weighted_pool/weighted_pool.h"

#include "cuda/launch.h"

namespace fsseg {
namespace cuda {

Status weighted_pool(const WeightedPoolArgs &) { return Status::no_device; }

} // namespace cuda
} // namespace fsseg
