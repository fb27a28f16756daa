"""Correlations of a channel with itself some samples later, and between channels: shape, whatever the loudness."""

import itertools

import keras
import numpy as np
from keras import layers, ops

from tfkfin.nets.sliding import jitted, lagged_sums, over_signal, products_of_channels, samples_at, size, windows_in

FLAT = 1e-4  # of the square of a window's mean, added to its variance
LIMIT = 0.999  # |r| beyond which Fisher's z would run away


@keras.saving.register_keras_serializable(package="tfkfin")
class Correlations(layers.Layer):
    """Fisher's z of correlations inside a window: (B, L, C) -> (B, C·len(lags) + C·(C-1)).

    First each channel's autocorrelation at `lags`, then the correlation of every two channels, of the signal and of
    its first difference: about zero, or about the signal's means in the window. Autocorrelations are what AR models
    are solved from (Yule-Walker); correlations between channels are the scale-free part of the spatial covariance, the
    input of Riemannian EMG decoders (Barachant et al., IEEE TBME 59:920, 2012). Flat channels correlate with nothing
    (0).

    Args:
        lags: in samples; 1, 2, 3, 4, 6, 8 are 0.5 to 4 ms at 2 kHz.
        centred: means in the window are subtracted, so that an offset of an electrode changes nothing.
    """

    def __init__(self, lags: tuple[int, ...] = (1, 2, 3, 4, 6, 8), centred: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.lags, self.centred = tuple(lags), centred

    def call(self, inputs):
        mean = ops.mean(inputs, axis=1) if self.centred else 0.0
        x = ops.transpose(inputs - mean[:, None] if self.centred else inputs, (0, 2, 1))  # (B, C, L)
        lagged = [ops.sum(x[:, :, lag:] * x[:, :, :-lag], axis=2) for lag in self.lags]
        products = [ops.matmul(y, ops.transpose(y, (0, 2, 1))) for y in (x, x[:, :, 1:] - x[:, :, :-1])]
        return self._of_sums(ops.sum(ops.square(x), axis=2), lagged, products, inputs.shape[1] * mean**2)

    def stream(self, x, length: int, stride: int, compiled: bool = True, slide=over_signal):
        """The same of the windows [w stride, w stride + length) of signals: (B, T, C) -> (B, W, S).

        Products are taken once a sample; a window's terms never reach beyond it. `compiled`: by XLA. `slide`: how sums
        over windows are taken.
        """
        base = 0.0
        if self.centred and slide is over_signal:  # sums near 0 are the most exact
            base = ops.mean(x, axis=1, keepdims=True)
            x = x - base
        sums, *rest = jitted(compiled, slide)(self._window_sums)(x, length, stride, slide)
        rest += [length * (rest[2] / length + base) ** 2] if self.centred else []
        sums, *rest = (ops.reshape(part, (-1, *part.shape[2:])) for part in (sums, *rest))
        power, *lagged = ops.unstack(sums, 1 + len(self.lags), axis=-1)
        z = self._of_sums(*(self._about_means(power, lagged, *rest, length) if self.centred else (power, lagged, rest)))
        return ops.reshape(z, (ops.shape(x)[0], -1, z.shape[1]))

    def _window_sums(self, x, length, stride, slide):
        """Of windows: sums of products at lag 0 and `lags` (B, W, C, 1 + lags), of products of channels (B, W, C, C),
        twice; for `centred` also the sums (B, W, C), and the first and last samples (B, W, n, C)."""
        found = [lagged_sums(x, (0, *self.lags), length, stride, slide),
                 slide(lambda _, x: x, x, length, stride, 0, products_of_channels),
                 slide(lambda _, x: x[:, 1:] - x[:, :-1], x, length, stride, 1, products_of_channels)]
        if self.centred:
            count, reach = windows_in(size(x, 1), length, stride), max(self.lags, default=1)
            found += [slide(lambda _, x: x, x, length, stride),
                      *(samples_at(x, count, at, reach, stride) for at in (0, length - reach))]
        return found

    def _about_means(self, power, lagged, products, of_changes, sums, first, last, of_means, length: int):
        """What `_of_sums` takes, of x - mean(x), from that of x; sum (x_t - m)(x_{t+k} - m) over L - k pairs is
        sum x_t x_{t+k} - m (sum of all but the last k + sum of all but the first k) + (L - k) m^2."""
        mean, reach = sums / length, last.shape[1]
        lagged = [of - mean * (2 * sums - ops.sum(first[:, :lag], axis=1) - ops.sum(last[:, reach - lag :], axis=1))
                  + (length - lag) * mean**2 for lag, of in zip(self.lags, lagged, strict=True)]
        products = [products - sums[:, :, None] * mean[:, None, :], of_changes]
        return power - sums * mean, lagged, products, of_means

    def _of_sums(self, power, lagged, products, of_means=0.0):
        """From sums of squares (N, C), of products at each lag (N, C) and of products of channels (N, C, C), twice.

        `of_means`: L m^2 (N, C) of what was subtracted; rounding of a flat channel far from zero is no signal.
        """
        if self.centred:
            power = power + FLAT * of_means
            products = [products[0] + FLAT * of_means[:, :, None] * ops.eye(power.shape[1]), products[1]]
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
        return {**super().get_config(), "lags": list(self.lags), "centred": self.centred}


DESCRIPTION = lambda options, name: Correlations(options.lags, name=name)  # noqa: E731
