"""Virtual forces: a subject's windows as if their movements had been done with other forces."""

from collections.abc import Callable

import numpy as np

from tfkfin.pipeline.subject import Subject
from tfkfin.pipeline.windows import evenly
from tfkfin.sessions.prior import VIRTUAL_GAINS

CHUNK = 2048  # windows that are in memory at other forces at a time
MAX_RESTS = 256  # windows of rest to draw from, where rest is a movement

Inputs = Callable[[Subject], np.ndarray]  # a subject's windows -> head inputs (N, D)


def virtual_inputs(part: Subject, length: int, inputs: Inputs) -> list[np.ndarray]:
    """Head inputs (N, D) of a subject's windows of `length` samples, for each of `VIRTUAL_GAINS`.

    A window w becomes mean + gain (w - mean) + (rest - mean), where rest is a window of rest, drawn at random: what the
    electrodes record at rest does not shrink with the force. Where no rest is recorded, nothing is added.
    """
    rng, rest, found = np.random.default_rng(0), part.rest, []
    if rest is None:
        rows = np.flatnonzero(part.windows.movements == 0)
        rest = part.volts(length, rows[evenly(len(rows), MAX_RESTS)])
    for gain in VIRTUAL_GAINS:
        chunks = []
        for first in range(0, len(part.windows), CHUNK):
            volts = part.mean + gain * (part.volts(length, slice(first, first + CHUNK)) - part.mean)
            if len(rest):
                volts += rest[rng.integers(len(rest), size=len(volts))] - part.mean
            chunks.append(inputs(part.of_windows(volts)))
        found.append(np.concatenate(chunks))
    return found
