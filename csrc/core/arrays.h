// Arrays -> views, for the bindings only. fsseg_sdk/ops has checked values and shapes and says what is wrong
// in words; here only what could make a kernel touch foreign memory is checked again.
//
// A kind of array A (py::array here, cuda::Array in cuda/array.h) has ndim, shape, strides in bytes, itemsize,
// size, data and mutable_data, and brings its own is_of, is_contiguous, type_of, checked_numbers, in_one_place
// and running.
#pragma once

#include "core/parallel.h"
#include "core/status.h"
#include "core/view.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <initializer_list>
#include <new>
#include <stdexcept>
#include <string>

namespace fsseg {

namespace py = pybind11;

[[noreturn]] inline void refuse(const char *name, const char *expected) {
    throw std::invalid_argument(std::string(name) + ": expected " + expected);
}

// ---- py::array ----
template <class T> bool is_of(const py::array &array) {
    return py::dtype::of<T>().is(array.dtype()) || array.dtype().equal(py::dtype::of<T>());
}
inline bool is_contiguous(const py::array &array) {
    return (array.flags() & py::array::c_style) != 0;
}
inline bool is_features(const py::array &array) { return is_of<float>(array); }
inline DType type_of(const py::array &) { return DType::f32; }

// Whether the int64 numbers, contiguous, are in least to below end.
inline bool numbers_within(const py::array &array, int64_t least, int64_t end) {
    const int64_t *data = static_cast<const int64_t *>(array.data());
    for (int64_t i = 0; i < array.size(); ++i) {
        if (data[i] < least || data[i] >= end) { return false; }
    }
    return true;
}

template <class... Rest> void in_one_place(const py::array &, const Rest &...) {}

// work(device) without the GIL.
template <class Work> auto running(const py::array &, Work &&work) {
    py::gil_scoped_release release;
    return work(Device::cpu);
}

// ---- any kind ----
template <class T, class A> void require_type(const A &array, const char *name, int rank) {
    if (!is_of<T>(array)) { refuse(name, "another dtype"); }
    if (array.ndim() != rank) { refuse(name, ("rank " + std::to_string(rank)).c_str()); }
}

// In elements; 0 for an axis of size 1, whose stride means nothing.
template <class A> int64_t stride_of(const A &array, const char *name, int axis) {
    if (array.shape(axis) <= 1) { return 0; }
    const int64_t bytes = array.strides(axis), item = array.itemsize();
    if (bytes % item != 0) { refuse(name, "strides that are whole elements"); }
    return bytes / item;
}

// [B, C, h, w] with contiguous planes. An axis of size 1 may have any stride, and so may all axes of an
// array that holds nothing.
template <class A> PlaneView checked_planes(const A &array, const char *name) {
    if (array.ndim() != 4) { refuse(name, "rank 4"); }
    const int64_t height = array.shape(2), width = array.shape(3);
    if (array.size() > 0 && ((width > 1 && stride_of(array, name, 3) != 1) ||
                             (height > 1 && stride_of(array, name, 2) != width))) {
        refuse(name, "contiguous planes");
    }
    return {static_cast<const float *>(array.data()),
            array.shape(0),
            array.shape(1),
            height,
            width,
            stride_of(array, name, 0),
            stride_of(array, name, 1),
            type_of(array)};
}
template <class A> PlaneView plane_view(const A &array, const char *name) { // float32
    require_type<float>(array, name, 4);
    return checked_planes(array, name);
}
template <class A>
PlaneView feature_view(const A &array, const char *name) { // what features may be
    if (!is_features(array)) { refuse(name, "another dtype"); }
    return checked_planes(array, name);
}

// [P, C] (shared by all batches) or [B, P, C] float32 with contiguous rows.
template <class A> RowsView rows_view(const A &array, const char *name) {
    const int rank = array.ndim() == 3 ? 3 : 2;
    require_type<float>(array, name, rank);
    const int64_t columns = array.shape(rank - 1);
    if (columns > 1 && stride_of(array, name, rank - 1) != 1) { refuse(name, "contiguous rows"); }
    return {static_cast<const float *>(array.data()),
            rank == 3 ? array.shape(0) : 1,
            array.shape(rank - 2),
            columns,
            rank == 3 ? stride_of(array, name, 0) : 0,
            stride_of(array, name, rank - 2)};
}

template <class A> const float *contiguous_floats(const A &array, const char *name, int64_t n) {
    if (!is_of<float>(array) || !is_contiguous(array) || array.size() != n) {
        refuse(name, "contiguous float32 of another size");
    }
    return static_cast<const float *>(array.data());
}

// [n] int64, contiguous, each from least to below end.
template <class A> const int64_t *checked_numbers(const A &array, const char *name, int64_t n,
                                                  int64_t least, int64_t end, const char *range) {
    require_type<int64_t>(array, name, 1);
    if (array.shape(0) != n || !is_contiguous(array)) {
        refuse(name, "one contiguous number each");
    }
    if (!numbers_within(array, least, end)) { refuse(name, range); }
    return static_cast<const int64_t *>(array.data());
}

// A contiguous, writeable array of exactly this shape. (Also in a larger buffer: tests put sentinels
// around it.)
template <class T, class A>
T *output(A &array, const char *name, std::initializer_list<int64_t> shape) {
    require_type<T>(array, name, static_cast<int>(shape.size()));
    int axis = 0;
    for (int64_t size : shape) {
        if (array.shape(axis++) != size) { refuse(name, "the shape of the result"); }
    }
    if (!is_contiguous(array)) { refuse(name, "a contiguous array"); }
    return static_cast<T *>(array.mutable_data()); // throws if read-only
}

inline int checked_threads(int threads) {
    if (threads < 1 || threads > max_threads) { refuse("threads", "1 to 256"); }
    return threads;
}

// True: finite. False: an input holds NaN or infinity; the caller finds out which.
inline bool finished(Status status) {
    switch (status) {
    case Status::ok: return true;
    case Status::not_finite: return false;
    case Status::no_memory: throw std::bad_alloc();
    default: throw std::runtime_error("no implementation of this op for this device");
    }
}

} // namespace fsseg
