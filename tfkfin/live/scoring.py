"""Scores of decisions while they are made, in constant memory, where the true movements are known."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np

from tfkfin.live.timing import Distribution
from tfkfin.pipeline import splits
from tfkfin.pipeline.splits import Part
from tfkfin.recipe import Split
from tfkfin.recordings.recording import Recording

UNKNOWN = -1  # the label of a sample whose true movement is unknown


def masked(recording: Recording, split: Split, part: Part) -> Recording:
    """The recording with UNKNOWN labels outside a part of a split; rest belongs to a repetition too."""
    labels = np.full(len(recording.labels), UNKNOWN, np.int16)
    for s in splits.segments(recording, split, rest=True):
        if part.holds(s.repetition, s.session):
            labels[s.start : s.stop] = s.movement
    return replace(recording, labels=labels)


def of_sessions(recording: Recording, split: Split, part: Part | None = None) -> Iterator[Recording]:
    """The recording session by session, where its repetition numbers go on through several sessions.

    Each sample belongs to the session of the last segment that has begun. `part` selects sessions.
    """
    found = splits.segments(recording, split, rest=True)
    edges = [0, *(s.start for before, s in pairwise(found) if s.session != before.session), len(recording.labels)]
    sessions = [next((s.session for s in found if start <= s.start < stop), recording.file.session)
                for start, stop in pairwise(edges)]
    for session in sorted(set(sessions)):
        if part is None or part.sessions is None or session in part.sessions:
            spans = [span for number, span in zip(sessions, pairwise(edges), strict=True) if number == session]
            seams = [[start, *(seam for seam in recording.seams if start < seam < stop)] for start, stop in spans]
            at = np.concatenate([np.arange(*span) for span in spans])
            yield replace(recording, emg=recording.emg[at], labels=recording.labels[at],
                          repetitions=recording.repetitions[at], file=replace(recording.file, session=session),
                          seams=tuple(np.searchsorted(at, np.concatenate(seams)).tolist()[1:]))


class Recent:
    """Values of the newest samples, at least of the last `reach`."""

    def __init__(self, reach: int):
        self._values, self._first, self._reach = None, 0, reach

    def add(self, values: np.ndarray) -> None:
        """Values (n, ...) of the next samples."""
        self._values = values if self._values is None else np.concatenate([self._values, values])
        if (excess := len(self._values) - 2 * self._reach - len(values)) > 2 * self._reach:
            self._values, self._first = self._values[excess:], self._first + excess

    def within(self, first: int, last: int) -> np.ndarray:
        """Those of the samples [first, last] that are still there."""
        return self._values[max(0, first - self._first) : max(0, last + 1 - self._first)]


class Scores:
    """Accuracy of windows inside one label, accuracy of executions, delays of transitions, false activations.

    Args:
        movements: labels that the decoder knows; others are not scored.
        stride_s: seconds from window to window.
        rate_hz: of the samples that `changed` counts.
        rests: whether the decoder can decide for rest, or reject.
    """

    def __init__(self, movements: np.ndarray, stride_s: float, rate_hz: float, rests: bool):
        self.known, self.stride_s = {int(m) for m in movements}, stride_s
        self.windows = self.right = self.executions = self.executed = 0
        self.rest = self.false = self.transitions = self.followed = 0
        self.rests, self.delays, self._label, self._execution = rests, Distribution(), None, Counter()
        self.start_recording(rate_hz)

    def start_recording(self, rate_hz: float) -> None:
        """Another recording starts, which adds to the same scores."""
        self._end_execution()
        self.rate_hz, self._before, self._label, self._changes, self._pending = rate_hz, 0, None, deque(), None

    def changed(self, at: int, label: int) -> None:
        """The true label becomes `label` at the sample `at`; the first label of a recording is no transition."""
        self._changes.append((at, label))

    def add(self, decided: int, true: int, last: int) -> None:
        """A window that ends with the sample `last`; `true` is UNKNOWN where it does not lie inside one label."""
        while self._changes and self._changes[0][0] <= last:
            self._change(*self._changes.popleft())
        if true == 0:
            self.rest += 1
            self.false += decided > 0 and decided != self._before
        self._before = decided
        if self._pending is not None and decided == self._label:
            self.delays.add((last - self._pending + 1) / self.rate_hz)
            self.followed, self._pending = self.followed + 1, None
        if true in self.known:
            self.windows += 1
            self.right += decided == true
            if true:
                self._execution[decided] += 1

    def _change(self, at: int, label: int) -> None:
        self._end_execution()
        transition = self._label is not None and label in self.known
        self.transitions += transition
        self._label, self._pending = label, at if transition else None

    def _end_execution(self) -> None:
        if self._execution:
            most = self._execution.most_common(2)
            self.executions += 1
            self.executed += most[0][0] == self._label and (len(most) == 1 or most[0][1] > most[1][1])
        self._execution = Counter()

    def summary(self) -> dict:
        """`accuracy`, `execution`, `false_per_minute` and `transition`; None where there is nothing to score.

        An execution is right if its most frequent decision is right; ties and rejections are wrong. False activations
        are runs of decisions for a movement that begin in rest, a minute of rest. `transition` has the delays, in ms,
        until the first right decision, and how many transitions were followed by one before the next. Windows of rest
        count in `accuracy` for a decoder that knows rest.
        """
        self._end_execution()
        delays, minutes = self.delays.summary(), self.rest * self.stride_s / 60 if self.rests else 0
        return {"windows": self.windows, "accuracy": self.right / self.windows if self.windows else None,
                "executions": self.executions,
                "execution": self.executed / self.executions if self.executions else None,
                "false_per_minute": self.false / minutes if minutes else None,
                "transition": {"count": self.transitions, "followed": self.followed,
                               "p50_ms": delays["p50_ms"], "p95_ms": delays["p95_ms"]}}
