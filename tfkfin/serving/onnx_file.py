"""ONNX: the signature `serving_default` for onnxruntime, without TensorFlow. The extra `edge` brings the converter."""

import logging
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from tfkfin.console import InputError
from tfkfin.models.recurrent import engine

OPSET = 17


def save(function: Callable, spec: tf.TensorSpec, path: Path) -> None:
    """Writes a function of one tensor, which returns a dict, as an ONNX model with the dict's names as outputs.

    Raises:
        InputError: tf2onnx is not installed.
    """
    try:
        import tf2onnx
    except ImportError:
        raise InputError("--format onnx needs tf2onnx: pip install 'tfkfin[edge]'") from None
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with engine("keras"):
        traced = tf.function(function, input_signature=[spec], autograph=False)
        model, _ = tf2onnx.convert.from_function(traced, [spec], opset=OPSET)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    path.write_bytes(model.SerializeToString())
