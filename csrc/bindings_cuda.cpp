// fsseg_sdk._kernels.cuda: contexts and arrays of a device, and the ops on them. Compiled only with FSSEG_CUDA.
// fsseg_sdk/ops/device.py is its door.
#ifdef FSSEG_CUDA
#include "bound_learning.h"
#include "bound_ops.h"
#include "cuda/array.h"
#include "cuda/copy.h"
#include "cuda/dlpack.h"
#include "cuda/planes.h"

#include <cstring>
#include <string>

namespace fsseg {
namespace cuda {

namespace {

struct Wrong : std::runtime_error { // an InputError of Python
    Wrong(std::string argument_, std::string expected_, std::string got_, std::string remedy_)
        : std::runtime_error(argument_), argument(std::move(argument_)),
          expected(std::move(expected_)), got(std::move(got_)), remedy(std::move(remedy_)) {}
    std::string argument, expected, got, remedy;
};

void raise(const char *kind, const std::string &argument, const std::string &expected,
           const std::string &got, const std::string &remedy) {
    const py::object type = py::module_::import("fsseg_sdk.errors").attr(kind);
    const py::object error = type(argument, py::arg("expected") = expected, py::arg("got") = got,
                                  py::arg("remedy") = remedy);
    PyErr_SetObject(type.ptr(), error.ptr());
}

void translate(std::exception_ptr thrown) {
    try {
        if (thrown) { std::rethrow_exception(thrown); }
    } catch (const Wrong &wrong) {
        raise("InputError", wrong.argument, wrong.expected, wrong.got, wrong.remedy);
    } catch (const OutOfMemory &error) {
        raise("DeviceMemoryError", "the device", "enough memory for the call", error.what(),
              "Use smaller batches or a smaller picture, or end what else uses the device; then "
              "call again.");
    } catch (const DeviceLost &error) {
        raise("KernelError", "the device", "a device that answers", error.what(),
              "It will not answer again in this process: start a new one. If it happens again, "
              "report it with "
              "`fsseg doctor --json`.");
    } catch (const CudaError &error) {
        const int code = static_cast<int>(error.code);
        const bool absent = code == 35 || code == 100 || code == 999 || code == 34;
        const char *remedy =
            absent        ? "Install NVIDIA's driver for this version of CUDA, or use the CPU."
            : code == 209 ? "Build for it: FSSEG_CUDA_ARCHITECTURES names what is built."
                          : "See `fsseg doctor`; report it if the device is there.";
        raise("KernelError", "CUDA", "a call that works", error.what(), remedy);
    }
}

const char *name_of(Type type) {
    constexpr const char *names[5] = {"float32", "float16", "bfloat16", "uint8", "int64"};
    return names[static_cast<int>(type)];
}

Type type_of_name(const std::string &name) {
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

uintptr_t stream_number(const Place &place) { // as DLPack and __cuda_array_interface__ count
    return place.stream == nullptr ? 1 : reinterpret_cast<uintptr_t>(place.stream);
}

cudaStream_t numbered_stream(int64_t number, const char *argument) {
    if (number <= 0) {
        throw Wrong(argument, "1 (legacy), 2 (per thread) or a stream's address",
                    std::to_string(number), "Pass the stream on which the array will be used.");
    }
    return reinterpret_cast<cudaStream_t>(static_cast<uintptr_t>(number));
}

Array empty(const Shared &place, std::vector<int64_t> sizes, Type type) {
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
uint16_t rounded_to_bf16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return static_cast<uint16_t>(bits >> 16 | 0x40u);
    } // NaN
    return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

Array upload(const Shared &place, const py::array &values,
             const std::optional<std::string> &dtype) {
    const std::string own = py::str(values.dtype().attr("name"));
    const Type type = type_of_name(dtype ? *dtype : own == "bool" ? "uint8" : own);
    const bool wide = type == Type::bf16;
    const py::array host = values.attr("astype")(wide ? "float32" : name_of(type),
                                                 py::arg("order") = "C", py::arg("copy") = false);
    std::vector<uint16_t> narrow;
    const void *from = host.data();
    if (wide) {
        const float *floats = static_cast<const float *>(host.data());
        narrow.resize(static_cast<size_t>(host.size()));
        for (size_t i = 0; i < narrow.size(); ++i) { narrow[i] = rounded_to_bf16(floats[i]); }
        from = narrow.data();
    }
    Array array = empty(place, {values.shape(), values.shape() + values.ndim()}, type);
    const size_t bytes = static_cast<size_t>(array.size() * array.itemsize());
    if (bytes > 0) { // from pageable memory: it may change as soon as the call returns
        without_gil(*place, [&] {
            check(cudaMemcpyAsync(array.begin, from, bytes, cudaMemcpyHostToDevice, place->stream),
                  "copy");
        });
    }
    return array;
}

Array upload_numbers(const Shared &place, const py::array &values, int64_t least, int64_t end) {
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

// ---- device to host ----
Array contiguous(const Array &array) {
    if (is_contiguous(array)) { return array; }
    CopyArgs args{
        array.begin, nullptr, static_cast<size_t>(array.itemsize()), {1, 1, 1, 1}, {0, 0, 0, 0}};
    if (array.ndim() > 4) {
        throw Wrong("array", "4 axes or fewer", "more", "Copy it to the host.");
    }
    for (int axis = 0, to = 4 - array.ndim(); axis < array.ndim(); ++axis, ++to) {
        args.size[to] = array.shape(axis);
        args.stride[to] = array.steps[static_cast<size_t>(axis)];
    }
    Array result = empty(array.memory->place, array.sizes, array.type);
    args.to = result.begin;
    without_gil(array.place(), [&] { return finished(copy_strided(args)); });
    return result;
}

py::array fetch(const Array &given,
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

void raise_report(int report) {
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

py::array to_host(const Array &array) {
    int report = 0;
    py::array host = fetch(array, &report);
    raise_report(report);
    return host;
}

void synchronize(const Shared &place) {
    int report = 0;
    without_gil(*place, [&] { report = place->context().take_report(); });
    place->sweep();
    raise_report(report);
}

// ---- arrays of others ----
std::function<void()> with_gil(std::function<void()> work) {
    return [work = std::move(work)] {
        if (!Py_IsInitialized()) { return; }
        py::gil_scoped_acquire gil;
        work();
    };
}

Array on_loan(const Shared &place, void *data, Type type, std::vector<int64_t> sizes,
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

[[noreturn]] void wrong_type(const std::string &argument, const std::string &got) {
    throw Wrong(argument, "float32, float16, bfloat16, uint8, bool or int64", got,
                "Convert it first.");
}

void require_device(const Place &place, const std::string &argument, int type, int id) {
    if ((type != dlpack::device_cuda && type != dlpack::device_managed) || id != place.device) {
        throw Wrong(argument, "memory of CUDA device " + std::to_string(place.device),
                    "DLPack device (" + std::to_string(type) + ", " + std::to_string(id) + ")",
                    "Copy all arrays to one device.");
    }
}

Array from_dlpack(const Shared &place, const py::object &source, const std::string &argument) {
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

// A view of one part along the first axis.
Array item_of(const Array &array, int64_t index) {
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

Array slice_of(const Array &array, const py::slice &slice) {
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

const float *contiguous_planes(const Array &array, const char *name) {
    require_type<float>(array, name, 4);
    if (!is_contiguous(array)) { refuse(name, "a contiguous array"); }
    return static_cast<const float *>(array.data());
}

void first_largest_op(const Array &planes, int64_t parts, Array out) {
    in_one_place(out, planes);
    const float *from = contiguous_planes(planes, "planes");
    const int64_t count = planes.shape(1);
    if (parts < 1 || parts >= count) { refuse("parts", "1 to fewer than the planes"); }
    float *to = output<float>(
        out, "out", {planes.shape(0), 1 + count - parts, planes.shape(2), planes.shape(3)});
    const FirstLargestArgs args{
        from, planes.shape(0), count, parts, planes.shape(2) * planes.shape(3), to};
    running(out, [&](fsseg::Device) { return finished(first_largest(args)); });
}

void blend_op(Array into, const Array &other, float factor, float other_factor) {
    in_one_place(into, other);
    const float *from = contiguous_planes(other, "other");
    float *to = output<float>(into, "into",
                              {other.shape(0), other.shape(1), other.shape(2), other.shape(3)});
    const BlendArgs args{to, from, factor, other_factor, other.size()};
    running(into, [&](fsseg::Device) { return finished(blend(args)); });
}

// The device whose memory that is; -1: none.
int device_of(uintptr_t address) {
    cudaPointerAttributes found;
    check(cudaPointerGetAttributes(&found, reinterpret_cast<const void *>(address)), "an address");
    return found.type == cudaMemoryTypeDevice || found.type == cudaMemoryTypeManaged ? found.device
                                                                                     : -1;
}

Array from_interface(const Shared &place, const py::object &source, const std::string &argument) {
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
Array from_context(const Shared &place, const Array &array, const std::string &argument) {
    if (&array.place() == place.get()) { return array; }
    require_device(*place, argument, dlpack::device_cuda, array.place().device);
    without_gil(*place, [&] { place->wait_for(array.place().stream); });
    const std::shared_ptr<Memory> keep = array.memory;
    Array seen = on_loan(place, array.begin, array.type, array.sizes, array.steps, [keep] {});
    seen.least = array.least;
    seen.end = array.end;
    return seen;
}

// ---- arrays to others ----
struct Lent {
    dlpack::ManagedTensor managed;
    Array array;
    cudaStream_t reader;
};

void end_loan(
    dlpack::ManagedTensor *managed) { // from any thread; what they enqueued still reads the memory
    Lent *lent = static_cast<Lent *>(managed->context);
    try {
        Place &place = lent->array.place();
        place.wait_for(lent->reader);
    } catch (const std::runtime_error &) {} // the device is lost
    delete lent;
}

py::capsule to_dlpack(const Array &array, const py::object &stream, const py::object &,
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

py::dict to_interface(const Array &array) {
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

// A view within the array's own memory.
Array view(const Array &array, const std::vector<int64_t> &sizes, const std::vector<int64_t> &steps,
           int64_t offset) {
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

py::list devices() {
    int count = 0;
    check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
    py::list found;
    for (int device = 0; device < count; ++device) {
        cudaDeviceProp properties;
        check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceCount");
        py::dict one;
        one["name"] = std::string(properties.name);
        one["capability"] =
            std::to_string(properties.major) + "." + std::to_string(properties.minor);
        one["memory_gib"] = static_cast<double>(properties.totalGlobalMem >> 20) / 1024.0;
        found.append(one);
    }
    return found;
}

} // namespace

void bind(py::module_ &parent) {
    py::module_ m = parent.def_submodule("cuda");
    py::register_local_exception_translator(translate);

    py::class_<Place, Shared>(
        m, "DeviceContext",
        "A CUDA device, a stream of it, and a pool of its memory.\n\n"
        "device: its number. stream: the address of a cudaStream_t, e.g. "
        "torch.cuda.current_stream().cuda_stream,\n"
        "which must outlive the context and its arrays; None: CUDA's legacy default stream, or "
        "with own_stream one of\n"
        "its own, which waits for nobody. All "
        "work on the\n"
        "context's arrays is put on that stream. Several contexts may be used by several threads "
        "at once.\n\n"
        "Raises KernelError (no driver, or a device that no longer answers: lost is True then, for "
        "good),\n"
        "InputError (no such device), DeviceMemoryError (the next call works).")
        .def(py::init([](int device, std::optional<uintptr_t> stream, bool own_stream) {
                 if (device < 0) {
                     throw Wrong("device", "0 or more", std::to_string(device), "Pass 0.");
                 }
                 py::gil_scoped_release release;
                 int count = 0;
                 check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
                 if (device >= count) {
                     throw Wrong("device", "below " + std::to_string(count), std::to_string(device),
                                 "Pass the number of a device that `fsseg doctor` lists.");
                 }
                 if (own_stream) { return Place::with_own_stream(device); }
                 return std::make_shared<Place>(device,
                                                reinterpret_cast<cudaStream_t>(stream.value_or(0)));
             }),
             py::arg("device") = 0, py::arg("stream") = py::none(), py::kw_only(),
             py::arg("own_stream") = false)
        .def_readonly("device", &Place::device)
        .def_property_readonly("stream", &stream_number)
        .def_property_readonly("lost", &Place::lost)
        .def_property_readonly("held", &Place::held, "Bytes of the device's memory, in use or not.")
        .def_property_readonly("_allocations", &Place::allocations)
        .def(
            "trim",
            [](Place &place) {
                py::gil_scoped_release release;
                return place.trim();
            },
            "Gives the unused memory of the pool back to the device; how many bytes that were.")
        .def("synchronize", &synchronize,
             "Waits for the stream; raises what DeviceArray.to_host would.")
        .def("array", &upload, py::arg("values"), py::arg("dtype") = py::none(),
             "A copy of a numpy array on the device, as float32, float16, bfloat16, uint8 (also of "
             "bool) or int64.")
        .def(
            "empty",
            [](const Shared &place, const std::vector<int64_t> &shape, const std::string &dtype) {
                return empty(place, shape, type_of_name(dtype));
            },
            py::arg("shape"), py::arg("dtype") = "float32",
            "A contiguous array whose values are anything.")
        .def("_wait",
             [](Place &place) {
                 py::gil_scoped_release release;
                 place.wait();
             })
        .def("_numbers", &upload_numbers)
        .def("_from_dlpack", &from_dlpack)
        .def("_from_interface", &from_interface)
        .def("_from_context", &from_context);

    py::class_<Array>(
        m, "DeviceArray",
        "An array in the memory of a CUDA device: float32, float16, bfloat16, uint8 or int64.\n\n"
        "Made by ops on other device arrays, by DeviceContext.array (from numpy) and "
        "DeviceContext.empty. Speaks\n"
        "DLPack and __cuda_array_interface__ (version 3): torch, cupy and numba see it without a "
        "copy, ordered after\n"
        "the work that makes it; the stream they name must outlive what they make of it. Its "
        "values exist once\n"
        "the stream has come so far: to_host waits for that.")
        .def_property_readonly("shape", [](const Array &a) { return py::tuple(py::cast(a.sizes)); })
        .def_property_readonly("strides",
                               [](const Array &a) {
                                   py::tuple strides(a.sizes.size());
                                   for (int i = 0; i < a.ndim(); ++i) {
                                       strides[static_cast<size_t>(i)] = a.strides(i);
                                   }
                                   return strides;
                               })
        .def_property_readonly("dtype", [](const Array &a) { return name_of(a.type); })
        .def_property_readonly("ndim", &Array::ndim)
        .def_property_readonly("size", &Array::size)
        .def_property_readonly("itemsize", &Array::itemsize)
        .def_property_readonly("nbytes", [](const Array &a) { return a.size() * a.itemsize(); })
        .def_property_readonly("is_contiguous", [](const Array &a) { return is_contiguous(a); })
        .def_property_readonly("pointer",
                               [](const Array &a) { return reinterpret_cast<uintptr_t>(a.begin); })
        .def_property_readonly("context", [](const Array &a) { return a.memory->place; })
        .def_property_readonly("device", [](const Array &a) { return a.place().device; })
        .def_property_readonly("stream", [](const Array &a) { return stream_number(a.place()); })
        .def("contiguous", &contiguous,
             "The array itself where it is contiguous, else a copy that is.")
        .def("to_host", &to_host,
             "A copy as a numpy array (of bfloat16: float32), when the device has come so far.\n\n"
             "Raises InputError: an op of this context met a value that is not finite (or a "
             "negative weight) since\n"
             "the last time this was asked. KernelError: online_mlp_fit diverged, or the device is "
             "lost.")
        .def("_peek", [](const Array &a) { return fetch(a, nullptr); })
        .def("_view", &view, py::arg("shape"), py::arg("steps"), py::arg("offset") = 0)
        .def("_with_report",
             [](const Array &a) {
                 int report = 0;
                 py::array host = fetch(a, &report);
                 return py::make_tuple(host, report);
             })
        .def("__len__",
             [](const Array &a) {
                 if (a.ndim() == 0) { throw py::type_error("of no axis"); }
                 return a.shape(0);
             })
        .def("__getitem__", &item_of)
        .def("__getitem__", &slice_of)
        .def("__dlpack_device__",
             [](const Array &a) {
                 return py::make_tuple(static_cast<int>(dlpack::device_cuda), a.place().device);
             })
        .def("__dlpack__", &to_dlpack, py::kw_only(), py::arg("stream") = py::none(),
             py::arg("max_version") = py::none(), py::arg("dl_device") = py::none(),
             py::arg("copy") = py::none())
        .def_property_readonly("__cuda_array_interface__", &to_interface)
        .def("__repr__", [](const Array &a) {
            std::string shape;
            for (int64_t size : a.sizes) {
                shape += (shape.empty() ? "" : ", ") + std::to_string(size);
            }
            return "DeviceArray([" + shape + "], " + name_of(a.type) + ", device " +
                   std::to_string(a.place().device) + ")";
        });

    m.attr("not_finite") = static_cast<int>(not_finite);
    m.attr("diverged") = static_cast<int>(diverged);
    m.def("devices", &devices);
    m.def("_device_of", &device_of);
    m.def("_first_largest", &first_largest_op);
    m.def("_blend", &blend_op);
    bind_ops<Array>(m);
    bind_learning<Array>(m);
}

} // namespace cuda
} // namespace fsseg
#endif
