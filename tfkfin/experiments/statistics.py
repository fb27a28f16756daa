"""Scores and tests, from scikit-learn and SciPy."""

from collections.abc import Collection, Mapping

import numpy as np


def scores(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy and macro-F1 (unweighted mean over the classes that are true or predicted) of labels (N,)."""
    from sklearn.metrics import accuracy_score, f1_score

    return {"accuracy": float(accuracy_score(true, predicted)), "windows": len(true),
            "macro_f1": float(f1_score(true, predicted, average="macro", zero_division=0.0))}


def over_subjects(values: Mapping[tuple[int, int | None], float], subjects: Collection[int] = ()) -> dict:
    """(subject, seed) -> value becomes {"mean", "std", "per_subject"}: seeds averaged first, sd (ddof 0) over subjects.

    Values that are NaN (nothing to score) are left out; if all are, so are mean and std. `subjects`: only of these.
    """
    known = {key: v for key, v in values.items() if np.isfinite(v) and (not subjects or key[0] in subjects)}
    per_subject = {s: float(np.mean([v for (one, _), v in known.items() if one == s])) for s, _ in known}
    rows = list(per_subject.values()) or [float("nan")]
    return {"mean": float(np.mean(rows)), "std": float(np.std(rows)),
            "per_subject": {str(s): v for s, v in sorted(per_subject.items())}}


def paired(first: Mapping, second: Mapping) -> dict[str, float]:
    """Wilcoxon's signed-rank test, two-sided, of `first` against `second` over the keys they share.

    Returns:
        {"pairs", "mean", "median" of first - second, "wins", "ties", "statistic", "p", "least_p": the least p that so
        many pairs can give}. Without any difference p is 1.
    """
    from scipy.stats import wilcoxon

    keys = sorted(first.keys() & second.keys())
    differences = np.array([first[key] - second[key] for key in keys])
    statistic, p = 0.0, 1.0
    if np.any(differences):
        statistic, p = (float(value) for value in wilcoxon(differences))
    return {"pairs": len(keys), "mean": float(np.mean(differences)), "median": float(np.median(differences)),
            "wins": int(np.sum(differences > 0)), "ties": int(np.sum(differences == 0)), "statistic": statistic,
            "p": p, "least_p": least_p(len(keys))}


def holm(p: Collection[float]) -> list[float]:
    """p-values with Holm's correction (1979), in the order given: max over j <= i of (n - j) p_j, sorted."""
    order, corrected, least = np.argsort(list(p)), [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        least = corrected[i] = max(least, min(1.0, (len(p) - rank) * float(p[i])))
    return corrected


def by_subject(values: Mapping[tuple[int, int | None], float]) -> dict[int, float]:
    """Seeds averaged, since seeds of one subject are not independent."""
    return {int(s): v for s, v in over_subjects(values)["per_subject"].items()}


def least_p(pairs: int) -> float:
    """The least two-sided p that a signed-rank test of so many pairs can give: 2 / 2^pairs."""
    return min(1.0, 2.0 ** (1 - pairs))
