"""The one scoring: windows are decided in order of time and compared with the movements that were made.

Stages, commands, calibration and experiments score through this module; `tfkfin.fit.metrics` has the formulas.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tfkfin import recipe as recipes
from tfkfin.decoder.decision import REJECTED, Decision
from tfkfin.decoder.decision import Answers as Outputs
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.fit import metrics
from tfkfin.pipeline.subject import Subject
from tfkfin.pipeline.windows import Windows
from tfkfin.recordings.recording import Recording

THREE_NUMBERS = ("accuracy", "execution", "false_per_minute")


def windows_of(card: dict, recordings: Iterable[Recording], stride_ms: float = 0, rest: bool | None = None) -> Subject:
    """One person's recordings as a model takes them: resampled, filtered and cut into windows as its card says.

    Args:
        card: of a decoder or of FINs.
        stride_ms: between windows; 0: the decoder's own.
        rest: whether windows of rest count; None: where rest is a class of the decoder.
    """
    rest = 0 in card.get("movements", ()) if rest is None else rest
    window = recipes.Window(length_ms=1000 * card["length"] / card["rate_hz"], rest=rest, rate_hz=card["rate_hz"],
                            stride_ms=stride_ms or card["stride_ms"])
    return Subject.of(recordings, window, card.get("filter"), context=card.get("decision", {}).get("vote", 1) - 1)


def decide(probabilities: np.ndarray, segments: Iterable[np.ndarray], decision: Decision,
           labels: Sequence[int]) -> np.ndarray:
    """Decides windows segment by segment, as a stream would: the labels (N,) int64, -1 where rejected.

    Args:
        probabilities: (N, G) of the windows and of those before each segment that a vote averages over.
        segments: the windows' indices in order of time, both as of `Subject.with_context`.
        labels: of the G classes, as in the files.
    """
    decided = np.empty(len(probabilities), np.int64)
    for rows in segments:
        decided[rows], _ = decision(probabilities[rows], labels)
    return decided


def score(windows: Windows, decided: np.ndarray, labels: Sequence[int], stride_s: float,
          reject: float = 0.0) -> dict:
    """Scores of the decisions (N,) on windows in order of time, `stride_s` apart; a rejected decision is wrong.

    Returns:
        `accuracy` of all windows, `execution` and `false_per_minute` as `metrics` has them, `confusion` (G, G) of
        decisions made, and with `reject` how many windows were decided and how many of these correctly.
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


def score_decoder(decoder: BaseDecoder, subject: Subject, stride: int = 0,
                  outputs: Callable[[Subject], Outputs] | None = None) -> tuple[dict, Outputs]:
    """Scores a decoder on a subject's windows, which it decides in order of time.

    Args:
        stride: samples from window to window; 0: the decoder's own.
        outputs: of the network for the windows of a subject; None: the decoder computes them.

    Returns:
        Scores as of `score`, and of the windows {"label": decided (N,), "probabilities" (N, G), "features" (N, C, F)}.
    """
    stride = stride or decoder.stride
    every, segments, own = subject.with_context(decoder.decision.memory, stride)
    found = outputs(every) if outputs else decoder.over(every.emg, every.windows.starts)
    found = found | {"label": decide(found["probabilities"], segments, decoder.decision, decoder.movements)}
    found = {name: values[own] for name, values in found.items()}
    return score(subject.windows, found["label"], decoder.movements, stride / decoder.card["rate_hz"],
                 decoder.decision.reject), found


def mean_and_sd(values: dict) -> dict:
    """Scores by subject -> `mean`, `std` and `per_subject`, keyed as JSON does; None where there are none."""
    known = [v for v in values.values() if v is not None]
    return {"mean": float(np.mean(known)) if known else None, "std": float(np.std(known)) if known else None,
            "per_subject": {str(s): v for s, v in values.items()}}


def three_numbers(every: dict[int, dict]) -> dict:
    """`accuracy` a window, `execution` and `false_per_minute` over subjects, from each one's `score`."""
    return {name: mean_and_sd({s: one[name] for s, one in every.items()}) for name in THREE_NUMBERS}


def mean_imitation(every: list[dict]) -> dict:
    """The mean over subjects of each score of `metrics.imitation`."""
    return {name: {key: float(np.mean([one[name][key] for one in every])) for key in scores}
            for name, scores in every[0].items()}
