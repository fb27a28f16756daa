"""What `correlations` are, told by a FIN of two signals in place of their formula.

The FIN is `classifier.correlation_fin`, as `pipelines/fin_correlation.toml` trains it.
"""

from functools import partial

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tfkfin.base.console import InputError
from tfkfin.features.spatial import OF_TWO
from tfkfin.nets.fins import fins_of
from tfkfin.nets.sliding import jitted, over_signal, size
from tfkfin.nets.streaming import activated, taken_apart
from tfkfin.store import presets


@keras.saving.register_keras_serializable(package="tfkfin")
class ImitatedCorrelations(layers.Wrapper):
    """As `Correlations`, of what a FIN makes of two signals: (B, L, C) -> (B, C·len(lags) + C·(C-1)).

    The two are a channel and itself some samples later, every two channels, and their first differences.

    Args:
        layer: the FIN: functions of one sample of either signal, averaged over the window, and layers after that.
        lags: in samples.
    """

    def __init__(self, layer: keras.Model | dict, lags: tuple[int, ...] = (1, 2, 3, 4, 6, 8), **kwargs):
        super().__init__(layer, **kwargs)
        self.lags = tuple(lags)

    def build(self, input_shape):
        self.built = True

    def call(self, inputs):
        return self._of_means([ops.mean(terms(ops, inputs), axis=1) for terms, _ in self._signals(inputs.shape[2])])

    def stream(self, x, length: int, stride: int, compiled: bool = True, slide=over_signal):
        """As of `Correlations`: (B, T, C) -> (B, W, S)."""
        means = jitted(compiled, slide)(self._window_means)(x, length, stride, slide)
        z = self._of_means([ops.reshape(mean, (-1, *mean.shape[2:])) for mean in means])
        return ops.reshape(z, (ops.shape(x)[0], -1, z.shape[1]))

    def _window_means(self, x, length, stride, slide):
        return [slide(terms, x, length, stride, reach) / (length - reach)
                for terms, reach in self._signals(x.shape[2])]

    def _signals(self, channels: int) -> list[tuple]:
        """What the FIN's filters answer to pairs of signals: (xp, samples (B, n + reach, C)) -> (B, n, pairs, D)."""
        found = [(self._itself_later, max(self.lags))] if self.lags else []
        return found + [(partial(self._of_channels, n), n) for n in (0, 1) if channels > 1]

    def _itself_later(self, xp, x):
        rows = size(x, 1) - max(self.lags)
        now, later = (xp.stack([x[:, lag : lag + rows] for lag in lags], axis=-1)  # (B, n, C, lags)
                      for lags in ((0,) * len(self.lags), self.lags))
        shape = (-1, rows, x.shape[2] * len(self.lags))
        return self._filtered(xp, xp.reshape(now, shape), xp.reshape(later, shape))

    def _of_channels(self, difference, xp, x):
        x = x[:, 1:] - x[:, :-1] if difference else x
        one, other = (np.eye(x.shape[2], dtype=np.float32)[:, of] for of in np.triu_indices(x.shape[2], 1))
        return self._filtered(xp, xp.matmul(x, one), xp.matmul(x, other))

    def _filtered(self, xp, one, other):
        """(B, n, pairs) and (B, n, pairs) -> (B, n, pairs, D)."""
        kept = np.asarray if xp is np else tf.convert_to_tensor
        first, *pointwise = taken_apart(self.layer).filters
        kernel = kept(first.kernel)[0]
        y = activated(xp, first.activation, one[..., None] * kernel[0] + other[..., None] * kernel[1]
                      + kept(first.bias))
        for layer in pointwise:
            y = activated(xp, layer.activation, xp.matmul(y, kept(layer.kernel)[0]) + kept(layer.bias))
        return y

    def _of_means(self, means):
        """Means over windows (N, pairs, D) of each kind of pair -> (N, S)."""
        y = ops.concatenate(means, axis=1)
        pairs = y.shape[1]
        y = ops.reshape(y, (-1, y.shape[2]))
        for layer in taken_apart(self.layer).after:
            y = layer(y)
        return ops.reshape(y, (-1, pairs))

    def compute_output_shape(self, input_shape):
        channels = input_shape[2]
        return (input_shape[0], channels * len(self.lags) + channels * (channels - 1))

    def get_config(self):
        return {**super().get_config(), "lags": list(self.lags)}


def description(options, name: str) -> ImitatedCorrelations:
    """The layer of a recipe's `classifier`.

    Raises:
        InputError: it names no FIN of correlations.
    """
    how = "train one with python -m tfkfin.train --stage imitate --pipeline fin_correlation, and give RUN/imitate"
    if not options.correlation_fin:
        raise InputError(f"imitated_correlations need classifier.correlation_fin: {how}")
    found = fins_of(presets.load(options.correlation_fin))
    if [fin.name for fin in found] != [f"fin_{OF_TWO[0].lower()}"] or not taken_apart(found[0]):
        raise InputError(f"{options.correlation_fin} holds no FIN of correlations that streams: {how}")
    return ImitatedCorrelations(found[0], options.lags, name=name)


DESCRIPTION = description
