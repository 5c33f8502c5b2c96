// What device arrays share: a context (context.h), a pool of its memory, and what went wrong for good.
//
// The pool serves one stream. Memory that comes back may still be read by work on that stream, and is handed
// out to later work on the same stream: it comes after. So a warm query allocates nothing and waits for nothing.
// What is taken while the stream is captured as a CUDA graph belongs to that graph: it is handed out to nobody else
// while the graph is there. The end of our own is seen (graph.h), and its memory goes back to the pool; that of
// others is not, and goes back to the device with the place.
#pragma once

#include "cuda/context.h"

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace fsseg {
namespace cuda {

struct OutOfMemory : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct DeviceLost : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class Place {
  public:
    // owned: the place ends the stream with itself.
    Place(int device, cudaStream_t stream, bool owned = false);
    static std::shared_ptr<Place> with_own_stream(int device);
    ~Place();
    Place(const Place &) = delete;
    Place &operator=(const Place &) = delete;

    const int device;
    const cudaStream_t stream;

    // work() in a Scope of the context, for one thread at a time. OutOfMemory: the next call works; DeviceLost: no
    // call works again. Not to be called with Python's lock held, nor from within work.
    template <class Work> auto run(Work &&work) {
        const std::lock_guard<std::mutex> one(mutex_);
        require_alive();
        try {
            const Scope scope(context_);
            return work();
        } catch (const std::bad_alloc &) {
            trim();
            throw OutOfMemory(memory_words());
        } catch (const CudaError &error) { rethrow(error); }
    }
    Context &context() { return context_; }

    // Within run: memory of the pool, or of the device. Its content is anything.
    char *take(size_t bytes);
    void give(char *memory, size_t bytes) noexcept; // from any thread, at any time
    size_t trim() noexcept;      // gives what nobody uses back to the device: bytes
    size_t held() const;         // bytes, in use or not, scratch memory with them
    int64_t allocations() const; // how often the device was asked for memory

    void wait_for(cudaStream_t other); // our later work waits for what is enqueued there
    void let_wait(cudaStream_t other); // the reverse

    // Calls done(), which ends a loan of foreign memory, when the work that may read it has ended: in a later
    // sweep(), or with the place.
    void retire(std::function<void()> done) noexcept;
    void sweep() noexcept;

    void wait(); // until the stream has come so far; says nothing of reports

    bool capturing(bool unless_told = true) const; // by anybody; unless_told: where nobody may ask

    // For graph.h alone. What is taken from begin_graph to end_graph is of that graph until release_graph, and what
    // keep is given in between must live as long. The graph's number; what was kept.
    using Kept = std::vector<std::shared_ptr<const void>>;
    int64_t begin_graph();
    bool recording() const;
    void keep(std::shared_ptr<const void> read);
    Kept end_graph() noexcept;
    void release_graph(int64_t number) noexcept;

    bool lost() const;
    void require_alive() const;

  private:
    [[noreturn]] void rethrow(const CudaError &error);
    std::string memory_words() const;
    cudaEvent_t event();
    bool same(cudaStream_t other) const;

    std::mutex mutex_;         // of run
    mutable std::mutex inner_; // of all below; never held while foreign code runs
    Context context_;
    std::map<size_t, std::vector<char *>> idle_;
    struct OfGraph {
        int64_t number; // 0: somebody else's
        size_t size;
        bool idle; // but for the graph
    };
    std::map<char *, OfGraph> of_graphs_;
    int64_t graphs_ = 0, recording_ = 0; // how many; the number of the one that is recorded
    Kept kept_;
    std::vector<cudaEvent_t> events_;
    std::vector<std::pair<cudaEvent_t, std::function<void()>>> retired_;
    size_t held_ = 0;
    const bool owned_;
    int64_t allocations_ = 0;
    std::string lost_;
};

} // namespace cuda
} // namespace fsseg
