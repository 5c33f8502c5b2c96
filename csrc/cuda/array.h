// Arrays in a device's memory, for the bindings: what core/arrays.h asks of a kind of array.
#pragma once

#include "core/arrays.h"
#include "cuda/place.h"

#include <array>
#include <memory>
#include <optional>
#include <vector>

namespace fsseg {
namespace cuda {

enum class Type : int {
    f32 = 0,
    f16 = 1,
    bf16 = 2,
    u8 = 3,
    i64 = 4
}; // the first three are DType's

inline int64_t bytes_of(Type type) {
    constexpr int64_t bytes[5] = {4, 2, 2, 1, 8};
    return bytes[static_cast<int>(type)];
}
template <class T> constexpr Type type_named();
template <> constexpr Type type_named<float>() { return Type::f32; }
template <> constexpr Type type_named<uint8_t>() { return Type::u8; }
template <> constexpr Type type_named<int64_t>() { return Type::i64; }

// Memory of the pool, or on loan from somebody else: then `done` ends the loan.
struct Memory {
    Memory(std::shared_ptr<Place> place_, char *data_, size_t bytes_,
           std::function<void()> done_ = {})
        : place(std::move(place_)), data(data_), bytes(bytes_), done(std::move(done_)) {}
    ~Memory() {
        if (done) {
            place->retire(std::move(done));
        } else {
            place->give(data, bytes);
        }
    }
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;
    const std::shared_ptr<Place> place;
    char *const data;
    const size_t bytes;
    std::function<void()> done;
};

// A handle: copies share the memory.
struct Array {
    std::shared_ptr<Memory> memory;
    char *begin = nullptr;
    Type type = Type::f32;
    std::vector<int64_t> sizes, steps; // steps: in elements
    bool writeable = true;
    // Of int64: values seen on the host are in least to below end; nobody knows where that is empty.
    int64_t least = 0, end = 0;

    Place &place() const { return *memory->place; }
    int ndim() const { return static_cast<int>(sizes.size()); }
    int64_t shape(int axis) const { return sizes[static_cast<size_t>(axis)]; }
    int64_t strides(int axis) const { return steps[static_cast<size_t>(axis)] * itemsize(); }
    int64_t itemsize() const { return bytes_of(type); }
    int64_t size() const {
        int64_t n = 1;
        for (int64_t size : sizes) { n *= size; }
        return n;
    }
    const void *data() const { return begin; }
    void *mutable_data() const {
        if (!writeable) { throw std::domain_error("array is not writeable"); }
        return begin;
    }
};

inline std::vector<int64_t> contiguous_steps(const std::vector<int64_t> &sizes) {
    std::vector<int64_t> steps(sizes.size());
    int64_t step = 1;
    for (size_t axis = sizes.size(); axis-- > 0;) {
        steps[axis] = step;
        step *= sizes[axis];
    }
    return steps;
}

template <class T> bool is_of(const Array &array) { return array.type == type_named<T>(); }
inline bool is_contiguous(const Array &array) {
    if (array.size() == 0) { return true; }
    const std::vector<int64_t> steps = contiguous_steps(array.sizes);
    for (size_t axis = 0; axis < steps.size(); ++axis) {
        if (array.sizes[axis] > 1 && array.steps[axis] != steps[axis]) { return false; }
    }
    return true;
}
inline bool is_features(const Array &array) { return array.type <= Type::bf16; }
inline DType type_of(const Array &array) { return static_cast<DType>(array.type); }
inline bool numbers_within(const Array &array, int64_t least, int64_t end) {
    return array.size() == 0 ||
           (array.least >= least && array.end <= end && array.end > array.least);
}

// All belong to one context: its stream is what puts their work in order.
inline bool is_with(const Place &place, const Array &array) { return &array.place() == &place; }
template <class T> bool is_with(const Place &place, const std::optional<T> &array) {
    return !array || is_with(place, *array);
}
template <class T, size_t n> bool is_with(const Place &place, const std::array<T, n> &arrays) {
    for (const T &array : arrays) {
        if (!is_with(place, array)) { return false; }
    }
    return true;
}

// A graph that is recorded reads and writes them in each replay.
inline void keep(Place &place, const Array &array) { place.keep(array.memory); }
template <class T> void keep(Place &place, const std::optional<T> &array) {
    if (array) { keep(place, *array); }
}
template <class T, size_t n> void keep(Place &place, const std::array<T, n> &arrays) {
    for (const T &array : arrays) { keep(place, array); }
}
template <class... Rest> void in_one_place(const Array &first, const Rest &...rest) {
    if (!(is_with(first.place(), rest) && ...)) { refuse("arrays", "one context for all"); }
    if (first.place().recording()) {
        keep(first.place(), first);
        (keep(first.place(), rest), ...);
    }
}

template <class Work> auto running(const Array &out, Work &&work) {
    py::gil_scoped_release release;
    return out.place().run([&] { return work(fsseg::Device::cuda); });
}

} // namespace cuda
} // namespace fsseg
