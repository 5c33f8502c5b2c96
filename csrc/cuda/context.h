// What the CUDA twin of an op needs beside its arguments: the caller's stream, scratch memory that belongs to
// that stream, and the word by which kernels report what is wrong with an input. Host code; compiled by either
// compiler.
//
// An op only enqueues work: it returns before the work is done, and reads no result. What kernels find out
// about their inputs stays there until the caller copies a result to the host and asks for it.
#pragma once

#include "core/status.h"

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

namespace fsseg {
namespace cuda {

enum Report : int {
    not_finite =
        1,        // an input holds NaN or infinity, or what Status::not_finite stands for otherwise
    diverged = 2, // of online_mlp_fit
};

// A call of CUDA failed. lost: the device will not answer in this process again.
struct CudaError : std::runtime_error {
    CudaError(cudaError_t code_, const char *what);
    cudaError_t code;
    bool lost;
};

void check(cudaError_t error, const char *what);

// Of one device and stream. Not for several threads at once.
class Context {
  public:
    Context(int device, cudaStream_t stream); // both stay the caller's
    ~Context();
    Context(const Context &) = delete;
    Context &operator=(const Context &) = delete;

    const int device;
    const cudaStream_t stream;
    int processors = 0, capability = 0; // e.g. 132 and 90

    // Memory of the device for the op that runs now; 256-byte aligned, its content is anything. Work of
    // a later op on the same stream may use the same bytes: it comes after. It grows by what an op lacks,
    // so that a warm one allocates nothing. std::bad_alloc: no memory; the next op works.
    void *scratch(size_t bytes);
    template <class T> T *scratch_of(int64_t n) {
        return static_cast<T *>(scratch(static_cast<size_t>(n) * sizeof(T)));
    }

    // One int in the device's memory; kernels add bits of `Report` to it by atomicOr.
    int *report() { return flag_; }
    // Waits for the stream; what was reported since the last time.
    int take_report();
    size_t reserved() const { return reserved_; }        // bytes of scratch memory held
    int64_t allocations() const { return allocations_; } // how often scratch memory grew
    // Asked when the device has no memory left: true where it has made some free.
    std::function<bool()> reclaim;

  private:
    friend class Scope;
    struct Block {
        char *memory;
        size_t bytes, used;
        Block *next;
    };
    void rewind();
    Block *blocks_ = nullptr;
    size_t reserved_ = 0;
    int64_t allocations_ = 0;
    int *flag_ = nullptr;
    int *taken_ = nullptr; // pinned, of the host
};

// Makes a context the one of this thread while an op is enqueued, and its device current.
class Scope {
  public:
    explicit Scope(Context &context);
    ~Scope();
    Scope(const Scope &) = delete;
    Scope &operator=(const Scope &) = delete;

  private:
    Context *before_;
    int device_;
};

Context &current(); // std::logic_error outside of a Scope

} // namespace cuda
} // namespace fsseg
