"""Scalers that live inside the models, so that what is exported takes raw volts and answers in own units."""

import keras
import numpy as np
from keras import ops

# Features that are positive and scale with the signal: a FIN works on their logarithm (ours; the paper z-scores them).
LOG_SCALED = frozenset({"RMS", "VAR", "SSI", "MAV", "IAV", "WL", "LOG", "SM1", "SM2", "SM3"})
FLOOR = 1e-6  # the least value of a log-scaled feature; a flat window has 0
LOG_LIMIT = 25.0  # |log feature| beyond which exp would be no feature's value


@keras.saving.register_keras_serializable(package="tfkfin")
class ZScore(keras.layers.Layer):
    """(x - mean) / sd along the last axis; mean and sd are weights set from training data, not trained.

    Stock `Normalization` bakes its statistics into the traced graph; these can change without a new trace,
    so one compiled model serves subject after subject.

    Input and output: (..., D). Example: `layer.set(mean, sd)` with two (D,) arrays.
    """

    def build(self, input_shape):
        depth = (input_shape[-1],)
        self.mean = self.add_weight(shape=depth, initializer="zeros", trainable=False, name="mean")
        self.sd = self.add_weight(shape=depth, initializer="ones", trainable=False, name="sd")

    def call(self, inputs):
        return (inputs - self.mean) / self.sd

    def set(self, mean: np.ndarray, sd: np.ndarray) -> None:
        """Sets the statistics; an sd of 0 (a constant input) counts as 1."""
        self.mean.assign(mean)
        self.sd.assign(np.where(np.asarray(sd) > 0, sd, 1.0))


@keras.saving.register_keras_serializable(package="tfkfin")
class LogScale(keras.layers.Layer):
    """Takes the logarithm of those of the last axis' features that are positive and scale with the signal.

    Args:
        features: their names, in order. Input and output: (..., F).
        floor: least value whose logarithm is taken.
    """

    def __init__(self, features: tuple[str, ...], floor: float = FLOOR, **kwargs):
        super().__init__(**kwargs)
        self.features, self.floor = tuple(features), floor
        self._mask = np.array([name in LOG_SCALED for name in self.features])

    def call(self, inputs):
        return ops.where(self._mask, ops.log(ops.maximum(inputs, self.floor)), inputs)

    def get_config(self):
        return {**super().get_config(), "features": list(self.features), "floor": self.floor}


@keras.saving.register_keras_serializable(package="tfkfin")
class FeatureScale(keras.layers.Layer):
    """The last step of a FIN: its linear output y -> the feature in its own units.

    `log=False`: mean + sd * y. `log=True`: exp(mean + sd * y), so that an error counts relative to the feature.
    mean and sd are weights, set from the targets that the FIN is trained on, not trained.

    Input and output: (N, 1).
    """

    def __init__(self, log: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.log = log

    def build(self, input_shape):
        self.mean = self.add_weight(shape=(), initializer="zeros", trainable=False, name="mean")
        self.sd = self.add_weight(shape=(), initializer="ones", trainable=False, name="sd")

    def call(self, inputs):
        scaled = self.mean + self.sd * inputs
        return ops.exp(ops.clip(scaled, -LOG_LIMIT, LOG_LIMIT)) if self.log else scaled

    def inverse(self, feature):
        """The y that gives `feature`: what the imitation loss compares."""
        target = ops.log(ops.maximum(feature, FLOOR)) if self.log else feature
        return (target - self.mean) / self.sd

    def fit(self, targets: np.ndarray) -> None:
        """Sets mean and sd from sample targets of the feature, any shape."""
        values = np.log(np.maximum(targets, FLOOR)) if self.log else np.asarray(targets)
        self.mean.assign(float(np.mean(values)))
        self.sd.assign(float(np.std(values)) or 1.0)

    def get_config(self):
        return {**super().get_config(), "log": self.log}
