"""A linear head that is solved, not trained: shrinkage linear discriminant analysis of features and descriptions.

As a FIN starts a network from a closed-form feature, this starts the classifier from a closed-form decision;
fine-tuning may then move both.
"""

import keras
import numpy as np
from keras import layers

from tfkfin.nets.heads import Groups, Head
from tfkfin.nets.imputation import MOST_CHANNELS, Imputation
from tfkfin.nets.layers import LogScale, ZScore, found
from tfkfin.nets.lda import lda

NEVER = -30.0  # logit of a movement that the training windows do not have


class LinearHead(Head):
    """softmax(W' (x - mean) / sd + b) of head inputs x: features, positive ones by their logarithm, and descriptions.

    Attributes:
        log_scale: the layer that takes logarithms of features; None: there are no features.
        linear: the dense layer, W (D, G) and b (G,).
    """

    describes = True

    def __init__(self, classifier: keras.Model, describe: layers.Layer | None = None, channels: int = 0):
        super().__init__(classifier, describe, channels)
        self.log_scale, self.linear = found(classifier, "log_scale"), found(classifier, "linear")
        self.imputation = found(classifier, "imputation")

    @classmethod
    def new(cls, options, names, channels, described, classes):
        return cls._network(names, channels, described, classes, impute=options.lost_electrode and described > 0)

    @staticmethod
    def _network(names, channels, described, classes, kept: layers.Layer | None = None,
                 impute: bool = False) -> keras.Model:
        """The classifier.

        Args:
            kept: a layer before the dense one that passes its input on, for what else is saved.
            impute: whether what a lost electrode would say is imputed.
        """
        inputs, parts = [], []
        if names:
            inputs.append(keras.Input((channels, len(names)), name="features"))
            parts.append(layers.Flatten()(LogScale(names, name="log_scale", dtype="float32")(inputs[-1])))
        if described:
            inputs.append(keras.Input((described,), name="described"))
            parts.append(inputs[-1])
        x = layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
        if impute and channels <= MOST_CHANNELS:
            x = Imputation(channels, name="imputation", dtype="float32")(x)
        x = ZScore(name="z_score", dtype="float32")(x)
        x = kept(x) if kept is not None else x
        outputs = layers.Softmax(dtype="float32", name="probabilities")(layers.Dense(classes, name="linear")(x))
        return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs, name="classifier")

    def set_weights(self, classes: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> None:
        """Of z-scored inputs: weights (D, K) and bias (K,) of K classes among all; the others are never chosen."""
        kernel, intercepts = (np.zeros(tuple(v.shape), np.float32) for v in self.linear.weights)
        intercepts[:] = NEVER
        kernel[:, classes], intercepts[classes] = weights, bias
        self.linear.set_weights([kernel, intercepts])

    def solve(self, x: np.ndarray, labels: np.ndarray, groups: Groups) -> None:
        """LDA of all sessions together."""
        solved = lda().fit(np.asarray(x, np.float64), labels)
        scaler, model = solved[0], solved[-1]
        coefficients, intercepts = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # scikit-learn keeps the difference of two classes alone
            coefficients, intercepts = np.concatenate([0 * coefficients, coefficients]), np.append(0.0, intercepts)
        self.set_weights(model.classes_, coefficients.T, intercepts)
        self.z_score.set(scaler.mean_, scaler.scale_)
        if self.imputation is not None:
            features = self.log_scale.output.shape[2] if self.log_scale is not None else 0
            self.imputation.fit(np.asarray(x, np.float64), self.describe, features)


HEAD = LinearHead
