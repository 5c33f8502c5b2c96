// Compiled only with FSSEG_CUDA.
#ifdef FSSEG_CUDA
#include "cuda/context.h"

#include <new>

namespace fsseg {
namespace cuda {

namespace {

thread_local Context *now = nullptr;

constexpr size_t step = 1 << 20; // a block of scratch memory holds at least that

size_t rounded(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// After these the device does not answer in this process again.
bool is_lost(cudaError_t code) {
    switch (static_cast<int>(code)) {
    case 214: // an ECC error that cannot be corrected
    case 220: // NVLink
    case 700: // an illegal address
    case 702: // a launch timed out
    case 709: // the context is destroyed
    case 710: // assert
    case 714: // hardware stack error
    case 715: // illegal instruction
    case 716: // misaligned address
    case 717: // invalid address space
    case 718: // invalid program counter
    case 719: // launch failure
    case 721: // external device
    case 999: return true;
    default: return false;
    }
}

} // namespace

CudaError::CudaError(cudaError_t code_, const char *what)
    : std::runtime_error(std::string(what) + ": " + cudaGetErrorName(code_) + " (" +
                         cudaGetErrorString(code_) + ")"),
      code(code_), lost(is_lost(code_)) {}

void check(cudaError_t error, const char *what) {
    if (error == cudaSuccess) { return; }
    cudaGetLastError(); // not the next call's
    if (error == cudaErrorMemoryAllocation) { throw std::bad_alloc(); }
    throw CudaError(error, what);
}

Context::Context(int device_, cudaStream_t stream_) : device(device_), stream(stream_) {
    const Scope scope(*this);
    check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), "device");
    int major = 0, minor = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "device");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "device");
    capability = 10 * major + minor;
    check(cudaHostAlloc(reinterpret_cast<void **>(&taken_), sizeof(int), cudaHostAllocDefault),
          "cudaHostAlloc");
    const cudaError_t error = cudaMalloc(reinterpret_cast<void **>(&flag_), sizeof(int));
    if (error != cudaSuccess) {
        cudaFreeHost(taken_);
        check(error, "cudaMalloc");
    }
    check(cudaMemsetAsync(flag_, 0, sizeof(int), stream), "cudaMemsetAsync");
}

Context::~Context() { // of a process that ends, or of a lost device: errors change nothing
    int before = 0;
    cudaGetDevice(&before);
    cudaSetDevice(device);
    while (blocks_ != nullptr) {
        Block *next = blocks_->next;
        cudaFree(blocks_->memory);
        delete blocks_;
        blocks_ = next;
    }
    cudaFree(flag_);
    cudaFreeHost(taken_);
    cudaSetDevice(before);
    cudaGetLastError();
}

void *Context::scratch(size_t bytes) {
    bytes = rounded(bytes == 0 ? 1 : bytes, 256);
    for (Block *block = blocks_; block != nullptr; block = block->next) {
        if (block->bytes - block->used >= bytes) {
            char *found = block->memory + block->used;
            block->used += bytes;
            return found;
        }
    }
    const size_t size = rounded(bytes, step);
    void *memory = nullptr;
    cudaError_t error = cudaMalloc(&memory, size);
    if (error == cudaErrorMemoryAllocation && reclaim && reclaim()) {
        cudaGetLastError();
        error = cudaMalloc(&memory, size);
    }
    check(error, "cudaMalloc");
    ++allocations_;
    blocks_ = new Block{static_cast<char *>(memory), size, bytes, blocks_};
    reserved_ += size;
    return memory;
}

void Context::rewind() {
    for (Block *block = blocks_; block != nullptr; block = block->next) { block->used = 0; }
}

int Context::take_report() {
    const Scope scope(*this);
    check(cudaMemcpyAsync(taken_, flag_, sizeof(int), cudaMemcpyDeviceToHost, stream), "copy");
    check(cudaStreamSynchronize(stream), "the stream");
    if (*taken_ != 0) { check(cudaMemsetAsync(flag_, 0, sizeof(int), stream), "cudaMemsetAsync"); }
    return *taken_;
}

Scope::Scope(Context &context) : before_(now), device_(0) {
    check(cudaGetDevice(&device_), "cudaGetDevice");
    if (device_ != context.device) { check(cudaSetDevice(context.device), "cudaSetDevice"); }
    context.rewind();
    now = &context;
}

Scope::~Scope() {
    if (device_ != now->device) { cudaSetDevice(device_); }
    now = before_;
}

Context &current() {
    if (now == nullptr) { throw std::logic_error("an op of CUDA outside of a Scope"); }
    return *now;
}

} // namespace cuda
} // namespace fsseg
#endif
