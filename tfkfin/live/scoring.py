"""How decisions score while they are made, where it is known what was truly done: in constant memory."""

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

UNKNOWN = -1  # a true label that nobody knows


def masked(recording: Recording, split: Split, part: Part) -> Recording:
    """The recording with the labels of what is not in a part of a split UNKNOWN; rest belongs to a repetition too."""
    labels = np.full(len(recording.labels), UNKNOWN, np.int16)
    for s in splits.segments(recording, split, rest=True):
        if part.holds(s.repetition, s.session):
            labels[s.start : s.stop] = s.movement
    return replace(recording, labels=labels)


def of_sessions(recording: Recording, split: Split, part: Part | None = None) -> Iterator[Recording]:
    """The recording session by session, where its repetition numbers tell several: those of a part's sessions."""
    found = splits.segments(recording, split, rest=True)
    begins = [0, *(s.start for before, s in pairwise(found) if s.session != before.session), len(recording.labels)]
    numbers = [next((s.session for s in found if begin <= s.start < end), recording.file.session)
               for begin, end in pairwise(begins)]
    for session in sorted(set(numbers)):
        if part is None or part.sessions is None or session in part.sessions:
            pieces = [span for number, span in zip(numbers, pairwise(begins), strict=True) if number == session]
            seams = [[begin, *(seam for seam in recording.seams if begin < seam < end)] for begin, end in pieces]
            at = np.concatenate([np.arange(*span) for span in pieces])
            yield replace(recording, emg=recording.emg[at], labels=recording.labels[at],
                          repetitions=recording.repetitions[at], file=replace(recording.file, session=session),
                          seams=tuple(np.searchsorted(at, np.concatenate(seams)).tolist()[1:]))


class Truth:
    """What was truly done, sample by sample, as far back as windows reach.

    Args:
        reach: samples that are remembered.
    """

    def __init__(self, reach: int):
        self._labels, self._first, self._reach = np.empty(0, np.int64), 0, reach

    def add(self, labels: np.ndarray) -> None:
        """Of the next samples (n,)."""
        self._labels = np.concatenate([self._labels, labels])
        if len(self._labels) > 4 * self._reach:
            kept = 2 * self._reach + len(labels)
            self._first += max(0, len(self._labels) - kept)
            self._labels = self._labels[-kept:]

    def within(self, first: int, last: int) -> np.ndarray:
        """Of the samples [first, last], as far as they are remembered."""
        return self._labels[max(0, first - self._first) : max(0, last + 1 - self._first)]


class Scores:
    """Accuracy of windows inside one label, of executions, delay of transitions, false activations.

    Args:
        movements: labels that the decoder knows; others are not scored.
        stride_s: seconds from window to window.
        rate_hz: of the samples that `changed` counts.
        rests: whether the decoder can say that nothing is moved.
    """

    def __init__(self, movements: np.ndarray, stride_s: float, rate_hz: float, rests: bool):
        self.known, self.stride_s = {int(m) for m in movements}, stride_s
        self.windows = self.right = self.executions = self.held = 0
        self.rest = self.false = self.transitions = self.followed = 0
        self.rests, self.delays, self._label, self._execution = rests, Distribution(), None, Counter()
        self.begin(rate_hz)

    def begin(self, rate_hz: float) -> None:
        """Another recording begins; scores go on."""
        self._end_execution()
        self.rate_hz, self._before, self._label, self._changes, self._pending = rate_hz, 0, None, deque(), None

    def changed(self, at: int, label: int) -> None:
        """From the sample `at` on another movement, or rest, is truly done; what is first done is no transition."""
        self._changes.append((at, label))

    def add(self, decided: int, true: int, last: int) -> None:
        """A window that ends with the sample `last`; `true` is UNKNOWN where it lies in no one label."""
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
            self.held += most[0][0] == self._label and (len(most) == 1 or most[0][1] > most[1][1])
        self._execution = Counter()

    def summary(self) -> dict:
        """`accuracy`, `execution`, `false_per_minute`, `transition` (delays in ms, how many came at all); None of none.

        Ties and rejections are wrong; rest is scored for a decoder that knows it. False activations are runs of
        decisions for a movement that begin in rest, a minute of rest.
        """
        self._end_execution()
        delays = self.delays.summary()
        return {"windows": self.windows, "accuracy": self.right / self.windows if self.windows else None,
                "executions": self.executions, "execution": self.held / self.executions if self.executions else None,
                "false_per_minute": self.false / (self.rest * self.stride_s / 60) if self.rest and self.rests else None,
                "transition": {"count": self.transitions, "followed": self.followed,
                               "p50_ms": delays["p50_ms"], "p95_ms": delays["p95_ms"]}}
