"""A ledger of finished work, one entry a file: work that was killed goes on where it stopped.

The schemas of entries are here too: a file that does not match its schema is reported as damaged.
"""

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, model_validator

from tfkfin.base import reading
from tfkfin.base.errors import refused_as
from tfkfin.base.files import read_json, replacing, write_json


class Entry(BaseModel):
    """A ledger's entry; it may have more keys than its schema names."""

    model_config = ConfigDict(strict=True, extra="allow")


@dataclass(frozen=True)
class Ledger:
    """Finished work below a folder, each piece under a key such as "classify/S1".

    The scores of an entry are in <key>.json, its arrays, if any, in <key>.npz. The scores are written last: an entry
    that has them is complete. Other files of it, such as weights, are written to `path` before `put` is called.
    """

    folder: Path

    def path(self, key: str, suffix: str) -> Path:
        """The path of one of an entry's files, such as ".weights.h5"; its folder is made."""
        path = self.folder / f"{key}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def get(self, key: str, remedy: str = "remove it, and the same command makes it anew",
            kind: type[Entry] | None = None) -> dict[str, Any] | None:
        """An entry's scores, or None while it is not finished.

        Raises:
            InputError: the file is damaged, or does not match the schema `kind`; the message ends with `remedy`.
        """
        return read_json(self.folder / f"{key}.json", remedy, kind)

    def of(self, key: str, kind: type[Entry] | None = None) -> dict[str, Any]:
        """The scores of an entry that has been finished.

        Raises:
            FileNotFoundError: its file was removed since.
            InputError: as `get`.
        """
        if (scores := self.get(key, kind=kind)) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder / f"{key}.json"))
        return scores

    def arrays(self, key: str) -> dict[str, np.ndarray]:
        """The arrays of a finished entry.

        Raises:
            InputError: the file is damaged or gone.
        """
        path = self.folder / f"{key}.npz"
        with refused_as(f"{path} is damaged or gone: remove {path.with_name(path.stem + '.json')}, and the same "
                        "command makes both anew"):
            return reading.arrays(path)

    def put(self, key: str, scores: dict[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> dict[str, Any]:
        """Keeps an entry; returns its scores."""
        if arrays is not None:
            with replacing(self.path(key, ".npz")) as partial:
                np.savez_compressed(partial, **arrays)
        write_json(self.path(key, ".json"), scores)
        return scores

    def lock(self, key: str) -> FileLock:
        """A lock on an entry among all processes that see the folder."""
        return FileLock(self.path(key, ".lock"))


class OverSubjects(Entry):
    """As of `scoring.mean_and_sd`."""

    mean: float | None
    std: float | None
    per_subject: dict[str, float | None]


class Imitation(Entry):
    r2: float


class StageScores(Entry):
    """<stage>/stage.json."""

    accuracy: OverSubjects | None = None
    fin: dict[str, Imitation] | None = None

    @model_validator(mode="after")
    def _has_scores(self) -> "StageScores":
        if self.accuracy is None and self.fin is None:
            raise ValueError("neither accuracy nor fin")
        return self


class SubjectScores(Entry):
    """<stage>/S<n>.json."""

    accuracy: float
    confusion: list[list[int]] = []


def of_item(item: str) -> type[Entry]:
    """Of <stage>/<item>.json."""
    return StageScores if item == "stage" else SubjectScores


class Results(Entry):
    """results.json of `tfkfin.fit.run` and `tfkfin.fit.units`."""

    stage: str
    protocol: str
    seconds: dict[str, float]
    fin: dict[str, Imitation] | None = None
    svm: OverSubjects | None = None
    classifier: OverSubjects | None = None
    accuracy: OverSubjects | None = None
    execution: OverSubjects | None = None
    dataset: dict[str, Any] | None = None


class Fingerprint(Entry):
    """fingerprint.json."""

    recordings: str


class ShippedFins(Entry):
    """fins.json: the version of FINs' networks that a run began with; where it began with shipped FINs, theirs."""

    network: int
    version: int | None = None
    sha256: str | None = None


class SearchState(Entry):
    """tuning.json."""

    complete: bool
    options: dict[str, Any]


class FailedTrial(Entry):
    error: str


class FitRow(Entry):
    """What a fit of `tfkfin.fit.units` has scored."""

    fin: dict[str, dict[str, float | None]] | None
    seconds: float
