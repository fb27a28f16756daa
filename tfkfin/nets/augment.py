"""Augmentation of raw windows, a Keras layer."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="tfkfin")
class SignalAugment(layers.Layer):
    """Random gain, electrode shift, noise, time warp and dropout of standardised windows (B, L, C); off at inference.

    Args:
        gain: sd of each channel's log amplitude.
        shift: greatest share of a channel's signal that comes from its neighbour in the file, as if electrodes moved.
        noise: sd of white noise, in sd of the signal.
        warp: greatest relative change of speed, about the middle of the window.
        dropout: probability that a channel is silent.
        seed: of the random numbers.
    """

    def __init__(self, gain: float = 0.0, shift: float = 0.0, noise: float = 0.0, warp: float = 0.0,
                 dropout: float = 0.0, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.gain, self.shift, self.noise, self.warp, self.dropout = gain, shift, noise, warp, dropout
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=None):
        if not training:
            return inputs
        x, rows, channels = inputs, ops.shape(inputs)[0], inputs.shape[2]
        if self.warp:
            x = self._warped(x)
        if self.shift and channels > 1:
            amount = keras.random.uniform((rows, 1, 1), -self.shift, self.shift, seed=self.seed_generator)
            neighbour = ops.where(amount > 0, ops.roll(x, 1, axis=2), ops.roll(x, -1, axis=2))
            x = (1 - ops.abs(amount)) * x + ops.abs(amount) * neighbour
        if self.gain:
            x = x * ops.exp(self.gain * keras.random.normal((rows, 1, channels), seed=self.seed_generator))
        if self.noise:
            x = x + self.noise * keras.random.normal(ops.shape(x), seed=self.seed_generator)
        if self.dropout:
            kept = keras.random.uniform((rows, 1, channels), seed=self.seed_generator) >= self.dropout
            x = x * ops.cast(kept, x.dtype)
        return x

    def _warped(self, x):
        """Linear interpolation at times stretched about the middle; what lies outside repeats the edge sample."""
        length = x.shape[1]
        speed = 1 + keras.random.uniform((ops.shape(x)[0], 1), -self.warp, self.warp, seed=self.seed_generator)
        times = (ops.arange(length, dtype="float32")[None] - (length - 1) / 2) * speed + (length - 1) / 2
        times = ops.clip(times, 0, length - 1)
        low = ops.clip(ops.floor(times), 0, length - 2)
        part, index = (times - low)[..., None], ops.cast(low, "int32")[..., None]
        return (1 - part) * ops.take_along_axis(x, index, axis=1) + part * ops.take_along_axis(x, index + 1, axis=1)

    def get_config(self):
        return {**super().get_config(), "gain": self.gain, "shift": self.shift, "noise": self.noise,
                "warp": self.warp, "dropout": self.dropout, "seed": self.seed}
