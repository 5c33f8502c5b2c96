// fsseg_sdk._kernels: a flat list of ops (bound_ops.h), and the submodule cuda (bindings_cuda.cpp). Names
// with _ are for tests, benchmarks and fsseg_sdk/ops itself.
#include "bound_learning.h"
#include "bound_ops.h"
#include "core/bf16.h"
#include "core/dispatch.h"
#include "core/read_probe.h"

#include <string>

namespace fsseg {

#ifdef FSSEG_CUDA
namespace cuda {
void bind(py::module_ &parent); // bindings_cuda.cpp
}
#endif

namespace {

float read_probe_op(const py::array &array, int streams) {
    if (!is_of<float>(array) || !is_contiguous(array)) { refuse("array", "contiguous float32"); }
    float total = 0.0f;
    const ReadProbeArgs args{static_cast<const float *>(array.data()), array.size(), streams,
                             &total};
    py::gil_scoped_release release;
    run_read_probe(Device::cpu, args);
    return total;
}

py::list levels(bool (*condition)(Level)) {
    py::list names;
    for (int level = 0; level < level_count; ++level) {
        if (condition(static_cast<Level>(level))) {
            names.append(level_name(static_cast<Level>(level)));
        }
    }
    return names;
}

bool set_level_by_name(const std::string &name) {
    for (int level = 0; level < level_count; ++level) {
        if (name == level_name(static_cast<Level>(level))) {
            return set_level(static_cast<Level>(level));
        }
    }
    return false;
}

py::list bf16_units() {
    py::list names;
    for (int unit = 0; unit < bf16_count; ++unit) {
        if (bf16_usable(static_cast<Bf16>(unit))) {
            names.append(bf16_name(static_cast<Bf16>(unit)));
        }
    }
    return names;
}

bool set_bf16_by_name(const std::string &name) {
    for (int unit = 0; unit < bf16_count; ++unit) {
        if (name == bf16_name(static_cast<Bf16>(unit))) {
            return set_bf16(static_cast<Bf16>(unit));
        }
    }
    return false;
}

} // namespace

PYBIND11_MODULE(_kernels, m) {
    bind_ops<py::array>(m);
    bind_learning<py::array>(m);
#ifdef FSSEG_CUDA
    cuda::bind(m);
#endif

    m.def("_simd", [] { return level_name(current_level()); });
    m.def("_set_simd", &set_level_by_name);
    m.def("_levels_built", [] { return levels(&level_built); });
    m.def("_levels_usable", [] { return levels(&level_usable); });
    m.def("_bf16", [] { return bf16_name(current_bf16()); });
    m.def("_set_bf16", &set_bf16_by_name);
    m.def("_bf16_usable", &bf16_units);
    m.def("_read_probe", &read_probe_op);
    m.attr("max_threads") = max_threads;
    m.attr("cuda_built") = static_cast<bool>(FSSEG_CUDA_BUILT);
    m.attr("cuda_reason") = FSSEG_CUDA_REASON;
}

} // namespace fsseg
