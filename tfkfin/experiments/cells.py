"""Cells: the smallest pieces of an experiment that are finished once and never run again.

A cell is one model on one subject with one seed under one setting, kept as `cells/<model>/<setting>/S<n>-seed<k>`:
.json its scores, .npz its predictions. It names no experiment, so experiments that need the same cell share it.
"""

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from tfkfin.console import InputError, log
from tfkfin.files import write_json


@dataclass(frozen=True, order=True)
class Setting:
    """What an experiment varies. The defaults are the plain decoder of Table 2.

    Attributes:
        fraction: % of each held movement's windows that are learnt from, the first in time.
        repetitions: how many repetitions are learnt from, at equal numbers of windows; 0: all, whole.
        horizon_ms: how long after a window's last sample the movement is to be told.
    """

    fraction: int = 100
    repetitions: int = 0
    horizon_ms: int = 0

    @property
    def slug(self) -> str:
        parts = [f"{name}-{value}" for name, value in asdict(self).items() if value != getattr(Setting(), name)]
        return "_".join(parts) or "plain"


@dataclass(frozen=True, order=True)
class Cell:
    """One model on one subject; `seed` is None for models without chance."""

    subject: int
    model: str
    setting: Setting = field(default_factory=Setting)
    seed: int | None = None

    def __str__(self) -> str:
        parts = [self.model, f"S{self.subject}"]
        parts += [self.setting.slug] if self.setting != Setting() else []
        return " ".join(parts + ([f"seed {self.seed}"] if self.seed is not None else []))

    def of(self, model: str) -> "Cell":
        """The same with another model."""
        return replace(self, model=model)


class Book:
    """The cells of a run folder."""

    def __init__(self, folder: Path, options: dict):
        """`options` decide the cells and are no part of the recipe.

        Raises:
            InputError: the folder's cells were made with other options.
        """
        self.folder, kept = folder / "cells", folder / "cells" / "options.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        if kept.is_file() and (was := json.loads(kept.read_text("utf-8"))) != options:
            said = ", ".join(f"{name} was {was.get(name)}" for name in options if was.get(name) != options[name])
            raise InputError(f"{folder} holds cells made with other options ({said}): give another folder with --run")
        write_json(kept, options)

    def path(self, cell: Cell, suffix: str) -> Path:
        seed = "" if cell.seed is None else f"-seed{cell.seed}"
        return self.folder / cell.model / cell.setting.slug / f"S{cell.subject}{seed}{suffix}"

    def get(self, cell: Cell) -> dict | None:
        """A finished cell's scores, or None."""
        path = self.path(cell, ".json")
        return json.loads(path.read_text("utf-8")) if path.is_file() else None

    def arrays(self, cell: Cell) -> dict[str, np.ndarray]:
        with np.load(self.path(cell, ".npz")) as kept:
            return dict(kept)

    def put(self, cell: Cell, scores: dict, arrays: dict[str, np.ndarray]) -> None:
        """Keeps a cell: arrays first, so that a cell with scores is whole."""
        path = self.path(cell, ".npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez_compressed(partial, **arrays)
        os.replace(partial, path)
        write_json(self.path(cell, ".json"), scores | {"cell": asdict(cell)})

    def finish(self, cells: Iterable[Cell], work: Callable[[Cell], tuple[dict, dict]], title: str = "") -> list[dict]:
        """Runs the cells that are not finished, subject by subject, and returns the scores of all in their order.

        Args:
            work: cell -> (scores, arrays).
            title: of the lines that say how far it is; none without.
        """
        cells = list(dict.fromkeys(cells))
        todo = sorted((cell for cell in cells if self.get(cell) is None), key=lambda c: (c.subject, cells.index(c)))
        if title:
            log.info("%s: %d of %d cells to do", title, len(todo), len(cells))
        began = time.monotonic()
        for i, cell in enumerate(todo, 1):
            if self.get(cell) is None:  # another cell may have needed it
                since = time.monotonic()
                scores, arrays = work(cell)
                self.put(cell, scores | {"seconds": time.monotonic() - since}, arrays)
            if title:
                left = (time.monotonic() - began) / i * (len(todo) - i)
                log.info("%s %d/%d: %s%s, about %.0f s left", title, i, len(todo), cell, _said(self.get(cell)), left)
        return [self.get(cell) for cell in cells]


def _said(scores: dict) -> str:
    return f": accuracy {100 * scores['accuracy']:.1f} %" if "accuracy" in scores else ""
