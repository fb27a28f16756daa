"""A linear head that is solved, not trained: shrinkage linear discriminant analysis of features and descriptions.

As a FIN starts a network from a closed-form feature, this starts the classifier from a closed-form decision;
fine-tuning may then move both.
"""

import keras
import numpy as np
from keras import layers

from tfkfin.models import descriptions
from tfkfin.models.heads import Head
from tfkfin.models.layers import LogScale, ZScore

NEVER = -30.0  # logit of a movement that the training windows do not have


def classifier(options, names: tuple[str, ...], channels: int, described: int, classes: int) -> keras.Model:
    """Features (B, C, F) in own units and descriptions (B, S) -> probabilities (B, classes).

    Positive features by their logarithm, everything z-scored, one dense layer and softmax: the form of a linear
    discriminant.
    """
    inputs = [keras.Input((channels, len(names)), name="features"), keras.Input((described,), name="described")]
    x = layers.Flatten()(LogScale(names, name="log_scale", dtype="float32")(inputs[0]))
    x = ZScore(name="z_score", dtype="float32")(layers.Concatenate()([x, inputs[1]]))
    outputs = layers.Softmax(dtype="float32", name="probabilities")(layers.Dense(classes, name="linear")(x))
    return keras.Model(inputs, outputs, name="classifier")


def solve(model: keras.Model, seen: list[np.ndarray], labels: np.ndarray) -> None:
    """Sets the classifier's weights to shrinkage LDA's, covariance by Ledoit and Wolf (2004); scikit-learn finds them.

    Args:
        model: made by `classifier`.
        seen: features (N, C, F) in own units, true or imitated, and descriptions (N, S).
        labels: class indices (N,).
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.preprocessing import StandardScaler

    features, described = seen
    scale, linear = model.get_layer("log_scale"), model.get_layer("linear")
    logged = keras.ops.convert_to_numpy(scale(features.astype(np.float32)))
    inputs = np.concatenate([logged.reshape(len(logged), -1), described], axis=1).astype(np.float64)
    scaler = StandardScaler().fit(inputs)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(scaler.transform(inputs), labels)
    coefficients, intercepts = lda.coef_, lda.intercept_
    if len(lda.classes_) == 2:  # scikit-learn keeps the difference of two classes alone
        coefficients, intercepts = np.concatenate([0 * coefficients, coefficients]), np.append(0.0, intercepts)
    kernel, bias = (np.zeros(tuple(v.shape), np.float32) for v in linear.weights)
    bias[:] = NEVER
    kernel[:, lda.classes_], bias[lda.classes_] = coefficients.T, intercepts
    linear.set_weights([kernel, bias])
    model.get_layer("z_score").set(scaler.mean_, scaler.scale_)


HEAD = Head(classifier, describe=descriptions.new, solve=solve)
