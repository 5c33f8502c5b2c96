// What was enqueued on a place's stream from begin to end, as a CUDA graph: replay enqueues it again, at the cost of
// one call. It reads and writes the same memory each time. That is the graph's as long as it is there: what was
// taken from the pool in between, and all that ops were given. With the graph it goes back.
#pragma once

#include "cuda/place.h"

namespace fsseg {
namespace cuda {

class RecordedGraph {
  public:
    enum class State { fresh, recording, ready, over };

    explicit RecordedGraph(std::shared_ptr<Place> place) : place_(std::move(place)) {}
    ~RecordedGraph();
    RecordedGraph(const RecordedGraph &) = delete;
    RecordedGraph &operator=(const RecordedGraph &) = delete;

    // From here on the stream's work is remembered, not done. By one thread; others leave the place alone.
    void begin();
    void end();              // an error: there is no graph, and the place works on
    void abandon() noexcept; // in place of end
    void replay();           // enqueues all of it

    State state() const { return state_; }
    const std::shared_ptr<Place> &place() const { return place_; }

  private:
    void forget() noexcept;
    const std::shared_ptr<Place> place_;
    State state_ = State::fresh;
    int64_t number_ = 0;
    cudaGraphExec_t ready_ = nullptr;
    Place::Kept kept_;
};

} // namespace cuda
} // namespace fsseg
