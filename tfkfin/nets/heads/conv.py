"""The paper's head: noisy replicas of the features, then three Conv2D/BatchNorm/PReLU blocks (§3.1, §3.2)."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from tfkfin.nets.heads import Head
from tfkfin.nets.layers import BatchNormalization, PReLU, ZScore


def kernel_sizes(extent: int, blocks: int = 3) -> tuple[int, ...]:
    """Kernels of `blocks` valid convolutions that take `extent` down to 1, as even as possible: 12 -> (5, 5, 4)."""
    share, rest = divmod(extent - 1, blocks)
    return tuple(share + 1 + (i < rest) for i in range(blocks))


def classifier(channels: int, num_features: int, num_classes: int, filters: Sequence[int] = (64, 32),
               copies: int = 12, noise: float = 0.01, dropout: float = 0.3) -> keras.Model:
    """The head: features (B, C, F) in own units -> probabilities (B, num_classes).

    z-score -> (B, C, copies, F): row 0 the features, the others with Gaussian noise of sd `noise` in training ->
    blocks of `filters` and one of `num_classes` filters -> softmax. 12 channels, 4 features and 17 classes have the
    66,646 parameters of the authors' network (and the z-score's 8, the BatchNorms' 226 moving statistics besides).
    """
    inputs = keras.Input((channels, num_features), name="features")
    x = ZScore(name="z_score", dtype="float32")(inputs)
    x = layers.Reshape((channels, 1, num_features))(x)
    if copies > 1:
        shadows = layers.UpSampling2D((1, copies - 1), name="shadows")(x)
        shadows = layers.GaussianNoise(noise, name="noise")(shadows)
        x = layers.Concatenate(axis=2, name="replicate")([x, shadows])  # (B, C, copies, F)
    widths = (*filters, num_classes)
    kernels = zip(kernel_sizes(channels, len(widths)), kernel_sizes(copies, len(widths)), strict=True)
    for i, (width, kernel) in enumerate(zip(widths, kernels, strict=True), 1):
        x = layers.Conv2D(width, kernel, name=f"conv_{i}")(x)
        x = BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"norm_{i}")(x)
        x = PReLU(keras.initializers.Constant(0.25), shared_axes=(1, 2, 3), name=f"prelu_{i}")(x)
        if i == 1 and dropout:
            x = layers.Dropout(dropout, name="dropout")(x)
    outputs = layers.Softmax(dtype="float32", name="probabilities")(layers.Flatten()(x))
    return keras.Model(inputs, outputs, name="classifier")


class ConvHead(Head):
    """The paper's head, trained by gradients; head inputs are the features (N, C, F)."""

    @classmethod
    def new(cls, options, names, channels, described, classes):
        return classifier(channels, len(names), classes, options.filters, options.copies, options.noise,
                          options.dropout)

    def prepare(self, x: np.ndarray) -> None:
        flat = x.reshape(-1, x.shape[-1])
        self.z_score.set(flat.mean(axis=0, dtype=np.float64), flat.std(axis=0, dtype=np.float64))


HEAD = ConvHead
