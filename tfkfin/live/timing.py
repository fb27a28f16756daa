"""Where the time of a decision goes: distributions in constant memory, however long a session lasts."""

from dataclasses import dataclass

import numpy as np

PARTS = ("acquisition", "wait", "preparation", "inference", "total")
EDGES = np.geomspace(1e-6, 1e3, int(np.log(1e9) / np.log(1.01)) + 1)  # seconds; neighbouring bins are 1 % apart


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
        self.histogram, self.count, self.most = Histogram(EDGES), 0, 0.0
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
        self.stride_s, self.parts = stride_s, {name: Distribution() for name in PARTS}
        self.intervals, self._sent, self.missed, self.dropped, self.decided = Distribution(), None, 0, 0, 0

    def add(self, times: Times, sent: float) -> None:
        """A decision that was sent at the time `sent` of `time.perf_counter`."""
        for name in PARTS:
            self.parts[name].add(getattr(times, name))
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
