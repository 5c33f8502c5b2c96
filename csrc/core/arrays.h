// numpy arrays -> views, for bindings.cpp only. fsseg_sdk/ops has checked values and shapes and says
// what is wrong in words; here only what could make a kernel touch foreign memory is checked again.
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

template <class T> inline void require_type(const py::array &array, const char *name, int rank) {
    if (!py::dtype::of<T>().is(array.dtype()) && !array.dtype().equal(py::dtype::of<T>())) {
        refuse(name, "another dtype");
    }
    if (array.ndim() != rank) { refuse(name, ("rank " + std::to_string(rank)).c_str()); }
}

// In elements; 0 for an axis of size 1, whose stride means nothing.
inline int64_t stride_of(const py::array &array, const char *name, int axis) {
    if (array.shape(axis) <= 1) { return 0; }
    const int64_t bytes = array.strides(axis), item = array.itemsize();
    if (bytes % item != 0) { refuse(name, "strides that are whole elements"); }
    return bytes / item;
}

// [B, C, h, w] float32 with contiguous planes. An axis of size 1 may have any stride, and so may all axes
// of an array that holds nothing.
inline PlaneView plane_view(const py::array &array, const char *name) {
    require_type<float>(array, name, 4);
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
            stride_of(array, name, 1)};
}

// [P, C] (shared by all batches) or [B, P, C] float32 with contiguous rows.
inline RowsView rows_view(const py::array &array, const char *name) {
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

// A contiguous, writeable array of exactly this shape. (Also in a larger buffer: tests put sentinels
// around it.)
template <class T>
inline T *output(py::array &array, const char *name, std::initializer_list<int64_t> shape) {
    require_type<T>(array, name, static_cast<int>(shape.size()));
    int axis = 0;
    for (int64_t size : shape) {
        if (array.shape(axis++) != size) { refuse(name, "the shape of the result"); }
    }
    if ((array.flags() & py::array::c_style) == 0) { refuse(name, "a contiguous array"); }
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
