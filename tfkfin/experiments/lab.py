"""What the experiments share: who learns from which windows, true features, seeds, and how the data are called."""

import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tfkfin.experiments import horizon, paper
from tfkfin.experiments.cells import Book, Cell, Setting
from tfkfin.experiments.optimistic import standardised_by_itself
from tfkfin.fit.run import Run
from tfkfin.pipeline.subject import Subject
from tfkfin.pipeline.windows import Windows

FULL = Setting()


@dataclass(frozen=True)
class Examples:
    """Windows of one subject to learn from or to be tested on.

    Attributes:
        part: the subject with these windows only.
        features: (N, C, F) closed-form features, own units.
        labels: (N,) class indices.
    """

    part: Subject
    features: np.ndarray
    labels: np.ndarray


class Lab:
    """A run folder with its recipe, recordings and cells.

    Attributes:
        seeds: of initial weights, order and noise; the recipe's own is the first.
        max_test_windows: on so many windows a subject, evenly spread, models of raw signals are tested; 0: on all.
        optimistic: whether the authors' evaluation is used.
    """

    def __init__(self, run: Run, seeds: int = 1, max_test_windows: int = 0):
        self.run, self.dataset, self.recipe = run, run.dataset, run.recipe
        self.seeds = tuple(run.recipe.seed + i for i in range(seeds))
        self.max_test_windows, self.optimistic = max_test_windows, run.recipe.protocol == "paper"
        self.book = Book(run.folder, {"max_test_windows": max_test_windows})
        self.names, self.subjects = run.recipe.features.names, self.dataset.split.subjects
        self._loaded = functools.lru_cache(2)(self.dataset.load)
        self._itself = functools.lru_cache(2)(self._standardised_by_itself)
        self._ahead = functools.lru_cache(16)(self._targets)

    def classes(self, setting: Setting = FULL) -> tuple[int, ...]:
        """Labels as in the files, by class index. Looking ahead makes rest (0) a class."""
        movements = self.dataset.movements
        return tuple(sorted({0, *movements})) if setting.horizon_ms else movements

    def examples(self, cell: Cell, side: str, names: tuple[str, ...] = (), most: int = 0) -> Examples:
        """What a cell learns from ("train", "finetune") or is judged on ("test"), with the named features.

        `most` caps the windows, evenly spread; 0: all. At a horizon some more are left out (see `horizon`).
        """
        subject = self.subject(cell.subject, side)
        chosen = self._chosen(subject.windows, cell, side)
        if most and len(chosen) > most:
            chosen = chosen[np.linspace(0, len(chosen) - 1, most).astype(int)]
        ahead, owner = self._ahead(cell.subject, cell.setting.horizon_ms)
        if cell.setting.horizon_ms:
            own = subject.windows.repetitions
            chosen = chosen[horizon.usable(self.dataset.split, own[chosen], owner[chosen])]
        labels = np.searchsorted(self.classes(cell.setting), ahead[chosen]).astype(np.int64)
        return Examples(_only(subject, chosen), self.features(subject, names or self.names, side)[chosen], labels)

    def subject(self, number: int, side: str = "train") -> Subject:
        """A subject with all windows. The paper's protocol standardises the test side by its own statistics."""
        return self._itself(number) if side == "test" and self.optimistic else self._loaded(number)

    def features(self, subject: Subject, names: tuple[str, ...], side: str = "train") -> np.ndarray:
        """Features (N, C, F) of all of a subject's windows, computed once and kept in the run folder."""
        own = "-itself" if side == "test" and self.optimistic else ""
        path = self.run.stage_folder("features") / f"S{subject.number}-{'-'.join(names)}{own}.npy"
        if not path.is_file():
            partial = path.with_suffix(".partial.npy")
            np.save(partial, subject.features(names, self.dataset.length, self.dataset.rate_hz))
            os.replace(partial, path)
        return np.load(path)

    def _standardised_by_itself(self, number: int) -> Subject:
        return standardised_by_itself(self._loaded(number), self.dataset.part("test"), self.dataset.length)

    def _targets(self, number: int, horizon_ms: int) -> tuple[np.ndarray, np.ndarray]:
        windows = self._loaded(number).windows
        if not horizon_ms:
            return windows.movements, windows.repetitions
        return horizon.targets(self.dataset, self._loaded(number), horizon_ms)

    def _chosen(self, windows: Windows, cell: Cell, side: str) -> np.ndarray:
        split, setting = self.dataset.split, cell.setting
        part = self.dataset.part(side)
        share = setting.fraction / 100
        if setting.repetitions and side != "test":
            train = np.roll(split.train_repetitions, -((cell.seed or 0) - self.recipe.seed))
            part, share = replace(part, repetitions=tuple(train[: setting.repetitions])), 1 / setting.repetitions
        chosen = np.flatnonzero(part.holds(windows.repetitions, windows.sessions))
        if side == "test" or share == 1:
            return chosen
        return chosen[_first(windows, chosen, share, self.dataset.train_stride)]

    # === How things are called ===

    @functools.cached_property
    def data_name(self) -> str:
        """What the tables call the data: never "DB2" unless the user's folder is called that."""
        if self.dataset.synthetic:
            return "synthetic recordings"
        root = Path(self.recipe.source.data)
        common = Path(os.path.commonpath([file.path.parent for files in self.dataset.files.values() for file in files]))
        inside = common.relative_to(root).parts[:1] if common.is_relative_to(root) else ()
        return "/".join((root.name, *inside)) if len(self.dataset.files) > 1 else root.name

    @property
    def on(self) -> str:
        """The data, and how they were used, for the captions of figures."""
        return self.data_name + (", optimistic protocol" if self.optimistic else "")

    def titled(self, title: str) -> str:
        """A table's title with the data of both its columns."""
        return f"{title} ({paper.COLUMN}; ours: {self.on})"

    def described(self) -> str:
        about, window = self.dataset.describe(), self.recipe.window
        learnt = f" (learnt from: every {window.train_stride_ms:g} ms)" if window.train_stride_ms else ""

        def said(numbers) -> str:
            return ", ".join(map(str, numbers))

        return (f"{len(about['subjects'])} subjects, {about['channels']} channels, {about['rate_hz']:g} Hz, "
                f"{len(about['movements'])} movements; learnt from repetitions {said(about['train_repetitions'])}, "
                f"tested on {said(about['test_repetitions'])}; windows of {window.length_ms:g} ms every "
                f"{window.stride_ms:g} ms{learnt}; features {said(self.names)}")

    @functools.cached_property
    def groups(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Group -> (title, subjects): within and cross are who pre-trained and who did not.

        On recordings like DB2 (12 channels, 17 movements, subjects beyond 25) these are the paper's 1-25 and 26-40.
        """
        data = self.dataset
        like_db2 = data.channels == 12 and len(data.movements) == 17 and not data.synthetic
        known = range(1, 26) if like_db2 and max(self.subjects) > 25 else data.split.pretrain_subjects
        parts = {"within": tuple(s for s in self.subjects if s in known),
                 "cross": tuple(s for s in self.subjects if s not in known)}
        if all(parts.values()):
            parts["all"] = self.subjects
        elif parts["within"] and not like_db2:
            parts = {"all": self.subjects}
        return {name: (paper.GROUPS[name], subjects) for name, subjects in parts.items() if subjects}


def gather(lab: Lab, cells: Iterable[Cell], key: str = "accuracy") -> dict[tuple[int, int | None], float]:
    """A score of finished cells: (subject, seed) -> value."""
    return {(cell.subject, cell.seed): lab.book.get(cell)[key] for cell in cells}


def _only(subject: Subject, chosen: np.ndarray) -> Subject:
    return replace(subject, windows=subject.windows[chosen])


def _first(windows: Windows, chosen: np.ndarray, share: float, stride: int) -> np.ndarray:
    """Which of `chosen` are among the first `share` of their held movement, as if it had been held for less long."""
    columns = np.stack([windows.movements, windows.repetitions])[:, chosen]
    breaks = (np.diff(columns) != 0).any(axis=0) | (np.diff(windows.starts[chosen]) != stride)
    runs = np.split(np.arange(len(chosen)), np.flatnonzero(breaks) + 1)
    return np.concatenate([run[: max(1, round(share * len(run)))] for run in runs])
