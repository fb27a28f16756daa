"""What a session measures of its decisions, in constant memory however long it lasts: times, force, scores."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from tfkfin.recordings.recording import UNKNOWN as UNKNOWN
from tfkfin.signal.condition import FAULTS

SECONDS = np.geomspace(1e-6, 1e3, int(np.log(1e9) / np.log(1.01)) + 1)  # neighbouring bins are 1 % apart
LEVELS = np.arange(-25, 25, 0.05)  # log levels, 5 % apart
AMPLITUDES = ("RMS", "MAV", "WL", "IAV", "SSI", "VAR", "LOG")  # features that grow with force, the best first
LASTS_S, PASSED = 0.15, 10  # seconds until a fault is noted, and how many times longer until its end is
LOW, HIGH = 0.1, 0.95  # quantiles of the person's levels that get the speeds 0 and 1


@dataclass(frozen=True)
class Times:
    """Seconds of one decision.

    Attributes:
        acquisition: from the instant of the last sample until it was received; NaN where no clock tells.
        wait: from then until the samples were processed.
        preparation: repairing, resampling, filtering.
        inference: network and vote.
        total: from the last sample received to the decision sent: all but the acquisition.
    """

    acquisition: float
    wait: float
    preparation: float
    inference: float
    total: float


class Histogram:
    """Counts of values in the bins between `edges`: quantiles of any number of values in constant memory."""

    def __init__(self, edges: np.ndarray):
        self.edges, self.counts = edges, np.zeros(len(edges) + 1)

    def count(self, value: float) -> None:
        self.counts[np.searchsorted(self.edges, value)] += 1

    def quantile(self, q: float) -> float:
        """The upper edge of the bin that the share `q` of all values lies in or below."""
        sums = np.cumsum(self.counts)
        return float(self.edges[min(np.searchsorted(sums, q * sums[-1]), len(self.edges) - 1)])


class Distribution:
    """Percentiles, to 1 %, mean and sd of times in seconds; NaN is left out."""

    def __init__(self):
        self.histogram, self.count, self.most = Histogram(SECONDS), 0, 0.0
        self._mean, self._square = 0.0, 0.0

    def add(self, seconds: float) -> None:
        if not np.isfinite(seconds):
            return
        self.histogram.count(seconds)
        self.count += 1
        apart = seconds - self._mean
        self._mean += apart / self.count
        self._square += apart * (seconds - self._mean)  # sum of squares about the mean (Welford, 1962)
        self.most = max(self.most, seconds)

    @property
    def sd(self) -> float:
        return float(np.sqrt(self._square / self.count)) if self.count else float("nan")

    def percentile(self, q: float) -> float:
        """The smallest time, to 1 %, that q % of all times do not exceed; NaN if there are none."""
        return min(self.most, self.histogram.quantile(q / 100)) if self.count else float("nan")

    def summary(self) -> dict:
        """p50, p95, p99 and most in ms; None if there are no times."""
        found = {f"p{q}_ms": 1e3 * self.percentile(q) for q in (50, 95, 99)} | {"most_ms": 1e3 * self.most}
        return found if self.count else dict.fromkeys(found)


class Timing:
    """The times of a session: each part's distribution, jitter, and how many decisions were late.

    Args:
        stride_s: seconds from decision to decision, the deadline of each; 0: there is no deadline.
    """

    def __init__(self, stride_s: float):
        self.stride_s, self.parts = stride_s, {part.name: Distribution() for part in fields(Times)}
        self.intervals, self._sent, self.missed, self.dropped, self.decided = Distribution(), None, 0, 0, 0

    def add(self, times: Times, sent: float) -> None:
        """A decision that was sent at the time `sent` of `time.perf_counter`."""
        for name, seconds in vars(times).items():
            self.parts[name].add(seconds)
        self.decided += 1
        self.missed += bool(self.stride_s) and times.total > self.stride_s
        if self._sent is not None:
            self.intervals.add(sent - self._sent)
        self._sent = sent

    def cost_s(self, q: float) -> float:
        """The computing time of one decision: percentile q of preparation and of inference, added."""
        return self.parts["preparation"].percentile(q) + self.parts["inference"].percentile(q)

    def sustained_ms(self, period_ms: float) -> float:
        """The smallest stride that 99 of 100 decisions keep, in whole samples of `period_ms`.

        It is the 99th percentile of a decision's cost and a tenth of that for sending and for the rest of the machine.
        """
        return float(np.ceil(1e3 * self.cost_s(99) * 1.1 / period_ms) * period_ms) if self.decided else float("nan")

    def summary(self) -> dict:
        """Percentiles of all parts in ms, `jitter_ms` (sd of the time between decisions), counts."""
        return {**{name: part.summary() for name, part in self.parts.items()},
                "jitter_ms": 1e3 * self.intervals.sd if self.intervals.count else None, "decisions": self.decided,
                "missed": self.missed, "dropped": self.dropped}


class Proportional:
    """Features of one decision after another -> speeds from 0 to 1.

    The range follows from all levels so far; older ones count less.

    Args:
        names: of the features.
        stride_s: seconds from decision to decision.
        smooth_s: time constant of the speed, seconds.
        range_s: time constant of the range, seconds.
    """

    def __init__(self, names: Sequence[str], stride_s: float, smooth_s: float = 0.15, range_s: float = 300.0):
        self._feature = next((names.index(name) for name in AMPLITUDES if name in names), None)
        self._gain, self._keep = 1 - np.exp(-stride_s / smooth_s), np.exp(-stride_s / range_s)
        self._level, self._levels = None, Histogram(LEVELS)

    def __call__(self, features: np.ndarray) -> float:
        """The speed for features (C, F), whatever movement was decided; 1 where no feature grows with force."""
        if self._feature is None:
            return 1.0
        level = float(np.log(np.maximum(np.mean(features[:, self._feature]), 1e-10)))
        self._level = level if self._level is None else self._level + self._gain * (level - self._level)
        self._levels.counts *= self._keep
        self._levels.count(self._level)
        low, high = self._levels.quantile(LOW), self._levels.quantile(HIGH)
        return float(np.clip((self._level - low) / (high - low), 0, 1)) if high > low else 0.0


class Recent:
    """Values of the newest samples, at least of the last `reach`."""

    def __init__(self, reach: int):
        self._values, self._first, self._reach = None, 0, reach

    def add(self, values: np.ndarray) -> None:
        """Values (n, ...) of the next samples."""
        self._values = values if self._values is None else np.concatenate([self._values, values])
        if (excess := len(self._values) - 2 * self._reach - len(values)) > 2 * self._reach:
            self._values, self._first = self._values[excess:], self._first + excess

    def skip(self, count: int) -> None:
        """`count` samples have no values; those before them are forgotten."""
        self._first += count + (0 if self._values is None else len(self._values))
        self._values = None

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
            at, label = self._changes.popleft()
            self._end_execution()
            transition = self._label is not None and label in self.known
            self.transitions += transition
            self._label, self._pending = label, at if transition else None
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


class FaultNotes:
    """Notes of faults of electrodes: one when a fault has lasted, one when it has passed.

    Args:
        stride_s: seconds between decisions.
    """

    def __init__(self, stride_s: float):
        self._needed = max(1, round(LASTS_S / stride_s))
        self._noted: np.ndarray | None = None  # (C,) of each electrode; `_now` for `_count` decisions

    def __call__(self, fault: np.ndarray) -> str:
        """The faults (C,) of the next decision, indices of `tfkfin.signal.condition.FAULTS` -> a note, or ""."""
        if self._noted is None:
            self._noted, self._now, self._count = (np.zeros(len(fault), int) for _ in range(3))
        self._count = np.where(fault == self._now, self._count + 1, 1)
        self._now = np.asarray(fault, int)
        needed = np.where(self._now > 0, self._needed, PASSED * self._needed)
        new = (self._count >= needed) & (self._now != self._noted)
        self._noted = np.where(new, self._now, self._noted)
        return "; ".join(f"electrode {c + 1}: {FAULTS[self._noted[c]] if self._noted[c] else 'as in training again'}"
                         for c in np.flatnonzero(new))
