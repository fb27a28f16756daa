"""Units of work for launchers: each subject, fold and seed of a recipe is a run in a folder of its own.

    <folder>/recipe.toml, fingerprint.json     the recipe and the recordings that all units belong to
    <folder>/fits/fold1of5/seed7/S3/           a unit's run, as any other: it can be resumed, exported, evaluated
    <folder>/fits/fold1of5/seed7/S3.finetune.json    its row: the unit's scores
    <folder>/fits/fold1of5/seed7/fins/         the run that trains FINs on everybody, where the recipe trains them
    <folder>/fits.csv, results.json            all rows in order, and their summary

Any process may do any unit. Rows are files, so that the number of processes and their order change no result.
"""

import csv
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfkfin import launch
from tfkfin import recipe as recipes
from tfkfin.base.errors import InputError
from tfkfin.base.files import write_text
from tfkfin.fit import schemas
from tfkfin.fit.device import set_up_worker
from tfkfin.fit.ledger import Ledger
from tfkfin.fit.run import Run, environment, open_run
from tfkfin.fit.scoring import mean_and_sd, mean_imitation
from tfkfin.recipe import Recipe

NUMBERS = ("accuracy", "execution", "false_per_minute", "classifier", "svm")  # of a row, where it has them
WORK = "tfkfin.fit.units:work"


@dataclass(frozen=True, order=True)
class Unit:
    """One fit. `subject` 0 means everybody, whose FINs are trained; `fold` counts from 1."""

    subject: int
    fold: int
    folds: int
    seed: int

    @property
    def key(self) -> str:
        return f"fold{self.fold}of{self.folds}/seed{self.seed}/" + (f"S{self.subject}" if self.subject else "fins")


@dataclass(frozen=True)
class FitPlan:
    """The units of a recipe in one folder; `open_plan` makes it.

    Attributes:
        base: the run that the units belong to; no stage is run in it.
        folds: {field of the recipe: value} of each fold.
        device, mixed_precision: as of `set_up_device`.
    """

    base: Run
    stage: str
    folds: tuple[dict[str, Any], ...]
    seeds: tuple[int, ...]
    device: str = "auto"
    mixed_precision: bool = False

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.base.folder / "fits")

    @property
    def pretrains(self) -> bool:
        """Whether FINs are trained on everybody before any decoder."""
        recipe = self.base.recipe
        return self.stage == "finetune" and bool(recipe.imitate.epochs or not recipe.fin.pretrained)

    def units(self, subjects: Sequence[int] | None = None) -> list[Unit]:
        """In order of subject, fold and seed; `subjects`: None: all people."""
        return [Unit(subject, fold, len(self.folds), seed)
                for subject in (self.base.dataset.split.subjects if subjects is None else subjects)
                for fold in range(1, len(self.folds) + 1) for seed in self.seeds]

    def before(self) -> list[Unit]:
        """Units that must be finished first."""
        return self.units([0]) if self.pretrains else []

    def row(self, unit: Unit) -> dict[str, Any] | None:
        """A unit's scores; None while it is not finished."""
        return self.ledger.get(self._row_key(unit), kind=schemas.FitRow)

    def arguments(self, unit: Unit) -> dict[str, Any]:
        """Arguments of `work`, for any process that sees the folder."""
        folder, settings = self.base.folder.absolute(), {"seed": unit.seed, **self.folds[unit.fold - 1]}
        if unit.subject:
            settings |= {"split.subjects": [unit.subject], "split.pretrain_subjects": [unit.subject]}
            if self.pretrains:
                fins = Unit(0, unit.fold, unit.folds, unit.seed)
                settings |= {"imitate.epochs": 0, "fin.pretrained": str(folder / "fits" / fins.key / "imitate")}
        data = self.base.data if self.base.recipe.source.kind == "recordings" else Path(self.base.data).absolute()
        return {"folder": str(folder), "unit": unit.key, "row": self._row_key(unit), "settings": settings,
                "data": str(data), "stage": self.stage if unit.subject else "imitate",
                "device": self.device, "mixed_precision": self.mixed_precision}

    def _row_key(self, unit: Unit) -> str:
        return f"{unit.key}.{self.stage if unit.subject else 'imitate'}"

    def launch(self, launcher: str) -> int:
        """Finishes all units by a launcher; returns how many failed.

        Raises:
            InputError: FINs that decoders need could not be trained.
        """
        folder, failed = self.base.folder, {}
        for wave, title in ((self.before(), "FINs"), (self.units(), "fits")):
            tasks = [launch.Task(unit.key, WORK, self.arguments(unit)) for unit in wave]
            by_key = {unit.key: unit for unit in wave}
            failed = launch.launch(tasks, lambda task, of=by_key: self.row(of[task.key]) is not None, launcher,
                                   self.base.recipe.launch, folder, title) if tasks else {}
            if failed:
                launch.report_failures(failed, tasks, folder)
                if title == "FINs":
                    raise InputError(f"{len(failed)} of {len(wave)} trainings of FINs failed, which all decoders need")
        return len(failed)

    def publish(self) -> dict[str, Any]:
        """Writes fits.csv and results.json from the finished rows; returns the content of the latter.

        Raises:
            InputError: there is no row.
        """
        rows = {unit: row for unit in self.units() if (row := self.row(unit)) is not None}
        if not rows:
            raise InputError(f"no fit is finished: look at the logs in {self.base.folder / 'logs'}")
        names, text = [name for name in NUMBERS if any(name in row for row in rows.values())], io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([["subject", "fold", "seed", *names], *(
            [unit.subject, unit.fold, unit.seed, *map(rows[unit].get, names)] for unit in sorted(rows))])
        write_text(self.base.folder / "fits.csv", text.getvalue())
        by_subject = {subject: [row for unit, row in rows.items() if unit.subject == subject]
                      for subject in dict.fromkeys(unit.subject for unit in rows)}
        recipe, fins = self.base.recipe, [row["fin"] for row in rows.values() if row["fin"]]
        return self.base.ledger.put("results", {
            "stage": self.stage, "protocol": recipe.protocol, "recipe_digest": recipe.digest,
            "seconds": {self.stage: round(sum(row["seconds"] for row in rows.values()), 2)},
            "environment": environment(), "fits": len(rows), "seeds": list(self.seeds),
            "folds": [fold.get("split.test_repetitions", list(self.base.dataset.split.test_repetitions))
                      for fold in self.folds],
            "missing": [unit.key for unit in self.units() if unit not in rows],
            "dataset": self.base.dataset.describe() | {"fingerprint": self.base.fingerprint},
            **{name: mean_and_sd({s: _mean(of, name) for s, of in by_subject.items()}) for name in names},
            **({"fin": mean_imitation(fins)} if fins else {})})


def _mean(rows: list[dict], name: str) -> float | None:
    known = [row[name] for row in rows if row.get(name) is not None]
    return sum(known) / len(known) if known else None


def open_plan(recipe: Recipe, folder: Path, stage: str, folds: int, seeds: int) -> FitPlan:
    """Opens the folder and deals repetitions into folds: fold k tests every `folds`-th and trains on the others.

    One fold is the recipe's own split.

    Raises:
        InputError: what `open_run` raises, a folder with a run of its own, or too many folds.
    """
    if stage not in ("classify", "finetune"):
        raise InputError(f"the stage {stage} pools people, so that it is one fit: --launcher, --folds and --seeds go "
                         "with --stage classify and finetune")
    if recipe.source.kind == "signals":
        raise InputError("source.kind = 'signals' has no people to fit: leave --launcher, --folds and --seeds out")
    if folds < 1 or seeds < 1:
        raise InputError(f"--folds and --seeds take numbers from 1. Received: {folds} and {seeds}")
    base = open_run(recipe, folder)
    if any(folder.glob("*/stage.json")):
        raise InputError(f"{folder} holds a run in one piece: give another folder with --run")
    split = base.dataset.split
    there = sorted({*split.train_repetitions, *split.test_repetitions})
    if folds > 1 and (split.between_sessions or folds > len(there)):
        raise InputError(f"--folds {folds} deals repetitions, and there are {len(there)}" if folds > len(there) else
                         "--folds deals repetitions, and this recipe parts sessions")
    dealt = tuple(_fold(there, k, folds) for k in range(folds)) if folds > 1 else ({},)
    return FitPlan(base, stage, dealt, tuple(recipe.seed + i for i in range(seeds)))


def _fold(there: list[int], k: int, folds: int) -> dict[str, Any]:
    test = there[k::folds]
    return {"split.test_repetitions": test, "split.train_repetitions": [r for r in there if r not in test],
            "split.pretrain_repetitions": [], "split.finetune_repetitions": []}


def work(folder: str, unit: str, row: str, settings: dict[str, Any], data: str, stage: str, device: str,
         mixed_precision: bool) -> None:
    """Runs a unit up to its stage, or resumes it, and writes its row; arguments as of `FitPlan.arguments`.

    Raises:
        InputError: recordings that do not fit the recipe.
    """
    set_up_worker(device, mixed_precision)
    import keras

    from tfkfin.fit.stages import run_stage

    base, ledger = Path(folder), Ledger(Path(folder, "fits"))
    with ledger.lock(unit):  # a worker that was given up may still be running
        if ledger.get(row) is not None:
            return
        recipe = recipes.replaced(_recipe(base), **settings, **{"source.kind": "recordings", "source.data": data})
        run = open_run(recipe, base / "fits" / unit, beside=base / "recordings.json")
        keras.utils.clear_session()
        results = run_stage(run, stage)
        found = {name: results[name]["mean"] for name in NUMBERS if name in results}
        ledger.put(row, found | {"fin": results.get("fin"), "seconds": sum(results["seconds"].values()),
                                 "recipe_digest": recipe.digest, "fingerprint": run.fingerprint})


@functools.cache
def _recipe(base: Path) -> Recipe:
    return recipes.load(base / "recipe.toml")
