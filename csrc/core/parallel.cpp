#include "core/parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <pthread.h>
#include <system_error>
#include <thread>

namespace fsseg {

namespace {

// One job at a time. Workers sleep on `wake_` between jobs; the caller takes part as worker 0.
class Pool {
  public:
    // False: the pool is busy with another caller's job; nothing was done.
    bool try_run(int64_t count, int threads, Task task, void *context) {
        std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
        if (!owner.owns_lock()) { return false; }
        grow(threads - 1);
        {
            std::lock_guard<std::mutex> lock(mutex_);
            task_ = task;
            context_ = context;
            count_ = count;
            next_.store(0, std::memory_order_relaxed);
            wanted_ = std::min(threads - 1, workers_);
            started_ = 0;
            active_ = 0;
            ++generation_;
        }
        wake_.notify_all();
        work(0);
        std::unique_lock<std::mutex> lock(mutex_);
        wanted_ = 0; // all tasks are taken: who has not started yet may sleep on
        done_.wait(lock, [this] { return active_ == 0; });
        return true;
    }

  private:
    void grow(int target) {
        while (workers_ < target) {
            try {
                std::thread([this] { serve(); }).detach();
            } catch (const std::system_error &) { return; } // fewer threads, same result
            ++workers_;
        }
    }

    void serve() {
        uint64_t seen = 0;
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return generation_ != seen && started_ < wanted_; });
            seen = generation_;
            const int worker = ++started_;
            ++active_;
            lock.unlock();
            work(worker);
            lock.lock();
            if (--active_ == 0) { done_.notify_one(); }
        }
    }

    void work(int worker) {
        for (;;) {
            const int64_t index = next_.fetch_add(1, std::memory_order_relaxed);
            if (index >= count_) { return; }
            task_(context_, index, worker);
        }
    }

    std::mutex owner_, mutex_;
    std::condition_variable wake_, done_;
    std::atomic<int64_t> next_{0};
    Task task_ = nullptr;
    void *context_ = nullptr;
    int64_t count_ = 0;
    uint64_t generation_ = 0;
    int wanted_ = 0, started_ = 0, active_ = 0, workers_ = 0;
};

std::atomic<Pool *> shared_pool{nullptr};

// A child of fork has none of the threads and perhaps a locked mutex: it forgets the pool (a few
// hundred bytes that stay reachable in the parent) and makes its own when it needs one.
void forget_pool() { shared_pool.store(nullptr, std::memory_order_relaxed); }

// Never destroyed: the threads sleep until the process ends.
Pool *pool() {
    static const int hooked = pthread_atfork(nullptr, nullptr, forget_pool);
    if (hooked != 0) { return nullptr; }
    Pool *current = shared_pool.load(std::memory_order_acquire);
    if (current != nullptr) { return current; }
    Pool *fresh = new Pool;
    if (shared_pool.compare_exchange_strong(current, fresh, std::memory_order_acq_rel)) {
        return fresh;
    }
    delete fresh; // another thread was faster; this one has no threads yet
    return current;
}

} // namespace

void parallel_for(int64_t count, int threads, Task task, void *context) {
    threads = static_cast<int>(
        std::min<int64_t>({static_cast<int64_t>(threads), count, int64_t{max_threads}}));
    if (threads > 1) {
        Pool *shared = pool();
        if (shared != nullptr && shared->try_run(count, threads, task, context)) { return; }
    }
    for (int64_t index = 0; index < count; ++index) { task(context, index, 0); }
}

} // namespace fsseg
