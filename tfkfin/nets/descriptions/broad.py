"""Amplitude, spectrum and space of a window in closed form: a description that needs no FINs beside it.

Of each channel x of a standardised window of L samples, with m its mean over the window, dx its first difference and
r_k the autocorrelation about m, r_k = sum over t of (x_t - m)(x_(t+k) - m):

    mean |x|                    mean |dx|                    sign changes of x and of dx, a sample
    a_1 .. a_4, the AR(4) model that sum over j of a_j r_|i-j| = -r_i describes (Yule, Walker)
    log r_0 / L                 log mean sqrt |x|            log power of the second half over that of the first
    r_1 / r_0 .. r_8 / r_0

and of all channels the logarithms of the covariances of x, dx and d(dx) (`LogCovariance`).

Everything is sums over the window, so that over a signal each sample is touched once. That is why |x|, sqrt |x| and
signs are about 0, the training mean, and not about m: about m they would have to be computed window by window.
"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tfkfin.nets import descriptions
from tfkfin.nets.descriptions import side_by_side
from tfkfin.nets.sliding import jitted, lagged_sums, over_signal, samples_at, size, windows_in
from tfkfin.nets.spatial import LogCovariance, logarithm

LAGS, ORDER = 8, 4  # autocorrelations up to this lag, in samples, and the order of AR
FLOOR, RELATIVE_FLOOR = 1e-12, 1e-10  # added to powers: of standardised samples, and as a share of the squared mean
LOG_POWER = 4 + ORDER  # which of each channel's outputs is its log power: after mean |x| .. and AR


@keras.saving.register_keras_serializable(package="tfkfin")
class Broad(layers.Layer):
    """The description above: (B, L, C) -> (B, 19 C + 3 C (C + 1) / 2), L > 8; in float64 inside.

    Outputs of single channels come kind by kind, then those of all channels in the order of `LogCovariance`.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.between = [LogCovariance(difference) for difference in (0, 1, 2)]

    def build(self, input_shape):
        if input_shape[1] <= LAGS:
            raise ValueError(f"`inputs` must be windows of more than {LAGS} samples. Received: {input_shape[1]}")
        for part in self.between:
            part.build(input_shape)

    def call(self, inputs, kept=None):
        length = inputs.shape[1]
        return ops.reshape(self.stream(inputs, length, length, False, kept=kept), (-1, self._size(inputs.shape[2])))

    def stream(self, x, length: int, stride: int, compiled: bool = True, slide=over_signal, kept=None):
        """As of `Correlations`: (B, T, C) -> (B, W, S)."""
        sums = jitted(compiled, slide)(self._window_sums)(ops.cast(x, "float64"), length, stride, slide)
        covariances = [part.covariances(x, length, stride, slide, kept) for part in self.between]
        logs = logarithm(ops.concatenate(covariances))  # of all at once: eigenvalues make most of an ONNX graph
        between = [ops.reshape(part, (ops.shape(x)[0], -1, logs.shape[1]))
                   for part in ops.split(logs, len(covariances))]
        return ops.cast(ops.concatenate([*self._of_sums(length, *sums), *between], axis=-1), self.compute_dtype)

    @staticmethod
    def _window_sums(x, length: int, stride: int, slide) -> tuple:
        """The sums over windows that `_of_sums` needs, each (B, W, C, n), or (B, W, C) where n is 1."""
        def edge(offset):  # sums of the 0, 1, .. LAGS samples at one end of the window
            rows = samples_at(x, windows_in(size(x, 1), length, stride), offset, LAGS, stride)  # (B, W, LAGS, C)
            rows = tf.reverse(rows, [2]) if offset else rows
            return tf.transpose(tf.cumsum(tf.pad(rows, [[0, 0], [0, 0], [1, 0], [0, 0]]), axis=2), (0, 1, 3, 2))

        half = length // 2
        return (slide(lambda xp, x: xp.stack([x, xp.abs(x), xp.sqrt(xp.abs(x))], axis=-1), x, length, stride),
                slide(lambda xp, x: xp.stack([x[:, : half - length], x[:, : half - length] ** 2], axis=-1), x, length,
                      stride, length - half),
                slide(_steps, x, length, stride, 1), slide(_turns, x, length, stride, 2),
                lagged_sums(x, range(LAGS + 1), length, stride, slide), edge(0), edge(length - LAGS))

    @staticmethod
    def _of_sums(length: int, samples, first_half, steps, turns, products, head, tail) -> list:
        """Each channel's outputs (B, W, C), one array a kind."""
        (total, absolute, root), (first, first_square) = (tf.unstack(part, axis=-1) for part in (samples, first_half))
        mean, half = total / length, length // 2
        floor = FLOOR + RELATIVE_FLOOR * mean**2
        pairs = length - np.arange(LAGS + 1.0)
        # sum of (x_t - m)(x_(t+k) - m): of products less m times the sums of all but the last k, and but the first k
        about = products - mean[..., None] * (2 * total[..., None] - head - tail) + pairs * mean[..., None]**2
        r = tf.unstack(about, axis=-1)
        square = products[..., 0]
        powers = [(of_square - 2 * mean * of_x) / count + mean**2 for of_square, of_x, count in (
            (square, total, length), (square - first_square, total - first, length - half),
            (first_square, first, half))]
        logs = [tf.math.log(tf.maximum(power, 0) + floor) for power in powers]
        r[0] = tf.maximum(r[0], 0) * (1 + 1e-5) + length * floor
        return [absolute / length, steps[..., 0] / (length - 1), steps[..., 1] / (length - 1), turns / (length - 2),
                *levinson(r, ORDER), logs[0], tf.math.log(root / length + FLOOR**0.5), logs[1] - logs[2],
                *(part / r[0] for part in r[1:])]

    def log_amplitude(self, channels: int) -> np.ndarray:
        """Which outputs (S,) activity detection averages: the log power of each channel."""
        return self.layout(channels)[:, 0] == LOG_POWER

    def layout(self, channels: int) -> np.ndarray:
        """Kind and two electrodes of each output (S, 3)."""
        kinds, electrodes = np.divmod(np.arange((LOG_POWER + 3 + LAGS) * channels), channels)
        single = np.stack([kinds, electrodes, electrodes], axis=1)
        return side_by_side([single, *(part.layout(channels) for part in self.between)])

    def without(self, described: np.ndarray, channels: int, electrode: int) -> np.ndarray:
        """As of `LogCovariance`; outputs of single channels stay."""
        single = len(described[0]) - sum(len(part.layout(channels)) for part in self.between)
        mixed = descriptions.without(self.between, described[:, single:], channels, electrode)
        return np.concatenate([described[:, :single], mixed], axis=1)

    def flatness(self, channels: int) -> tuple[np.ndarray, ...]:
        """As of `LogCovariance`."""
        found = descriptions.flatness(self.between, channels)
        return tuple(np.pad(part, [(self._size(channels) - len(part), 0), (0, 0)]) for part in found)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self._size(input_shape[2]))

    def _size(self, channels: int) -> int:
        return len(self.layout(channels))


def levinson(r: Sequence, order: int) -> list:
    """AR coefficients a_1 .. a_order from autocorrelations r_0 .. r_order, by the recursion of Levinson and Durbin.

    x_t + sum over k of a_k x_(t-k) is white. Arrays or tensors of any one shape.
    """
    a, error = [], r[0]
    for m in range(1, order + 1):
        reflection = -(r[m] + sum(a[i] * r[m - 1 - i] for i in range(m - 1))) / error
        a = [own + reflection * other for own, other in zip(a, a[::-1], strict=True)] + [reflection]
        error = error * (1 - reflection**2)
    return a


def _steps(xp, x):
    """Of each sample and the next: |dx|, and 1 where the sign changes."""
    negative = xp.where(x < 0, xp.ones_like(x), xp.zeros_like(x))
    return xp.stack([xp.abs(x[:, 1:] - x[:, :-1]), xp.abs(negative[:, 1:] - negative[:, :-1])], axis=-1)


def _turns(xp, x):
    """Of each sample and the next two: 1 where the sign of dx changes."""
    return _steps(xp, x[:, 1:] - x[:, :-1])[..., 1]


DESCRIPTION = lambda options, name: Broad(name=name)  # noqa: E731
