"""An evaluation: training and test windows of each fit, true features, scores of finished fits, titles for reports."""

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tfkfin.base.console import format_numbers
from tfkfin.base.errors import InputError
from tfkfin.base.files import replacing
from tfkfin.experiments import figures
from tfkfin.experiments.fits import Fit, Setting
from tfkfin.experiments.paper import horizon, published
from tfkfin.experiments.report import Plot, ReportTable
from tfkfin.experiments.statistics import over_subjects
from tfkfin.experiments.texts import text
from tfkfin.fit.ledger import Ledger
from tfkfin.fit.run import Run
from tfkfin.pipeline.subject import Subject
from tfkfin.pipeline.windows import Windows

FULL = Setting()
WITHOUT_CHANCE = ("imitation", "svm", "lda", "td_svm", "td_lda")


@dataclass(frozen=True)
class Examples:
    """Training or test windows of one subject.

    Attributes:
        part: the subject with these windows only.
        features: (N, C, F) closed-form features, own units.
        labels: (N,) class indices.
    """

    part: Subject
    features: np.ndarray
    labels: np.ndarray


class Evaluation:
    """A run folder with its recipe, recordings and fits.

    Attributes:
        seeds: of initial weights, order and noise; the recipe's own is the first.
        max_test_windows: models of raw signals are tested on at most so many windows a subject, evenly spread; 0: all.
        optimistic: whether the authors' way of scoring is used.
        rows: of the ladder, by name; (): all.
        ledger: of the fits: cells/<model>/<setting>/S<n>-seed<k>, with their predictions as arrays.
    """

    def __init__(self, run: Run, seeds: int = 1, max_test_windows: int = 0, rows: Sequence[str] = ()):
        """`seeds`: how many.

        Raises:
            InputError: the folder's fits were tested on other windows.
        """
        self.run, self.dataset, self.recipe, self.rows = run, run.dataset, run.recipe, tuple(rows)
        self.seeds = tuple(run.recipe.seed + i for i in range(seeds))
        self.max_test_windows, self.optimistic = max_test_windows, run.recipe.protocol == "paper"
        self.names, self.subjects = run.recipe.features.names, self.dataset.split.subjects
        self.ledger, options = Ledger(run.folder / "cells"), {"max_test_windows": max_test_windows}
        if (before := self.ledger.get("options") or options) != options:
            raise InputError(f"{run.folder} holds fits made with other options (max_test_windows was "
                             f"{before.get('max_test_windows')}): give another folder with --run")
        self.ledger.put("options", options)
        self._loaded = functools.lru_cache(2)(self.dataset.load)
        self._itself = functools.lru_cache(2)(self._standardised_by_itself)
        self._ahead = functools.lru_cache(16)(self._targets)

    # === Training and test windows ===

    def classes(self, setting: Setting = FULL) -> tuple[int, ...]:
        """Labels as in the files, by class index. Looking ahead makes rest (0) a class."""
        movements = self.dataset.movements
        return tuple(sorted({0, *movements})) if setting.horizon_ms else movements

    def examples(self, fit: Fit, side: str, names: tuple[str, ...] = (), most: int = 0) -> Examples:
        """Windows that a fit is trained ("train", "finetune") or tested ("test") on, with the named features.

        `most` caps the windows, evenly spread; 0: all. `horizon` leaves out some more. The paper's protocol
        standardises test windows by their own statistics.
        """
        itself = side == "test" and self.optimistic
        subject = self._itself(fit.subject) if itself else self._loaded(fit.subject)
        chosen = self._chosen(subject.windows, fit, side)
        if most and len(chosen) > most:
            chosen = chosen[np.linspace(0, len(chosen) - 1, most).astype(int)]
        ahead, owner = self._ahead(fit.subject, fit.setting.horizon_ms)
        if fit.setting.horizon_ms:
            own = subject.windows.repetitions
            chosen = chosen[horizon.usable(self.dataset.split, own[chosen], owner[chosen])]
        labels = np.searchsorted(self.classes(fit.setting), ahead[chosen]).astype(np.int64)
        features = self._features(subject, names or self.names, "-itself" if itself else "")
        part = replace(subject, windows=subject.windows[chosen])
        return Examples(part, features[chosen], labels)

    def _features(self, subject: Subject, names: tuple[str, ...], suffix: str) -> np.ndarray:
        """Features (N, C, F) of all of a subject's windows, computed once and kept in the run folder."""
        path = self.run.folder / "features" / f"S{subject.number}-{'-'.join(names)}{suffix}.npy"
        if not path.is_file():
            with replacing(path) as partial:
                np.save(partial, subject.features(names, self.dataset.length, self.dataset.rate_hz))
        return np.load(path)

    def _standardised_by_itself(self, number: int) -> Subject:
        from tfkfin.experiments.paper.protocol import standardised_by_itself

        return standardised_by_itself(self._loaded(number), self.dataset.part("test"), self.dataset.length)

    def _targets(self, number: int, horizon_ms: int) -> tuple[np.ndarray, np.ndarray]:
        windows = self._loaded(number).windows
        if not horizon_ms:
            return windows.movements, windows.repetitions
        return horizon.targets(self.dataset, self._loaded(number), horizon_ms)

    def _chosen(self, windows: Windows, fit: Fit, side: str) -> np.ndarray:
        split, setting = self.dataset.split, fit.setting
        part, share = self.dataset.part(side), setting.fraction / 100
        if setting.repetitions and side != "test":
            train = np.roll(split.train_repetitions, -((fit.seed or 0) - self.recipe.seed))
            part, share = replace(part, repetitions=tuple(train[: setting.repetitions])), 1 / setting.repetitions
        chosen = np.flatnonzero(part.holds(windows.repetitions, windows.sessions))
        if side == "test" or share == 1:
            return chosen
        return chosen[_first(windows, chosen, share, self.dataset.train_stride)]

    # === Fits and their scores ===

    def fit(self, model: str, subject: int, seed: int, setting: Setting = FULL) -> Fit:
        return Fit(subject, model, setting, None if model in WITHOUT_CHANCE else seed)

    def fits(self, models: Iterable[str], settings: Iterable[Setting] = (FULL,)) -> list[Fit]:
        """One a subject, setting, model and, where chance plays a part, seed."""
        every = itertools.product(self.subjects, settings, models, self.seeds)
        return list(dict.fromkeys(self.fit(model, subject, seed, setting) for subject, setting, model, seed in every))

    def values(self, model: str, setting: Setting = FULL, key: str | Callable[[Fit], float] = "accuracy") -> dict:
        """(subject, seed) -> a score of a model's finished fits, or what a function makes of each fit."""
        return {(fit.subject, fit.seed): key(fit) if callable(key) else self.ledger.of(fit.key)[key]
                for fit in self.fits([model], [setting])}

    def by_group(self, models: Iterable[str], setting: Setting = FULL) -> dict[str, dict]:
        """Group -> model -> {"accuracy", "macro_f1"}, each as `over_subjects` gives it."""
        found = {model: {key: self.values(model, setting, key) for key in ("accuracy", "macro_f1")} for model in models}
        return {group: {model: {key: over_subjects(values, subjects) for key, values in scores.items()}
                        for model, scores in found.items()} for group, (_, subjects) in self.groups.items()}

    # === Titles ===

    @functools.cached_property
    def data_name(self) -> str:
        """The name of the data in tables: never "DB2" unless the user's folder has that name."""
        if self.dataset.synthetic:
            return "synthetic recordings"
        root = Path(self.recipe.source.data)
        common = Path(os.path.commonpath([file.path.parent for files in self.dataset.files.values() for file in files]))
        inside = common.relative_to(root).parts[:1] if common.is_relative_to(root) else ()
        return "/".join((root.name, *inside)) if len(self.dataset.files) > 1 else root.name

    @property
    def on(self) -> str:
        """The data and, where it is the optimistic one, the protocol."""
        return self.data_name + (", optimistic protocol" if self.optimistic else "")

    def called(self, title: str) -> str:
        """A model's title with the family of its FINs here; the paper's are LSTMs."""
        family = self.recipe.fin.family
        return title if family == "bilstm" else title.replace("LSTM", family)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> ReportTable:
        """A table of the paper's figures beside ours; its title names the data of both."""
        return ReportTable(f"{title} ({published.COLUMN}; ours: {self.on})", columns, rows, note)

    def plot(self, figure: Figure, name: str, caption: str) -> Plot:
        """A figure saved below the run folder; its caption names the data."""
        return figures.save(figure, self.run.folder, name, f"{caption}. Data: {self.on}.")

    @property
    def steering(self) -> str:
        """Whether test windows influence their own scores, in a sentence."""
        return text("steering.optimistic" if self.optimistic else "steering.honest")

    def described(self) -> str:
        about, window = self.dataset.describe(), self.recipe.window
        trained = f" (training windows: every {window.train_stride_ms:g} ms)" if window.train_stride_ms else ""
        train, test = (format_numbers(about[f"{side}_repetitions"]) for side in ("train", "test"))
        return (f"{len(about['subjects'])} subjects, {about['channels']} channels, {about['rate_hz']:g} Hz, "
                f"{len(about['movements'])} movements; trained on repetitions {train}, tested on {test}; windows of "
                f"{window.length_ms:g} ms every {window.stride_ms:g} ms{trained}; features {', '.join(self.names)}")

    @functools.cached_property
    def groups(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Group -> (title, subjects): within: pre-training subjects, cross: others. The last group is the largest.

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
        return {name: (published.GROUPS[name], subjects) for name, subjects in parts.items() if subjects}


def _first(windows: Windows, chosen: np.ndarray, share: float, stride: int) -> np.ndarray:
    """Which of `chosen` lie in the first `share` of their held movement, as if it had been held for less long."""
    columns = np.stack([windows.movements, windows.repetitions])[:, chosen]
    breaks = (np.diff(columns) != 0).any(axis=0) | (np.diff(windows.starts[chosen]) != stride)
    runs = np.split(np.arange(len(chosen)), np.flatnonzero(breaks) + 1)
    return np.concatenate([run[: max(1, round(share * len(run)))] for run in runs])
