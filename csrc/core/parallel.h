// parallel_for: the tasks 0 .. count-1 on a small pool of threads that lives as long as the process.
//
// What a task computes must depend on its index alone: then 1 and n threads give the same bits.
// The caller works, too. If the pool is busy (another thread is inside a kernel), or after a fork in
// a child that has no threads yet, the call still completes: serially, or on a new pool.
#pragma once

#include <stdint.h>

namespace fsseg {

// Upper bound of `worker` + 1, and of what FSSEG_NUM_THREADS may be.
constexpr int max_threads = 256;

// task(context, index, worker): worker < threads tells which scratch memory to use.
using Task = void (*)(void *context, int64_t index, int worker);

void parallel_for(int64_t count, int threads, Task task, void *context);

} // namespace fsseg
