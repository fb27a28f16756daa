"""A linear head that is solved, not trained: shrinkage linear discriminant analysis of features and descriptions.

As a FIN starts a network from a closed-form feature, this starts the classifier from a closed-form decision;
fine-tuning may then move both.
"""

import keras
import numpy as np
from keras import layers

from tfkfin.nets import descriptions
from tfkfin.nets.heads import Groups, Head
from tfkfin.nets.layers import LogScale, ZScore

NEVER = -30.0  # logit of a movement that the training windows do not have


def classifier(options, names: tuple[str, ...], channels: int, described: int, classes: int,
               kept: layers.Layer | None = None) -> keras.Model:
    """Features (B, C, F) in own units and descriptions (B, S) -> probabilities (B, classes).

    Positive features by their logarithm, everything z-scored, one dense layer and softmax: the form of a linear
    discriminant. `kept`: a layer between the two that passes on what it is given.
    """
    inputs = [keras.Input((channels, len(names)), name="features"), keras.Input((described,), name="described")]
    x = layers.Flatten()(LogScale(names, name="log_scale", dtype="float32")(inputs[0]))
    x = ZScore(name="z_score", dtype="float32")(layers.Concatenate()([x, inputs[1]]))
    x = kept(x) if kept is not None else x
    outputs = layers.Softmax(dtype="float32", name="probabilities")(layers.Dense(classes, name="linear")(x))
    return keras.Model(inputs, outputs, name="classifier")


def inputs(model: keras.Model, seen: list[np.ndarray]) -> np.ndarray:
    """What the z-score is given (N, D) float64, of features (N, C, F) in own units and descriptions (N, S)."""
    features, described = seen
    logged = keras.ops.convert_to_numpy(model.get_layer("log_scale")(features.astype(np.float32)))
    return np.concatenate([logged.reshape(len(logged), -1), described], axis=1).astype(np.float64)


def set_weights(model: keras.Model, classes: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> None:
    """Of z-scored inputs: weights (D, K) and bias (K,) of K classes among all; the others are never chosen."""
    linear = model.get_layer("linear")
    kernel, intercepts = (np.zeros(tuple(v.shape), np.float32) for v in linear.weights)
    intercepts[:] = NEVER
    kernel[:, classes], intercepts[classes] = weights, bias
    linear.set_weights([kernel, intercepts])


def solve(model: keras.Model, seen: list[np.ndarray], labels: np.ndarray, groups: Groups) -> None:
    """Sets the classifier's weights to shrinkage LDA's, covariance by Ledoit and Wolf (2004); scikit-learn finds them.

    Args:
        model: made by `classifier`.
        seen: features (N, C, F) in own units, true or imitated, and descriptions (N, S).
        labels: class indices (N,).
        groups: not used: all sessions alike.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.preprocessing import StandardScaler

    x = inputs(model, seen)
    scaler = StandardScaler().fit(x)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(scaler.transform(x), labels)
    coefficients, intercepts = lda.coef_, lda.intercept_
    if len(lda.classes_) == 2:  # scikit-learn keeps the difference of two classes alone
        coefficients, intercepts = np.concatenate([0 * coefficients, coefficients]), np.append(0.0, intercepts)
    set_weights(model, lda.classes_, coefficients.T, intercepts)
    model.get_layer("z_score").set(scaler.mean_, scaler.scale_)


HEAD = Head(classifier, describe=descriptions.new, solve=solve)
