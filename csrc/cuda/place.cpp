// Compiled only with FSSEG_CUDA.
#ifdef FSSEG_CUDA
#include "cuda/place.h"

namespace fsseg {
namespace cuda {

namespace {

// At most an eighth is wasted, and arrays of nearly one size share memory.
size_t size_class(size_t bytes) {
    size_t power = 4096;
    while (power * 2 <= bytes) { power *= 2; }
    const size_t unit = power / 8;
    return bytes == 0 ? unit : (bytes + unit - 1) / unit * unit;
}

struct OnDevice { // for calls that mean the current device
    explicit OnDevice(int device) {
        cudaGetDevice(&before);
        if (before != device) { cudaSetDevice(device); }
        after = device;
    }
    ~OnDevice() {
        if (before != after) { cudaSetDevice(before); }
    }
    int before = 0, after = 0;
};

} // namespace

Place::Place(int device_, cudaStream_t stream_, bool owned)
    : device(device_), stream(stream_), context_(device_, stream_), owned_(owned) {
    context_.reclaim = [this] { return trim() > 0; };
}

std::shared_ptr<Place> Place::with_own_stream(int device) {
    const OnDevice here(device);
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
    try {
        return std::make_shared<Place>(device, stream, true);
    } catch (...) {
        cudaStreamDestroy(stream);
        throw;
    }
}

Place::~Place() { // of a process that ends, or of a lost device: errors change nothing
    const OnDevice here(device);
    cudaStreamSynchronize(stream);
    for (auto &[event, done] : retired_) {
        if (event != nullptr) { cudaEventDestroy(event); }
        done();
    }
    for (const auto &[memory, graph] : of_graphs_) { cudaFree(memory); }
    for (cudaEvent_t event : events_) { cudaEventDestroy(event); }
    trim();
    if (owned_) { cudaStreamDestroy(stream); }
    cudaGetLastError();
}

void Place::wait() {
    run([&] { check(cudaStreamSynchronize(stream), "the stream"); });
}

char *Place::take(size_t bytes) {
    const size_t size = size_class(bytes);
    const bool of_graph = capturing();
    {
        const std::lock_guard<std::mutex> lock(inner_);
        const auto found = idle_.find(size);
        if (found != idle_.end() && !found->second.empty()) {
            char *memory = found->second.back();
            found->second.pop_back();
            if (of_graph) { of_graphs_[memory] = {recording_, size, false}; }
            return memory;
        }
        ++allocations_;
    }
    void *memory = nullptr;
    cudaError_t error = cudaMalloc(&memory, size);
    if (error == cudaErrorMemoryAllocation && trim() > 0) {
        cudaGetLastError();
        error = cudaMalloc(&memory, size);
    }
    check(error, "cudaMalloc");
    const std::lock_guard<std::mutex> lock(inner_);
    held_ += size;
    if (of_graph) { of_graphs_[static_cast<char *>(memory)] = {recording_, size, false}; }
    return static_cast<char *>(memory);
}

void Place::give(char *memory, size_t bytes) noexcept {
    const std::lock_guard<std::mutex> lock(inner_);
    const auto graph = of_graphs_.find(memory);
    if (graph == of_graphs_.end()) {
        idle_[size_class(bytes)].push_back(memory);
    } else {
        graph->second.idle = true;
    }
}

size_t Place::trim() noexcept {
    std::map<size_t, std::vector<char *>> idle;
    size_t freed = 0;
    {
        const std::lock_guard<std::mutex> lock(inner_);
        idle.swap(idle_);
        for (const auto &[size, all] : idle) { freed += size * all.size(); }
        held_ -= freed;
    }
    if (freed == 0) { return 0; }
    const OnDevice here(device);
    for (const auto &[size, all] : idle) {
        for (char *memory : all) { cudaFree(memory); } // waits for the work that uses it
    }
    cudaGetLastError();
    return freed;
}

size_t Place::held() const {
    const std::lock_guard<std::mutex> lock(inner_);
    return held_ + context_.reserved();
}

int64_t Place::allocations() const {
    const std::lock_guard<std::mutex> lock(inner_);
    return allocations_ + context_.allocations();
}

bool Place::capturing(bool unless_told) const {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    if (cudaStreamIsCapturing(stream, &status) == cudaSuccess) {
        return status != cudaStreamCaptureStatusNone;
    }
    cudaGetLastError(); // the legacy stream, while another one is captured
    return unless_told;
}

int64_t Place::begin_graph() {
    const std::lock_guard<std::mutex> lock(inner_);
    return recording_ = ++graphs_;
}

bool Place::recording() const {
    const std::lock_guard<std::mutex> lock(inner_);
    return recording_ != 0;
}

void Place::keep(std::shared_ptr<const void> read) {
    const std::lock_guard<std::mutex> lock(inner_);
    if (recording_ != 0) { kept_.push_back(std::move(read)); }
}

Place::Kept Place::end_graph() noexcept {
    const std::lock_guard<std::mutex> lock(inner_);
    recording_ = 0;
    return std::exchange(kept_, {});
}

void Place::release_graph(int64_t number) noexcept {
    const std::lock_guard<std::mutex> lock(inner_);
    for (auto graph = of_graphs_.begin(); graph != of_graphs_.end();) {
        if (graph->second.number != number) {
            ++graph;
            continue;
        }
        if (graph->second.idle) { idle_[graph->second.size].push_back(graph->first); }
        graph = of_graphs_.erase(graph);
    }
}

bool Place::same(cudaStream_t other) const {
    const auto plain = [](cudaStream_t s) { return s == cudaStreamLegacy ? nullptr : s; };
    return plain(other) == plain(stream);
}

cudaEvent_t Place::event() {
    {
        const std::lock_guard<std::mutex> lock(inner_);
        if (!events_.empty()) {
            const cudaEvent_t found = events_.back();
            events_.pop_back();
            return found;
        }
    }
    const OnDevice here(device);
    cudaEvent_t made = nullptr;
    check(cudaEventCreateWithFlags(&made, cudaEventDisableTiming), "cudaEventCreate");
    return made;
}

void Place::wait_for(cudaStream_t other) {
    if (same(other)) { return; }
    const cudaEvent_t now = event();
    check(cudaEventRecord(now, other), "cudaEventRecord");
    check(cudaStreamWaitEvent(stream, now, 0), "cudaStreamWaitEvent");
    const std::lock_guard<std::mutex> lock(inner_);
    events_.push_back(now); // a wait that is enqueued does not see what is recorded later
}

void Place::let_wait(cudaStream_t other) {
    if (same(other)) { return; }
    const cudaEvent_t now = event();
    check(cudaEventRecord(now, stream), "cudaEventRecord");
    check(cudaStreamWaitEvent(other, now, 0), "cudaStreamWaitEvent");
    const std::lock_guard<std::mutex> lock(inner_);
    events_.push_back(now);
}

void Place::retire(std::function<void()> done) noexcept {
    try {
        const OnDevice here(device);
        // A capture must see no event that is asked for later: then it is recorded after the capture.
        const cudaEvent_t now = capturing() ? nullptr : event();
        if (now == nullptr || cudaEventRecord(now, stream) == cudaSuccess) {
            const std::lock_guard<std::mutex> lock(inner_);
            retired_.emplace_back(now, std::move(done));
            return;
        }
    } catch (const std::runtime_error &) {} // a lost device reads nothing any more
    cudaGetLastError();
    done();
}

void Place::sweep() noexcept {
    std::vector<std::function<void()>> ended, late;
    {
        const std::lock_guard<std::mutex> lock(inner_);
        if (retired_.empty() || capturing()) { return; }
        for (size_t i = 0; i < retired_.size();) {
            if (retired_[i].first == nullptr) {
                late.push_back(std::move(retired_[i].second));
                retired_.erase(retired_.begin() + static_cast<std::ptrdiff_t>(i));
                continue;
            }
            if (cudaEventQuery(retired_[i].first) == cudaErrorNotReady) {
                ++i;
                continue;
            }
            events_.push_back(retired_[i].first);
            ended.push_back(std::move(retired_[i].second));
            retired_.erase(retired_.begin() + static_cast<std::ptrdiff_t>(i));
        }
        cudaGetLastError(); // "not ready" is no error
    }
    for (const auto &done : ended) { done(); }
    for (auto &done : late) { retire(std::move(done)); }
}

bool Place::lost() const {
    const std::lock_guard<std::mutex> lock(inner_);
    return !lost_.empty();
}

void Place::require_alive() const {
    const std::lock_guard<std::mutex> lock(inner_);
    if (!lost_.empty()) { throw DeviceLost(lost_); }
}

void Place::rethrow(const CudaError &error) {
    if (!error.lost) { throw error; }
    {
        const std::lock_guard<std::mutex> lock(inner_);
        if (lost_.empty()) { lost_ = error.what(); }
    }
    throw DeviceLost(error.what());
}

std::string Place::memory_words() const {
    return "none left on device " + std::to_string(device) + "; this context holds " +
           std::to_string(held() >> 20) + " MiB";
}

} // namespace cuda
} // namespace fsseg
#endif
