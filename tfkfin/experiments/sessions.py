"""One person's session as a stream: every window in order of time, rest too, with what each is and belongs to."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from tfkfin.pipeline.dataset import Dataset
from tfkfin.pipeline.splits import Part
from tfkfin.pipeline.subject import Subject


@dataclass(frozen=True)
class Session:
    """Windows of one person and session in order of time.

    Attributes:
        person, number: whose, and which of that person's sessions.
        subject: the windows and the volts that they are cut from.
        length: samples a window.
        rate_hz: of these samples.
    """

    person: int
    number: int
    subject: Subject
    length: int
    rate_hz: float
    _kept: dict = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.subject.windows)

    @property
    def labels(self) -> np.ndarray:
        """(N,) int16 movements as in the file, 0 rest."""
        return self.subject.windows.movements

    @property
    def repetitions(self) -> np.ndarray:
        """(N,) int16; rest belongs to one too."""
        return self.subject.windows.repetitions

    @property
    def segments(self) -> np.ndarray:
        """(N,) which held movement, or rest, each window lies in."""
        return self.subject.windows.segments

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Repetitions of movements as they come in time."""
        there = self.repetitions[self.labels > 0]
        return tuple(there[np.sort(np.unique(there, return_index=True)[1])].tolist())

    def kept(self, key: object, make: Callable[[], np.ndarray]) -> np.ndarray:
        """What `make()` gives, made once for a `key`, such as features of every window."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


def sessions(dataset: Dataset, person: int) -> Iterator[Session]:
    """All of a person's sessions, those that train and those that test, in order of their numbers.

    The dataset's recipe has `window.rest` on, so that no window of the stream is missing.
    """
    subject = dataset.load(person, Part())
    order = np.lexsort((subject.places, subject.files))
    subject = replace(subject, windows=subject.windows[order])
    for number in np.unique(subject.windows.sessions).tolist():
        chosen = subject.windows.sessions == number
        yield Session(person, number, replace(subject, windows=subject.windows[chosen]), dataset.length,
                      dataset.rate_hz)
