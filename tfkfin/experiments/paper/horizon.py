"""Labels ahead of time: the movement `horizon` after a window's last sample, inside its own recording.

The target of a window is the label of the sample at its last sample + horizon, in the same recording. Rest is a class:
rest separates movements, so without it no label would ever change. Rest belongs to the repetition before it. A window
is left out where that sample lies beyond the recording, before the first movement, or in a repetition of the other side
of the split, so that training and test share neither windows nor the samples that they are scored by.
"""

from collections.abc import Sequence

import numpy as np

from tfkfin.pipeline.dataset import Dataset
from tfkfin.pipeline.subject import Subject, labels_at_rate
from tfkfin.recordings import readers


def owners(labels: np.ndarray, repetitions: np.ndarray) -> np.ndarray:
    """The repetition each sample (T,) belongs to, rest to the one before; 0: to none."""
    known = (labels > 0) & (repetitions > 0)
    last = np.maximum.accumulate(np.where(known, np.arange(len(labels)), -1))
    owner = np.where(last >= 0, repetitions[last], 0)
    return np.where((labels > 0) & (repetitions == 0), 0, owner)


def ahead(labels: np.ndarray, owner: np.ndarray, last: np.ndarray, horizon: int,
          seams: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Label and repetition (0: none, or beyond a seam, in another file) of the samples `last` (N,) + horizon."""
    at = last + horizon
    inside = (at < len(labels)) & (np.searchsorted(seams, last, "right") == np.searchsorted(seams, at, "right"))
    at = np.minimum(at, len(labels) - 1)
    return labels[at], np.where(inside, owner[at], 0)


def targets(dataset: Dataset, subject: Subject, horizon_ms: float) -> tuple[np.ndarray, np.ndarray]:
    """For every window of `dataset.load(subject.number)`: the movement ahead (N,) and the repetition it lies in."""
    last, files = subject.places + dataset.length - 1, subject.files
    found = np.zeros((2, len(last)), np.int64)
    for number, file in enumerate(dataset.files[subject.number]):
        header, here = readers.header(file), files == number
        header = labels_at_rate(header, dataset.rate_hz)
        found[:, here] = ahead(header.labels, owners(header.labels, header.repetitions), last[here],
                               round(horizon_ms * dataset.rate_hz / 1000), header.seams)
    return found[0], found[1]


def usable(split, own: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Whether the target's repetition (N,) is on the same side of the split as the window's own (N,)."""
    test = np.asarray(split.test_repetitions)
    train = np.unique([*split.train_repetitions, *split.pretrain_repetitions, *split.finetune_repetitions])
    return np.where(np.isin(own, test), np.isin(there, test), np.isin(there, train))
