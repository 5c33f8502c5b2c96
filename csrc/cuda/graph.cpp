// Compiled only with FSSEG_CUDA.
#ifdef FSSEG_CUDA
#include "cuda/graph.h"

namespace fsseg {
namespace cuda {

void RecordedGraph::begin() {
    place_->sweep(); // what has ended; in the capture nobody may ask
    place_->run([&] {
        // relaxed: the pool may ask the device for memory
        check(cudaStreamBeginCapture(place_->stream, cudaStreamCaptureModeRelaxed),
              "cudaStreamBeginCapture");
        number_ = place_->begin_graph();
    });
    state_ = State::recording;
}

void RecordedGraph::end() {
    state_ = State::over;
    try {
        place_->run([&] {
            cudaGraph_t graph = nullptr;
            const cudaError_t ended = cudaStreamEndCapture(place_->stream, &graph);
            kept_ = place_->end_graph();
            check(ended, "cudaStreamEndCapture");
            const cudaError_t made = cudaGraphInstantiateWithFlags(&ready_, graph, 0);
            cudaGraphDestroy(graph);
            check(made, "cudaGraphInstantiate");
        });
    } catch (...) {
        if (place_->recording()) { abandon(); } // the device is lost: nothing was ended
        ready_ = nullptr;
        forget();
        throw;
    }
    state_ = State::ready;
}

void RecordedGraph::abandon() noexcept {
    state_ = State::over;
    cudaGraph_t graph = nullptr;
    cudaStreamEndCapture(place_->stream, &graph);
    if (graph != nullptr) { cudaGraphDestroy(graph); }
    cudaGetLastError();
    kept_ = place_->end_graph();
    forget();
}

void RecordedGraph::replay() {
    place_->run([&] { check(cudaGraphLaunch(ready_, place_->stream), "cudaGraphLaunch"); });
}

// Work that the pool's memory is given to later comes after the last replay, on the same stream.
void RecordedGraph::forget() noexcept {
    kept_.clear();
    place_->release_graph(number_);
}

RecordedGraph::~RecordedGraph() {
    if (state_ == State::recording) { abandon(); }
    if (ready_ != nullptr) {
        place_->retire([ready = ready_] { cudaGraphExecDestroy(ready); });
        forget();
    }
}

} // namespace cuda
} // namespace fsseg
#endif
