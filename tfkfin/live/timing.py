"""Where the time of a decision goes: distributions in constant memory, however long a session lasts."""

from dataclasses import dataclass

import numpy as np

PARTS = ("acquisition", "wait", "preparation", "inference", "total")
_LEAST, _MOST, _STEP = 1e-6, 1e3, 1.01  # s; neighbouring bins are 1 % apart
_EDGES = np.geomspace(_LEAST, _MOST, int(np.log(_MOST / _LEAST) / np.log(_STEP)) + 1)


@dataclass(frozen=True)
class Times:
    """Seconds of one decision.

    Attributes:
        acquisition: from the instant of its last sample until that was received; NaN where no clock tells.
        wait: from then until it was its turn.
        preparation: repairing, resampling, filtering.
        inference: network, vote.
        total: from its last sample received to the decision sent; all but the acquisition.
    """

    acquisition: float
    wait: float
    preparation: float
    inference: float
    total: float


class Distribution:
    """Seconds that are counted, to 1 %; NaN is left out."""

    def __init__(self):
        self.counts, self.count = np.zeros(len(_EDGES) + 1, np.int64), 0
        self._mean, self._square, self.most = 0.0, 0.0, 0.0

    def add(self, seconds: float) -> None:
        if not np.isfinite(seconds):
            return
        self.counts[np.searchsorted(_EDGES, seconds)] += 1
        self.count += 1
        apart = seconds - self._mean
        self._mean += apart / self.count
        self._square += apart * (seconds - self._mean)  # Welford 1962
        self.most = max(self.most, seconds)

    @property
    def sd(self) -> float:
        return float(np.sqrt(self._square / self.count)) if self.count else float("nan")

    def percentile(self, q: float) -> float:
        """The least time, to 1 %, that q % of all are within; NaN of none."""
        if not self.count:
            return float("nan")
        place = int(np.searchsorted(np.cumsum(self.counts), np.ceil(q / 100 * self.count)))
        return float(min(self.most, _EDGES[min(place, len(_EDGES) - 1)]))

    def summary(self) -> dict:
        """p50, p95, p99, most in ms; None of none."""
        if not self.count:
            return dict.fromkeys(("p50_ms", "p95_ms", "p99_ms", "most_ms"))
        return {f"p{q}_ms": 1e3 * self.percentile(q) for q in (50, 95, 99)} | {"most_ms": 1e3 * self.most}


class Timing:
    """Of a session: every part's distribution, jitter, and what was late.

    Args:
        stride_s: seconds from decision to decision, which each has to be made within; 0: nobody waits for them.
    """

    def __init__(self, stride_s: float):
        self.stride_s, self.parts = stride_s, {name: Distribution() for name in PARTS}
        self.intervals, self._sent, self.missed, self.dropped, self.decided = Distribution(), None, 0, 0, 0

    def add(self, times: Times, sent: float) -> None:
        """A decision `sent` at a time of `time.perf_counter`."""
        for name in PARTS:
            self.parts[name].add(getattr(times, name))
        self.decided += 1
        self.missed += bool(self.stride_s) and times.total > self.stride_s
        if self._sent is not None:
            self.intervals.add(sent - self._sent)
        self._sent = sent

    @property
    def cost_s(self) -> float:
        """What one decision costs here, p99: a stride shorter than this cannot be kept."""
        return self.parts["preparation"].percentile(99) + self.parts["inference"].percentile(99)

    def sustained_ms(self, period_ms: float) -> float:
        """The smallest stride that is kept in 99 of 100 decisions: p99 of a decision, in whole samples of `period_ms`.

        The tenth beyond it is for sending, and for whatever else the machine does.
        """
        return float(np.ceil(1e3 * self.cost_s * 1.1 / period_ms) * period_ms) if self.decided else float("nan")

    def summary(self) -> dict:
        """Of all parts percentiles in ms, `jitter_ms` (sd of the time between decisions), counts."""
        return {**{name: part.summary() for name, part in self.parts.items()},
                "jitter_ms": 1e3 * self.intervals.sd if self.intervals.count else None, "decisions": self.decided,
                "missed": self.missed, "dropped": self.dropped}
