"""ONNX files, for onnxruntime without TensorFlow, in float32 or smaller. The extra `edge` brings the converter.

Smaller files keep large weights in float16, or compute the head's products and convolutions in int8 (static
quantisation in the QDQ form: Jacob et al., CVPR 2018), whose ranges are measured on real windows. FINs are computed in
float32 all the same: with their products in int8 too, one of two people lost 1.6 points of accuracy.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfkfin.base.errors import InputError
from tfkfin.nets.bilstm.layer import engine

OPSET = 17
LARGE = 256  # numbers in a weight that is stored in float16: smaller ones are scales and biases, some of them in volts
HEAD = "head"  # name of the head's layer in a decoder's network
CALIBRATION = 256  # windows that the ranges of int8 are measured on


def save(function: Callable, spec: tf.TensorSpec, path: Path) -> None:
    """Writes a function of one tensor, which returns a dict, as an ONNX model whose outputs have the dict's names.

    Raises:
        InputError: tf2onnx is not installed, or ONNX lacks one of the operations.
    """
    try:
        import onnx
        import tf2onnx
    except ImportError:
        raise InputError("--format onnx needs tf2onnx: pip install 'tfkfin[edge]'") from None
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with engine("keras"):
        traced = tf.function(function, input_signature=[spec], autograph=False)
        model, _ = tf2onnx.convert.from_function(traced, [spec], opset=OPSET, custom_op_handlers={"Erfc": (_erfc, [])})
    try:
        onnx.checker.check_model(model)  # tf2onnx leaves an operation in the graph that it cannot convert
    except onnx.checker.ValidationError as error:
        raise InputError(f"this model cannot be converted to ONNX: {str(error).splitlines()[0]}") from None
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    path.write_bytes(model.SerializeToString())


def _erfc(context, node, name: str, args: list) -> None:
    """Erfc(x) = 1 - Erf(x): the exact GELU uses Erfc, which ONNX lacks."""
    erf = context.make_node("Erf", [node.input[0]])
    one = context.make_const(f"{name}__one", np.array(1, np.float32))
    node.type = "Sub"
    context.replace_inputs(node, [one.output[0], erf.output[0]])


def reduce_precision(path: Path, precision: str, windows: np.ndarray | None = None) -> None:
    """Rewrites an ONNX file with windows `emg` (B, L, C) as input in float16 or int8.

    Args:
        windows: (N, L, C) volts, as the model will get them; needed for int8.

    Raises:
        InputError: onnx or onnxruntime is not installed.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError:
        raise InputError(f"--precision {precision} needs onnx and onnxruntime: pip install 'tfkfin[edge]'") from None
    if precision == "int8":
        _quantise_head(path, np.asarray(windows, np.float32))
    path.write_bytes(_float16_weights(onnx.load(path)).SerializeToString())


def _float16_weights(model):
    """Stores large weights in float16 and casts them to float32 for computing: half the size, the same speed."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.size >= LARGE:
            name = weight.name
            weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}__float16"))
            casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    return model


def _quantise_head(path: Path, windows: np.ndarray) -> None:
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Windows(quantization.CalibrationDataReader):
        def __init__(self):
            self.left = iter(np.array_split(windows, max(1, len(windows) // 16)))

        def get_next(self):
            part = next(self.left, None)
            return None if part is None else {"emg": part}

    plain = path.with_name("plain.onnx")
    quant_pre_process(path, plain, skip_symbolic_shape=True)
    outside = [node.name for node in onnx.load(plain).graph.node if f"/{HEAD}" not in node.name]
    quantization.quantize_static(
        plain, path, Windows(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
        op_types_to_quantize=["Conv", "MatMul", "Gemm"], nodes_to_exclude=outside,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8)
    plain.unlink()
