"""Where live signals come from: one module a kind, which registers itself as `SOURCE` by being here."""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from tfkfin.base import registry
from tfkfin.base.console import InputError


@dataclass(frozen=True)
class Chunk:
    """Samples that were received together.

    Attributes:
        samples: (n, C) volts; NaN where a device says that a value is missing.
        received: `time.perf_counter()` when they were here.
        late_s: how long after its own instant the last of them was received; NaN where no clock tells.
        lost: samples that are missing before them.
        labels: (n,) what was truly done, -1 where that is not known; None: nothing is known.
        begins: another recording begins here, which has nothing to do with the samples before.
        note: what happened to the source, for people.
    """

    samples: np.ndarray
    received: float
    late_s: float = float("nan")
    lost: int = 0
    labels: np.ndarray | None = None
    begins: bool = False
    note: str = ""


class Source:
    """A signal that goes on; iterating gives chunks as they come, None whenever nothing came for a while.

    Attributes:
        rate_hz: samples a second, as the source says.
        channels: how many.
        speed: seconds of signal in a second; 0: it waits until its samples are taken.
        drifts: a clock of its own samples it, which may differ from this machine's.
        described: for people.
    """

    rate_hz: float
    channels: int
    speed: float = 1.0
    drifts: bool = False
    described: str = ""

    def __iter__(self) -> Iterator[Chunk | None]:
        raise NotImplementedError

    def close(self) -> None:
        """Lets go of the device."""


@dataclass(frozen=True)
class Kind:
    """A kind of source: `open` takes the command line and the decoder's card; `options` adds what it needs to know."""

    open: Callable[[argparse.Namespace, dict], Source]
    options: Callable[[argparse._ArgumentGroup], None] = lambda group: None


def chosen(channels: tuple[int, ...], count: int, where: str) -> list[int]:
    """Channels from 0 of those from 1 that are wanted; () wants all.

    Raises:
        InputError: there are not so many.
    """
    if beyond := [c for c in channels if c > count]:
        raise InputError(f"{where} has {count} channels, no channel {beyond[0]}")
    return [c - 1 for c in channels] or list(range(count))


def scale(unit: str, where: str) -> float:
    """Volts of a unit as devices write it.

    Raises:
        InputError: it names no volts.
    """
    units = {"v": 1.0, "volt": 1.0, "volts": 1.0, "mv": 1e-3, "millivolts": 1e-3, "uv": 1e-6, "\u00b5v": 1e-6,
             "\u03bcv": 1e-6, "microvolt": 1e-6, "microvolts": 1e-6}
    if unit.strip().lower() not in units:
        raise InputError(f"{where} says nothing of its unit that is known (it says {unit!r}): give --unit")
    return units[unit.strip().lower()]


def kind(name: str) -> Kind:
    return registry.load("live/sources", name, "SOURCE")
