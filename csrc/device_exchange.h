// Device arrays of others, and ours for others: DLPack, __cuda_array_interface__. For bindings_cuda.cpp alone.
#pragma once

#include "cuda/dlpack.h"
#include "device_arrays.h"

#include <algorithm>
#include <string>

namespace fsseg {
namespace cuda {

// ---- arrays of others ----
inline std::function<void()> with_gil(std::function<void()> work) {
    return [work = std::move(work)] {
        if (!Py_IsInitialized()) { return; }
        py::gil_scoped_acquire gil;
        work();
    };
}

inline Array on_loan(const Shared &place, void *data, Type type, std::vector<int64_t> sizes,
                     std::vector<int64_t> steps, std::function<void()> done) {
    Array array;
    array.begin = static_cast<char *>(data);
    array.type = type;
    array.sizes = std::move(sizes);
    array.steps = std::move(steps);
    array.writeable = false;
    array.memory = std::make_shared<Memory>(place, array.begin, 0, with_gil(std::move(done)));
    return array;
}

[[noreturn]] inline void wrong_type(const std::string &argument, const std::string &got) {
    throw Wrong(argument, "float32, float16, bfloat16, uint8, bool or int64", got,
                "Convert it first.");
}

inline void require_device(const Place &place, const std::string &argument, int type, int id) {
    if ((type != dlpack::device_cuda && type != dlpack::device_managed) || id != place.device) {
        throw Wrong(argument, "memory of CUDA device " + std::to_string(place.device),
                    "DLPack device (" + std::to_string(type) + ", " + std::to_string(id) + ")",
                    "Copy all arrays to one device.");
    }
}

inline Array from_dlpack(const Shared &place, const py::object &source,
                         const std::string &argument) {
    const py::tuple where = source.attr("__dlpack_device__")();
    require_device(*place, argument, py::int_(where[0]).cast<int>(),
                   py::int_(where[1]).cast<int>());
    place->sweep();
    const py::object capsule = source.attr("__dlpack__")(py::arg("stream") = stream_number(*place));
    auto *managed = static_cast<dlpack::ManagedTensor *>(
        PyCapsule_GetPointer(capsule.ptr(), dlpack::fresh_name));
    if (managed == nullptr) { throw py::error_already_set(); }
    const dlpack::Tensor &tensor = managed->tensor;
    require_device(*place, argument, tensor.device.type, tensor.device.id);
    Type type = Type::f32;
    const int code = tensor.dtype.code, bits = tensor.dtype.bits;
    if (code == dlpack::type_float && bits == 32) {
        type = Type::f32;
    } else if (code == dlpack::type_float && bits == 16) {
        type = Type::f16;
    } else if (code == dlpack::type_bfloat && bits == 16) {
        type = Type::bf16;
    } else if ((code == dlpack::type_uint || code == dlpack::type_bool) && bits == 8) {
        type = Type::u8;
    } else if (code == dlpack::type_int && bits == 64) {
        type = Type::i64;
    } else {
        wrong_type(argument,
                   "DLPack type (" + std::to_string(code) + ", " + std::to_string(bits) + ")");
    }
    if (tensor.dtype.lanes != 1) { wrong_type(argument, "several lanes"); }
    std::vector<int64_t> sizes(tensor.shape, tensor.shape + tensor.ndim),
        steps = contiguous_steps(sizes);
    if (tensor.strides != nullptr) { steps.assign(tensor.strides, tensor.strides + tensor.ndim); }
    PyCapsule_SetName(capsule.ptr(), dlpack::used_name); // from here on it is ours to end
    return on_loan(place, static_cast<char *>(tensor.data) + tensor.byte_offset, type,
                   std::move(sizes), std::move(steps), [managed] {
                       if (managed->deleter != nullptr) { managed->deleter(managed); }
                   });
}

// The device whose memory that is; -1: none.
inline int device_of(uintptr_t address) {
    cudaPointerAttributes found;
    check(cudaPointerGetAttributes(&found, reinterpret_cast<const void *>(address)), "an address");
    return found.type == cudaMemoryTypeDevice || found.type == cudaMemoryTypeManaged ? found.device
                                                                                     : -1;
}

inline Array from_interface(const Shared &place, const py::object &source,
                            const std::string &argument) {
    const py::dict fields = source.attr("__cuda_array_interface__");
    const std::string words = py::str(fields["typestr"]);
    const std::pair<const char *, Type> known[] = {{"<f4", Type::f32}, {"<f2", Type::f16},
                                                   {"|u1", Type::u8},  {"|b1", Type::u8},
                                                   {"<i8", Type::i64}, {"<u1", Type::u8}};
    const auto *found = std::find_if(std::begin(known), std::end(known),
                                     [&](const auto &one) { return words == one.first; });
    if (found == std::end(known)) { wrong_type(argument, "typestr " + words); }
    std::vector<int64_t> sizes, steps;
    for (const py::handle &size : py::tuple(fields["shape"])) {
        sizes.push_back(size.cast<int64_t>());
    }
    steps = contiguous_steps(sizes);
    if (fields.contains("strides") && !fields["strides"].is_none()) {
        const py::tuple strides = fields["strides"];
        if (strides.size() != sizes.size()) { wrong_type(argument, "strides of another rank"); }
        for (size_t axis = 0; axis < sizes.size(); ++axis) {
            const int64_t bytes = strides[axis].cast<int64_t>();
            if (bytes % bytes_of(found->second) != 0) {
                wrong_type(argument, "strides of part elements");
            }
            steps[axis] = bytes / bytes_of(found->second);
        }
    }
    const uintptr_t address = py::tuple(fields["data"])[0].cast<uintptr_t>();
    if (address != 0) { require_device(*place, argument, dlpack::device_cuda, device_of(address)); }
    if (fields.contains("stream") && !fields["stream"].is_none()) {
        const cudaStream_t theirs = numbered_stream(fields["stream"].cast<int64_t>(), "stream");
        without_gil(*place, [&] { place->wait_for(theirs); });
    }
    PyObject *keep = source.inc_ref().ptr();
    return on_loan(place, reinterpret_cast<void *>(address), found->second, std::move(sizes),
                   std::move(steps), [keep] { Py_DECREF(keep); });
}

// Of another context of the same device.
inline Array from_context(const Shared &place, const Array &array, const std::string &argument) {
    if (&array.place() == place.get()) { return array; }
    require_device(*place, argument, dlpack::device_cuda, array.place().device);
    without_gil(*place, [&] { place->wait_for(array.place().stream); });
    const std::shared_ptr<Memory> keep = array.memory;
    Array seen = on_loan(place, array.begin, array.type, array.sizes, array.steps, [keep] {});
    seen.least = array.least;
    seen.end = array.end;
    return seen;
}

// Values of the host, or of a device array, into the array.
inline void write(const Array &array, const py::object &values) {
    const bool there = py::isinstance<Array>(values);
    if (!there && !py::isinstance<py::array>(values)) {
        throw Wrong("values", "a numpy array or a DeviceArray",
                    py::str(py::type::of(values).attr("__name__")), "Pass one.");
    }
    const py::array host = there ? py::array() : py::cast<py::array>(values);
    const std::string own =
        there ? name_of(values.cast<const Array &>().type) : py::str(host.dtype().attr("name"));
    const char *wanted = !there && array.type == Type::bf16 ? "float32" : name_of(array.type);
    const std::vector<int64_t> sizes =
        there ? values.cast<const Array &>().sizes
              : std::vector<int64_t>(host.shape(), host.shape() + host.ndim());
    if (!array.writeable || !is_contiguous(array)) {
        throw Wrong("write", "a contiguous array that may be written",
                    array.writeable ? "one with gaps" : "one that is only read",
                    "Write into one of context.empty or context.array.");
    }
    if (own != wanted || sizes != array.sizes) {
        const auto words = [](const std::string &type, const std::vector<int64_t> &shape) {
            std::string text;
            for (int64_t size : shape) {
                text += (text.empty() ? "" : ", ") + std::to_string(size);
            }
            return type + " [" + text + "]";
        };
        throw Wrong("values", words(wanted, array.sizes), words(own, sizes),
                    "Convert them, or make another array.");
    }
    if (there) {
        copy(from_context(array.memory->place, values.cast<const Array &>(), "values"), array);
    } else {
        fill(array, Values(host, array.type));
    }
}

// ---- arrays to others ----
struct Lent {
    dlpack::ManagedTensor managed;
    Array array;
    cudaStream_t reader;
};

inline void end_loan(
    dlpack::ManagedTensor *managed) { // from any thread; what they enqueued still reads the memory
    Lent *lent = static_cast<Lent *>(managed->context);
    try {
        Place &place = lent->array.place();
        place.wait_for(lent->reader);
    } catch (const std::runtime_error &) {} // the device is lost
    delete lent;
}

inline py::capsule to_dlpack(const Array &array, const py::object &stream, const py::object &,
                             const py::object &device, const py::object &copy) {
    Place &place = array.place();
    if (!device.is_none()) {
        const py::tuple wanted = device;
        require_device(place, "dl_device", wanted[0].cast<int>(), wanted[1].cast<int>());
    }
    if (!copy.is_none() && copy.cast<bool>()) {
        throw py::buffer_error("no copies are made: copy=None or False");
    }
    const int64_t number = stream.is_none() ? 1 : stream.cast<int64_t>();
    cudaStream_t reader = place.stream;
    if (number != -1) {
        reader = numbered_stream(number, "stream");
        without_gil(place, [&] { place.let_wait(reader); });
    }
    auto lent = std::make_unique<Lent>(Lent{{}, array, reader});
    dlpack::Tensor &tensor = lent->managed.tensor;
    constexpr dlpack::DataType types[5] = {{dlpack::type_float, 32, 1},
                                           {dlpack::type_float, 16, 1},
                                           {dlpack::type_bfloat, 16, 1},
                                           {dlpack::type_uint, 8, 1},
                                           {dlpack::type_int, 64, 1}};
    tensor = {array.begin,
              {dlpack::device_cuda, place.device},
              array.ndim(),
              types[static_cast<int>(array.type)],
              lent->array.sizes.data(),
              lent->array.steps.data(),
              0};
    lent->managed.context = lent.get();
    lent->managed.deleter = end_loan;
    return py::capsule(&lent.release()->managed, dlpack::fresh_name, [](PyObject *capsule) {
        if (PyCapsule_IsValid(capsule, dlpack::fresh_name) == 0) { return; } // somebody took it
        auto *managed =
            static_cast<dlpack::ManagedTensor *>(PyCapsule_GetPointer(capsule, dlpack::fresh_name));
        managed->deleter(managed);
    });
}

inline py::dict to_interface(const Array &array) {
    constexpr const char *types[5] = {"<f4", "<f2", "<V2", "|u1", "<i8"};
    if (array.type == Type::bf16) {
        throw py::attribute_error("__cuda_array_interface__ knows no bfloat16; use DLPack");
    }
    py::tuple shape(array.sizes.size()), strides(array.sizes.size());
    for (int axis = 0; axis < array.ndim(); ++axis) {
        shape[static_cast<size_t>(axis)] = array.shape(axis);
        strides[static_cast<size_t>(axis)] = array.strides(axis);
    }
    py::dict fields;
    fields["shape"] = shape;
    fields["typestr"] = types[static_cast<int>(array.type)];
    fields["data"] = py::make_tuple(reinterpret_cast<uintptr_t>(array.begin), !array.writeable);
    fields["strides"] = is_contiguous(array) ? py::object(py::none()) : py::object(strides);
    fields["version"] = 3;
    fields["stream"] = stream_number(array.place());
    return fields;
}

} // namespace cuda
} // namespace fsseg
