"""Scores of imitation and classification, in NumPy."""

import numpy as np

HOLDS = 0.9  # R² on training windows from which on FINs count as imitating a feature
LOOKED_AT = 256  # training windows of a person that this is measured on, evenly spread


def r2(true: np.ndarray, predicted: np.ndarray) -> float:
    """Coefficient of determination R² = 1 − Σ(ŷ − y)² / Σ(y − ȳ)² over all elements; NaN for a constant `true`."""
    true, predicted = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    total = np.sum((true - true.mean()) ** 2)
    return float(1 - np.sum((true - predicted) ** 2) / total) if total > 0 else float("nan")


def nrmse(true: np.ndarray, predicted: np.ndarray) -> float:
    """Root mean square error over the standard deviation of `true`: √(1 − R²)."""
    return float(np.sqrt(1 - r2(true, predicted)))


def paper_r2(true: np.ndarray, predicted: np.ndarray) -> float:
    """The authors' "R²": mean over elements of max(0, 1 − (ŷ − y)²/(y − ȳ)²), on z-scored values. Not a true R²."""
    true, predicted = _z_scored(true, predicted)
    return _mean_above_zero((predicted - true) ** 2, (true - true.mean()) ** 2)


def paper_map(true: np.ndarray, predicted: np.ndarray) -> float:
    """The authors' "MAP" in %: mean over elements of `100 max(0, 1 − abs((ŷ − y) / y))`, on z-scored values."""
    true, predicted = _z_scored(true, predicted)
    return 100 * _mean_above_zero(np.abs(predicted - true), np.abs(true))


def _z_scored(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    true, predicted = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    mean, sd = true.mean(), true.std() or 1.0
    return (true - mean) / sd, (predicted - mean) / sd


def _mean_above_zero(error: np.ndarray, scale: np.ndarray) -> float:
    """Mean of max(0, 1 − error/scale); where both are 0 the ratio counts as 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(error / scale, nan=0.0, posinf=1.0)
    return float(np.mean(np.maximum(0.0, 1 - ratio)))


def imitation(true: np.ndarray, predicted: np.ndarray, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Scores by feature of (..., F) true and imitated features."""
    scores = {"r2": r2, "paper_r2": paper_r2, "paper_map": paper_map}
    return {name: {key: score(true[..., i], predicted[..., i]) for key, score in scores.items()}
            for i, name in enumerate(names)}


def lowest_r2(true: np.ndarray, predicted: np.ndarray, names: tuple[str, ...]) -> tuple[str, float]:
    """The feature of (..., F) that is imitated worst, and its R²; one that is constant counts as imitated."""
    scores = [np.nan_to_num(r2(true[..., i], predicted[..., i]), nan=1.0) for i in range(len(names))]
    return names[int(np.argmin(scores))], float(min(scores))


def confusion(true: np.ndarray, predicted: np.ndarray, labels: list[int]) -> np.ndarray:
    """Counts (G, G), rows true; `labels` as in the files, ascending."""
    matrix = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(matrix, (np.searchsorted(labels, true), np.searchsorted(labels, predicted)), 1)
    return matrix


def macro_f1(counts: np.ndarray) -> float:
    """Mean F1 = 2 TP / (2 TP + FP + FN) over the movements with windows, from a confusion matrix (G, G)."""
    right, there = np.diag(counts), counts.sum(axis=1) > 0
    both = counts.sum(axis=0) + counts.sum(axis=1)
    return float(np.mean(2 * right[there] / both[there])) if there.any() else float("nan")


def window_accuracy(true: np.ndarray, decided: np.ndarray) -> float:
    """Share of movements' windows (N,) decided right; rest (0) does not count, a rejection (-1) is wrong."""
    moving = np.asarray(true) > 0
    return float(np.mean((true == decided)[moving])) if moving.any() else float("nan")


def execution_accuracy(true: np.ndarray, decided: np.ndarray, segments: np.ndarray) -> float:
    """Share of executions (segments of movements) whose most frequent decision is right; ties and rejections are wrong.

    Args:
        true, decided: labels (N,), 0 rest, -1 rejected.
        segments: (N,) the execution that each window lies in.
    """
    right = []
    for segment in np.unique(segments[true > 0]):
        here = segments == segment
        labels, counts = np.unique(decided[here], return_counts=True)
        most = labels[counts == counts.max()]
        right.append(len(most) == 1 and most[0] == true[here][0])
    return float(np.mean(right)) if right else float("nan")


def fewer_right(before: np.ndarray, after: np.ndarray, segments: np.ndarray) -> bool:
    """Whether executions have fewer windows decided right than before, by a sign test over executions (p < 0.05).

    Args:
        before, after: which windows (N,) are decided right.
        segments: (N,) the execution that each window lies in.
    """
    from scipy.stats import binomtest

    every = segments == np.unique(segments)[:, None]  # (executions, N)
    changes = np.sign(every @ after.astype(int) - every @ before.astype(int))
    fewer, changed = int((changes < 0).sum()), int((changes != 0).sum())
    return changed > 0 and bool(binomtest(fewer, changed, alternative="greater").pvalue < 0.05)


def false_activations(true: np.ndarray, decided: np.ndarray, stride_s: float) -> float | None:
    """Runs of decisions for a movement that begin in rest, a minute of rest; None where no window is rest.

    Args:
        true, decided: labels (N,) of windows in order of time, 0 rest, -1 rejected.
        stride_s: seconds between windows.
    """
    resting = np.asarray(true) == 0
    if not resting.any():
        return None
    begins = (decided > 0) & (np.concatenate([[0], decided[:-1]]) != decided)
    return float(np.sum(begins & resting) / (resting.sum() * stride_s / 60))


def over_people(values: dict[int, float | None], seed: int = 0, draws: int = 10_000) -> dict:
    """{"mean", "low", "high", "per_subject"} of people's values: a 95 % bootstrap interval over people from six on.

    Low and high are None for fewer people, everything for people without a value.
    Reference: Efron, Tibshirani 1993, percentile interval (scipy.stats.bootstrap).
    """
    known = np.array([v for v in values.values() if v is not None and np.isfinite(v)])
    interval = (None, None)
    if len(known) >= 6:
        from scipy.stats import bootstrap

        rng = np.random.default_rng(seed)
        found = bootstrap((known,), np.mean, n_resamples=draws, method="percentile", rng=rng).confidence_interval
        interval = float(found.low), float(found.high)
    return {"mean": float(known.mean()) if len(known) else None, "low": interval[0], "high": interval[1],
            "per_subject": {str(s): v for s, v in values.items()}}
