"""Sums over windows that overlap: each term is added once to the sum of its block, each window is a few blocks."""

from collections.abc import Callable, Sequence
from functools import partial

import tensorflow as tf


def jitted(compiled: bool, slide: Callable) -> Callable[[Callable], Callable]:
    """Compiles a function by XLA if wanted; one whose sums somebody keeps is compiled by whoever keeps them."""
    if compiled and slide is over_signal:
        return partial(tf.function, jit_compile=True, autograph=False)
    return lambda function: function


def size(x: tf.Tensor, axis: int):
    """An axis' size: a number where it is known, or else a tensor."""
    known = x.shape[axis]
    return tf.shape(x)[axis] if known is None else known


def windows_in(samples, length: int, stride: int):
    """How many windows a signal of so many samples (a number or a tensor) holds."""
    return (samples - length) // stride + 1


def window_sums(terms: tf.Tensor, count, length: int, stride: int, of: Callable | None = None) -> tf.Tensor:
    """Sums over the windows [w stride, w stride + length), w < count, of the terms of a signal.

    A window is `length // stride` whole blocks of one stride and, where the stride does not divide it, the head of one
    more. No sum runs on from window to window, so float32 stays as exact as it is over one window.

    Args:
        terms: (B, T, ...), T >= (count - 1) stride + length, and a stride more where it does not divide `length`.
        count: W, a number or a tensor.
        of: adds up the rows of blocks: (tf, (B, n, R, ...)) -> (B, n, *rest), R at most `stride`; None: plainly.

    Returns:
        (B, W, *rest).
    """
    def added(rows):
        return tf.reduce_sum(rows, axis=2) if of is None else of(tf, rows)

    blocks, rest = divmod(length, stride)
    there = count - 1 + blocks + (rest > 0)  # blocks that windows touch
    rows = tf.reshape(terms[:, : there * stride], (tf.shape(terms)[0], there, stride, *terms.shape[2:]))
    heads = added(rows[:, :, :rest]) if rest else None
    if not blocks:
        return heads
    sums = added(rows[:, :, rest:])
    if rest:
        sums += heads
    total = _slid(sums[:, : count - 1 + blocks], blocks)
    return total + heads[:, blocks:] if rest else total


def over_signal(terms: Callable, x: tf.Tensor, length: int, stride: int, reach: int = 0,
                 of: Callable | None = None) -> tf.Tensor:
    """Sums over all windows of signals x (B, T, C) of the terms that lie inside each: (B, W, *rest).

    `terms`: (tf, samples (B, n + reach, C)) -> (B, n, ...), each term of `reach` + 1 samples. `of` as for
    `window_sums`. Both are given the library to compute with: a live signal's sums are taken in NumPy.
    """
    inner, count = length - reach, windows_in(size(x, 1), length, stride)
    if inner % stride:  # so that blocks are whole
        x = tf.pad(x, [[0, 0], [0, stride], [0, 0]])
    return window_sums(terms(tf, x), count, inner, stride, of)


def products_of_channels(xp, rows):
    """Blocks (B, n, R, C) -> (B, n, C, C): what `of` is for sums of the products of every two channels."""
    return xp.matmul(xp.transpose(rows, (0, 1, 3, 2)), rows)


def lagged_sums(x: tf.Tensor, lags: Sequence[int], length: int, stride: int, slide: Callable) -> tf.Tensor:
    """Sums over windows of each channel's products with itself some samples later: (B, T, C) -> (B, W, C, lags).

    Of lag k over the length - k pairs of samples that both lie in the window.
    """
    reach = max(lags)

    def products(xp, x):  # (B, n + reach, C) -> (B, n, C, lags)
        rows = size(x, 1) - reach
        return xp.stack([x[:, lag : lag + rows] * x[:, :rows] for lag in lags], axis=-1)

    sums = slide(products, x, length, stride, reach)  # of the samples for which all lags end in the window
    if not reach:
        return sums
    last = samples_at(x, windows_in(size(x, 1), length, stride), length - reach, reach, stride)  # and of the others
    ends = [tf.reduce_sum(last[:, :, lag:] * last[:, :, : reach - lag], axis=2) for lag in lags]
    return sums + tf.stack(ends, axis=-1)


def _slid(sums: tf.Tensor, blocks: int) -> tf.Tensor:
    """(B, n, ...) -> (B, n - blocks + 1, ...): every so many neighbours added."""
    if blocks == 1:
        return sums
    shape = tf.shape(sums)
    flat = tf.reshape(sums, (shape[0], shape[1], sums.shape[2:].num_elements()))
    slid = blocks * tf.nn.avg_pool1d(flat, blocks, 1, "VALID")
    return tf.reshape(slid, tf.concat([[shape[0], shape[1] - blocks + 1], shape[2:]], 0))


def samples_at(x: tf.Tensor, count, offset: int, rows: int, stride: int) -> tf.Tensor:
    """A few samples of each window, from `offset` on: (B, T, C) -> (B, W, rows, C)."""
    return tf.stack([x[:, i : i + (count - 1) * stride + 1 : stride] for i in range(offset, offset + rows)], axis=2)


def cut(x: tf.Tensor, length: int, stride: int) -> tf.Tensor:
    """Windows (B, W, length, C) of signals (B, T, C), cut one by one."""
    count = windows_in(size(x, 1), length, stride)
    return tf.gather(x, stride * tf.range(count)[:, None] + tf.range(length), axis=1)
