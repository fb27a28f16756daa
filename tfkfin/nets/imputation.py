"""A lost electrode's part of a decoder's head inputs, imputed from the other electrodes.

An electrode that has come off gives a constant signal, and what `tfkfin.nets.quality` leaves out is treated as if it
did. Of the covariance S of a window its row and column are then 0, and the logarithm of S is that of the other
electrodes alone: all head inputs change, and yet they hold what the others see. What they would be with the electrode
on is estimated by a linear regression, learnt from training windows of which each electrode is left out in turn
(`without` of the descriptions):

    x = A_j x_j + b_j       x: head inputs (D,), x_j: those without electrode j, with 0 where an input is of j itself

by ridge regression of standardised inputs. Heads, sessions and calibrations see inputs as if no electrode were lost.
"""

import keras
import numpy as np
from keras import layers, ops

from tfkfin.features.describe import RIDGE

MOST_CHANNELS = 16  # A has channels x D x D numbers: 1.4 MB of 8 channels, 35 MB of 16
MOST_WINDOWS = 2000  # that the regression is learnt from, evenly spread
PENALTY = 1e-2  # of the ridge regression, in variances of an input
APART = 1e-2  # sum of |log S_jk| over other electrodes k below which electrode j goes with none
SELDOM = 0.01  # of training windows: an electrode that is flat in more, as envelopes are at rest, is never called lost
FLAT = 2.5 + np.log(RIDGE)  # log S_jj less the mean power's logarithm, below which electrode j is flat


@keras.saving.register_keras_serializable(package="tfkfin")
class Imputation(layers.Layer):
    """Head inputs (B, D) -> the same, imputed in rows of windows in which an electrode is flat.

    Before `fit`, and for more than `MOST_CHANNELS` electrodes, the output is the input.

    Args:
        channels: electrodes.
    """

    def __init__(self, channels: int, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels

    def build(self, input_shape):
        size, count = input_shape[-1], self.channels
        shapes = {"kernel": (count, size, size), "bias": (count, size), "mean": (size,), "of": (count, size),
                  "power": (size, count), "others": (size, count), "known": (count,)}
        self.parts = {name: self.add_weight(shape=shape, initializer="zeros", trainable=False, name=name)
                      for name, shape in shapes.items()}

    @property
    def known(self) -> np.ndarray:
        """Which electrodes (C,) are imputed when they are lost."""
        return ops.convert_to_numpy(self.parts["known"]) > 0

    def call(self, inputs):
        lost = self.lost(inputs)
        return ops.cond(ops.any(lost), lambda: self._imputed(inputs, lost), lambda: inputs)

    def lost(self, x):
        """Which electrodes (B, C) are flat in which windows, by their head inputs (B, D)."""
        power = ops.clip(ops.matmul(x, self.parts["power"]), -70.0, 70.0)  # log S_jj
        mean = ops.log(ops.mean(ops.exp(power), axis=1, keepdims=True) + 1e-30)
        apart = ops.matmul(ops.abs(x), self.parts["others"]) < APART
        return (self.parts["known"] > 0) & apart & (power < mean + FLAT)

    def _imputed(self, x, lost):
        lost = ops.cast(lost, x.dtype)
        x = ops.where(ops.matmul(lost, self.parts["of"]) > 0, self.parts["mean"], x)
        for j in range(self.channels):
            imputed = ops.matmul(x, self.parts["kernel"][j]) + self.parts["bias"][j]
            x = ops.where(lost[:, j, None] > 0, imputed, x)
        return x

    def fit(self, x: np.ndarray, describe: layers.Layer, features: int) -> None:
        """Learns from head inputs (N, D) of training windows.

        Args:
            describe: the layer that gives the last head inputs; nothing is learnt where it says neither what electrodes
                its outputs are of nor how they are without one.
            features: how many inputs of each channel come before these.
        """
        if not all(hasattr(describe, name) for name in ("layout", "without", "flatness")):
            return
        first, channels = features * self.channels, np.arange(self.channels)
        layout = describe.layout(self.channels)
        of = np.concatenate([np.repeat(channels, features)[:, None] == channels,
                             (layout[:, 1:, None] == channels).any(axis=1)]).T  # (C, D)
        power, others = (np.pad(part, [(first, 0), (0, 0)]) for part in describe.flatness(self.channels))
        x = x[np.linspace(0, len(x) - 1, min(len(x), MOST_WINDOWS)).astype(int)]
        mean, sd = x.mean(axis=0), x.std(axis=0) + 1e-9
        kernel, bias = np.zeros(self.parts["kernel"].shape), np.zeros(self.parts["bias"].shape)
        for j in channels:
            kept, left = ~of[j], x.copy()
            left[:, first:] = describe.without(left[:, first:], self.channels, j)
            centre, spread = left[:, kept].mean(axis=0), left[:, kept].std(axis=0) + 1e-9
            z = (left[:, kept] - centre) / spread
            solved = np.linalg.solve(z.T @ z / len(z) + PENALTY * np.eye(z.shape[1]), z.T @ ((x - mean) / sd) / len(z))
            kernel[j, kept] = solved * sd / spread[:, None]
            bias[j] = mean - centre @ kernel[j, kept]
        values = {"kernel": kernel, "bias": bias, "mean": mean, "of": of, "power": power, "others": others}
        for name, value in (values | {"known": np.ones(self.channels)}).items():
            self.parts[name].assign(value)
        there = ops.convert_to_numpy(self.lost(ops.convert_to_tensor(x, "float32"))).mean(axis=0)
        self.parts["known"].assign(there < SELDOM)

    def get_config(self):
        return {**super().get_config(), "channels": self.channels}
