"""The linear head: its weights are the closed-form solution of shrinkage linear discriminant analysis.

As a FIN starts a network from a closed-form feature, this starts the classifier from a closed-form decision;
fine-tuning may then move both.
"""

import keras
import numpy as np

from tfkfin.fit import baselines, training
from tfkfin.models.classifier import linear_classifier
from tfkfin.models.layers import Correlations
from tfkfin.pipeline import batches
from tfkfin.pipeline.dataset import Subject
from tfkfin.recipe import Classifier

NEVER = -30.0  # logit of a movement that the training windows do not have


def num_correlations(options: Classifier, channels: int) -> int:
    return channels * len(options.lags) + channels * (channels - 1)


def new_head(options: Classifier, channels: int, features: tuple[str, ...], num_classes: int) -> keras.Model:
    return linear_classifier(channels, features, num_correlations(options, channels), num_classes)


class Correlator:
    """Correlations (N, S) of a subject's windows, as the model itself computes them."""

    def __init__(self, lags: tuple[int, ...], length: int, channels: int):
        inputs = keras.Input((length, channels))
        self._predict = training.Predictor(keras.Model(inputs, Correlations(lags)(inputs)))
        self._length = length

    def __call__(self, part: Subject) -> np.ndarray:
        nothing = np.zeros(len(part.windows), np.int64)
        return self._predict(batches.of_subject(part, nothing, nothing, self._length, 256))


def solve(head: keras.Model, features: np.ndarray, correlations: np.ndarray, labels: np.ndarray) -> None:
    """Sets the head's weights to shrinkage LDA's, covariance by Ledoit and Wolf (2004); scikit-learn finds them.

    Args:
        head: made by `new_head`.
        features: (N, C, F) in own units, true or imitated.
        correlations: (N, S).
        labels: class indices (N,).
    """
    scale, linear = head.get_layer("log_scale"), head.get_layer("linear")
    logged = keras.ops.convert_to_numpy(scale(features.astype(np.float32)))
    inputs = np.concatenate([baselines.flat(logged), correlations], axis=1).astype(np.float64)
    pipeline = baselines.lda().fit(inputs, labels)
    scaler, lda = pipeline[0], pipeline[-1]
    coefficients, intercepts = lda.coef_, lda.intercept_
    if len(lda.classes_) == 2:  # scikit-learn keeps the difference of two classes alone
        coefficients, intercepts = np.concatenate([0 * coefficients, coefficients]), np.append(0.0, intercepts)
    kernel, bias = (np.zeros(tuple(v.shape), np.float32) for v in linear.weights)
    bias[:] = NEVER
    kernel[:, lda.classes_], bias[lda.classes_] = coefficients.T, intercepts
    linear.set_weights([kernel, bias])
    head.get_layer("z_score").set(scaler.mean_, scaler.scale_)
