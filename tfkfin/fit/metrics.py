"""Scores of imitation and classification, in NumPy."""

import numpy as np


def r2(true: np.ndarray, predicted: np.ndarray) -> float:
    """Coefficient of determination 1 - SSE/SST over all elements; NaN for a constant `true`."""
    true, predicted = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    total = np.sum((true - true.mean()) ** 2)
    return float(1 - np.sum((true - predicted) ** 2) / total) if total > 0 else float("nan")


def nrmse(true: np.ndarray, predicted: np.ndarray) -> float:
    """Root mean square error over the standard deviation of `true`."""
    true, predicted = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    return float(np.sqrt(np.mean((true - predicted) ** 2)) / true.std()) if true.std() > 0 else float("nan")


def paper_r2(true: np.ndarray, predicted: np.ndarray) -> float:
    """The authors' "R²": mean over elements of max(0, 1 - (ŷ-y)²/(y-ȳ)²), on z-scored values. Not a true R²."""
    true, predicted = _z_scored(true, predicted)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (predicted - true) ** 2 / (true - true.mean()) ** 2
    return float(np.mean(np.maximum(0.0, 1 - np.nan_to_num(ratio, nan=0.0, posinf=1.0))))


def paper_map(true: np.ndarray, predicted: np.ndarray) -> float:
    """The authors' "MAP" in %: mean over elements of 100·max(0, 1 - |ŷ-y|/|y|), on z-scored values."""
    true, predicted = _z_scored(true, predicted)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(predicted - true) / np.abs(true)
    return float(np.mean(100 * np.maximum(0.0, 1 - np.nan_to_num(ratio, nan=0.0, posinf=1.0))))


def _z_scored(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    true, predicted = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    mean, sd = true.mean(), true.std() or 1.0
    return (true - mean) / sd, (predicted - mean) / sd


def imitation(true: np.ndarray, predicted: np.ndarray, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Scores by feature of (..., F) true and imitated features."""
    return {
        name: {"r2": r2(true[..., i], predicted[..., i]), "paper_r2": paper_r2(true[..., i], predicted[..., i]),
               "paper_map": paper_map(true[..., i], predicted[..., i])}
        for i, name in enumerate(names)
    }


def confusion(true: np.ndarray, predicted: np.ndarray, labels: list[int]) -> np.ndarray:
    """(G, G) counts, rows true; labels are those of the files, ascending."""
    matrix = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(matrix, (np.searchsorted(labels, true), np.searchsorted(labels, predicted)), 1)
    return matrix
