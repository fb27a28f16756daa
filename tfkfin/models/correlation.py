"""Correlations in closed form: what features of single channels leave out, and what no gain can change."""

import keras
from keras import layers, ops

LIMIT = 0.999  # |r| beyond which Fisher's z would run away


@keras.saving.register_keras_serializable(package="tfkfin")
class Correlations(layers.Layer):
    """Fisher's z of correlations inside a window: (B, L, C) -> (B, C·len(lags) + C·(C-1)).

    First each channel's autocorrelation at `lags`, then the correlation of every two channels, of the signal and of
    its first difference, all about zero mean. Autocorrelations are what AR models are solved from (Yule-Walker);
    correlations between channels are the scale-free part of the spatial covariance, the input of Riemannian EMG
    decoders (Barachant et al., IEEE TBME 59:920, 2012). Flat channels correlate with nothing (0).

    Args:
        lags: in samples; 1, 2, 3, 4, 6, 8 are 0.5 to 4 ms at 2 kHz.
    """

    def __init__(self, lags: tuple[int, ...] = (1, 2, 3, 4, 6, 8), **kwargs):
        super().__init__(**kwargs)
        self.lags = tuple(lags)

    def call(self, inputs):
        x = ops.transpose(inputs, (0, 2, 1))  # (B, C, L)
        power = ops.sum(ops.square(x), axis=2)
        auto = [ops.sum(x[:, :, lag:] * x[:, :, :-lag], axis=2) / (power + 1e-12) for lag in self.lags]
        parts = [ops.stack(auto, axis=2)] if auto else []  # (B, C, lags)
        parts = [ops.reshape(part, (-1, part.shape[1] * part.shape[2])) for part in parts]
        if inputs.shape[2] > 1:
            parts += [self._between(x), self._between(x[:, :, 1:] - x[:, :, :-1])]
        return ops.arctanh(ops.clip(ops.concatenate(parts, axis=1), -LIMIT, LIMIT))

    def _between(self, x):
        channels = x.shape[1]
        products = ops.matmul(x, ops.transpose(x, (0, 2, 1)))  # (B, C, C)
        sd = ops.sqrt(ops.diagonal(products, axis1=1, axis2=2) + 1e-12)
        r = products / (sd[:, :, None] * sd[:, None, :])
        upper = [i * channels + j for i in range(channels) for j in range(i + 1, channels)]
        return ops.take(ops.reshape(r, (-1, channels * channels)), upper, axis=1)

    def compute_output_shape(self, input_shape):
        _, _, channels = input_shape
        return (input_shape[0], channels * len(self.lags) + channels * (channels - 1))

    def get_config(self):
        return {**super().get_config(), "lags": list(self.lags)}
