// fsseg_sdk._kernels.cuda: contexts and arrays of a device, and the ops on them. Compiled only with FSSEG_CUDA.
// fsseg_sdk/ops/device.py is its door.
#ifdef FSSEG_CUDA
#include "bound_learning.h"
#include "bound_ops.h"
#include "cuda/graph.h"
#include "cuda/planes.h"
#include "device_arrays.h"
#include "device_exchange.h"

#include <string>

namespace fsseg {
namespace cuda {

namespace {

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
            : code >= 900 && code < 910 ? "In a recording only enqueue: bring arrays to the device "
                                          "before it, read behind it."
                                        : "See `fsseg doctor`; report it if the device is there.";
        raise("KernelError", "CUDA", "a call that works", error.what(), remedy);
    }
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

using Graph = std::shared_ptr<RecordedGraph>;

Graph recorded(const Shared &place) {
    if (place->stream == nullptr || place->stream == cudaStreamLegacy) {
        throw Wrong("record", "a context with a stream of its own", "CUDA's legacy default stream",
                    "Make it with own_stream=True, or with the stream of somebody else.");
    }
    return std::make_shared<RecordedGraph>(place);
}

void begin(RecordedGraph &graph) {
    if (graph.state() != RecordedGraph::State::fresh || graph.place()->capturing(false)) {
        throw Wrong("record", "a new graph, of a stream that is not captured",
                    graph.state() == RecordedGraph::State::fresh ? "a stream that is"
                                                                 : "one that has been used",
                    "Call context.record() for each, one after the other.");
    }
    py::gil_scoped_release release;
    graph.begin();
}

void replay(RecordedGraph &graph) {
    if (graph.state() != RecordedGraph::State::ready) {
        throw Wrong("replay", "a graph whose recording has ended well",
                    graph.state() == RecordedGraph::State::over ? "one whose recording failed"
                                                                : "one before or in its recording",
                    "Call it behind `with context.record() as graph:`.");
    }
    if (graph.place()->capturing(false)) {
        throw Wrong("replay", "a stream that is not captured", "one that is",
                    "Call what the graph does in the recording itself.");
    }
    py::gil_scoped_release release;
    graph.replay();
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
                 try {
                     if (own_stream) { return Place::with_own_stream(device); }
                     return std::make_shared<Place>(
                         device, reinterpret_cast<cudaStream_t>(stream.value_or(0)));
                 } catch (const std::bad_alloc &) {
                     throw OutOfMemory("none left on device " + std::to_string(device));
                 }
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
        .def("record", &recorded,
             "A RecordedGraph of what is enqueued on the context in `with context.record() as "
             "graph:`.\n\n"
             "Nothing of that is done before graph.replay(). Call it twice before, so that the "
             "pool holds what it\n"
             "needs. In the recording the context is for this thread alone, all arrays must be on "
             "the device\n"
             "already, and nothing may be waited for. Raises InputError (the legacy default stream "
             "cannot be\n"
             "recorded); at the end KernelError, with what CUDA says was not allowed: the context "
             "works on.")
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
        .def("write", &write, py::arg("values"),
             "Copies values into the array, on its context's stream.\n\n"
             "values: a numpy array (for bfloat16: float32) or a device array of the same shape "
             "and dtype. Raises\n"
             "InputError for others, and for an array that is not contiguous or only read.")
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

    py::class_<RecordedGraph, Graph>(
        m, "RecordedGraph",
        "What was enqueued on a context while it was recorded: DeviceContext.record.\n\n"
        "It holds the memory of all arrays that ops made or were given in between; replays read "
        "and write them where\n"
        "they are: DeviceArray.write brings new values. When it ends, its memory goes back to the "
        "pool.")
        .def_property_readonly("context", [](const RecordedGraph &graph) { return graph.place(); })
        .def("replay", &replay,
             "Enqueues all of it again. Raises KernelError (the device is lost), InputError "
             "(nothing was recorded).")
        .def("__enter__",
             [](const Graph &graph) {
                 begin(*graph);
                 return graph;
             })
        .def("__exit__", [](RecordedGraph &graph, const py::object &error, const py::object &,
                            const py::object &) {
            const bool failed = !error.is_none();
            py::gil_scoped_release release;
            if (failed) {
                graph.abandon();
            } else {
                graph.end();
            }
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
