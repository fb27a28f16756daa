"""Sums over windows that overlap: each term is added once to the sum of its block, each window is a few blocks."""

from collections.abc import Callable

import tensorflow as tf


def windows_in(samples, length: int, stride: int):
    """How many windows a stretch of so many samples (an int or a tensor) holds."""
    return (samples - length) // stride + 1


def window_sums(terms: tf.Tensor, length: int, stride: int, of: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Sums over the windows [w stride, w stride + length) of a stretch.

    A window is `length // stride` whole blocks of one stride and, where the stride does not divide it, the head of one
    more. No sum runs on from window to window, so float32 stays as exact as it is over one window.

    Args:
        terms: (B, T, ...), T >= length.
        of: adds up the rows of blocks: (B, n, R, ...) -> (B, n, *rest), R at most `stride`.

    Returns:
        (B, W, *rest), W = (T - length) // stride + 1.
    """
    blocks, rest = divmod(length, stride)
    samples = terms.shape[1] or tf.shape(terms)[1]
    count = windows_in(samples, length, stride)
    there = count - 1 + blocks + (rest > 0)  # blocks that windows touch
    if rest:  # the last one is not whole
        terms = tf.pad(terms, [[0, 0], [0, stride], *[[0, 0]] * (len(terms.shape) - 2)])
    shape = (tf.shape(terms)[0], there, stride, *terms.shape[2:])
    rows = tf.reshape(terms[:, : there * stride], shape)
    heads = of(rows[:, :, :rest]) if rest else None
    if not blocks:
        return heads
    sums = of(rows[:, :, rest:])
    if rest:
        sums += heads
    total = _slid(sums[:, : count - 1 + blocks], blocks)
    return total + heads[:, blocks:] if rest else total


def _slid(sums: tf.Tensor, blocks: int) -> tf.Tensor:
    """(B, n, ...) -> (B, n - blocks + 1, ...): every so many neighbours added."""
    if blocks == 1:
        return sums
    shape = tf.shape(sums)
    flat = tf.reshape(sums, (shape[0], shape[1], int(tf.TensorShape(sums.shape[2:]).num_elements())))
    slid = blocks * tf.nn.avg_pool1d(flat, blocks, 1, "VALID")
    return tf.reshape(slid, tf.concat([[shape[0], shape[1] - blocks + 1], shape[2:]], 0))


def cut(x: tf.Tensor, length: int, stride: int) -> tf.Tensor:
    """Windows (B, W, length, C) of stretches (B, T, C), cut one by one."""
    count = windows_in(x.shape[1] or tf.shape(x)[1], length, stride)
    return tf.gather(x, stride * tf.range(count)[:, None] + tf.range(length), axis=1)
