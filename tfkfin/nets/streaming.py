"""Streaming: over a continuous signal every sample goes through the filters of the FINs once.

Windows of 600 samples every 20 share 97 % of their samples. A FIN that is filters of a few neighbouring samples, their
mean over the window and a small network after it need not filter a sample again for each of the 30 windows that hold
it: the mean is a sum of block sums. The FIN pads every window with zeros, so for its first and last samples filters
are computed window by window. Nothing is saved for it: the weights are the FIN's own.

All here are TensorFlow functions of standardised signals (B, T, C); `forward` runs them over recordings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from tfkfin.nets.fins import fins_of
from tfkfin.nets.layers import Moments
from tfkfin.nets.sliding import cut, jitted, over_signal, samples_at, size, windows_in


@dataclass(frozen=True)
class Means:
    """A FIN taken apart: filters of the samples, pointwise after the first; layers after their mean over the window.

    Attributes:
        squares: whether the squares of what the filters answer are averaged too.
    """

    filters: tuple[keras.layers.Layer, ...]
    after: tuple[keras.layers.Layer, ...]
    squares: bool

    @property
    def shape(self) -> tuple:
        """What filters must have in common to be computed as one."""
        return self.squares, *((tuple(f.kernel.shape), f.activation) for f in self.filters)


def taken_apart(fin: keras.Model) -> Means | None:
    """The parts of a FIN that streams; None of another."""
    layers = fin.layers[1:]
    means = [i for i, layer in enumerate(layers) if isinstance(layer, keras.layers.GlobalAveragePooling1D | Moments)]
    if len(means) != 1 or not means[0]:
        return None
    filters, after = tuple(layers[: means[0]]), tuple(layers[means[0] + 1 :])
    plain = all(isinstance(f, keras.layers.Conv1D) and (f.padding == "same" or f.kernel_size == (1,)) and f.use_bias
                and f.groups == 1 and (f.strides, f.dilation_rate) == ((1,), (1,)) for f in filters)
    if not plain or any(f.kernel_size != (1,) for f in filters[1:]) or filters[0].kernel_size[0] > fin.input_shape[1]:
        return None
    return Means(filters, after, isinstance(layers[means[0]], Moments))


def streams(bank: keras.Model) -> bool:
    """Whether all FINs of a bank stream."""
    return all(taken_apart(fin) for fin in fins_of(bank))


def stream_bank(bank: keras.Model, stride: int, compiled: bool = True,
                slide: Callable = over_signal) -> Callable[[tf.Tensor], tf.Tensor]:
    """A bank as a function of signals: standardised (B, T, C) -> features (B, W, C, F), W = (T - L) // stride + 1.

    As the bank answers for the windows [w stride, w stride + L), to float32, and differentiable in its weights (not in
    the samples). FINs that do not stream answer for windows that are cut.

    Args:
        stride: samples; any, also one that does not divide L.
        compiled: XLA compiles the filters, for each shape of `x`, within a second; otherwise they are plain operations
            and take ten times as long.
        slide: how sums over windows are taken.
    """
    fins, length = fins_of(bank), bank.input_shape[1]
    if not streams(bank):
        return lambda x: _of_each(cut(x, length, stride), lambda windows: bank(windows, training=False))
    if not fins:
        return lambda x: tf.zeros((size(x, 0), windows_in(size(x, 1), length, stride), x.shape[2], 0), x.dtype)
    parts, alike = [taken_apart(fin) for fin in fins], {}
    for i, part in enumerate(parts):
        alike.setdefault(part.shape, []).append(i)

    def features(x):
        found = {}
        for chosen in alike.values():
            filters, squares = [parts[i].filters for i in chosen], parts[chosen[0]].squares
            means = jitted(compiled, slide)(_means)(filters, squares, x, length, stride, compiled, slide)
            for i, mean in zip(chosen, tf.unstack(means, axis=3), strict=True):  # of (B, W, C, f, D)
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


def _means(filters: Sequence[tuple], squares: bool, x: tf.Tensor, length: int, stride: int, xla: bool,
           slide: Callable = over_signal) -> tf.Tensor:
    """What filters of f FINs of one shape answer to (B, T, C), averaged over windows: (B, W, C, f, D).

    With `squares` (B, W, C, f, 2 D): their squares too.
    """
    first, *pointwise = zip(*filters, strict=True)
    taps, activations = first[0].kernel_size[0], [layer.activation for layer in filters[0]]
    count, x = windows_in(size(x, 1), length, stride), tf.stop_gradient(x)
    # of each window the first and the last samples, with the zeros that it is padded with
    edges = [tf.pad(samples_at(x, count, offset, taps - 1, stride), [[0, 0], [0, 0], zeros, [0, 0]])
             for offset, zeros in ((0, ((taps - 1) // 2, 0)), (length - taps + 1, (0, taps // 2))) if any(zeros)]

    def over_windows(terms, added=None):
        """Sums over windows of terms (B, n, C, ...) of samples: (B, W, C, ...)."""
        total = slide(terms, x, length, stride, taps - 1, added)
        for edge in edges:
            rows = terms(tf, edge, 2)
            total += added(tf, rows) if added else tf.reduce_sum(rows, axis=2)
        return total

    def sums(kernels, biases):
        def answers(xp, samples, axis=1):
            y = _taps(xp, samples, kernels[0], axis, xla) + xp.reshape(biases[0], (-1,))
            y = activated(xp, activations[0], y)
            if pointwise:
                y = xp.reshape(y, (*_shape(y)[:-1], len(filters), y.shape[-1] // len(filters)))
            for activation, kernel, bias in zip(activations[1:], kernels[1:], biases[1:], strict=True):
                y = activated(xp, activation, xp.einsum("...fd,fde->...fe", y, kernel) + bias)
            return y

        total = over_windows(answers, with_squares if squares else None)
        shape = (*_shape(total)[:2], x.shape[2], 1 + squares, len(filters), filters[0][-1].filters)
        return tf.concat(tf.unstack(tf.reshape(total, shape), axis=3), axis=-1)

    @tf.custom_gradient
    def of_weights(*weights):
        def total(weights):
            return sums(weights[: len(activations)], weights[len(activations) :])

        def gradient(upstream):  # anew: what filters answer is a hundred times the samples, too much to keep
            if not pointwise and not squares:
                flat = tf.reshape(upstream, (*_shape(upstream)[:3], -1))
                slopes = [over_windows(partial(_slope, by, *weights, activations[0])) for by in range(taps + 1)]
                *of_taps, of_bias = [tf.einsum("bwcd,bwcd->d", flat, slope) for slope in slopes]
                return tf.stack(of_taps), tf.reshape(of_bias, _shape(weights[1]))
            with tf.GradientTape() as tape:
                tape.watch(weights)
                answer = total(weights)
            return tape.gradient(answer, weights, upstream)

        return total(weights), gradient

    kernels = [tf.concat([tf.convert_to_tensor(layer.kernel)[:, 0] for layer in first], 1)]  # (taps, f D)
    kernels += [tf.stack([tf.convert_to_tensor(layer.kernel)[0] for layer in layers]) for layers in pointwise]
    biases = [tf.stack([tf.convert_to_tensor(layer.bias) for layer in layers]) for layers in (first, *pointwise)]
    return of_weights(*kernels, *biases) / length


def with_squares(xp, rows):
    """Blocks (B, n, R, C, ...) -> (B, n, C, 2, ...): the rows added up, and their squares."""
    return xp.stack([(tf.reduce_sum if xp is tf else np.sum)(part, axis=2) for part in (rows, rows * rows)], axis=3)


def _shape(x: tf.Tensor) -> list:
    return [size(x, axis) for axis in range(len(x.shape))]


def _slope(by: int, kernel: tf.Tensor, bias: tf.Tensor, activation: Callable, _, x: tf.Tensor, axis: int = 1):
    """Of one filter's answers the slope by one of its taps, or, `by` their number, by its bias; `x` as of `_taps`."""
    taps, rows = kernel.shape[0], size(x, axis) - kernel.shape[0] + 1
    near = [x[(slice(None),) * axis + (slice(i, i + rows),)][..., None] for i in range(taps)]
    y = sum(n * kernel[i] for i, n in enumerate(near)) + tf.reshape(bias, (-1,))
    with tf.GradientTape() as tape:
        tape.watch(y)
        answer = activation(y)
    slope = tape.gradient(answer, y)
    return slope if by == taps else slope * near[by]


def activated(xp, activation: Callable, y):
    """An activation of Keras, which would take NumPy's arrays on the way of a tensor."""
    return xp.maximum(y, 0) if activation is keras.activations.relu else activation(y)


def _taps(xp, x, kernel, axis: int, xla: bool):
    """A filter along an axis: (..., T, ..., C) by a kernel (taps, D) -> (..., T - taps + 1, ..., C, D).

    `xp` is TensorFlow or NumPy. For XLA it is a sum of products, which it fuses with what follows, so that nothing of
    this size is ever stored; its gradient is one product of matrices all the same.
    """
    taps = kernel.shape[0]
    rows = size(x, axis) - taps + 1
    near = xp.stack([x[(slice(None),) * axis + (slice(i, i + rows),)] for i in range(taps)], axis=-1)
    if not xla or xp is not tf:
        return xp.matmul(near, kernel)

    @tf.custom_gradient
    def fused(kernel):
        y = sum(near[..., i, None] * kernel[i] for i in range(taps))
        return y, lambda upstream: tf.matmul(tf.reshape(near, (-1, taps)), tf.reshape(upstream, (-1, y.shape[-1])),
                                             transpose_a=True)

    return fused(kernel)


def stream_layer(describe: keras.layers.Layer, length: int, stride: int, compiled: bool = True,
                 slide: Callable = over_signal) -> Callable[[tf.Tensor], tf.Tensor]:
    """A description, a layer of windows, as a function of signals: (B, T, C) -> (B, W, S), and of its `kept`."""
    def answer(x, **kept):
        if hasattr(describe, "stream"):
            return describe.stream(x, length, stride, compiled, slide, **kept)
        kept = {name: tf.reshape(part, (-1, x.shape[2])) for name, part in kept.items()}
        return _of_each(cut(x, length, stride), lambda windows: describe(windows, **kept))

    return answer
