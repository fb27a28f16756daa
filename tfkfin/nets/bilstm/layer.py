"""Stacked bidirectional LSTM that reads out its final states; fast on a CPU through a compiled kernel.

The layer owns stock Keras layers, so weights, initialisers, saving and cuDNN are Keras's own. On a CPU a compiled
kernel (`native`) does the same arithmetic in one operation; where it cannot be built, a stock operation a sequence
(`block`). `TFKFIN_ENGINE` (keras, native, block or auto) overrides every layer's choice, and `with engine("keras"):`
overrides that while a graph is traced.
"""

import contextlib
import contextvars
import logging
import os

import keras
import tensorflow as tf
from keras import layers, ops

from tfkfin.nets.bilstm import native
from tfkfin.nets.bilstm.block import block_bilstm

ENGINES = ("auto", "keras", "native", "block")
READOUTS = ("both", "reverse")

_forced = contextvars.ContextVar("tfkfin_engine", default=None)
_logger = logging.getLogger("tfkfin")
_said: set[str] = set()


def _check_engine(name: str, value: str) -> str:
    if value not in ENGINES:
        raise ValueError(f"`{name}` must be one of {ENGINES}. Received: {name}={value!r}")
    return value


def forced_engine() -> str | None:
    """The engine that the block `with engine(...)` around us asks for; None outside of one."""
    return _forced.get()


@contextlib.contextmanager
def engine(name: str):
    """Forces the engine of every `BiLSTM` called or traced inside the block.

    An exported SavedModel must hold stock operations only: trace it inside `with engine("block"):`, or "keras".

    Args:
        name: "keras", "native", "block" (one stock operation a sequence) or "auto".
    """
    token = _forced.set(_check_engine("name", name))
    try:
        yield
    finally:
        _forced.reset(token)


def _fallback(dtype: str, demanded: bool) -> tuple[str, str] | None:
    """The engine that "auto" takes in place of the kernel, and why; None when the kernel can and should run."""
    if dtype != "float32":
        return "keras", f"the kernel computes in float32 and the layer in {dtype}"
    if not demanded and tf.config.get_visible_devices("GPU"):
        return "keras", "a GPU is visible"  # for cuDNN
    try:
        native.load()
    except native.NativeUnavailable as error:
        return "block", str(error)
    return None


def chosen_engine(wanted: str, dtype: str = "float32") -> str:
    """The engine that runs: "keras", "native" or "block".

    Args:
        wanted: the layer's own choice; the context manager, then `TFKFIN_ENGINE`, go before it.
        dtype: the layer's compute dtype.

    Raises:
        ValueError: unknown engine, or native demanded where it cannot be had.
    """
    named = _check_engine("TFKFIN_ENGINE", os.environ.get("TFKFIN_ENGINE") or wanted)
    name = _forced.get() or named
    if name in ("keras", "block"):
        return name
    instead = _fallback(dtype, name == "native")
    if instead is None:
        return "native"
    other, reason = instead
    if name == "native":
        raise ValueError(f"`engine` must be 'auto', 'block' or 'keras' here: there is no native engine because "
                         f"{reason}. Received: engine='native'")
    if reason not in _said:
        _said.add(reason)
        _logger.info("Bi-LSTM runs on the %s engine: %s", other, reason)
    return other


def _outputs(function, inputs, dtypes, shapes):
    """`tf.numpy_function` with static shapes; stateless, so that networks side by side are not put in sequence."""
    results = tf.numpy_function(function, inputs, dtypes, stateful=False)
    for result, shape in zip(results, shapes):
        result.set_shape(shape)
    return results


def native_bilstm(inputs, weights, readout: str = "both", keep: bool = False):
    """The compiled stack as one differentiable operation (first derivatives only).

    Args:
        inputs: float32 (N, T, D).
        weights: kernel, recurrent kernel and bias of the forward then the backward direction, layer after layer.
        readout: "both" gives (N, 2 units), "reverse" the backward direction's (N, units).
        keep: keep the states for a gradient that is coming, so that it need not compute them again.
    """
    width = weights[1].shape[0] * (2 if readout == "both" else 1)

    def run(x, *w):
        return native.load().forward(x, w, readout, keep)

    def run_back(x, dout, token, *w):
        return native.load().backward(x, w, readout, dout, token)

    @tf.custom_gradient
    def stack(x, *w):
        y, token = _outputs(run, [x, *w], [tf.float32, tf.int64], [(x.shape[0], width), ()])

        def gradient(dy):
            wanted = [x, *w]
            return _outputs(run_back, [x, dy, token, *w], [tf.float32] * len(wanted), [v.shape for v in wanted])

        return y, gradient

    return stack(inputs, *weights)


@keras.saving.register_keras_serializable(package="tfkfin")
class BiLSTM(layers.Layer):
    """Stacked bidirectional LSTM: (N, T, D) -> final states of the top layer.

    Same mathematics and weights as `keras.layers.Bidirectional(keras.layers.LSTM(units))` stacked `num_layers` times.
    Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735; Schuster & Paliwal 1997, doi:10.1109/78.650093.

    Args:
        units: width of one direction of a layer.
        num_layers: bidirectional layers.
        readout: "both" gives the forward state after the last sample and the backward state after the first,
            (N, 2 units); "reverse" gives the backward one, (N, units).
        engine: "auto" takes the compiled kernel on a CPU, "block" where it cannot be had, and Keras on a GPU or in
            another dtype than float32; "native", "block" or "keras" demand one.

    Raises:
        ValueError: an argument outside what is allowed.
    """

    def __init__(self, units: int = 32, num_layers: int = 3, readout: str = "both", engine: str = "auto", **kwargs):
        super().__init__(**kwargs)
        for name, value in (("units", units), ("num_layers", num_layers)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
        if readout not in READOUTS:
            raise ValueError(f"`readout` must be one of {READOUTS}. Received: readout={readout!r}")
        self.units, self.num_layers, self.readout = units, num_layers, readout
        self.engine = _check_engine("engine", engine)
        self.supports_jit = False  # neither the kernel nor cuDNN can be compiled by XLA
        # No keras.layers.Bidirectional: it clones its layer by serialising it, and while a model is loaded Keras takes
        # clones for shared objects when a memory address comes round again.
        self.stack = [
            layers.LSTM(units, return_sequences=level < num_layers, go_backwards=backwards, dtype=self.dtype_policy,
                        name=f"{'backward' if backwards else 'forward'}_{level}")
            for level in range(1, num_layers + 1) for backwards in (False, True)
        ]

    @property
    def pairs(self) -> list[tuple[layers.LSTM, layers.LSTM]]:
        """The forward and the backward LSTM of every level."""
        return list(zip(self.stack[::2], self.stack[1::2], strict=True))

    def build(self, input_shape):
        if len(input_shape) != 3 or input_shape[-1] is None:
            raise ValueError(f"`inputs` must have shape (sequences, steps, features), the last one known. "
                             f"Received: inputs.shape={tuple(input_shape)}")
        for pair in self.pairs:
            for lstm in pair:
                lstm.build(tuple(input_shape))
            input_shape = (*input_shape[:2], 2 * self.units)
        self.built = True

    def call(self, inputs, training=None):
        chosen = chosen_engine(self.engine, self.compute_dtype)
        if chosen == "block":
            return block_bilstm(inputs, self.pairs, self.readout)
        if chosen == "native":
            weights = [tf.convert_to_tensor(w.value) for lstm in self.stack
                       for w in (lstm.cell.kernel, lstm.cell.recurrent_kernel, lstm.cell.bias)]
            return native_bilstm(inputs, weights, self.readout, keep=training is True)
        x = inputs
        for forward, backward in self.pairs:
            ahead, back = forward(x, training=training), backward(x, training=training)
            if forward.return_sequences:
                back = ops.flip(back, axis=1)  # in the order of its steps
            x = ops.concatenate([ahead, back], axis=-1)
        return x if self.readout == "both" else x[:, self.units:]

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.units * (2 if self.readout == "both" else 1))

    def get_config(self):
        return {**super().get_config(), "units": self.units, "num_layers": self.num_layers, "readout": self.readout,
                "engine": self.engine}
