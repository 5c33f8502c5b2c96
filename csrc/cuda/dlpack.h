// The structures of DLPack, version 0.x, which every library that speaks it takes (github.com/dmlc/dlpack).
#pragma once

#include <cstdint>

namespace fsseg {
namespace dlpack {

enum DeviceType : int32_t {
    device_cpu = 1,
    device_cuda = 2,
    device_cuda_host = 3,
    device_managed = 13
};
enum TypeCode : uint8_t {
    type_int = 0,
    type_uint = 1,
    type_float = 2,
    type_bfloat = 4,
    type_bool = 6
};

struct Device {
    int32_t type, id;
};
struct DataType {
    uint8_t code, bits;
    uint16_t lanes;
};
struct Tensor {
    void *data;
    Device device;
    int32_t ndim;
    DataType dtype;
    int64_t *shape;
    int64_t *strides; // in elements; null: contiguous
    uint64_t byte_offset;
};
struct ManagedTensor {
    Tensor tensor;
    void *context; // the producer's
    void (*deleter)(ManagedTensor *);
};

constexpr const char *fresh_name = "dltensor", *used_name = "used_dltensor"; // of capsules

} // namespace dlpack
} // namespace fsseg
