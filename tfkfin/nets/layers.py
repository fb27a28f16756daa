"""Small Keras layers: scalers that live inside the models, means over time, and stock layers in fewer passes."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tfkfin.features.catalogue import FEATURES

# A FIN works on the logarithm of these (ours; the paper z-scores them).
LOG_SCALED = frozenset(name for name, feature in FEATURES.items() if feature.log)
FLOOR = 1e-6  # the least value of a log-scaled feature; a flat window has 0
LACKING = 1e-4  # the least that counts of what a feature lacks to its greatest value
LOG_LIMIT = 25.0  # |log feature| beyond which exp would be no feature's value


def found(model: keras.Model, name: str) -> layers.Layer | None:
    """A layer of a model by its name; None if there is none of that name."""
    return next((layer for layer in model.layers if layer.name == name), None)


@keras.saving.register_keras_serializable(package="tfkfin")
class ZScore(layers.Layer):
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
class LogScale(layers.Layer):
    """Takes the logarithm of those of the last axis' features that are positive and scale with the signal.

    Args:
        features: their names, in order. Input and output: (..., F).
        floor: least value whose logarithm is taken.
    """

    def __init__(self, features: tuple[str, ...], floor: float = FLOOR, **kwargs):
        super().__init__(**kwargs)
        self.features, self.floor = tuple(features), floor
        self.logged = np.array([name in LOG_SCALED for name in self.features], bool)

    def call(self, inputs):
        return ops.where(self.logged, ops.log(ops.maximum(inputs, self.floor)), inputs)

    def get_config(self):
        return {**super().get_config(), "features": list(self.features), "floor": self.floor}


@keras.saving.register_keras_serializable(package="tfkfin")
class Moments(layers.Layer):
    """Means over time, (N, L, D) -> (N, 2 D): of the input, then of its squares."""

    def call(self, inputs):
        return ops.concatenate([ops.mean(inputs, axis=1), ops.mean(ops.square(inputs), axis=1)], axis=-1)


@keras.saving.register_keras_serializable(package="tfkfin")
class LogMoments(layers.Layer):
    """Means m of D positive numbers and q of their squares -> ln m and ln sqrt(q - m^2), their standard deviation.

    Input and output: (..., 2 D). Numbers below 1e-4 and standard deviations below 1e-3 count as these.
    """

    def call(self, inputs):
        mean, square = ops.split(inputs, 2, axis=-1)
        variance = ops.maximum(square - mean * mean, 1e-6)
        return ops.concatenate([ops.log(ops.maximum(mean, 1e-4)), 0.5 * ops.log(variance)], axis=-1)


@keras.saving.register_keras_serializable(package="tfkfin")
class FeatureScale(layers.Layer):
    """The last step of a FIN: its linear output y -> the feature in its own units.

    `log=False`: mean + sd * y. `log=True`: exp(mean + sd * y), so that an error counts relative to the feature.
    `most`: most - exp(mean + sd * y), of a feature that is never larger: an error counts relative to what it lacks.
    mean and sd are weights, set from the targets that the FIN is trained on, not trained. Of a FIN of several features
    `log` says it of each, and each has its own mean and sd.

    Input and output: (..., features).
    """

    def __init__(self, log: bool | Sequence[bool] = False, most: float | None = None, **kwargs):
        super().__init__(**kwargs)
        self.log = log if isinstance(log, bool) else [bool(one) for one in log]
        self.most = most

    @property
    def width(self) -> int:
        """How many features it is of."""
        return 1 if isinstance(self.log, bool) else len(self.log)

    def build(self, input_shape):
        shape = () if isinstance(self.log, bool) else (self.width,)
        self.mean = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="mean")
        self.sd = self.add_weight(shape=shape, initializer="ones", trainable=False, name="sd")

    def call(self, inputs):
        y = self._where_log(lambda y: ops.exp(ops.clip(y, -LOG_LIMIT, LOG_LIMIT)), self.mean + self.sd * inputs)
        return y if self.most is None else self.most - y

    def inverse(self, feature):
        """The y that gives `feature`: what the imitation loss compares."""
        feature, floor = (feature, FLOOR) if self.most is None else (self.most - feature, LACKING)
        return (self._where_log(lambda y: ops.log(ops.maximum(y, floor)), feature) - self.mean) / self.sd

    def fit(self, targets: np.ndarray) -> None:
        """Sets mean and sd from sample targets (..., features); of a FIN of one feature any shape."""
        values = np.reshape(targets, (-1, self.width)).astype(np.float64)
        values, floor = (values, FLOOR) if self.most is None else (self.most - values, LACKING)
        values = np.where(self.log, np.log(np.maximum(values, floor)), values)
        mean, sd = values.mean(axis=0), values.std(axis=0)
        self.mean.assign(np.reshape(mean, self.mean.shape))
        self.sd.assign(np.reshape(np.where(sd > 0, sd, 1.0), self.sd.shape))

    def _where_log(self, function, y):
        if isinstance(self.log, bool):
            return function(y) if self.log else y
        return ops.where(np.array(self.log), function(y), y)

    def get_config(self):
        return {**super().get_config(), "log": self.log} | ({} if self.most is None else {"most": self.most})


@keras.saving.register_keras_serializable(package="tfkfin")
class BatchNormalization(layers.BatchNormalization):
    """Stock BatchNormalization of (B, H, W, D), trained by TensorFlow's fused operation, in half the time on a CPU."""

    def call(self, inputs, training=None, mask=None):
        if not training or not self.trainable:
            return super().call(inputs, training=training, mask=mask)
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=self.gamma, offset=self.beta, mean=[], variance=[], epsilon=self.epsilon, is_training=True)
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], variance.dtype)
        variance *= tf.maximum(count - 1, 1) / count  # Keras keeps the batch's own variance, not the unbiased one
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(self.momentum * moving + (1 - self.momentum) * value)
        return y


@keras.saving.register_keras_serializable(package="tfkfin")
class PReLU(layers.PReLU):
    """Stock PReLU in fewer passes over its input."""

    def call(self, inputs):
        return ops.maximum(inputs, 0) + self.alpha * ops.minimum(inputs, 0)
