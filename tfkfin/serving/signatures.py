"""What an exported model computes: raw volts in, scalers and FINs and head inside, stock TensorFlow operations only.

Every signature checks its input first. An empty batch or a value that is not finite is an INVALID_ARGUMENT error with
one clear sentence, where an unchecked graph would answer NaN. Windows go through the network a block at a time, so that
memory is bounded however many a request holds.
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

BLOCK, PIECE = 16, 64  # windows at a time, and where FINs stream; more are no faster on a CPU


class Signatures:
    """The signatures of a decoder with its network. Each part is in the graph once, for all of them.

    `engine_name`: how a Bi-LSTM is computed, and eigenvalues; ONNX has operations for "keras" alone.
    """

    def __init__(self, decoder: BaseDecoder, engine_name: str = "block"):
        self.decoder, self.forward, self.stride = decoder, decoder.forward, decoder.stride
        self.length, self.channels, self.movements = decoder.length, decoder.channels, decoder.movements
        parts = self.forward.parts
        per_channel = (self.channels, parts.bank.output_shape[-1])
        self.kinds = {"probabilities": (tf.float32, (len(self.movements),)),
                      "features": (tf.float32, per_channel)}  # of one window
        self.window = tf.TensorSpec((None, self.length, self.channels), tf.float32, name="emg")
        self.signal = tf.TensorSpec((None, None, self.channels), tf.float32, name="emg")
        stock(parts.bank)
        self.filtered = filtered(sections(decoder.card.get("filter"), decoder.card["rate_hz"]))
        self.standardise, self.fins = parts.standardise, once(parts.bank, self.window, engine_name)
        self.head = once(parts.head, [tf.TensorSpec((None, *per_channel), tf.float32), self.window], engine_name)

    def answer(self, emg: tf.Tensor) -> dict[str, tf.Tensor]:
        """Windows (B, L, C) volts -> probabilities (B, G), label (B,) int64, features (B, C, F); unchecked."""
        return self._labelled(self._network(emg))

    def serve(self, emg: tf.Tensor) -> dict[str, tf.Tensor]:
        """As `answer`, checked and in blocks."""
        return self._labelled(in_blocks(self._checked(emg), self._network, self.kinds))

    def features(self, emg: tf.Tensor) -> dict[str, tf.Tensor]:
        """Windows (B, L, C) volts -> the FINs' features (B, C, F) alone."""
        return in_blocks(self._checked(emg), lambda x: {"features": self.fins(self.standardise(x))},
                         {"features": self.kinds["features"]})

    def stream(self, emg: tf.Tensor) -> dict[str, tf.Tensor]:
        """Samples (B, T, C) volts, T >= L -> answers (B, W, ...) with W = (T - L) // stride + 1, decided causally.

        Window w covers the samples [w stride, w stride + L). Probabilities are voted, a rejected label is -1.
        """
        emg = checked(emg, (None, None, self.channels))
        windows = self._windows(emg)
        enough = tf.debugging.Assert(tf.shape(emg)[1] >= self.length, [
            f"emg must hold at least {self.length} samples, one window. Received:", tf.shape(emg)[1]])
        with tf.control_dependencies([enough]):
            emg = self.filtered(emg)
        if not self.forward.streams:
            return self._decided(emg, looped(tf.shape(emg)[0] * windows, BLOCK, lambda i, j: self._network(
                self._cut(emg, i, j)), self.kinds))
        answer, pieces = self.forward.signal(self.stride, tuple(self.kinds)), -(-windows // PIECE)  # of one signal

        def piece(i, _):
            first = i % pieces * PIECE
            last = tf.minimum(first + PIECE, windows)
            outputs = answer(emg[i // pieces, None, first * self.stride : (last - 1) * self.stride + self.length])
            return {name: value[0] for name, value in outputs.items()}

        return self._decided(emg, looped(tf.shape(emg)[0] * pieces, 1, piece, self.kinds))

    def stream_at_once(self, emg: tf.Tensor) -> dict[str, tf.Tensor]:
        """As `stream`, unchecked and with all windows in memory: ONNX has neither assertions nor such loops."""
        emg = self.filtered(emg)
        return self._decided(emg, self._network(self._cut(emg, 0, tf.shape(emg)[0] * self._windows(emg))))

    def _checked(self, emg: tf.Tensor) -> tf.Tensor:
        return checked(emg, (None, self.length, self.channels))

    def _network(self, emg: tf.Tensor) -> dict[str, tf.Tensor]:
        windows = self.standardise(emg)
        features = self.fins(windows)
        return {"probabilities": self.head([features, windows]), "features": features}

    def _windows(self, emg: tf.Tensor) -> tf.Tensor:
        return (tf.shape(emg)[1] - self.length) // self.stride + 1

    def _labelled(self, answers: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return answers | {"label": tf.gather(self.movements, tf.argmax(answers["probabilities"], axis=-1))}

    def _cut(self, emg: tf.Tensor, first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        """Windows [first, last) of all windows of signals (B, T, C), signal after signal."""
        index, windows = tf.range(first, last), self._windows(emg)
        starts = index // windows * tf.shape(emg)[1] + index % windows * self.stride
        return tf.gather(tf.reshape(emg, (-1, self.channels)), starts[:, None] + tf.range(self.length))

    def _decided(self, emg: tf.Tensor, found: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Decides answers (B W, ...) for all windows of signals (B, T, C): `Decision`'s arithmetic, in its order."""
        windows, decision, answers = self._windows(emg), self.decoder.decision, {}
        for name, value in found.items():
            shape = tf.shape(emg)[0], windows, *self.kinds[name][1]
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
        """What a client has to know; its input is ignored."""
        decoder = self.decoder
        filter = sections(decoder.card.get("filter"), decoder.card["rate_hz"])
        answer = {"filter": tf.constant(filter)} if len(filter) else {}
        answer |= {"names": tf.constant(decoder.named(self.movements).tolist())} if decoder.card.get("names") else {}
        return answer | {"rate_hz": tf.constant(decoder.card["rate_hz"], tf.float32),
                "length": tf.constant(self.length, tf.int64), "stride": tf.constant(self.stride, tf.int64),
                "vote": tf.constant(decoder.decision.vote, tf.int64),
                "reject": tf.constant(decoder.decision.reject, tf.float32),
                "movements": tf.constant(self.movements, tf.int64)}


def checked(emg: tf.Tensor, shape: tuple[int | None, ...]) -> tf.Tensor:
    """`emg`, or an InvalidArgumentError: another shape, nothing in it, NaN or Inf.

    A server does not hold a request against the signature's shape: without `EnsureShape` six windows of 50 samples
    would come back as five answers.
    """
    emg = tf.ensure_shape(emg, shape)
    some = tf.debugging.Assert(tf.size(emg) > 0, ["emg is empty: give at least one window. Received shape:",
                                                  tf.shape(emg)])
    with tf.control_dependencies([some]):
        return tf.debugging.assert_all_finite(emg, "emg holds NaN or Inf, where volts are expected")


def filtered(sections: np.ndarray) -> Callable[[tf.Tensor], tf.Tensor]:
    """`filtering.filtered` as a function of signals (B, T, C) in a graph, without a loop; float32.

    States at blocks' beginnings are sums of what the blocks before have left, added up by doubling.
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


def once(model: Callable, spec, engine_name: str = "block") -> Callable:
    """A model at inference as one function of the graph."""
    def call(x):
        with engine(engine_name):
            return model(x, training=False)

    return tf.function(call, input_signature=[spec], autograph=False)


def in_blocks(x: tf.Tensor, answer: Callable, kinds: dict[str, tuple]) -> dict[str, tf.Tensor]:
    """`answer(x)` of rows x (B, ...), a block at a time; `kinds` as of `looped`."""
    return looped(tf.shape(x)[0], BLOCK, lambda first, last: answer(x[first:last]), kinds)


def looped(count: tf.Tensor, size: int, answer: Callable, kinds: dict[str, tuple]) -> dict[str, tf.Tensor]:
    """Concatenates `answer(first, last)` over blocks of `size` in [0, count), one after another.

    `kinds`: output name -> (dtype, shape of one window's output).
    """
    blocks = -(-count // size)
    arrays = [tf.TensorArray(dtype, size=blocks, infer_shape=False, element_shape=(None, *shape))
              for dtype, shape in kinds.values()]

    def step(i, *filled):
        outputs = answer(i * size, tf.minimum((i + 1) * size, count))
        return i + 1, *(array.write(i, outputs[name]) for array, name in zip(filled, kinds, strict=True))

    _, *filled = tf.while_loop(lambda i, *_: i < blocks, step, (0, *arrays), parallel_iterations=1)
    return {name: tf.ensure_shape(array.concat(), (None, *shape))
            for (name, (_, shape)), array in zip(kinds.items(), filled, strict=True)}


def stock(bank: keras.Model) -> None:
    """Keeps cuDNN's operation, which has no CPU kernel, out of what is traced on a machine with a GPU."""
    for layer in (layer for model in fins.fins_of(bank) for layer in model.layers if isinstance(layer, BiLSTM)):
        for lstm in layer.stack:
            lstm.use_cudnn = False


def save_decoder(made: Signatures, folder: Path) -> None:
    """Writes the SavedModel of a decoder: signatures `serving_default`, `features`, `stream`, `about`."""
    _save(made.decoder.model, folder, {
        "serving_default": (made.serve, made.window), "features": (made.features, made.window),
        "stream": (made.stream, made.signal), "about": (made.about, tf.TensorSpec(None, tf.float32, name="emg"))})


def any_channels(bank: keras.Model) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """FINs as a function of standardised windows (B, L, C), any C -> {"features": (B, C, F)}; unchecked."""
    layers = [fins.PerChannel(model) for model in fins.fins_of(bank)]
    return lambda emg: {"features": tf.concat([layer(emg, training=False) for layer in layers], -1)}


def save_fins(bank: keras.Model, folder: Path) -> None:
    """Writes the SavedModel of FINs alone: standardised windows (B, L, C), any C -> features (B, C, F)."""
    stock(bank)
    spec, function = tf.TensorSpec((None, bank.input_shape[1], None), tf.float32, name="emg"), any_channels(bank)
    answer = once(lambda emg, training: function(emg), spec)
    kinds = {"features": (tf.float32, (None, bank.output_shape[-1]))}

    def serve(emg):
        return in_blocks(checked(emg, spec.shape), answer, kinds)

    _save(bank, folder, {"serving_default": (serve, spec), "features": (serve, spec)})


def _save(model: keras.Model, folder: Path, endpoints: dict[str, tuple]) -> None:
    archive = keras.export.ExportArchive()
    archive.track(model)
    for name, (function, spec) in endpoints.items():
        archive.add_endpoint(name, function, input_signature=[spec])
    archive.write_out(str(folder), verbose=False)
