"""An evaluation: fits, the windows that each is trained and tested on, their scores, and titles for reports.

A fit is one model on one subject with one seed under one setting; a finished fit is never run again. It names no
experiment, so experiments that need the same one share it.

Labels ahead of time are those of the movement `horizon` after a window's last sample, inside its own recording.
The target of a window is the label of the sample at its last sample + horizon, in the same recording. Rest is a class:
rest separates movements, so without it no label would ever change. Rest belongs to the repetition before it. A window
is left out where that sample lies beyond the recording, before the first movement, or in a repetition of the other side
of the split, so that training and test share neither windows nor the samples that they are scored by.
"""

import functools
import itertools
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tfkfin.base.console import format_numbers, lasting, log
from tfkfin.base.errors import InputError
from tfkfin.base.files import replacing
from tfkfin.experiments.paper import published
from tfkfin.experiments.report import DPI, Plot, ReportTable, over_subjects, text
from tfkfin.fit.ledger import Ledger
from tfkfin.fit.run import Run
from tfkfin.pipeline.dataset import Dataset
from tfkfin.pipeline.subject import Subject, labels_at_rate
from tfkfin.pipeline.windows import Windows
from tfkfin.recordings import readers
from tfkfin.signal.condition import UNLIKE

WITHOUT_CHANCE = ("imitation", "svm", "lda", "td_svm", "td_lda")


@dataclass(frozen=True, order=True)
class Setting:
    """What an experiment varies. The defaults are the plain decoder of Table 2.

    Attributes:
        fraction: % of each held movement's windows in training, the first in time.
        repetitions: how many repetitions are in training, at equal numbers of windows; 0: all, whole.
        horizon_ms: how long after a window's last sample the movement to decide is.
    """

    fraction: int = 100
    repetitions: int = 0
    horizon_ms: int = 0

    @property
    def slug(self) -> str:
        parts = [f"{name}-{value}" for name, value in asdict(self).items() if value != getattr(Setting, name)]
        return "_".join(parts) or "plain"


FULL = Setting()


@dataclass(frozen=True, order=True)
class Fit:
    """One model on one subject; `seed` is None for deterministic models."""

    subject: int
    model: str
    setting: Setting = FULL
    seed: int | None = None

    @property
    def key(self) -> str:
        """Its key in the ledger."""
        return f"{self.model}/{self.setting.slug}/S{self.subject}" + ("" if self.seed is None else f"-seed{self.seed}")

    def of(self, model: str) -> "Fit":
        """The same with another model."""
        return replace(self, model=model)


def finish(ledger: Ledger, fits: Iterable[Fit], work: Callable[[Fit], tuple[dict, dict]], title: str = "") -> None:
    """Runs the fits that are not finished, subject by subject.

    Args:
        work: fit -> (scores, arrays).
        title: of the progress lines in the log; "": none.
    """
    fits, began = list(fits), time.monotonic()
    todo = sorted((fit for fit in fits if ledger.get(fit.key) is None), key=lambda fit: fit.subject)
    if title:
        log.info("%s: %d of %d fits to do", title, len(todo), len(fits))
    for i, fit in enumerate(todo, 1):
        if (scores := ledger.get(fit.key)) is None:  # another fit may have needed it
            since, once = time.monotonic(), _Once()
            log.addFilter(once)
            try:
                scores, arrays = work(fit)
            finally:
                log.removeFilter(once)
            scores |= {"seconds": time.monotonic() - since, "fit": asdict(fit)}
            ledger.put(fit.key, scores, arrays)
        if title:
            score = f": accuracy {100 * scores['accuracy']:.1f} %" if "accuracy" in scores else ""
            left = (time.monotonic() - began) / i * (len(todo) - i)
            log.info("%s %d/%d: %s%s, about %s left", title, i, len(todo), fit.key, score, lasting(left))


class _Once(logging.Filter):
    """Lets one warning of electrodes through: a fit decides with many decoders, and each of them warns."""

    warned = False

    def filter(self, record: logging.LogRecord) -> bool:
        warns = UNLIKE in record.getMessage()
        again, self.warned = warns and self.warned, warns or self.warned
        return not again


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
        self._itself = functools.lru_cache(2)(lambda number: standardised_by_itself(
            self._loaded(number), self.dataset.part("test"), self.dataset.length))
        self._ahead = functools.lru_cache(16)(self._targets)

    # === Training and test windows ===

    def classes(self, setting: Setting = FULL) -> tuple[int, ...]:
        """Labels as in the files, by class index. Looking ahead makes rest (0) a class."""
        movements = self.dataset.movements
        return tuple(sorted({0, *movements})) if setting.horizon_ms else movements

    def examples(self, fit: Fit, side: str, names: tuple[str, ...] = (), most: int = 0) -> Examples:
        """Windows that a fit is trained ("train", "finetune") or tested ("test") on, with the named features.

        `most` caps the windows, evenly spread; 0: all. `usable` leaves out some more. The paper's protocol
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
            chosen = chosen[usable(self.dataset.split, own[chosen], owner[chosen])]
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

    def _targets(self, number: int, horizon_ms: int) -> tuple[np.ndarray, np.ndarray]:
        windows = self._loaded(number).windows
        if not horizon_ms:
            return windows.movements, windows.repetitions
        return targets(self.dataset, self._loaded(number), horizon_ms)

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

    def table(self, key: str, rows: Sequence[Sequence[str]], more: Iterable[str] = (), papers: bool = True,
              **values: object) -> ReportTable:
        """A table with the title, columns and note that texts.toml has for it; its title names the data.

        Args:
            more: columns after these.
            papers: whether it has the paper's figures beside ours.
            values: what texts.toml leaves open.
        """
        about, data = text(key, **values), f"{published.COLUMN}; ours: {self.on}" if papers else self.on
        columns = [*about["columns"], *more]
        return ReportTable(f"{about['title']} ({data})", columns, rows, about.get("note", ""), papers)

    def plot(self, figure: Figure, name: str) -> Plot:
        """A figure saved as plots/<name>.png below the run folder; its caption, of texts.toml, names the data."""
        path = self.run.folder / "plots" / f"{name}.png"
        with replacing(path) as partial:
            figure.savefig(partial, dpi=DPI, bbox_inches="tight")
        return Plot(path, f"{text(f'captions.{name}')}. Data: {self.on}.")

    @property
    def started(self) -> str:
        """Where FINs start from."""
        fin, taught = self.recipe.fin, ", which labels of recordings taught" if self.run.learnt_from else ""
        known = {"": "from random weights", "auto": f"from the shipped ones ({fin.family}), trained on no recording"}
        return known.get(fin.pretrained, f"from {fin.pretrained}{taught}")

    @property
    def steering(self) -> str:
        """Whether test windows influence their own scores, in a sentence."""
        return text("steering.optimistic" if self.optimistic else "steering.honest")

    def described(self) -> str:
        about, window = self.dataset.describe(), self.recipe.window
        trained = f" (training windows: every {window.train_stride_ms:g} ms)" if window.train_stride_ms else ""
        return text("intro.described", subjects=len(about["subjects"]), channels=about["channels"], window=window,
                    rate_hz=about["rate_hz"], movements=len(about["movements"]), trained=trained,
                    features=", ".join(self.names), **{side: format_numbers(about[f"{side}_repetitions"])
                                                       for side in ("train", "test")})

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


def standardised_by_itself(subject: Subject, repetitions: tuple[int, ...], length: int) -> Subject:
    """The subject with volts such that the samples under the windows of these repetitions have mean 0 and sd 1
    by channel once they are standardised.
    """
    starts = subject.select(repetitions).windows.starts
    edges = np.zeros(len(subject.emg) + 1, np.int64)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + length, -1)
    covered = subject.emg[np.cumsum(edges)[:-1] > 0]
    mean, sd = covered.mean(axis=0, dtype=np.float64), covered.std(axis=0, dtype=np.float64)
    own = (subject.emg - mean) / np.where(sd > 0, sd, 1.0)
    return replace(subject, emg=(own * subject.sd + subject.mean).astype(np.float32))


def scores(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy and macro-F1 (unweighted mean over the classes that are true or predicted) of labels (N,)."""
    from sklearn.metrics import accuracy_score, f1_score

    return {"accuracy": float(accuracy_score(true, predicted)), "windows": len(true),
            "macro_f1": float(f1_score(true, predicted, average="macro", zero_division=0.0))}


# === Labels ahead of time ===


def owners(labels: np.ndarray, repetitions: np.ndarray) -> np.ndarray:
    """The repetition each sample (T,) belongs to, rest to the one before; 0: to none."""
    known = (labels > 0) & (repetitions > 0)
    last = np.maximum.accumulate(np.where(known, np.arange(len(labels)), -1))
    owner = np.where(last >= 0, repetitions[last], 0)
    return np.where((labels > 0) & (repetitions == 0), 0, owner)


def label_ahead(labels: np.ndarray, owner: np.ndarray, last: np.ndarray, horizon: int,
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
        found[:, here] = label_ahead(header.labels, owners(header.labels, header.repetitions), last[here],
                               round(horizon_ms * dataset.rate_hz / 1000), header.seams)
    return found[0], found[1]


def usable(split, own: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Whether the target's repetition (N,) is on the same side of the split as the window's own (N,)."""
    test = np.asarray(split.test_repetitions)
    train = np.unique([*split.train_repetitions, *split.pretrain_repetitions, *split.finetune_repetitions])
    return np.where(np.isin(own, test), np.isin(there, test), np.isin(there, train))
