"""A recording sent to a server window by window, and the score of what the server answers."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.decoder.decision import Decision
from tfkfin.serving.client.base import Client, ServingError
from tfkfin.signal.filtering import filtered


@dataclass(frozen=True)
class Answered:
    """The decision for one window.

    Attributes:
        time_s: end of the window in the recording.
        label: -1 where the decision was rejected.
        true: label of all samples of the window; None where they differ or are not to be scored.
        latency_s: from request to answer.
        name: what the model calls the movement, "" where it has no name.
    """

    time_s: float
    label: int
    probability: float
    true: int | None
    latency_s: float
    name: str = ""


def replay(client: Client, emg: np.ndarray, labels: np.ndarray, rate_hz: float, stride_ms: float = 100.0,
           realtime: bool = False) -> Iterator[Answered]:
    """Sends a recording window by window, one request each, and yields decisions with the model's vote and rejection.

    Args:
        emg: (T, C) volts.
        labels: (T,) movements; 0 is rest, windows with a label below 0 are not scored.
        realtime: waits until a window would have been recorded.

    Raises:
        InputError: the model expects another rate, or the recording is shorter than a window.
    """
    about = client.about() or {}
    decide, emg = _decision(client, rate_hz), filtered(emg, np.asarray(about.get("filter", np.empty((0, 6)))))
    length, stride = client.window_length(), max(1, round(stride_ms * rate_hz / 1000))
    if len(emg) < length:
        raise InputError(f"the recording has {len(emg)} samples, less than one window of {length}")
    words = [word.decode() if isinstance(word, bytes) else str(word) for word in np.ravel(about.get("names", ()))]
    names = dict(zip(about["movements"].tolist(), words, strict=True)) if words else {}
    start = time.monotonic()
    for first in range(0, len(emg) - length + 1, stride):
        if realtime:
            time.sleep(max(0.0, start + (first + length) / rate_hz - time.monotonic()))
        inside = labels[first : first + length]
        sent = time.perf_counter()
        answer = client.predict(emg[None, first : first + length])
        latency = time.perf_counter() - sent
        if not {"label", "probabilities"} <= answer.keys():
            raise InputError(f"{client.target.described} answers {', '.join(answer)}: it is no decoder")
        true = int(inside[0]) if inside[0] >= 0 and (inside == inside[0]).all() else None
        label, probability = decide(answer)
        yield Answered((first + length) / rate_hz, label, probability, true, latency, names.get(label, ""))


def _decision(client: Client, rate_hz: float) -> Callable[[dict], tuple[int, float]]:
    """A function from the answer for a window to its label and probability, with the model's vote and rejection."""
    about = client.about()
    if about is None:
        log.warning("warning: %s does not report its rate, vote and rejection: an older tfkfin exported it",
                    client.target.described)
        return lambda answer: (int(answer["label"][0]), float(answer["probabilities"][0].max()))
    if not math.isclose(float(about["rate_hz"]), rate_hz, rel_tol=1e-6):
        raise InputError(f"{client.target.described} expects {float(about['rate_hz']):g} Hz, the recording has "
                         f"{rate_hz:g} Hz: resample it first (--resample)")
    decided = Decision(int(about["vote"]), float(about["reject"])).start(about["movements"])

    def decide(answer: dict) -> tuple[int, float]:
        if answer["probabilities"].shape[-1] != len(about["movements"]):
            raise ServingError("INTERNAL", f"{client.target.described}: {answer['probabilities'].shape[-1]} "
                                           f"probabilities for {len(about['movements'])} movements")
        labels, voted = decided(answer["probabilities"])
        return int(labels[0]), float(voted[0].max())

    return decide


def scored(decisions: Sequence[Answered], rest: bool) -> dict:
    """`accuracy` of the `windows` inside one label (None if there are none) and percentiles of `latency_ms`.

    Args:
        rest: whether windows of rest are scored too.
    """
    known = [d for d in decisions if d.true is not None and (d.true or rest)]
    latency = {f"p{q}": float(1000 * np.percentile([d.latency_s for d in decisions], q)) for q in (50, 95, 99)}
    return {"decisions": len(decisions), "windows": len(known), "latency_ms": latency,
            "accuracy": float(np.mean([d.label == d.true for d in known])) if known else None}
