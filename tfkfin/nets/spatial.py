"""Layers of all channels together: the logarithm of a window's covariance, in operations that every engine has."""

import keras
import numpy as np
from keras import layers, ops

from tfkfin.features.describe import RIDGE, log_euclidean
from tfkfin.nets.bilstm import layer as recurrent
from tfkfin.nets.sliding import over_signal, products_of_channels

SWEEPS = 8  # of Jacobi's rotations: they converge quadratically, and 12 channels have converged by then


@keras.saving.register_keras_serializable(package="tfkfin")
class LogCovariance(layers.Layer):
    """The logarithm of the covariance of a window or of its differences: (B, L, C) -> (B, C (C + 1) / 2).

    The same as `tfkfin.features.describe.log_euclidean`, in float64 inside, because the smallest eigenvalues count as
    much as the largest. ONNX has no eigenvalues: for it they are found by Jacobi's rotations, of products alone.

    Args:
        difference: how often neighbouring samples are subtracted first.
        ridge: of the mean variance, added to every channel's.
    """

    def __init__(self, difference: int = 0, ridge: float = RIDGE, **kwargs):
        super().__init__(**kwargs)
        self.difference, self.ridge = difference, ridge

    def call(self, inputs, kept=None):
        length = inputs.shape[1]
        return self._logarithm(self.covariances(inputs, length, length, kept=kept))

    def stream(self, x, length: int, stride: int, compiled: bool = True, slide=over_signal, kept=None):
        """As of `Correlations`: (B, T, C) -> (B, W, S). `compiled` is not obeyed: XLA has no eigenvalues on a CPU."""
        found = self._logarithm(self.covariances(x, length, stride, slide, kept))
        return ops.reshape(found, (ops.shape(x)[0], -1, found.shape[1]))

    def covariances(self, x, length: int, stride: int, slide=over_signal, kept=None):
        """Of the windows of signals: (B, T, C) -> (B W, C, C) float64; 0 of electrodes where `kept` (.., C) is 0."""
        x, given = ops.cast(x, "float64"), (length, stride, self.difference)
        products, sums = (slide(self._of_samples, x, *given, of) for of in (products_of_channels, None))
        products, sums = (ops.reshape(part, (-1, *part.shape[2:])) for part in (products, sums))
        count = length - self.difference
        found = products / count - sums[:, :, None] * sums[:, None, :] / count**2
        if kept is None:
            return found
        kept = ops.cast(ops.reshape(kept, (-1, x.shape[2])), "float64")
        return found * kept[:, :, None] * kept[:, None, :]

    def _of_samples(self, _, x):
        return self._differences(x)

    def _differences(self, x):
        for _ in range(self.difference):
            x = x[:, 1:] - x[:, :-1]
        return x

    def _logarithm(self, matrices):
        return ops.cast(logarithm(matrices, self.ridge), self.compute_dtype)

    def log_amplitude(self, channels: int) -> np.ndarray:
        """Which outputs (S,) are logarithms of a channel's power: the diagonal, of the signal itself."""
        return (self.layout(channels)[:, 0] == 0) & (self.difference == 0)

    def layout(self, channels: int) -> np.ndarray:
        """Kind and two electrodes of each output (S, 3)."""
        first, second = np.triu_indices(channels)
        return np.stack([(first != second).astype(int), first, second], axis=1)

    def flatness(self, channels: int) -> tuple[np.ndarray, np.ndarray]:
        """Which outputs (S, C), 1 or 0, are the log power of a channel, and which tie it to others; of the signal."""
        layout = self.layout(channels)
        of = (layout[:, 1:, None] == np.arange(channels)).any(axis=1) & (self.difference == 0)
        return of * (layout[:, :1] == 0.0), of * (layout[:, :1] == 1.0)

    def without(self, described: np.ndarray, channels: int, electrode: int) -> np.ndarray:
        """Outputs (N, S) as if an electrode's signal were constant: its row and column of the covariance are 0."""
        rows, columns = np.triu_indices(channels)
        matrices = np.zeros((len(described), channels, channels))
        matrices[:, rows, columns] = described / np.where(rows == columns, 1, np.sqrt(2))
        matrices[:, columns, rows] = matrices[:, rows, columns]
        values, vectors = np.linalg.eigh(matrices)
        values = np.exp(values)
        values -= self.ridge / (1 + self.ridge) * values.mean(axis=1, keepdims=True)
        covariances = (vectors * values[:, None]) @ vectors.transpose(0, 2, 1)
        covariances[:, electrode] = covariances[:, :, electrode] = 0
        return log_euclidean(covariances, self.ridge)

    def compute_output_shape(self, input_shape):
        channels = input_shape[2]
        return (input_shape[0], channels * (channels + 1) // 2)

    def get_config(self):
        return {**super().get_config(), "difference": self.difference, "ridge": self.ridge}


def logarithm(matrices, ridge: float = RIDGE):
    """The upper triangle (N, C (C + 1) / 2) of logarithms of covariances (N, C, C), float64, as of `log_euclidean`."""
    channels = matrices.shape[-1]
    power = ops.sum(matrices * np.eye(channels), axis=(1, 2)) / channels
    matrices = matrices + (ridge * power + 1e-30)[:, None, None] * np.eye(channels)
    values, vectors = (_jacobi if recurrent.forced_engine() == "keras" else ops.linalg.eigh)(matrices)
    logs = ops.matmul(vectors * ops.log(ops.maximum(values, 1e-30))[:, None], ops.transpose(vectors, (0, 2, 1)))
    rows, columns = np.triu_indices(channels)
    upper = ops.take(ops.reshape(logs, (-1, channels * channels)), rows * channels + columns, axis=1)
    return upper * np.where(rows == columns, 1.0, np.sqrt(2.0))


def _jacobi(matrices):
    """Eigenvalues (B, C) and vectors (B, C, C), float64, of symmetric matrices (B, C, C).

    Half the channels' pairs are rotated at once, in the order of a round robin (Brent, Luk 1985). Sweeps are a loop of
    the graph: laid out one after another, thousands of operations take minutes to export.
    """
    size = matrices.shape[-1]
    if size == 1:
        return matrices[:, 0], ops.ones_like(matrices)
    eye = np.eye(size)

    def sweep(_, state):
        matrices, vectors = state
        for first, second in _rounds(size):
            a, b, off = (ops.take(ops.reshape(matrices, (-1, size * size)), i * size + j, axis=1)
                         for i, j in ((first, first), (second, second), (first, second)))
            apart = b - a
            sign = ops.where(apart < 0, -ops.ones_like(off), ops.ones_like(off))
            tangent = 2 * sign * off / (ops.abs(apart) + ops.sqrt(apart**2 + 4 * off**2) + 1e-300)
            cosine = 1 / ops.sqrt(1 + tangent**2)
            p, q = eye[first], eye[second]  # (pairs, C)
            stay = np.einsum("ki,kj->kij", p, p) + np.einsum("ki,kj->kij", q, q)
            turn = np.einsum("ki,kj->kij", p, q) - np.einsum("ki,kj->kij", q, p)
            parts = zip((cosine - 1, tangent * cosine), (stay, turn), strict=True)
            rotation = sum(ops.matmul(amount, part.reshape(len(p), -1)) for amount, part in parts)
            rotation = ops.reshape(rotation, (-1, size, size)) + eye
            matrices = ops.matmul(ops.transpose(rotation, (0, 2, 1)), ops.matmul(matrices, rotation))
            vectors = ops.matmul(vectors, rotation)
        return matrices, vectors

    matrices, vectors = ops.fori_loop(0, SWEEPS, sweep, (matrices, ops.ones_like(matrices) * eye))
    return ops.sum(matrices * eye, axis=2), vectors


def _rounds(size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Every pair of `size` channels once, in rounds of pairs that share none."""
    seats, rounds = list(range(size + size % 2)), []
    for _ in range(len(seats) - 1):
        pairs = [(seats[i], seats[-1 - i]) for i in range(len(seats) // 2)]
        pairs = [tuple(sorted(pair)) for pair in pairs if max(pair) < size]
        rounds.append(tuple(np.array(side) for side in zip(*pairs, strict=True)))
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return rounds
