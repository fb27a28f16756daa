"""The graphs of an exported model: raw volts in; standardisation, FINs and head inside; stock TensorFlow operations.

Every signature checks its input first. An empty batch or a value that is not finite raises INVALID_ARGUMENT with one
clear sentence, where an unchecked graph would answer NaN. Windows go through the network block by block, so that memory
is bounded whatever the size of a request.
"""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfkfin.decoder.decision import REJECTED
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.nets import fins
from tfkfin.nets.bilstm.layer import BiLSTM, engine
from tfkfin.signal.filtering import blocks, sections

BLOCK, PIECE = 16, 64  # windows at a time, and those where FINs stream; more are not faster on a CPU


class Signatures:
    """The signatures of a decoder with its network. All of them share one function for each part of the network.

    Args:
        engine_name: how Bi-LSTMs and eigenvalues are computed; ONNX and LiteRT only have operations for "keras".
    """

    def __init__(self, decoder: BaseDecoder, engine_name: str = "block"):
        self.decoder, self.forward, self.stride = decoder, decoder.forward, decoder.stride
        self.length, self.channels, self.movements = decoder.length, decoder.channels, decoder.movements
        parts = self.forward.parts
        per_channel = (self.channels, parts.bank.output_shape[-1])
        self.shapes = {"probabilities": (len(self.movements),), "features": per_channel}  # of one window
        if self.forward.ranges:
            self.shapes |= {"quality": (self.channels,), "quality_overall": (), "fault": (self.channels,)}
        self.window = tf.TensorSpec((None, self.length, self.channels), tf.float32, name="emg")
        self.signal = tf.TensorSpec((None, None, self.channels), tf.float32, name="emg")
        stock(parts.bank)
        self.sections = sections(decoder.card.get("filter"), decoder.card["rate_hz"])
        self.filtered = filtered(self.sections)
        self.standardise, self.fins = parts.standardise, once(parts.bank, self.window, engine_name)
        self.after_fins = once(self.forward.after_fins, [tf.TensorSpec((None, *per_channel), tf.float32), self.window],
                               engine_name)

    def answer(self, emg: tf.Tensor) -> dict[str, tf.Tensor]:
        """Windows (B, L, C) volts -> probabilities (B, G), label (B,) int64, features (B, C, F); unchecked."""
        return self._labelled(self._network(emg))

    def serve(self, emg: tf.Tensor) -> dict[str, tf.Tensor]:
        """As `answer`, checked and block by block."""
        emg = checked(emg, (None, self.length, self.channels))
        return self._labelled(in_blocks(tf.shape(emg)[0], lambda i, j: self._network(emg[i:j]), self.shapes))

    def features(self, emg: tf.Tensor) -> dict[str, tf.Tensor]:
        """Windows (B, L, C) volts -> the FINs' features (B, C, F) alone."""
        emg = checked(emg, (None, self.length, self.channels))
        return in_blocks(tf.shape(emg)[0], lambda i, j: {"features": self.fins(self.standardise(emg[i:j]))},
                         {"features": self.shapes["features"]})

    def stream(self, emg: tf.Tensor) -> dict[str, tf.Tensor]:
        """Signals (B, T, C) volts, T >= L -> answers (B, W, ...) with W = (T - L) // stride + 1, decided causally.

        Window w covers the samples [w stride, w stride + L). Probabilities are averaged by the vote, the label of a
        rejected decision is -1.
        """
        emg = checked(emg, (None, None, self.channels))
        enough = tf.debugging.Assert(tf.shape(emg)[1] >= self.length, [
            f"emg must hold at least {self.length} samples, one window. Received:", tf.shape(emg)[1]])
        with tf.control_dependencies([enough]):
            emg = self.filtered(emg)
        if not self.forward.streams:
            return self._decided(emg, lambda count, cut: in_blocks(
                count, lambda i, j: self._network(cut(i, j)), self.shapes))
        answer, windows = self.forward.signal(self.stride, tuple(self.shapes)), self._windows(emg)
        pieces = -(-windows // PIECE)  # of one signal

        def piece(i, _):
            first = i % pieces * PIECE
            last = tf.minimum(first + PIECE, windows)
            outputs = answer(emg[i // pieces, None, first * self.stride : (last - 1) * self.stride + self.length])
            return {name: value[0] for name, value in outputs.items()}

        return self._decided(emg, lambda *_: in_blocks(tf.shape(emg)[0] * pieces, piece, self.shapes, 1))

    def stream_at_once(self, emg: tf.Tensor) -> dict[str, tf.Tensor]:
        """As `stream`, unchecked and with all windows in memory: ONNX has no assertions and no such loops."""
        return self._decided(self.filtered(emg), lambda count, cut: self._network(cut(0, count)))

    def _network(self, emg: tf.Tensor) -> dict[str, tf.Tensor]:
        windows = self.standardise(emg)
        return self.after_fins([self.fins(windows), windows])

    def _windows(self, emg: tf.Tensor) -> tf.Tensor:
        return (tf.shape(emg)[1] - self.length) // self.stride + 1

    def _labelled(self, answers: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        faults = {"fault": tf.cast(answers["fault"], tf.int64)} if "fault" in answers else {}
        return answers | faults | {"label": tf.gather(self.movements, tf.argmax(answers["probabilities"], axis=-1))}

    def _decided(self, emg: tf.Tensor, answered: Callable) -> dict[str, tf.Tensor]:
        """Decisions for all windows of signals (B, T, C). It adds in the same order as `Decision`, so that both agree.

        Args:
            answered: (number of all windows, a function that cuts out the windows [first, last)) -> answers (B W, ...).
        """
        (batch, samples), windows = tf.unstack(tf.shape(emg)[:2]), self._windows(emg)
        flat, decision = tf.reshape(emg, (-1, self.channels)), self.decoder.decision  # (B T, C)

        def cut(first, last):
            index = tf.range(first, last)
            starts = index // windows * samples + index % windows * self.stride
            return tf.gather(flat, starts[:, None] + tf.range(self.length))

        answers = {}
        for name, value in answered(batch * windows, cut).items():
            shape = batch, windows, *self.shapes[name]
            # ONNX takes a 0 in a shape for "the same as before"
            answers[name] = tf.zeros(shape) if 0 in shape[2:] else tf.reshape(value, shape)
        probabilities = total = answers["probabilities"]
        for back in range(1, decision.vote):
            total += tf.pad(probabilities, [[0, 0], [back, 0], [0, 0]])[:, :windows]
        counts = tf.cast(tf.minimum(tf.range(windows) + 1, decision.vote), tf.float32)
        voted = self._labelled(answers | {"probabilities": total / counts[None, :, None]})
        sure = tf.reduce_max(voted["probabilities"], axis=-1) >= decision.reject
        return voted | {"label": tf.where(sure, voted["label"], tf.constant(REJECTED, tf.int64))}

    def about(self, emg: tf.Tensor) -> dict[str, tf.Tensor]:
        """How the model decides, for clients; the input is ignored."""
        card, decision = self.decoder.card, self.decoder.decision
        answer = {"filter": tf.constant(self.sections)} if len(self.sections) else {}
        answer |= {"names": tf.constant(self.decoder.named(self.movements).tolist())} if card.get("names") else {}
        integers = {"length": self.length, "stride": self.stride, "vote": decision.vote, "movements": self.movements}
        answer |= {name: tf.constant(value, tf.int64) for name, value in integers.items()}
        return answer | {"rate_hz": tf.constant(card["rate_hz"], tf.float32),
                         "reject": tf.constant(decision.reject, tf.float32)}


def checked(emg: tf.Tensor, shape: tuple[int | None, ...]) -> tf.Tensor:
    """`emg`, or an InvalidArgumentError if it has another shape, is empty, or has NaN or Inf.

    A server does not compare a request with the shape of the signature: without `EnsureShape` six windows of 50 samples
    would get five answers.
    """
    emg = tf.ensure_shape(emg, shape)
    some = tf.debugging.Assert(tf.size(emg) > 0, ["emg is empty: give at least one window. Received shape:",
                                                  tf.shape(emg)])
    with tf.control_dependencies([some]):
        return tf.debugging.assert_all_finite(emg, "emg holds NaN or Inf, where volts are expected")


def filtered(sections: np.ndarray) -> Callable[[tf.Tensor], tf.Tensor]:
    """`filtering.filtered` as a function of signals (B, T, C) in a graph, in float32 and without a loop.

    The state at the start of a block is a sum over all blocks before it. A prefix sum by doubling computes all states
    in log2(number of blocks) steps.
    """
    if not len(sections):
        return tf.identity
    made = blocks(sections)
    size = len(made.within)

    def later(x: tf.Tensor, by: int) -> tf.Tensor:
        return tf.pad(x, [[0, 0], [by, 0], [0, 0], [0, 0]])[:, : tf.shape(x)[1]]

    def answer(emg: tf.Tensor) -> tf.Tensor:
        first, samples, channels = emg[:, :1], tf.shape(emg)[1], emg.shape[2]
        x = tf.pad(emg - first, [[0, 0], [0, size - 1 - (samples - 1) % size], [0, 0]])  # ONNX has another -a % b
        x = tf.reshape(x, tf.stack([tf.shape(x)[0], -1, size, channels]))
        states = tf.matmul(made.fed, x)
        for i, step in enumerate(made.steps):
            states += tf.matmul(step, later(states, 1 << i))
        y = tf.matmul(made.within, x) + tf.matmul(made.carried, later(states, 1))
        return tf.reshape(y, tf.stack([tf.shape(y)[0], -1, channels]))[:, :samples] + made.gain * first

    return answer


def once(part: Callable, spec, engine_name: str = "block") -> Callable:
    """A model at inference, or a function, as one function of the graph, which all its callers share."""
    def call(x):
        with engine(engine_name):
            return part(x, training=False) if isinstance(part, keras.Model) else part(x)

    return tf.function(call, input_signature=[spec], autograph=False)


def in_blocks(count: tf.Tensor, answer: Callable, shapes: dict[str, tuple], size: int = BLOCK) -> dict[str, tf.Tensor]:
    """Concatenates `answer(first, last)` over blocks of `size` in [0, count).

    Args:
        shapes: output name -> shape of the output for one window, float32.
    """
    blocks = -(-count // size)
    arrays = [tf.TensorArray(tf.float32, size=blocks, infer_shape=False, element_shape=(None, *shape))
              for shape in shapes.values()]

    def step(i, *filled):
        outputs = answer(i * size, tf.minimum((i + 1) * size, count))
        return i + 1, *(array.write(i, outputs[name]) for array, name in zip(filled, shapes, strict=True))

    _, *filled = tf.while_loop(lambda i, *_: i < blocks, step, (0, *arrays), parallel_iterations=1)
    return {name: tf.ensure_shape(array.concat(), (None, *shape))
            for (name, shape), array in zip(shapes.items(), filled, strict=True)}


def stock(bank: keras.Model) -> None:
    """Keeps cuDNN's operation, which has no CPU kernel, out of graphs that are traced on a machine with a GPU."""
    for layer in (layer for model in fins.fins_of(bank) for layer in model.layers if isinstance(layer, BiLSTM)):
        for lstm in layer.stack:
            lstm.use_cudnn = False


def save_decoder(made: Signatures, folder: Path) -> None:
    """Writes the SavedModel of a decoder: signatures `serving_default`, `features`, `stream`, `about`."""
    _save(made.decoder.model, folder, {
        "serving_default": (made.serve, made.window), "features": (made.features, made.window),
        "stream": (made.stream, made.signal), "about": (made.about, tf.TensorSpec(None, tf.float32, name="emg"))})


def save_fins(bank: keras.Model, folder: Path) -> None:
    """Writes the SavedModel of FINs alone: standardised windows (B, L, C), any C -> features (B, C, F)."""
    stock(bank)
    length, depth = bank.input_shape[1], bank.output_shape[-1]
    one = once(fins.bank(fins.fins_of(bank), 1), tf.TensorSpec((None, length, 1), tf.float32))

    def serve(emg):
        emg = checked(emg, (None, length, None))
        rows = tf.reshape(tf.transpose(emg, (0, 2, 1)), (-1, length, 1))  # (B·C, L, 1)
        answers = in_blocks(tf.shape(rows)[0], lambda a, b: {"features": one(rows[a:b])[:, 0]},
                            {"features": (depth,)}, 12 * BLOCK)
        return {"features": tf.reshape(answers["features"], tf.stack([-1, tf.shape(emg)[2], depth]))}

    spec = tf.TensorSpec((None, length, None), tf.float32, name="emg")
    _save(bank, folder, {"serving_default": (serve, spec), "features": (serve, spec)})


def _save(model: keras.Model, folder: Path, endpoints: dict[str, tuple]) -> None:
    """Writes concrete functions: of those that are not, Keras's `ExportArchive` and TensorFlow trace each once more."""
    saved = tf.train.Checkpoint()  # it holds what it is given, where a tf.Module has its own `variables`
    for name in ("variables", "trainable_variables", "non_trainable_variables"):
        setattr(saved, name, [variable.value for variable in getattr(model, name)])
    traced = {name: tf.function(function, autograph=False).get_concrete_function(spec)
              for name, (function, spec) in endpoints.items()}
    for name, function in traced.items():
        setattr(saved, name, function)
    tf.saved_model.save(saved, str(folder), signatures=traced)
