#include "preprocess/preprocess.h"

#include "cuda/launch.h"

namespace fsseg {
namespace cuda {

Status preprocess(const PreprocessArgs &) { return Status::no_device; }

} // namespace cuda
} // namespace fsseg
