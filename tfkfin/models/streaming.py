"""Streaming: over a contiguous stretch every sample goes through the filters of the FINs once.

Windows of 600 samples every 20 share 97 % of their samples. A FIN that is filters of a few neighbouring samples, their
mean over the window and a small network after it need not filter a sample again for each of the 30 windows that hold
it: the mean is a sum of block sums. Every window counts as padded with zeros, as the FIN sees it, so what the filters
answer at its first and last samples is corrected. Nothing is saved for it: the weights are the FIN's own.

All here are TensorFlow functions of stretches (B, T, C) or run such functions over recordings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfkfin.models.fins import fins_of
from tfkfin.models.sliding import cut, window_sums, windows_in

PIECE = 256  # windows that are worked on at a time
SHORT = 32  # windows of a piece where a run is shorter
CUT = 64  # windows at a time where they are cut one by one
FEW = 4  # windows: where runs are shorter on average, all windows are cut


@dataclass(frozen=True)
class Means:
    """A FIN taken apart: filters of the samples, pointwise after the first; layers after their mean over the window."""

    filters: tuple[keras.layers.Layer, ...]
    after: tuple[keras.layers.Layer, ...]

    @property
    def shape(self) -> tuple:
        """What filters must have in common to be computed as one."""
        return tuple((tuple(f.kernel.shape), f.activation) for f in self.filters)


def taken_apart(fin: keras.Model) -> Means | None:
    """The parts of a FIN that streams; None of another."""
    layers = fin.layers[1:]
    means = [i for i, layer in enumerate(layers) if isinstance(layer, keras.layers.GlobalAveragePooling1D)]
    if len(means) != 1 or not means[0]:
        return None
    filters, after = tuple(layers[: means[0]]), tuple(layers[means[0] + 1 :])
    plain = all(isinstance(f, keras.layers.Conv1D) and f.padding == "same" and f.groups == 1 and f.use_bias
                and (f.strides, f.dilation_rate) == ((1,), (1,)) for f in filters)
    if not plain or any(f.kernel_size != (1,) for f in filters[1:]) or filters[0].kernel_size[0] > fin.input_shape[1]:
        return None
    return Means(filters, after)


def streams(bank: keras.Model) -> bool:
    """Whether all FINs of a bank stream."""
    return all(taken_apart(fin) for fin in fins_of(bank))


def stream_bank(bank: keras.Model, stride: int, xla: bool = False) -> Callable[[tf.Tensor], tf.Tensor]:
    """A bank as a function of stretches: standardised (B, T, C) -> features (B, W, C, F), W = (T - L) // stride + 1.

    As the bank answers for the windows [w stride, w stride + L), to float32, and differentiable in its weights (not in
    the samples). FINs that do not stream answer for windows that are cut.

    Args:
        stride: samples; any, also one that does not divide L.
        xla: the form that XLA compiles best; call it inside `tf.function(jit_compile=True)`.
    """
    fins, length = fins_of(bank), bank.input_shape[1]
    if not streams(bank):
        return lambda x: _of_each(cut(x, length, stride), lambda windows: bank(windows, training=False))
    parts, alike = [taken_apart(fin) for fin in fins], {}
    for i, part in enumerate(parts):
        alike.setdefault(part.shape, []).append(i)

    def features(x):
        found = {}
        for chosen in alike.values():
            means = _means([parts[i].filters for i in chosen], x, length, stride, xla)  # (B, W, C, f, D)
            for i, mean in zip(chosen, tf.unstack(means, axis=3), strict=True):
                found[i] = _of_each(mean, lambda y, layers=parts[i].after: _through(layers, y), 3)
        return tf.concat([found[i] for i in range(len(parts))], axis=-1)

    return features


def _through(layers: Sequence[keras.layers.Layer], x: tf.Tensor) -> tf.Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _of_each(x: tf.Tensor, function: Callable, axes: int = 2) -> tf.Tensor:
    """`function` of rows, applied with the first `axes` axes folded into one."""
    y = function(tf.reshape(x, (-1, *x.shape[axes:])))
    return tf.reshape(y, tf.concat([tf.shape(x)[:axes], tf.shape(y)[1:]], 0))


def _means(filters: Sequence[tuple], x: tf.Tensor, length: int, stride: int, xla: bool) -> tf.Tensor:
    """What filters of f FINs of one shape answer to (B, T, C), averaged over windows: (B, W, C, f, D)."""
    first, *pointwise = zip(*filters, strict=True)
    weights = [tf.stack([tf.convert_to_tensor(layer.kernel)[:, 0] for layer in first], 1)]  # (taps, f, D)
    weights += [tf.stack([tf.convert_to_tensor(layer.kernel)[0] for layer in layers]) for layers in pointwise]
    biases = [tf.stack([tf.convert_to_tensor(layer.bias) for layer in layers]) for layers in (first, *pointwise)]
    activations = [layer.activation for layer in filters[0]]
    taps = first[0].kernel_size[0]
    before, behind = (taps - 1) // 2, taps // 2  # samples that a filter sees before and behind its own

    @tf.custom_gradient
    def sums(near, *values):
        """Filters of neighbourhoods (B, n, R, C, taps), added up over R -> (B, n, C, f, D)."""
        def forward(values, broadcast):
            kernels, shifts = values[: len(activations)], values[len(activations):]
            y = _neighbours(near, kernels[0], broadcast) + shifts[0]
            for i, activation in enumerate(activations):
                y = activation(y if not i else tf.einsum("bnrcfd,fde->bnrcfe", y, kernels[i]) + shifts[i])
            return tf.reduce_sum(y, axis=2)

        def gradient(upstream):  # filtered anew: what the filters answered is a hundred times the samples
            with tf.GradientTape() as tape:
                tape.watch(values)
                again = forward(values, xla)
            return None, *tape.gradient(again, values, upstream)

        return forward(values, xla), gradient

    def total(near):
        return sums(near, *weights, *biases)

    def edge(offset, rows, unseen):
        """What the filters answer at a window's edge, where the samples `unseen` are 0, less what they do without."""
        near = tf.stack([padded[:, i : i + (count - 1) * stride + 1 : stride]
                         for i in range(offset, offset + rows + taps - 1)], axis=2)  # (B, W, rows + taps - 1, C)
        seen = np.ones((rows + taps - 1, 1), np.float32)
        seen[unseen] = 0
        return total(_near(near * seen, taps)) - total(_near(near, taps))

    count = windows_in(x.shape[1] or tf.shape(x)[1], length, stride)
    padded = tf.pad(tf.stop_gradient(x), [[0, 0], [before, behind], [0, 0]])
    answer = window_sums(_near(padded[:, None], taps)[:, 0], length, stride, total)
    if before:
        answer += edge(0, before, slice(before))
    if behind:
        answer += edge(length - behind, behind, slice(-behind, None))
    return answer / length


def _near(x: tf.Tensor, taps: int) -> tf.Tensor:
    """Each sample with its neighbours: (B, n, R + taps - 1, C) -> (B, n, R, C, taps)."""
    rows = (x.shape[2] or tf.shape(x)[2]) - taps + 1
    return tf.stack([x[:, :, i : i + rows] for i in range(taps)], axis=-1)


def _neighbours(near: tf.Tensor, kernel: tf.Tensor, broadcast: bool) -> tf.Tensor:
    """Neighbourhoods (B, n, R, C, taps) by a kernel (taps, f, D) -> (B, n, R, C, f, D).

    `broadcast`: XLA fuses products and sums with what follows, so that nothing of this size is ever stored. The
    gradient is one product of matrices in any case.
    """
    if not broadcast:
        return tf.einsum("bnrct,tfd->bnrcfd", near, kernel)

    @tf.custom_gradient
    def fused(kernel):
        y = sum(near[..., i, None, None] * kernel[i] for i in range(kernel.shape[0]))
        return y, lambda upstream: tf.einsum("bnrct,bnrcfd->tfd", near, upstream)

    return fused(kernel)


def stream_network(network: keras.Model, stride: int, xla: bool = False) -> Callable[[tf.Tensor], dict]:
    """A decoder's network as a function of stretches of volts (B, T, C), at inference.

    Returns:
        (B, T, C) -> {"probabilities": (B, W, G), "features": (B, W, C, F)}.
    """
    length = network.input_shape[1]
    standardise, head = network.get_layer("standardise"), network.get_layer("head")
    features_of = stream_bank(network.get_layer("fins"), stride, xla)
    describe = stream_described(head, stride)

    def answer(volts):
        x = standardise(volts)
        features = features_of(x)
        seen = [features] if describe is None else [features, describe(x)]
        folded = [tf.reshape(part, (-1, *part.shape[2:])) for part in seen]
        probabilities = head.get_layer("classifier")(folded if len(folded) > 1 else folded[0], training=False)
        shape = (tf.shape(x)[0], windows_in(x.shape[1] or tf.shape(x)[1], length, stride), probabilities.shape[-1])
        return {"probabilities": tf.reshape(probabilities, shape), "features": features}

    return answer


def stream_described(head: keras.Model, stride: int) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """What a head computes from standardised samples beside features: (B, T, C) -> (B, W, S); None if nothing."""
    found, length = [layer for layer in head.layers if layer.name == "describe"], head.inputs[1].shape[1]
    if not found:
        return None
    describe = found[0]
    if hasattr(describe, "stream"):
        return lambda x: describe.stream(x, length, stride)
    return lambda x: _of_each(cut(x, length, stride), describe)


class OverRecording:
    """A function of stretches, over windows that lie anywhere in a recording, in pieces of bounded memory.

    Args:
        make: (stride, xla) -> a function of stretches (B, T, C), whose outputs are (B, W, ...).
        length, channels: of the windows.
        streams: whether it gains from stretches; it is then compiled by XLA. Otherwise it is given single windows.
    """

    def __init__(self, make: Callable[[int, bool], Callable], length: int, channels: int, streams: bool):
        self.make, self.length, self.channels, self.streams = make, length, channels, streams
        self._functions = {}

    def __call__(self, emg: np.ndarray, starts: np.ndarray):
        """emg (T, C) float32 and the first samples of windows (N,), in any order, N > 0 -> outputs (N, ...)."""
        starts, outputs = np.asarray(starts), None
        stride, runs = runs_of(starts)
        for size, pieces in self._pieces(runs, len(starts)).items():
            rows = max(1, (PIECE if self.streams else CUT) // size)
            for i in range(0, len(pieces), rows):
                chosen = pieces[i : i + rows]
                begins = [starts[first] for first, _ in chosen]
                answer = self._answer(emg, begins, rows if self.streams else len(chosen), size, stride)
                if outputs is None:
                    outputs = tf.nest.map_structure(lambda a: np.empty((len(starts), *a.shape[2:]), a.dtype), answer)
                for row, (first, count) in enumerate(chosen):
                    tf.nest.map_structure(lambda out, a: np.copyto(out[first : first + count], a[row, :count]),
                                          outputs, answer)
        return outputs

    def _pieces(self, runs: list[tuple[int, int]], count: int) -> dict[int, list[tuple[int, int]]]:
        """Windows of a piece -> [(first window, how many it has of them)]. XLA compiles for each of the three sizes."""
        found = {}
        for low, high in runs:
            whole = low + (high - low) // PIECE * PIECE
            if not self.streams or count < FEW * len(runs):
                found.setdefault(1, []).extend((i, 1) for i in range(low, high))
                continue
            if whole > low:
                found.setdefault(PIECE, []).extend((i, PIECE) for i in range(low, whole, PIECE))
            if high > whole:
                found.setdefault(SHORT, []).extend((i, min(SHORT, high - i)) for i in range(whole, high, SHORT))
        return found

    def _answer(self, emg: np.ndarray, begins: list[int], rows: int, size: int, stride: int):
        samples = (size - 1) * stride + self.length
        x = np.zeros((rows, samples, self.channels), np.float32)  # always as many rows: a shape is a compilation
        for row, begin in enumerate(begins):
            part = emg[begin : begin + samples]
            x[row, : len(part)] = part
        if (size, stride) not in self._functions:
            self._functions[size, stride] = tf.function(
                self.make(stride, self.streams), jit_compile=self.streams, autograph=False,
                input_signature=[tf.TensorSpec((None, samples, self.channels), tf.float32)])
        return tf.nest.map_structure(lambda t: t.numpy(), self._functions[size, stride](tf.constant(x)))


def over_recording(network: keras.Model) -> OverRecording:
    """A decoder's network over recordings: volts (T, C), starts (N,) -> its outputs for each window."""
    bank = network.get_layer("fins")
    return OverRecording(lambda stride, xla: stream_network(network, stride, xla), *bank.input_shape[1:], streams(bank))


def runs_of(starts: np.ndarray) -> tuple[int, list[tuple[int, int]]]:
    """The stride that most windows go by, and the runs [low, high) of `starts` (N,) that go by it."""
    steps = np.diff(starts)
    forward = steps[steps > 0]
    stride = int(np.bincount(forward).argmax()) if len(forward) else 1
    edges = np.concatenate([[0], np.flatnonzero(steps != stride) + 1, [len(starts)]])
    return stride, list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
