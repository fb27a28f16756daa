"""ONNX: signatures for onnxruntime, without TensorFlow. The extra `edge` brings the converter."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfkfin.base.console import InputError
from tfkfin.nets.bilstm.layer import engine

OPSET = 17


def _erfc(context, node, name: str, args: list) -> None:
    """Erfc, which an exact GELU takes and ONNX lacks, is 1 - Erf."""
    erf = context.make_node("Erf", [node.input[0]])
    one = context.make_const(f"{name}__one", np.array(1, np.float32))
    node.type = "Sub"
    context.replace_inputs(node, [one.output[0], erf.output[0]])


def save(function: Callable, spec: tf.TensorSpec, path: Path) -> None:
    """Writes a function of one tensor, which returns a dict, as an ONNX model with the dict's names as outputs.

    Raises:
        InputError: tf2onnx is not installed, or ONNX has no counterpart of an operation.
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
        onnx.checker.check_model(model)  # what cannot be converted stays in the graph, and tf2onnx only logs it
    except onnx.checker.ValidationError as error:
        raise InputError(f"this model cannot become ONNX: {str(error).splitlines()[0]}") from None
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    path.write_bytes(model.SerializeToString())
