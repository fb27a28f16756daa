"""Batches of the stage `imitate` by their number: the same that `batches` makes in one go, each to be had alone.

So whoever sees the recordings can make any of them: see `tfkfin.pipeline.service`.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from tfkfin.base.console import InputError
from tfkfin.pipeline import batches
from tfkfin.pipeline.dataset import Dataset, open_dataset
from tfkfin.pipeline.memory import Spool
from tfkfin.recipe import Recipe, Split


class Numbered:
    """What the batches of every epoch are made from.

    Attributes:
        steps: batches an epoch.
        channels: of the windows.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset | None, length: int, spool: Spool | None = None):
        """`dataset`: None: synthetic signals, windows of `length` samples. `spool`: as of `batches.pooled`."""
        self.recipe, self.dataset, self.length, self._spool = recipe, dataset, length, spool or Spool()
        options = recipe.imitate
        if dataset is None:
            self.steps, self.channels = max(1, options.windows_per_epoch // options.batch_size), \
                batches.channels_of(recipe.features.names)
        else:
            self._share = batches.shares(dataset, options.windows_per_epoch)
            self.steps, self.channels = -(-sum(self._share.values()) // options.batch_size), dataset.channels
        self._plan = lru_cache(2)(self._planned)

    def batch(self, epoch: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """emg (B, L, C) float32 standardised, targets (B, C, F) float32 in own units.

        Raises:
            InputError: what `readers.read` raises.
        """
        names, size = self.recipe.features.names, self.recipe.imitate.batch_size
        if self.dataset is None:
            return batches.signal_batch(names, self.length, self.recipe.window.rate_hz, size, self.recipe.seed, epoch,
                                        number)
        subjects, keys, which, nth = self._plan(epoch)
        here, there = which[number * size :][:size], nth[number * size :][:size]
        emg = np.empty((len(here), self.length, self.channels), np.float32)
        targets = np.empty((len(here), self.channels, len(names)), np.float32)
        for k in np.unique(here):
            subject, rows = int(subjects[k]), here == k
            samples, starts, every = self._spool(subject, lambda s=subject: batches.decoded(self.dataset, names, s))
            index = batches.chosen(keys[k], len(starts), self._share[subject])[there[rows]]
            emg[rows] = samples[starts[index][:, None] + np.arange(self.length)]
            targets[rows] = every[index]
        return emg, targets

    def _planned(self, epoch: int) -> tuple[np.ndarray, ...]:
        subjects, keys = batches.dealt(self.dataset, self.recipe.seed, epoch)
        in_flight = min(self.recipe.batches.recordings_in_flight, len(subjects))
        return subjects, keys, *mixed([self._share[s] for s in subjects.tolist()], in_flight)

    def request(self, data: str) -> str:
        """What `opened` needs to know; `data`: the folder of the recordings, as who makes the batches sees it."""
        split = self.dataset and self.dataset.split.model_dump(mode="json")
        return json.dumps({"recipe": self.recipe.model_dump(mode="json", exclude={"launch", "tune"}), "data": data,
                           "split": split, "length": self.length, "files": self._files()}, sort_keys=True)

    def _files(self) -> dict | None:
        """Names and sizes, by subject."""
        return self.dataset and self.dataset.describe()["files"]


@lru_cache(4)  # a service lives longer than trainings
def opened(request: str) -> Numbered:
    """The same batches in another process.

    Raises:
        InputError: other recordings are there, or none.
    """
    asked = json.loads(request)
    recipe = Recipe(**asked["recipe"])
    if asked["split"] is None:
        return Numbered(recipe, None, asked["length"])
    found = Numbered(recipe, replace(open_dataset(recipe, asked["data"]), split=Split(**asked["split"])),
                     asked["length"])
    if found._files() != asked["files"]:
        raise InputError(f"{asked['data']} holds other recordings here than where the training runs")
    return found


def mixed(counts: Sequence[int], in_flight: int) -> tuple[np.ndarray, np.ndarray]:
    """The order of `Dataset.interleave(cycle_length=in_flight, block_length=1)` over datasets of `counts` elements.

    Returns:
        For each element in turn the index of its dataset and its number there, (N,) each.
    """
    left, waiting = list(counts), list(range(len(counts)))[::-1]
    slots: list[int | None] = [None] * in_flight
    order: list[np.ndarray] = []
    while waiting or any(slot is not None for slot in slots):
        turn = []
        for i, slot in enumerate(slots):
            if slot is not None and not left[slot]:  # that it has ended is found out in a turn without an element
                slots[i] = None
            else:
                if slot is None:
                    slots[i] = waiting.pop() if waiting else None
                if slots[i] is not None and left[slots[i]]:
                    turn.append(slots[i])
                    left[slots[i]] -= 1
        order.append(np.array(turn, np.int32))
        there = [slot for slot in slots if slot is not None]
        if there and (len(there) == in_flight or not waiting):
            rounds = min(left[slot] for slot in there)  # as many whole ones as are alike
            order.append(np.tile(np.array(there, np.int32), rounds))
            for slot in there:
                left[slot] -= rounds
    which = np.concatenate(order)
    nth = np.empty(len(which), np.int64)
    nth[np.argsort(which, kind="stable")] = np.concatenate([np.arange(count) for count in counts])
    return which, nth
