"""One subject's wanted repetitions as one array of volts, with the windows cut from it and their places in the file."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from tfkfin.features import catalogue as features
from tfkfin.pipeline import splits, windows
from tfkfin.pipeline.memory import aligned

_ROWS = 1 << 16  # samples standardised at a time: the float64 in between stays small


@dataclass(frozen=True)
class Subject:
    """One subject's wanted repetitions, ready for windows.

    Attributes:
        number: as in the file's name.
        emg: (T, C) float32 volts; the wanted segments, joined. No window straddles a join.
        windows: starts into `emg`, with movement and repetition of each.
        mean, sd: (C,) float64 volts, of the training repetitions' movements.
        stretches: (S, 3) where each joined stretch begins: in `emg`, in its file (at the windows' rate), and the number
            of that file among the subject's.
        rest: (R, length, C) float32 volts, some windows of rest where it is none of the movements; or None.
        recorded_hz: rates of the recordings before they were resampled; () where nobody needs to know.
    """

    number: int
    emg: np.ndarray
    windows: windows.Windows
    mean: np.ndarray
    sd: np.ndarray
    stretches: np.ndarray
    rest: np.ndarray | None = None
    recorded_hz: tuple[float, ...] = ()

    @property
    def places(self) -> np.ndarray:
        """Where each window begins in its file (N,), samples at the windows' rate."""
        own = self._own_stretches()
        return self.windows.starts + self.stretches[own, 1] - self.stretches[own, 0]

    @property
    def files(self) -> np.ndarray:
        """Which of the subject's files each window lies in (N,), from 0."""
        return self.stretches[self._own_stretches(), 2]

    @property
    def groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Session and repetition of each window, (N,) each."""
        return self.windows.sessions, self.windows.repetitions

    def _own_stretches(self) -> np.ndarray:
        return np.searchsorted(self.stretches[:, 0], self.windows.starts, "right") - 1

    def standardised(self) -> np.ndarray:
        """`emg` less `mean` over `sd` (T, C) float32: what features are of."""
        out = aligned(*self.emg.shape)
        for i in range(0, len(out), _ROWS):
            out[i : i + _ROWS] = (self.emg[i : i + _ROWS] - self.mean) / self.sd
        return out

    def led(self, memory: int, stride: int) -> tuple["Subject", list[np.ndarray], np.ndarray]:
        """With up to `memory` windows before the first of each stretch, which a causal decision has seen by then.

        Returns:
            The subject with these windows too; for each stretch the indices (M,) of its windows in order of time; and
            which windows (N,) are this subject's own.
        """
        own = self._own_stretches()
        edges = np.flatnonzero(np.diff(own, prepend=-1))
        lead = [min(memory, int(self.windows.starts[i] - self.stretches[own[i], 0]) // stride) for i in edges]
        rows = np.repeat(np.arange(len(own)), 1 + np.bincount(edges, lead, len(own)).astype(int))
        back = np.zeros(len(rows), np.int64)  # windows that each is before its stretch's first
        begins = np.searchsorted(rows, edges)
        for begin, count in zip(begins, lead, strict=True):
            back[begin : begin + count] = np.arange(count, 0, -1)
        every = self.windows[rows]
        every = replace(every, starts=every.starts - back * stride)
        return replace(self, windows=every), np.split(np.arange(len(rows)), begins[1:]), back == 0

    def resting(self) -> "Subject | None":
        """The same with its windows of rest for all windows, laid end to end; None without any."""
        if self.rest is None or not len(self.rest):
            return None
        count, length, channels = self.rest.shape
        none = np.zeros(count, np.int16)
        return replace(self, emg=self.rest.reshape(-1, channels), rest=None, stretches=np.zeros((1, 3), np.int64),
                       windows=windows.Windows(np.arange(count) * length, none, none))

    def select(self, wanted: splits.Part | Iterable[int]) -> "Subject":
        """The same with the windows of a part of the split, or of the given repetitions."""
        return replace(self, windows=splits.select(self.windows, wanted))

    def cut(self, length: int, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Windows (N, length, C) of the chosen ones, standardised: what FINs take."""
        return ((self.volts(length, chosen) - self.mean) / self.sd).astype(np.float32)

    def volts(self, length: int, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Windows (N, length, C) of the chosen ones as recorded: what decoders take."""
        return self.emg[self.windows.starts[chosen][:, None] + np.arange(length)]

    def features(self, names: tuple[str, ...], length: int, rate_hz: float) -> np.ndarray:
        """Closed-form features of every window (N, C, F), streamed."""
        return features.extract(self.standardised(), self.windows.starts, length, names, rate_hz)
