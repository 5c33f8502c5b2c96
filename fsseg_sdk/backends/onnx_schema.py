"""The part of ONNX's protobuf schema that a graph of plain tensors needs. See `onnx_check`."""

from __future__ import annotations

from .protobuf import FIXED32, FIXED64, VARINT, Field

__all__ = ["BITS", "DTYPES", "INT8", "TYPED_STORE", "UINT8"]

_EXTERNAL = "external data: weights outside the file"
_SUBGRAPH = "a subgraph: control flow such as If, Loop or Scan"
_FUNCTION = "local functions"
_SPARSE = "sparse tensors"
_NO_TENSOR = "a value that is not a plain tensor"

MODEL = {
    1: Field("ir_version", VARINT),
    2: Field("producer_name"),
    3: Field("producer_version"),
    4: Field("domain"),
    5: Field("model_version", VARINT),
    6: Field("doc_string"),
    7: Field("graph"),
    8: Field("opset_import", repeated=True),
    14: Field("metadata_props", repeated=True),
    20: Field("training_info", refused="training information"),
    25: Field("functions", refused=_FUNCTION),
    26: Field("configuration", refused="device configurations"),
}
OPSET = {1: Field("domain"), 2: Field("version", VARINT)}
GRAPH = {
    1: Field("node", repeated=True),
    2: Field("name"),
    5: Field("initializer", repeated=True),
    10: Field("doc_string"),
    11: Field("input", repeated=True),
    12: Field("output", repeated=True),
    13: Field("value_info", repeated=True),
    14: Field("quantization_annotation", repeated=True),
    15: Field("sparse_initializer", refused=_SPARSE),
    16: Field("metadata_props", repeated=True),
}
NODE = {
    1: Field("input", repeated=True),
    2: Field("output", repeated=True),
    3: Field("name"),
    4: Field("op_type"),
    5: Field("attribute", repeated=True),
    6: Field("doc_string"),
    7: Field("domain"),
    8: Field("overload", refused=_FUNCTION),
    9: Field("metadata_props", repeated=True),
    10: Field("device_configurations", refused="device configurations"),
}
ATTRIBUTE = {
    1: Field("name"),
    2: Field("f", FIXED32),
    3: Field("i", VARINT),
    4: Field("s"),
    5: Field("t"),
    6: Field("g", refused=_SUBGRAPH),
    7: Field("floats", FIXED32, repeated=True),
    8: Field("ints", VARINT, repeated=True),
    9: Field("strings", repeated=True),
    10: Field("tensors", repeated=True),
    11: Field("graphs", refused=_SUBGRAPH),
    13: Field("doc_string"),
    14: Field("tp", refused=_NO_TENSOR),
    15: Field("type_protos", refused=_NO_TENSOR),
    20: Field("type", VARINT),
    21: Field("ref_attr_name", refused=_FUNCTION),
    22: Field("sparse_tensor", refused=_SPARSE),
    23: Field("sparse_tensors", refused=_SPARSE),
}
TENSOR = {
    1: Field("dims", VARINT, repeated=True),
    2: Field("data_type", VARINT),
    3: Field("segment", refused="a tensor in segments"),
    4: Field("float_data", FIXED32, repeated=True),
    5: Field("int32_data", VARINT, repeated=True),
    6: Field("string_data", refused="text tensors"),
    7: Field("int64_data", VARINT, repeated=True),
    8: Field("name"),
    9: Field("raw_data"),
    10: Field("double_data", FIXED64, repeated=True),
    11: Field("uint64_data", VARINT, repeated=True),
    12: Field("doc_string"),
    13: Field("external_data", refused=_EXTERNAL),
    14: Field("data_location", VARINT),
    16: Field("metadata_props", repeated=True),
}
VALUE_INFO = {
    1: Field("name"),
    2: Field("type"),
    3: Field("doc_string"),
    4: Field("metadata_props", repeated=True),
}
TYPE = {
    1: Field("tensor_type"),
    4: Field("sequence_type", refused=_NO_TENSOR),
    5: Field("map_type", refused=_NO_TENSOR),
    6: Field("denotation"),
    7: Field("opaque_type", refused=_NO_TENSOR),
    8: Field("sparse_tensor_type", refused=_NO_TENSOR),
    9: Field("optional_type", refused=_NO_TENSOR),
}
TENSOR_TYPE = {1: Field("elem_type", VARINT), 2: Field("shape")}
SHAPE = {1: Field("dim", repeated=True)}
DIMENSION = {1: Field("dim_value", VARINT), 2: Field("dim_param"), 3: Field("denotation")}

# TensorProto.DataType -> bits of one value. Text and complex numbers are not among them.
BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4,
}  # fmt: skip

UINT8, INT8 = 2, 3

# The names of types that a graph may take and give.
DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
}  # fmt: skip

# Where a tensor without raw_data keeps values of a type, one number each.
TYPED_STORE = {
    1: "float_data", 2: "int32_data", 3: "int32_data", 4: "int32_data", 5: "int32_data",
    6: "int32_data", 7: "int64_data", 9: "int32_data", 10: "int32_data", 11: "double_data",
    12: "uint64_data", 13: "uint64_data", 16: "int32_data", 17: "int32_data", 18: "int32_data",
    19: "int32_data", 20: "int32_data",
}  # fmt: skip
