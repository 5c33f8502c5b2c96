"""The tiny encoder in narrower types: what an export would write, small enough for every test."""

from __future__ import annotations

import functools
import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from tests.tiny import CHANNELS, GRID, SIZE, mixing, tiny_onnx


class _Noise(CalibrationDataReader):  # type: ignore[misc]
    """Pictures as wide as the tests' own."""

    def __init__(self) -> None:
        noise = np.random.default_rng(1).standard_normal((8, 1, 3, *SIZE)).astype(np.float32)
        # coarse blocks too: an average of plain noise is nearly zero
        blocks = np.repeat(np.repeat(noise[..., ::8, ::8], 8, axis=-1), 8, axis=-2)
        self._pictures = iter([{"image": picture} for picture in (*noise, *blocks)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._pictures, None)


@functools.cache
def tiny_int8(flavour: str) -> bytes:
    """The tiny encoder with QuantizeLinear and DequantizeLinear around its convolution."""
    import tempfile
    from pathlib import Path

    symmetric = flavour == "s8s8"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "q.onnx"
        quantize_static(
            onnx.load_from_string(tiny_onnx()),
            path,
            _Noise(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["Conv"],
            extra_options={"ActivationSymmetric": symmetric, "QuantizeBias": not symmetric},
        )
        model = onnx.load(path)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", 17))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@functools.cache
def tiny_fp16() -> bytes:
    """The tiny encoder in float16 between two casts: float32 in, float32 out."""
    weight = mixing()[:, :3].reshape(CHANNELS, 3, 1, 1).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["image"], ["narrow"], to=TensorProto.FLOAT16),
        helper.make_node(
            "AveragePool", ["narrow"], ["colour"], kernel_shape=[8, 8], strides=[8, 8]
        ),
        helper.make_node("Conv", ["colour", "weight", "bias"], ["mixed"], kernel_shape=[1, 1]),
        helper.make_node("Tanh", ["mixed"], ["wide"]),
        helper.make_node("Cast", ["wide"], ["features"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, *SIZE])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", CHANNELS, *GRID])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(mixing()[:, 3].astype(np.float16), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
