"""Fits of experiments by a launcher: a task has all fits of one subject and seed."""

import functools
from collections.abc import Sequence
from pathlib import Path

from tfkfin import recipe as recipes
from tfkfin.experiments import kinds
from tfkfin.experiments.evaluation import Evaluation
from tfkfin.experiments.fits import Fit, finish
from tfkfin.experiments.paper.estimators import Estimators
from tfkfin.fit.device import set_up_worker
from tfkfin.fit.run import open_run
from tfkfin.launch import Task, launch

WORK = "tfkfin.experiments.launching:work"


def run(evaluation: Evaluation, names: Sequence[str], launcher: str, device: str) -> tuple[list[Task], dict[str, str]]:
    """Finishes the fits of experiments; returns the tasks, and those that failed as `launch` does.

    The first subject goes first: its tasks make what all fits share, FINs and pooled classifiers.
    """
    fits, folder = _fits(evaluation, names), evaluation.run.folder.absolute()
    common = {"folder": str(folder), "data": str(evaluation.recipe.source.data), "names": list(names),
              "seeds": len(evaluation.seeds), "max_test_windows": evaluation.max_test_windows, "device": device,
              "rows": list(evaluation.rows)}
    tasks: dict[str, Task] = {}
    own: dict[str, list[Fit]] = {}
    for fit in fits:
        seed = _seed(evaluation, fit)
        key = f"S{fit.subject}/seed{seed}"
        tasks[key] = Task(key, WORK, common | {"subject": fit.subject, "seed": seed})
        own.setdefault(key, []).append(fit)
    failed: dict[str, str] = {}
    first = [task for task in tasks.values() if task.arguments["subject"] == fits[0].subject]
    for wave in (first, [task for task in tasks.values() if task not in first]):
        failed |= launch(wave, lambda task: all(evaluation.ledger.get(fit.key) for fit in own[task.key]), launcher,
                         evaluation.recipe.launch, folder, "fits") if wave else {}
    return list(tasks.values()), failed


def _fits(evaluation: Evaluation, names: Sequence[str]) -> list[Fit]:
    return list(dict.fromkeys(fit for name in names for fit in kinds.load(name).fits(evaluation)))


def _seed(evaluation: Evaluation, fit: Fit) -> int:
    """The seed of a fit's task; deterministic fits go with the first seed."""
    return evaluation.seeds[0] if fit.seed is None else fit.seed


def work(folder: str, data: str, names: Sequence[str], seeds: int, max_test_windows: int, subject: int, seed: int,
         device: str, rows: Sequence[str] = ()) -> None:
    """Finishes one subject's fits of one seed. See `run`."""
    estimators = _estimators(folder, data, seeds, max_test_windows, device, tuple(rows))
    evaluation = estimators.evaluation
    for name in names:
        experiment = kinds.load(name)
        own = [fit for fit in experiment.fits(evaluation) if (fit.subject, _seed(evaluation, fit)) == (subject, seed)]
        finish(evaluation.ledger, own, functools.partial(experiment.work, estimators) if experiment.work else
               estimators.work, name)


@functools.cache
def _estimators(folder: str, data: str, seeds: int, max_test_windows: int, device: str,
                rows: tuple[str, ...]) -> Estimators:
    """A worker keeps these, and their compiled models, from task to task."""
    set_up_worker(device)
    recipe = recipes.load(Path(folder, "recipe.toml"), {"source.data": data})
    return Estimators(Evaluation(open_run(recipe, Path(folder)), seeds, max_test_windows, rows))
