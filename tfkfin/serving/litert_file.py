"""LiteRT (once TensorFlow Lite): one window a call, for small machines. The extra `edge` brings the interpreter."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfkfin.base.console import InputError, quiet_start
from tfkfin.nets.bilstm.layer import engine


def save(function: Callable, spec: tf.TensorSpec, path: Path) -> None:
    """Writes a function of windows, which returns a dict, with the dict's names as outputs of `serving_default`.

    In float32: the converter's float16 rounds what is in volts too, which cost one of eight people 37 points, and its
    int8 changed one label in eleven.

    Args:
        spec: of its input; the file takes one window (1, ...) a call.

    Raises:
        InputError: LiteRT has no counterpart of an operation, of Keras's loop over samples for one.
    """
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2 as frozen,
    )

    with engine("keras"), tempfile.TemporaryDirectory() as kept, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own
        one = tf.TensorSpec((1, *spec.shape[1:]), spec.dtype, name=spec.name)
        traced = tf.function(function, input_signature=[one], autograph=False).get_concrete_function()
        constant = frozen(traced)  # the converter leaves some of the variables without a value

        @tf.function(input_signature=[one], autograph=False)
        def serving_default(emg):
            return tf.nest.pack_sequence_as(traced.structured_outputs, constant(emg))

        tf.saved_model.save(tf.Module(), kept, signatures=serving_default)
        converter = tf.lite.TFLiteConverter.from_saved_model(kept, signature_keys=["serving_default"])
        with quiet_start():
            made = _converted(converter)
    if isinstance(made, Exception):
        loop = "TensorList" in str(made)
        raise InputError("this model cannot become a LiteRT file: " + (
            "the format is for FINs without recurrence" if loop else " ".join(str(made).split())[:200]))
    path.write_bytes(made)


def _converted(converter) -> bytes | Exception:
    try:
        return converter.convert()
    except Exception as error:  # of several kinds, by the version of TensorFlow
        return error


def session(path: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The file as a function of windows (N, L, C), which go through it one by one.

    Raises:
        InputError: the interpreter is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise InputError("the engine litert needs ai-edge-litert: pip install 'tfkfin[edge]'") from None
    run = Interpreter(model_path=str(path)).get_signature_runner("serving_default")

    def answer(emg: np.ndarray) -> dict[str, np.ndarray]:
        each = [{name: value.copy() for name, value in run(emg=window[None]).items()} for window in emg]
        return {name: np.concatenate([one[name] for one in each]) for name in each[0]}

    return answer
