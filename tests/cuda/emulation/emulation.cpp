// The threads of kernels; see cuda_runtime.h. A fiber is a thread of a block; one runs at a time.
#include "cuda_runtime.h"

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <vector>

#include <ucontext.h>

namespace emulation {

Thread *self = nullptr;

namespace {

enum class Waiting { nothing, block, warp, done };

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
// ucontext asks the kernel for the signal mask at every change; this does not.
extern "C" void fsseg_change_fiber(void **from, void *to);
__asm__(R"(
.text
.globl fsseg_change_fiber
.type fsseg_change_fiber, @function
fsseg_change_fiber:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
struct Place {
    void *stack = nullptr;
};
void change(Place &from, Place &to) { fsseg_change_fiber(&from.stack, to.stack); }
void prepare(Place &place, char *memory, size_t size, void (*entry)()) {
    auto *top =
        reinterpret_cast<void **>((reinterpret_cast<uintptr_t>(memory + size)) & ~uintptr_t{15});
    *--top = nullptr; // keeps the stack aligned as after a call
    *--top = reinterpret_cast<void *>(entry);
    for (int i = 0; i < 6; ++i) { *--top = nullptr; }
    place.stack = top;
}
#else
struct Place {
    ucontext_t context;
};
void change(Place &from, Place &to) { swapcontext(&from.context, &to.context); }
void prepare(Place &place, char *memory, size_t size, void (*entry)()) {
    getcontext(&place.context);
    place.context.uc_stack.ss_sp = memory;
    place.context.uc_stack.ss_size = size;
    place.context.uc_link = nullptr;
    makecontext(&place.context, entry, 0);
}
#endif

constexpr size_t stack_bytes = 128 * 1024;

struct Fiber {
    Thread thread;
    Place place;
    Waiting waiting = Waiting::nothing;
    unsigned mask = 0;
};

struct Warp {
    alignas(64) unsigned char slots[2][32 * slot];
    unsigned arrived = 0;
    unsigned generation = 0;
};

struct Grid {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<char> stacks;
    std::vector<char> shared;
    Place scheduler;
    size_t current = 0;
    int counted = 0, last_count = 0;
    void (*call)(void *) = nullptr;
    void *state = nullptr;
};
Grid grid_;
std::mutex one_grid;

[[noreturn]] void fail(const char *what) {
    const Thread &t = grid_.fibers[grid_.current].thread;
    fprintf(stderr, "emulation: %s (block %u %u %u of %u %u %u, %u x %u x %u threads)\n", what,
            t.block.x, t.block.y, t.block.z, t.grid_size.x, t.grid_size.y, t.grid_size.z,
            t.block_size.x, t.block_size.y, t.block_size.z);
    abort();
}

void entry() {
    grid_.call(grid_.state);
    Fiber &own = grid_.fibers[grid_.current];
    own.waiting = Waiting::done;
    change(own.place, grid_.scheduler);
    fail("a finished thread ran on");
}

void wait(Waiting what) {
    Fiber &own = grid_.fibers[grid_.current];
    own.waiting = what;
    change(own.place, grid_.scheduler);
}

void run_block(bool backward) {
    const size_t n = grid_.fibers.size();
    for (size_t left = n; left > 0;) {
        bool moved = false;
        size_t at_barrier = 0;
        for (size_t step = 0; step < n; ++step) {
            const size_t i = backward ? n - 1 - step : step;
            Fiber &fiber = grid_.fibers[i];
            if (fiber.waiting == Waiting::block) { ++at_barrier; }
            if (fiber.waiting != Waiting::nothing) { continue; }
            grid_.current = i;
            self = &fiber.thread;
            change(grid_.scheduler, fiber.place);
            moved = true;
            if (fiber.waiting == Waiting::done) { --left; }
            if (fiber.waiting == Waiting::block) { ++at_barrier; }
        }
        if (at_barrier == left && left > 0) { // those that have ended count as there
            grid_.last_count = grid_.counted;
            grid_.counted = 0;
            for (Fiber &fiber : grid_.fibers) {
                if (fiber.waiting == Waiting::block) { fiber.waiting = Waiting::nothing; }
            }
            moved = true;
        }
        if (!moved && left > 0) { fail("some threads wait where others never come"); }
    }
}

} // namespace

int lane() {
    const Thread &t = *self;
    return static_cast<int>(
        (t.thread.x + t.block_size.x * (t.thread.y + t.block_size.y * t.thread.z)) % 32);
}

void *dynamic_shared() {
    return grid_.shared.data() + (64 - reinterpret_cast<uintptr_t>(grid_.shared.data()) % 64);
}

void block_barrier() { wait(Waiting::block); }

int block_barrier_count(int value) {
    grid_.counted += value != 0;
    wait(Waiting::block);
    return grid_.last_count;
}

const unsigned char *warp_meet(unsigned mask, const void *value, size_t size) {
    const size_t number = grid_.current;
    Warp &warp = grid_.warps[number / 32];
    const unsigned own = 1u << (number % 32);
    const size_t present = std::min<size_t>(32, grid_.fibers.size() - number / 32 * 32);
    const unsigned possible = present == 32 ? ~0u : (1u << present) - 1u;
    if ((mask & own) == 0) { fail("a lane is not in its own mask"); }
    if ((mask & ~possible) != 0 && mask != ~0u) {
        fail("a mask names lanes that the block has not");
    }
    mask &= possible;
    unsigned char *slots = warp.slots[warp.generation & 1];
    if (size > 0) { memcpy(slots + slot * (number % 32), value, size); }
    warp.arrived |= own;
    grid_.fibers[number].mask = mask;
    if ((warp.arrived & mask) == mask) {
        const size_t first = number / 32 * 32;
        for (size_t i = 0; i < present; ++i) {
            Fiber &fiber = grid_.fibers[first + i];
            if ((mask >> i & 1u) == 0) { continue; }
            if (fiber.mask != mask) { fail("lanes meet with different masks"); }
            if (first + i != number) { fiber.waiting = Waiting::nothing; }
        }
        warp.arrived &= ~mask;
        ++warp.generation;
        return slots;
    }
    wait(Waiting::warp);
    return slots;
}

void run_grid(dim3 grid, dim3 block, size_t shared, void (*call)(void *), void *state) {
    const std::lock_guard<std::mutex> lock(one_grid);
    const char *order = getenv("FSSEG_EMULATED_ORDER");
    const bool backward = order != nullptr && strcmp(order, "backward") == 0;
    const size_t n = static_cast<size_t>(block.x) * block.y * block.z;
    if (n == 0 || n > 1024 || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 ||
        grid.z > 65535 || shared > 227 * 1024) {
        fprintf(stderr,
                "emulation: no device takes this launch: %zu threads, grid %u %u %u, %zu bytes\n",
                n, grid.x, grid.y, grid.z, shared);
        abort();
    }
    grid_.call = call;
    grid_.state = state;
    if (grid_.stacks.size() < n * stack_bytes) { grid_.stacks.resize(n * stack_bytes); }
    const size_t blocks = static_cast<size_t>(grid.x) * grid.y * grid.z;
    for (size_t b = 0; b < blocks; ++b) {
        const size_t number = backward ? blocks - 1 - b : b;
        grid_.shared.assign(shared + 64, static_cast<char>(0xff)); // NaN: nobody may rely on zeros
        grid_.warps.assign((n + 31) / 32, Warp{});
        grid_.fibers.assign(n, Fiber{});
        for (size_t t = 0; t < n; ++t) {
            Thread &thread = grid_.fibers[t].thread;
            thread.block_size = block;
            thread.grid_size = grid;
            thread.thread = {static_cast<unsigned>(t % block.x),
                             static_cast<unsigned>(t / block.x % block.y),
                             static_cast<unsigned>(t / (static_cast<size_t>(block.x) * block.y))};
            thread.block = {static_cast<unsigned>(number % grid.x),
                            static_cast<unsigned>(number / grid.x % grid.y),
                            static_cast<unsigned>(number / (static_cast<size_t>(grid.x) * grid.y))};
            prepare(grid_.fibers[t].place, grid_.stacks.data() + t * stack_bytes, stack_bytes,
                    entry);
        }
        run_block(backward);
    }
    self = nullptr;
}

} // namespace emulation
