"""Correlations of a channel with itself some samples later, and between channels: shape, whatever the loudness."""

import itertools

import keras
import numpy as np
from keras import layers, ops

from tfkfin.nets.sliding import jitted, lagged_sums, over_signal, products_of_channels, samples_at, size, windows_in

LIMIT = 0.999  # |r| beyond which Fisher's z would run away


@keras.saving.register_keras_serializable(package="tfkfin")
class Correlations(layers.Layer):
    """Fisher's z of correlations inside a window: (B, L, C) -> (B, C·len(lags) + C·(C-1)).

    First each channel's autocorrelation at `lags`, then the correlation of every two channels, of the signal and of
    its first difference, all about zero mean. Autocorrelations are what AR models are solved from (Yule-Walker);
    correlations between channels are the scale-free part of the spatial covariance, the input of Riemannian EMG
    decoders (Barachant et al., IEEE TBME 59:920, 2012). Flat channels correlate with nothing (0). `offset` (B, C), or
    (B, W, C) of `stream`, is subtracted from the signals first: an electrode's offset.

    Args:
        lags: in samples; 1, 2, 3, 4, 6, 8 are 0.5 to 4 ms at 2 kHz.
    """

    takes = ("offset",)

    def __init__(self, lags: tuple[int, ...] = (1, 2, 3, 4, 6, 8), **kwargs):
        super().__init__(**kwargs)
        self.lags = tuple(lags)

    def call(self, inputs, offset=None):
        x = ops.transpose(inputs if offset is None else inputs - offset[:, None], (0, 2, 1))  # (B, C, L)
        lagged = [ops.sum(x[:, :, lag:] * x[:, :, :-lag], axis=2) for lag in self.lags]
        products = [ops.matmul(y, ops.transpose(y, (0, 2, 1))) for y in (x, x[:, :, 1:] - x[:, :, :-1])]
        return self._of_sums(ops.sum(ops.square(x), axis=2), lagged, products)

    def stream(self, x, length: int, stride: int, compiled: bool = True, slide=over_signal, offset=None):
        """The same of the windows [w stride, w stride + length) of signals: (B, T, C) -> (B, W, S).

        Products are taken once a sample; a window's terms never reach beyond it. `compiled`: by XLA. `slide`: how sums
        over windows are taken.
        """
        moved = offset is not None
        if moved and slide is over_signal:  # sums near 0 are the most exact
            base = ops.mean(x, axis=1, keepdims=True)
            x, offset = x - base, offset - base
        found = jitted(compiled, slide)(self._window_sums)(x, length, stride, slide, moved)
        sums, *rest = (ops.reshape(part, (-1, *part.shape[2:])) for part in found)
        power, *lagged = ops.unstack(sums, 1 + len(self.lags), axis=-1)
        if moved:
            rest = ops.reshape(offset, (-1, x.shape[2])), *rest
        z = self._of_sums(*(self._less_offset(power, lagged, *rest, length) if moved else (power, lagged, rest)))
        return ops.reshape(z, (ops.shape(x)[0], -1, z.shape[1]))

    def _window_sums(self, x, length, stride, slide, moved: bool):
        """Sums of products at lag 0 and `lags` (B, W, C, 1 + lags), and of products of channels (B, W, C, C), twice.

        `moved`: also of samples (B, W, C), and the first and the last of them (B, W, n, C).
        """
        found = [lagged_sums(x, (0, *self.lags), length, stride, slide),
                 slide(lambda _, x: x, x, length, stride, 0, products_of_channels),
                 slide(lambda _, x: x[:, 1:] - x[:, :-1], x, length, stride, 1, products_of_channels)]
        if moved:
            count, reach = windows_in(size(x, 1), length, stride), max(self.lags, default=1)
            found += [slide(lambda _, x: x, x, length, stride),
                      *(samples_at(x, count, at, reach, stride) for at in (0, length - reach))]
        return found

    def _less_offset(self, power, lagged, offset, products, of_changes, sums, first, last, length: int):
        """What `_of_sums` takes, of x - a in place of x, a the `offset` (N, C):
        sum (x_t - a)(x_{t+k} - a) = sum x_t x_{t+k} - a (sum of all but the last k + of all but the first k) + n a^2,
        n = L - k."""
        reach = last.shape[1]
        lagged = [of - offset * (2 * sums - ops.sum(first[:, :lag], axis=1) - ops.sum(last[:, reach - lag :], axis=1))
                  + (length - lag) * offset**2 for lag, of in zip(self.lags, lagged, strict=True)]
        mixed, square = sums[:, :, None] * offset[:, None, :], offset[:, :, None] * offset[:, None, :]
        products = products - mixed - ops.transpose(mixed, (0, 2, 1)) + length * square
        return power - 2 * sums * offset + length * offset**2, lagged, [products, of_changes]

    def _of_sums(self, power, lagged, products):
        """From sums of squares (N, C), of products at each lag (N, C) and of products of channels (N, C, C)."""
        auto = [sums / (power + 1e-12) for sums in lagged]
        parts = [ops.stack(auto, axis=2)] if auto else []  # (N, C, lags)
        parts = [ops.reshape(part, (-1, part.shape[1] * part.shape[2])) for part in parts]
        if power.shape[1] > 1:
            parts += [self._between(sums) for sums in products]
        r = ops.clip(ops.concatenate(parts, axis=1), -LIMIT, LIMIT)
        return 0.5 * ops.log((1 + r) / (1 - r))  # Fisher's z, arctanh, which LiteRT lacks

    def _between(self, products):
        channels = products.shape[1]
        flat = ops.reshape(products, (-1, channels * channels))
        sd = ops.sqrt(ops.take(flat, [i * (channels + 1) for i in range(channels)], axis=1) + 1e-12)
        r = products / (sd[:, :, None] * sd[:, None, :])
        upper = [i * channels + j for i in range(channels) for j in range(i + 1, channels)]
        return ops.take(ops.reshape(r, (-1, channels * channels)), upper, axis=1)

    def log_amplitude(self, channels: int) -> np.ndarray:
        """Which outputs (S,) are logarithms of amplitude: none, they are the same at every gain."""
        return np.zeros(len(self.layout(channels)), bool)

    def layout(self, channels: int) -> np.ndarray:
        """Kind and two electrodes of each output (S, 3)."""
        count, pairs = len(self.lags), list(itertools.combinations(range(channels), 2))
        return np.array([(lag, c, c) for c in range(channels) for lag in range(count)]
                        + [(count + kind, i, j) for kind in (0, 1) for i, j in pairs], int).reshape(-1, 3)

    def compute_output_shape(self, input_shape):
        _, _, channels = input_shape
        return (input_shape[0], channels * len(self.lags) + channels * (channels - 1))

    def get_config(self):
        return {**super().get_config(), "lags": list(self.lags)}


DESCRIPTION = lambda options, name: Correlations(options.lags, name=name)  # noqa: E731
