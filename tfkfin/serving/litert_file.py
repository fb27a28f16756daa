"""LiteRT (formerly TensorFlow Lite) files: one window a call, for small machines. The extra `edge` brings LiteRT."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfkfin.base.console import quiet_start
from tfkfin.base.errors import InputError
from tfkfin.nets.bilstm.layer import engine


def save(function: Callable, spec: tf.TensorSpec, path: Path) -> None:
    """Writes a function of windows, which returns a dict, with the dict's names as outputs of `serving_default`.

    The file is float32. The converter's float16 also rounds values in volts, which cost one of eight people 37 points
    of accuracy, and its int8 changed one label in eleven.

    Args:
        spec: of the function's input; the file takes one window (1, ...) a call.

    Raises:
        InputError: LiteRT lacks one of the operations, such as Keras's loop over the samples of a Bi-LSTM.
    """
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    with engine("keras"), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the converter
        one = tf.TensorSpec((1, *spec.shape[1:]), spec.dtype, name=spec.name)
        traced = tf.function(function, input_signature=[one], autograph=False).get_concrete_function()
        constant = convert_variables_to_constants_v2(traced)  # else the converter leaves some variables without a value

        @tf.function(input_signature=[one], autograph=False)
        def serving_default(emg):
            return tf.nest.pack_sequence_as(traced.structured_outputs, constant(emg))

        tf.saved_model.save(tf.Module(), folder, signatures=serving_default)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
        content = None
        with quiet_start():  # which shows what it has held back if an error leaves it
            try:
                content = converter.convert()
            except Exception as error:  # its type depends on the version of TensorFlow
                reason = "the format is for FINs without recurrence" if "TensorList" in str(error) else \
                    " ".join(str(error).split())[:200]
    if content is None:
        raise InputError(f"this model cannot be converted to LiteRT: {reason}")
    path.write_bytes(content)


def session(path: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The file as a function of windows (N, L, C), which it answers one by one.

    Raises:
        InputError: LiteRT is not installed.
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
