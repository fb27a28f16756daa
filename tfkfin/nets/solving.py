"""Heads in closed form, in TensorFlow, so that a gradient goes through the solution into whatever made the features."""

import tensorflow as tf

LEAST = 1e-3  # sd of a feature that hardly varies, such as of a silent channel


def z_scored(x: tf.Tensor, other: tf.Tensor, same: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Rows (N, D) by their own statistics; others (M, D) by these if of the `same` session, else by their own."""
    (mean, sd), own = _moments(x), _moments(other)
    by = [tf.where(same, a, b) for a, b in zip((mean, sd), own, strict=True)]
    return (x - mean) / sd, (other - by[0]) / by[1]


def _moments(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    mean, variance = tf.nn.moments(x, 0)
    return mean, tf.sqrt(variance + LEAST**2)


def discriminant(x: tf.Tensor, classes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Linear discriminant analysis, one covariance within classes, shrunk by Ledoit and Wolf (2004), all priors alike.

    Args:
        x: (N, D).
        classes: (N, G), 1 for a row's class and 0 elsewhere; each class has a row.

    Returns:
        Weights (D, G) and bias (G,); `x @ weights + bias` are log probabilities but for a constant. Differentiable.
    """
    means = tf.linalg.matmul(classes, x, transpose_a=True) / tf.reduce_sum(classes, axis=0)[:, None]
    within = x - classes @ means
    count, size = tf.cast(tf.shape(x)[0], x.dtype), x.shape[1]
    covariance = tf.linalg.matmul(within, within, transpose_a=True) / count
    scale = tf.linalg.trace(covariance) / size
    eye = tf.eye(size, dtype=x.dtype)
    apart = tf.reduce_sum((covariance - scale * eye) ** 2)
    spread = (tf.reduce_sum(tf.reduce_sum(within**2, axis=1) ** 2) / count - tf.reduce_sum(covariance**2)) / count
    share = tf.minimum(spread, apart) / tf.maximum(apart, 1e-30)
    factor = tf.linalg.cholesky((1 - share) * covariance + share * scale * eye + 1e-6 * eye)
    weights = tf.linalg.cholesky_solve(factor, tf.transpose(means))
    return weights, -0.5 * tf.reduce_sum(tf.transpose(means) * weights, axis=0)
