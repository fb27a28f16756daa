"""What the live page knows of its session: signals, decisions, times, from the datagrams of `tfkfin.live.outputs`."""

import hmac
import json
import time
from collections import deque

import numpy as np

from tfkfin.base.samples import fit
from tfkfin.features import catalogue
from tfkfin.recordings.health import MAINS_HZ, is_clipped, mains_share
from tfkfin.signal.condition import FAULTS
from tfkfin.signal.filtering import Causal, sections
from tfkfin.signal.resampling import Resampler

SECONDS = 3.0  # of signal that is shown
COLUMNS = 100  # pairs of minimum and maximum a second
HUM = 0.2  # share of an electrode's power within 1 Hz of the mains frequency, above which it has hum
BINS = np.arange(0, 20.5, 0.5)  # ms
PACE_S = 2.0  # that the rate of decisions is counted in


class State:
    """The state of a session, from the datagrams of `tfkfin.live.outputs`; every browser's view reads it.

    Args:
        about: `rate_hz` of the decoder and `source_hz` of the signal, `length`, `channels`, `features`, `movements`,
            `names`, `mean_v`, `sd_v`, and optionally `filter`.
    """

    def __init__(self, about: dict):
        self.about = about
        self._block = max(1, round(about["source_hz"] / COLUMNS))
        channels = about["channels"]
        self.raw = np.zeros((round(SECONDS * about["source_hz"]), channels), np.float32)
        self.extremes: deque = deque(maxlen=int(2 * SECONDS * COLUMNS))  # (seconds, (C,) volts)
        self._waiting, self._count = np.empty((0, channels), np.float32), 0
        same = about["source_hz"] == about["rate_hz"]
        self._resample = None if same else Resampler(about["source_hz"], about["rate_hz"])
        self._filter = Causal(sections(about.get("filter"), about["rate_hz"]))
        self._window = np.zeros((about["length"], channels), np.float32)
        self.last: dict | None = None
        self.passed_over = 0  # datagrams that were not the session's
        self.decisions: deque = deque(maxlen=1000)  # (seconds, decided, true or asked-for label, force)
        self.counts, self.notes = np.zeros(len(BINS), np.int64), deque(maxlen=5)
        self._sent: deque = deque()  # (when, how many decisions) of each datagram

    def take_from(self, datagram: bytes, key: bytes) -> None:
        """Takes a datagram of the session, which begins with the key; all others are counted and passed over."""
        given, _, own = datagram.partition(b" ")
        try:
            if not hmac.compare_digest(given, key):
                raise ValueError
            self.take(own)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            self.passed_over += 1

    def take(self, datagram: bytes) -> None:
        """Takes one datagram."""
        head, _, rest = datagram.partition(b"\n")
        decision = json.loads(head)
        volts = np.frombuffer(rest, np.float32).reshape(decision["shape"])
        if len(volts):
            self._add(volts)
        cued = decision["cue"]["movement"] if decision["cue"] else None
        if self.last is None or decision["window"] != self.last["window"]:
            self.decisions.append((decision["time_s"], decision["label"], decision["true"] if cued is None else cued,
                                   decision["force"]))
        self.last = decision
        np.add.at(self.counts, np.clip(np.searchsorted(BINS, decision["ms"]) - 1, 0, len(BINS) - 1), 1)
        self.notes.extend(decision["notes"])
        self._sent.append((time.monotonic(), len(decision["ms"])))

    @property
    def rate_hz(self) -> float:
        """Decisions a second, of late."""
        now = time.monotonic()
        while self._sent and self._sent[0][0] < now - PACE_S:
            self._sent.popleft()
        return sum(made for _, made in self._sent) / PACE_S

    def _add(self, volts: np.ndarray) -> None:
        volts = np.where(fit(volts), volts, 0).astype(np.float32)
        self.raw = np.concatenate([self.raw, volts])[-len(self.raw) :]
        known, size = np.concatenate([self._waiting, volts]), self._block
        for start in range(0, len(known) - size + 1, size):
            block, now = known[start : start + size], (self._count + start) / self.about["source_hz"]
            self.extremes += [(now, block.min(axis=0)), (now + 0.5 * size / self.about["source_hz"], block.max(axis=0))]
        self._count += len(known) // size * size
        self._waiting = known[len(known) // size * size :]
        volts = self._filter(self._resample(volts) if self._resample else volts)
        self._window = np.concatenate([self._window, volts])[-len(self._window) :]

    def true_features(self) -> np.ndarray:
        """Features (C, F) of the newest window in closed form, which the FINs imitate."""
        x = (self._window - self.about["mean_v"]) / self.about["sd_v"]
        return catalogue.direct(x[None].astype(np.float32), tuple(self.about["features"]), self.about["rate_hz"])[0]

    def quality(self) -> list[str]:
        """The quality of each electrode: "flat", "clipped", "hum 50 Hz", the fault in the last decision, or "good"."""
        rate, found, faults = self.about["source_hz"], [], (self.last or {}).get("fault", [0] * self.about["channels"])
        span = int(2 * rate)  # samples that hum is measured in
        for one in self.raw[-min(self._count or 1, len(self.raw)) :].T:
            shares = mains_share(one[-span:, None], rate) if len(one) >= span else (0.0, 0.0)
            hum = [f"hum {hertz:g} Hz" for hertz, share in zip(MAINS_HZ, shares, strict=True) if share > HUM]
            found.append("flat" if (one == one[0]).all() else "clipped" if is_clipped(one) else (hum or ["good"])[0])
        return [FAULTS[fault] if one == "good" and fault else one for one, fault in zip(found, faults, strict=True)]
