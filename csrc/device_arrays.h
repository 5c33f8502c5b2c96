// Device arrays: made, viewed, copied from the host and to it. For bindings_cuda.cpp alone.
#pragma once

#include "cuda/array.h"
#include "cuda/copy.h"

#include <cstring>
#include <string>

namespace fsseg {
namespace cuda {

struct Wrong : std::runtime_error { // an InputError of Python
    Wrong(std::string argument_, std::string expected_, std::string got_, std::string remedy_)
        : std::runtime_error(argument_), argument(std::move(argument_)),
          expected(std::move(expected_)), got(std::move(got_)), remedy(std::move(remedy_)) {}
    std::string argument, expected, got, remedy;
};

inline void raise(const char *kind, const std::string &argument, const std::string &expected,
                  const std::string &got, const std::string &remedy) {
    const py::object type = py::module_::import("fsseg_sdk.errors").attr(kind);
    const py::object error = type(argument, py::arg("expected") = expected, py::arg("got") = got,
                                  py::arg("remedy") = remedy);
    PyErr_SetObject(type.ptr(), error.ptr());
}

inline const char *name_of(Type type) {
    constexpr const char *names[5] = {"float32", "float16", "bfloat16", "uint8", "int64"};
    return names[static_cast<int>(type)];
}

inline Type type_of_name(const std::string &name) {
    for (int i = 0; i < 5; ++i) {
        if (name == name_of(static_cast<Type>(i))) { return static_cast<Type>(i); }
    }
    throw Wrong("dtype", "float32, float16, bfloat16, uint8 or int64", name, "Pass one of these.");
}

using Shared = std::shared_ptr<Place>;

template <class Work> auto without_gil(Place &place, Work &&work) {
    py::gil_scoped_release release;
    return place.run(std::forward<Work>(work));
}

inline uintptr_t stream_number(const Place &place) { // as DLPack and __cuda_array_interface__ count
    return place.stream == nullptr ? 1 : reinterpret_cast<uintptr_t>(place.stream);
}

inline cudaStream_t numbered_stream(int64_t number, const char *argument) {
    if (number <= 0) {
        throw Wrong(argument, "1 (legacy), 2 (per thread) or a stream's address",
                    std::to_string(number), "Pass the stream on which the array will be used.");
    }
    return reinterpret_cast<cudaStream_t>(static_cast<uintptr_t>(number));
}

inline Array empty(const Shared &place, std::vector<int64_t> sizes, Type type) {
    size_t bytes = static_cast<size_t>(bytes_of(type));
    for (int64_t size : sizes) {
        if (size < 0) {
            throw Wrong("shape", "sizes of 0 or more", std::to_string(size), "Pass others.");
        }
        if (size > 0 && bytes > (size_t{1} << 62) / static_cast<size_t>(size)) {
            throw OutOfMemory("a shape that no memory holds");
        }
        bytes *= static_cast<size_t>(size);
    }
    place->sweep();
    char *data = without_gil(*place, [&] { return place->take(bytes); });
    Array array;
    array.memory = std::make_shared<Memory>(place, data, bytes);
    array.begin = data;
    array.type = type;
    array.steps = contiguous_steps(sizes);
    array.sizes = std::move(sizes);
    return array;
}

// ---- host to device ----
inline uint16_t rounded_to_bf16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return static_cast<uint16_t>(bits >> 16 | 0x40u);
    } // NaN
    return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// Values of the host as the device gets them: contiguous, of the type.
struct Values {
    Values(const py::array &values, Type type) {
        const bool wide = type == Type::bf16;
        host = values.attr("astype")(wide ? "float32" : name_of(type), py::arg("order") = "C",
                                     py::arg("copy") = false);
        if (wide) {
            const float *floats = static_cast<const float *>(host.data());
            narrow.resize(static_cast<size_t>(host.size()));
            for (size_t i = 0; i < narrow.size(); ++i) { narrow[i] = rounded_to_bf16(floats[i]); }
        }
    }
    const void *data() const { return narrow.empty() ? host.data() : narrow.data(); }
    py::array host;
    std::vector<uint16_t> narrow;
};

// From pageable memory: it may change as soon as the call returns.
inline void fill(const Array &array, const Values &values) {
    const size_t bytes = static_cast<size_t>(array.size() * array.itemsize());
    if (bytes == 0) { return; }
    Place &place = array.place();
    if (place.capturing(false)) { // a replay would read what is there by then
        throw Wrong("values", "arrays of the device while a graph is recorded", "one of the host",
                    "Copy it before the recording: context.array.");
    }
    const void *from = values.data();
    without_gil(place, [&] {
        check(cudaMemcpyAsync(array.begin, from, bytes, cudaMemcpyHostToDevice, place.stream),
              "copy");
    });
}

inline Array upload(const Shared &place, const py::array &values,
                    const std::optional<std::string> &dtype) {
    const std::string own = py::str(values.dtype().attr("name"));
    const Type type = type_of_name(dtype ? *dtype : own == "bool" ? "uint8" : own);
    const Values host(values, type);
    Array array = empty(place, {values.shape(), values.shape() + values.ndim()}, type);
    fill(array, host);
    return array;
}

inline Array upload_numbers(const Shared &place, const py::array &values, int64_t least,
                            int64_t end) {
    require_type<int64_t>(values, "numbers", 1);
    if (!fsseg::is_contiguous(values) || !fsseg::numbers_within(values, least, end)) {
        refuse("numbers", "contiguous ones in the range");
    }
    Array array = upload(place, values, {});
    array.writeable = false;
    array.least = least;
    array.end = end;
    return array;
}

// ---- on the device ----
inline void copy(const Array &from, const Array &to) { // to: contiguous, of the same type and shape
    if (from.ndim() > 4 && !is_contiguous(from)) {
        throw Wrong("array", "4 axes or fewer", "more", "Copy it to the host.");
    }
    in_one_place(to, from);
    const size_t bytes = static_cast<size_t>(from.size() * from.itemsize());
    if (bytes == 0) { return; }
    if (is_contiguous(from)) {
        without_gil(to.place(), [&] {
            check(cudaMemcpyAsync(to.begin, from.begin, bytes, cudaMemcpyDeviceToDevice,
                                  to.place().stream),
                  "copy");
        });
        return;
    }
    CopyArgs args{
        from.begin, to.begin, static_cast<size_t>(from.itemsize()), {1, 1, 1, 1}, {0, 0, 0, 0}};
    for (int axis = 0, last = 4 - from.ndim(); axis < from.ndim(); ++axis, ++last) {
        args.size[last] = from.shape(axis);
        args.stride[last] = from.steps[static_cast<size_t>(axis)];
    }
    without_gil(to.place(), [&] { return finished(copy_strided(args)); });
}

inline Array contiguous(const Array &array) {
    if (is_contiguous(array)) { return array; }
    Array result = empty(array.memory->place, array.sizes, array.type);
    copy(array, result);
    return result;
}

// ---- device to host ----
inline py::array fetch(const Array &given,
                       int *report) { // bfloat16 as float32; report: null leaves it there
    const Array array = contiguous(given);
    Place &place = array.place();
    const bool wide = array.type == Type::bf16;
    py::array host(py::dtype(wide ? "uint16" : name_of(array.type)), array.sizes);
    void *to = host.mutable_data();
    const size_t bytes = static_cast<size_t>(array.size() * array.itemsize());
    without_gil(place, [&] {
        if (bytes > 0) {
            check(cudaMemcpyAsync(to, array.begin, bytes, cudaMemcpyDeviceToHost, place.stream),
                  "copy");
        }
        if (report != nullptr) {
            *report = place.context().take_report();
        } else {
            check(cudaStreamSynchronize(place.stream), "the stream");
        }
    });
    place.sweep();
    if (!wide) { return host; }
    py::array_t<float> floats(array.sizes);
    const uint16_t *narrow = static_cast<const uint16_t *>(host.data());
    float *values = floats.mutable_data();
    for (int64_t i = 0; i < array.size(); ++i) {
        const uint32_t bits = static_cast<uint32_t>(narrow[i]) << 16;
        std::memcpy(values + i, &bits, sizeof bits);
    }
    return floats;
}

inline void raise_report(int report) {
    if ((report & not_finite) != 0) {
        throw Wrong("an array of the device", "finite values (and weights of 0 or more)",
                    "something else in an op since the last copy to the host",
                    "Copy the inputs to the host and look: an overflow in half precision, or a "
                    "division by 0.");
    }
    if ((report & diverged) != 0) {
        raise("KernelError", "online_mlp_fit", "a fit that converges",
              "a loss or a weight that became infinite or NaN", "Make the learning rate smaller.");
        throw py::error_already_set();
    }
}

inline py::array to_host(const Array &array) {
    int report = 0;
    py::array host = fetch(array, &report);
    raise_report(report);
    return host;
}

inline void synchronize(const Shared &place) {
    int report = 0;
    without_gil(*place, [&] { report = place->context().take_report(); });
    place->sweep();
    raise_report(report);
}

// A view of one part along the first axis.
inline Array item_of(const Array &array, int64_t index) {
    if (array.ndim() == 0) { throw py::index_error("of no axis"); }
    const int64_t place = index < 0 ? index + array.shape(0) : index;
    if (place < 0 || place >= array.shape(0)) {
        throw py::index_error("outside of the first axis");
    }
    Array part = array;
    part.begin += place * array.strides(0);
    part.sizes.erase(part.sizes.begin());
    part.steps.erase(part.steps.begin());
    return part;
}

inline Array slice_of(const Array &array, const py::slice &slice) {
    size_t start = 0, stop = 0, step = 0, length = 0;
    if (array.ndim() == 0) { throw py::index_error("of no axis"); }
    if (!slice.compute(static_cast<size_t>(array.shape(0)), &start, &stop, &step, &length)) {
        throw py::error_already_set();
    }
    if (step != 1) { throw py::index_error("slices of the first axis have a step of 1"); }
    Array part = array;
    part.begin += static_cast<int64_t>(start) * array.strides(0);
    part.sizes[0] = static_cast<int64_t>(length);
    return part;
}

// A view within the array's own memory.
inline Array view(const Array &array, const std::vector<int64_t> &sizes,
                  const std::vector<int64_t> &steps, int64_t offset) {
    Array result = array;
    int64_t low = offset, high = offset;
    if (sizes.size() != steps.size()) { refuse("steps", "one for each axis"); }
    for (size_t axis = 0; axis < sizes.size(); ++axis) {
        if (sizes[axis] < 1) { refuse("shape", "sizes of 1 or more"); }
        const int64_t reach = (sizes[axis] - 1) * steps[axis];
        (reach < 0 ? low : high) += reach;
    }
    if (!is_contiguous(array) || low < 0 || high >= array.size()) {
        refuse("view", "a part of the array");
    }
    result.begin += offset * array.itemsize();
    result.sizes = sizes;
    result.steps = steps;
    return result;
}

} // namespace cuda
} // namespace fsseg
