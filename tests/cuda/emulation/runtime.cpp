// The runtime: memory, streams, events and graphs; see runtime_api.h. Work on a stream is done at once, but between
// the begin and the end of a capture, where it is remembered and done whenever the graph is launched. What CUDA
// forbids a stream that is captured breaks the capture here, too.
#include "cuda_runtime.h"

#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

namespace emulation {
namespace {

using Work = std::vector<std::function<void()>>;

struct Capture {
    cudaStream_t origin;
    std::shared_ptr<Work> work = std::make_shared<Work>();
    std::set<cudaStream_t> branches; // came in by an event, and have not come back
    bool broken = false;
};

struct Event {
    std::shared_ptr<Capture> capture; // in which it was recorded
    cudaStream_t stream = nullptr;
};

std::recursive_mutex one_call; // of all below
thread_local cudaError_t last = cudaSuccess;
bool dead = false;
int allocations = 0, launches = 0, graphs = 0;
std::map<cudaStream_t, std::shared_ptr<Capture>> captures;
std::map<const char *, size_t> reachable; // memory that the device reads and writes by itself

using Lock = std::lock_guard<std::recursive_mutex>;

bool falls_now(const char *kind, int &count) {
    const char *setting = getenv("FSSEG_EMULATED_FAIL");
    const size_t length = strlen(kind);
    if (setting == nullptr || strncmp(setting, kind, length) != 0 || setting[length] != ':') {
        count = 0;
        return false;
    }
    return ++count == atoi(setting + length + 1);
}

cudaError_t said(cudaError_t error) {
    const Lock lock(one_call);
    if (dead) { error = cudaErrorIllegalAddress; }
    if (error != cudaSuccess) { last = error; }
    return error;
}

std::shared_ptr<Capture> capture_of(cudaStream_t stream) {
    const auto found = captures.find(stream);
    return found == captures.end() ? nullptr : found->second;
}

// What a captured stream does not allow breaks its capture.
cudaError_t unless_captured(cudaStream_t stream, cudaError_t otherwise = cudaSuccess) {
    const Lock lock(one_call);
    const std::shared_ptr<Capture> capture = capture_of(stream);
    if (!capture) { return said(otherwise); }
    capture->broken = true;
    return said(cudaErrorStreamCaptureUnsupported);
}

cudaError_t enqueue(cudaStream_t stream, std::function<void()> work) {
    {
        const Lock lock(one_call);
        if (said(cudaSuccess) != cudaSuccess) { return cudaErrorIllegalAddress; }
        if (const std::shared_ptr<Capture> capture = capture_of(stream)) {
            if (capture->broken) { return said(cudaErrorStreamCaptureInvalidated); }
            capture->work->push_back(std::move(work));
            return cudaSuccess;
        }
    }
    work();
    return cudaSuccess;
}

bool is_reachable(const void *p) {
    const Lock lock(one_call);
    const char *memory = static_cast<const char *>(p);
    auto after = reachable.upper_bound(memory);
    if (after == reachable.begin()) { return false; }
    --after;
    return memory < after->first + after->second;
}

} // namespace

void enqueue_launch(cudaStream_t stream, std::function<void()> work) {
    enqueue(stream, [work = std::move(work)] {
        {
            const Lock lock(one_call);
            if (falls_now("launch", launches)) { dead = true; }
            if (said(cudaSuccess) != cudaSuccess) { return; }
        }
        work();
    });
}

} // namespace emulation

using emulation::Capture;
using emulation::captures;
using emulation::Event;
using emulation::Lock;
using emulation::one_call;
using emulation::said;
using emulation::Work;

struct CUgraph_st {
    std::shared_ptr<Work> work;
};
struct CUgraphExec_st {
    std::shared_ptr<Work> work;
};

cudaError_t cudaMalloc(void **p, size_t bytes) {
    const Lock lock(one_call);
    if (emulation::falls_now("malloc", emulation::allocations)) {
        return said(cudaErrorMemoryAllocation);
    }
    if (emulation::dead) { return said(cudaSuccess); }
    *p = aligned_alloc(256, (bytes + 255) / 256 * 256 + 256);
    if (*p == nullptr) { return said(cudaErrorMemoryAllocation); }
    memset(*p, 0xff, bytes);
    emulation::reachable[static_cast<const char *>(*p)] = bytes;
    return cudaSuccess;
}
cudaError_t cudaFree(void *p) {
    const Lock lock(one_call);
    emulation::reachable.erase(static_cast<const char *>(p));
    free(p);
    return said(cudaSuccess);
}
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned) { return cudaMalloc(p, bytes); }
cudaError_t cudaFreeHost(void *p) { return cudaFree(p); }
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
    if (!emulation::is_reachable(to) || !emulation::is_reachable(from)) {
        const cudaError_t error = emulation::unless_captured(stream);
        if (error != cudaSuccess) { return error; }
    }
    return emulation::enqueue(stream, [=] { memmove(to, from, bytes); });
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
    for (size_t y = 0; y < height; ++y) {
        const cudaError_t error =
            cudaMemcpyAsync(static_cast<char *>(to) + y * to_pitch,
                            static_cast<const char *>(from) + y * from_pitch, width, kind, stream);
        if (error != cudaSuccess) { return error; }
    }
    return said(cudaSuccess);
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream) {
    return emulation::enqueue(stream, [=] { memset(p, value, bytes); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
    const Lock lock(one_call);
    static uintptr_t next = 16;
    *stream = reinterpret_cast<cudaStream_t>(next += 16);
    return said(cudaSuccess);
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return said(cudaSuccess); }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    return emulation::unless_captured(stream);
}
cudaError_t cudaDeviceSynchronize() {
    const Lock lock(one_call);
    return captures.empty() ? said(cudaSuccess)
                            : emulation::unless_captured(captures.begin()->first);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status) {
    const Lock lock(one_call);
    const std::shared_ptr<Capture> capture = emulation::capture_of(stream);
    const bool captured = capture || getenv("FSSEG_EMULATED_CAPTURE") != nullptr;
    *status = capture && capture->broken ? cudaStreamCaptureStatusInvalidated
              : captured                 ? cudaStreamCaptureStatusActive
                                         : cudaStreamCaptureStatusNone;
    return said(cudaSuccess);
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    const Lock lock(one_call);
    if (stream == nullptr || stream == cudaStreamLegacy) {
        return said(cudaErrorStreamCaptureUnsupported);
    }
    if (emulation::capture_of(stream)) { return said(cudaErrorIllegalState); }
    const cudaError_t error = said(cudaSuccess);
    if (error == cudaSuccess) {
        captures[stream] = std::make_shared<Capture>();
        captures[stream]->origin = stream;
    }
    return error;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    const Lock lock(one_call);
    *graph = nullptr;
    const std::shared_ptr<Capture> capture = emulation::capture_of(stream);
    if (!capture || capture->origin != stream) { return said(cudaErrorIllegalState); }
    for (cudaStream_t branch : capture->branches) { captures.erase(branch); }
    captures.erase(stream);
    if (capture->broken) { return said(cudaErrorStreamCaptureInvalidated); }
    if (!capture->branches.empty()) { return said(cudaErrorStreamCaptureUnjoined); }
    const cudaError_t error = said(cudaSuccess);
    if (error == cudaSuccess) { *graph = new CUgraph_st{capture->work}; }
    return error;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *ready, cudaGraph_t graph,
                                          unsigned long long) {
    const Lock lock(one_call);
    if (emulation::falls_now("instantiate", emulation::graphs)) {
        return said(cudaErrorInvalidValue);
    }
    const cudaError_t error = said(cudaSuccess);
    if (error == cudaSuccess) { *ready = new CUgraphExec_st{graph->work}; }
    return error;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return said(cudaSuccess);
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t ready) {
    delete ready;
    return said(cudaSuccess);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t ready, cudaStream_t stream) {
    const cudaError_t error = emulation::unless_captured(stream); // stricter than CUDA may be
    if (error != cudaSuccess) { return error; }
    return emulation::enqueue(stream, [all = ready->work] {
        for (const auto &work : *all) { work(); }
    });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
    *event = reinterpret_cast<cudaEvent_t>(new Event);
    return said(cudaSuccess);
}
cudaError_t cudaEventRecord(cudaEvent_t given, cudaStream_t stream) {
    const Lock lock(one_call);
    Event &event = *reinterpret_cast<Event *>(given);
    event.capture = emulation::capture_of(stream);
    event.stream = stream;
    return said(cudaSuccess);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t given, unsigned) {
    const Lock lock(one_call);
    const Event &event = *reinterpret_cast<const Event *>(given);
    const std::shared_ptr<Capture> own = emulation::capture_of(stream);
    if (own && event.capture != own) { // work of outside, of which a graph knows nothing
        own->broken = true;
        return said(cudaErrorStreamCaptureIsolation);
    }
    if (own) {
        if (stream == own->origin && own->branches.erase(event.stream) > 0) {
            captures.erase(event.stream);
        }
    } else if (event.capture && emulation::capture_of(event.capture->origin) == event.capture) {
        event.capture->branches.insert(stream);
        captures[stream] = event.capture;
    }
    return said(cudaSuccess);
}
cudaError_t cudaEventQuery(cudaEvent_t given) {
    const Lock lock(one_call);
    const Event &event = *reinterpret_cast<const Event *>(given);
    if (!event.capture) { return said(cudaSuccess); }
    event.capture->broken = true;
    return said(cudaErrorCapturedEvent);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete reinterpret_cast<Event *>(event);
    return said(cudaSuccess);
}

cudaError_t cudaGetLastError() {
    const Lock lock(one_call);
    const cudaError_t error = emulation::dead ? cudaErrorIllegalAddress : emulation::last;
    emulation::last = cudaSuccess;
    return error;
}
cudaError_t cudaPeekAtLastError() {
    const Lock lock(one_call);
    return emulation::dead ? cudaErrorIllegalAddress : emulation::last;
}

namespace {
struct Words {
    cudaError_t error;
    const char *name, *text;
};
const Words &words_of(cudaError_t error) {
    static const Words all[] = {
        {cudaErrorIllegalAddress, "cudaErrorIllegalAddress",
         "an illegal memory access was encountered"},
        {cudaSuccess, "cudaSuccess", "no error"},
        {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
        {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
        {cudaErrorIllegalState, "cudaErrorIllegalState",
         "the operation cannot be performed in the present state"},
        {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
         "operation not permitted when stream is capturing"},
        {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
         "operation failed due to a previous error during capture"},
        {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined",
         "capturing stream has unjoined work"},
        {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
         "dependency created on uncaptured work in another stream"},
        {cudaErrorCapturedEvent, "cudaErrorCapturedEvent",
         "operation not permitted on an event last recorded in a capturing stream"},
    };
    for (const Words &words : all) {
        if (words.error == error) { return words; }
    }
    return all[0];
}
} // namespace

const char *cudaGetErrorString(cudaError_t error) { return words_of(error).text; }
const char *cudaGetErrorName(cudaError_t error) { return words_of(error).name; }

cudaError_t cudaGetDevice(int *device) {
    *device = 0;
    return said(cudaSuccess);
}
cudaError_t cudaSetDevice(int device) {
    return said(device == 0 ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaGetDeviceCount(int *count) {
    *count = 1;
    return said(cudaSuccess);
}
cudaError_t cudaDriverGetVersion(int *version) {
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int) {
    switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 4; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 99 * 1024; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 8; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrL2CacheSize: *value = 1 << 20; break;
    }
    return said(cudaSuccess);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int) {
    *properties = {"an emulated device", size_t{1} << 30, 8, 0, 4};
    return said(cudaSuccess);
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *) {
    *attributes = {cudaMemoryTypeDevice, 0};
    return said(cudaSuccess);
}
cudaError_t fsseg_set_shared(const void *, cudaFuncAttribute, int) { return said(cudaSuccess); }

// For other libraries of the process that play a part of CUDA on the same streams (tests/tensorrt/fake_cuda.c).
#define FOR_OTHERS extern "C" __attribute__((visibility("default")))

FOR_OTHERS int fsseg_emulated_capturing(cudaStream_t stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    cudaStreamIsCapturing(stream, &status);
    return status;
}
FOR_OTHERS int fsseg_emulated_enqueue(cudaStream_t stream, void (*call)(void *), void *given) {
    return emulation::enqueue(stream, [=] { call(given); });
}
