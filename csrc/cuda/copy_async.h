// Copies of 16 bytes from device memory to shared memory that go on while the thread does other things
// (cp.async, from sm_80 on; on sm_75 they are over at once). Copies belong to the group that the thread's
// next copies_end closes; copies_wait(n) waits until all but the last n groups of the thread are there.
// Other threads see them after a barrier behind that.
#pragma once

#include "cuda/launch.h"

#if defined(FSSEG_CUDA_EMULATED)
#include <map>
#include <vector>
#endif

namespace fsseg {
namespace cuda {

#if defined(FSSEG_CUDA_EMULATED)
struct EmulatedCopies { // done as late as may be: a missing wait is found
    struct Copy {
        void *to;
        const void *from;
    };
    std::vector<std::vector<Copy>> groups{1};
    static EmulatedCopies &own() {
        static std::map<const void *, EmulatedCopies> all;
        return all[emulation::self];
    }
};
inline void copy_async16(void *to, const void *from) {
    EmulatedCopies::own().groups.back().push_back({to, from});
}
inline void copies_end() { EmulatedCopies::own().groups.emplace_back(); }
inline void copies_wait(int left) {
    std::vector<std::vector<EmulatedCopies::Copy>> &groups = EmulatedCopies::own().groups;
    while (static_cast<int>(groups.size()) - 1 > left) {
        for (const EmulatedCopies::Copy &copy : groups.front()) { memcpy(copy.to, copy.from, 16); }
        groups.erase(groups.begin());
    }
}
#else
__device__ __forceinline__ void copy_async16(void *to, const void *from) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    const unsigned shared = static_cast<unsigned>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(from) : "memory");
#else
    *static_cast<uint4 *>(to) = *static_cast<const uint4 *>(from);
#endif
}
__device__ __forceinline__ void copies_end() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
__device__ __forceinline__ void copies_wait(int left) { // at least: more than 2 are taken as 2
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    if (left <= 0) {
        asm volatile("cp.async.wait_group 0;" ::: "memory");
    } else if (left == 1) {
        asm volatile("cp.async.wait_group 1;" ::: "memory");
    } else {
        asm volatile("cp.async.wait_group 2;" ::: "memory");
    }
#endif
}
#endif

} // namespace cuda
} // namespace fsseg
