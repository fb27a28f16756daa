"""How a decoder scores on windows in order of time, with the decision that it will be used with."""

from collections.abc import Callable

import numpy as np

from tfkfin.decoder.decision import REJECTED, Decision
from tfkfin.fit import metrics
from tfkfin.pipeline.subject import Subject
from tfkfin.pipeline.windows import Windows


def decided(part: Subject, probabilities: Callable[[Subject], np.ndarray], decision: Decision, labels: tuple[int, ...],
            stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Decides a subject's windows as a stream would: looking back also at windows before the first of a movement.

    Args:
        part: the windows to decide, at `stride` samples inside each stretch.
        probabilities: windows of a subject -> (N, G).
        labels: of the G classes, as in the files.

    Returns:
        Labels (N,) int64, -1 where rejected, and averaged probabilities (N, G).
    """
    if not decision.memory:
        return decision(probabilities(part), labels)
    led, stretches, own = part.led(decision.memory, stride)
    every = probabilities(led)
    parts = [decision(every[rows], labels) for rows in stretches]
    return tuple(np.concatenate(arrays)[own] for arrays in zip(*parts, strict=True))


def score(windows: Windows, decided: np.ndarray, labels: tuple[int, ...], stride_s: float,
          reject: float = 0.0) -> dict:
    """Scores of the decisions (N,) on windows in order of time, `stride_s` apart; a rejected decision is wrong.

    Returns:
        `accuracy` of all windows, `execution` and `false_per_minute` as `metrics` has them, `confusion` (G, G) of
        decisions made, and with `reject` how many windows were decided and how many of these rightly.
    """
    true, made = windows.movements, decided != REJECTED
    right = decided == true
    scores = {"accuracy": float(np.mean(right)),
              "execution": metrics.execution_accuracy(true, decided, windows.segments),
              "false_per_minute": metrics.false_activations(true, decided, stride_s),
              "confusion": metrics.confusion(true[made], decided[made], list(labels)).tolist()}
    if reject:
        scores["rejection"] = {"threshold": reject, "decided": float(made.mean()),
                               "accuracy": float(right[made].mean()) if made.any() else None}
    return scores


def spread(values: dict) -> dict:
    """Scores by subject -> `mean`, `std` and `per_subject`, keyed as JSON does; None where there are none."""
    known = [v for v in values.values() if v is not None]
    return {"mean": float(np.mean(known)) if known else None, "std": float(np.std(known)) if known else None,
            "per_subject": {str(s): v for s, v in values.items()}}


def three_numbers(every: dict[int, dict]) -> dict:
    """What `score` says of several subjects: `accuracy` a window, `execution` and `false_per_minute`, as `spread`."""
    return {name: spread({s: one[name] for s, one in every.items()})
            for name in ("accuracy", "execution", "false_per_minute")}


def mean_imitation(every: list[dict]) -> dict:
    """What `metrics.imitation` says of several subjects, each score's mean over them."""
    return {name: {key: float(np.mean([one[name][key] for one in every])) for key in scores}
            for name, scores in every[0].items()}
