#include "online_mlp/online_mlp.h"

#include "cuda/launch.h"

namespace fsseg {
namespace cuda {

Status online_mlp_fit(const OnlineMlpFitArgs &) { return Status::no_device; }
Status online_mlp_scores(const OnlineMlpScoresArgs &) { return Status::no_device; }

} // namespace cuda
} // namespace fsseg
