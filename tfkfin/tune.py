"""`python -m tfkfin.tune`: tries the values of a recipe's [tune] table and writes the best as a recipe.

Trials are judged on one training repetition that is held out; the test repetitions stay unseen, so that the winner's
own run on them is an honest score.
"""

import argparse
import json
import math
import os
import socket
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfkfin import recipe as recipes
from tfkfin import train
from tfkfin.console import InputError, log, quiet_start, run
from tfkfin.recipe import Recipe
from tfkfin.runs import Run, open_run, write_json

OBJECTIVE = "held_out_accuracy"
FIXED = ("protocol", "source.", "split.", "tune.", "window.rest")  # they decide what a score is of
IDLE = {"classify": ("batches.", "fin.", "imitate.", "finetune."), "finetune": ()}  # what a stage does not look at
VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")

EXAMPLES = """examples:
  python -m tfkfin.tune --set 'tune.classify.learning_rate=[3e-3,1e-2]' --set 'tune.classifier.copies=[1,12]'
      four trials on an embedded synthetic DB2
  python -m tfkfin.tune --data MINE --pipeline tune_head --search random --max-trials 8 \\
      --set split.train_repetitions=1,3,4 --set split.test_repetitions=2,5
      a shipped [tune] table on your recordings; repetition 4 is held out, 2 and 5 are not looked at
  tensorboard --logdir runs
      the trials side by side, under HParams
  python -m tfkfin.train --stage finetune --pipeline runs/tune-.../best.toml
      the winner, trained on all its training repetitions and scored on the test repetitions

one search on several processes or machines, which see the same folder at --run: one chief hands out the trials,
workers run them. Each gets the same command line; KerasTuner's environment variables tell them apart.
  export KERASTUNER_ORACLE_IP=127.0.0.1 KERASTUNER_ORACLE_PORT=8500   # of the chief
  tune="python -m tfkfin.tune --data MINE --pipeline tune_head --run runs/tuned"
  KERASTUNER_TUNER_ID=chief $tune &
  KERASTUNER_TUNER_ID=worker1 $tune &
  KERASTUNER_TUNER_ID=worker2 $tune &
  wait
The chief writes the results when every worker has left: start one that was killed again, under its own name. If the
chief was killed, start all of them again: finished trials are reused.
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m tfkfin.tune", description=__doc__, epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--pipeline", metavar="FILE", help="a recipe with a [tune] table: TOML file or name of a shipped "
                   "one, such as tune_head (default: demo, or own with --data)")
    p.add_argument("--data", metavar="DIR", help="folder with S{n}_E{k}_A1.mat or S{n}_A1_E{k}.mat at any depth")
    p.add_argument("--stage", choices=tuple(IDLE), default="classify", help="whose accuracy, mean over subjects, is "
                   "the objective; earlier stages run as needed (default: classify)")
    p.add_argument("--held-out", metavar="R", type=int, help="the training repetition to judge by (default: the last)")
    p.add_argument("--search", choices=("grid", "random", "bayesian"), default="grid",
                   help="how the next trial is chosen; bayesian begins with three random ones a field (default: grid)")
    p.add_argument("--max-trials", metavar="N", type=int, help="default: every combination, or 20 of them "
                   "with --search random and bayesian")
    p.add_argument("--seed", type=int, help="of the search (default: the recipe's)")
    p.add_argument("--run", metavar="DIR", help="folder of the search (default: runs/tune-<recipe>-<digest>)")
    p.add_argument("--subjects", metavar="1-25", help="short for --set split.subjects=1-25")
    p.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="settings",
                   help="sets one option of the recipe, such as window.stride_ms=50; repeatable")
    p.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto", help="default: a GPU if there is one")
    return p


def check(recipe: Recipe, stage: str) -> None:
    """Makes sure that every value of the [tune] table can be tried.

    Raises:
        InputError: no table, a key or value that the recipe refuses, a field that this search cannot judge.
    """
    if not recipe.tune:
        raise InputError("the recipe has no [tune] table: take --pipeline tune_head, or name fields and values, as in "
                         "--set 'tune.classify.learning_rate=[3e-3,1e-2]'")
    for key, values in recipe.tune.items():
        if f"{key}.".startswith(tuple(f"{fixed.rstrip('.')}." for fixed in FIXED)):
            raise InputError(f"[tune] {key!r} decides what is scored, so scores would not compare: set it with --set")
        if key.startswith(IDLE[stage]):
            raise InputError(f"[tune] {key!r} plays no part in the stage {stage}: take --stage finetune")
        if not values:
            raise InputError(f"[tune] {key!r} has no values to try")
        digests = [_set(recipe, {key: value}).digest for value in values]
        if key not in recipes.fields():
            raise InputError(f"[tune] {key!r} is a table: name one of its fields, such as "
                             f"{next(k for k in recipes.fields() if k.startswith(key))!r}")
        for i, digest in enumerate(digests):
            if digest in digests[:i]:
                raise InputError(f"[tune] {key!r} names {values[i]!r} twice")


def _set(recipe: Recipe, settings: dict[str, Any]) -> Recipe:
    try:
        return recipe.replace(**settings)
    except InputError as error:
        raise InputError(f"[tune] {str(error).removeprefix('settings: ')}") from None


@dataclass(frozen=True)
class Search:
    """One search in one folder; `open_search` makes it.

    Attributes:
        base: the recipe in the search's folder; the embedded recordings, if it asks for them, lie there too.
        train: repetitions that trials learn from, `held_out` the one that judges them.
    """

    base: Run
    stage: str
    train: tuple[int, ...]
    held_out: int

    def trial(self, settings: dict[str, Any]) -> Run:
        """The run of a trial, unopened: settings and split decide its folder, so equal trials are one."""
        recipe, split, source = self.base.recipe, self.base.recipe.split, self.base.recipe.source
        fewer = {f"split.{name}": [r for r in getattr(split, name) if r != self.held_out]
                 for name in ("pretrain_repetitions", "finetune_repetitions")}
        data = source.data if source.kind == "recordings" else str(self.base.folder.absolute() / "data")
        recipe = _set(recipe, settings | fewer | {
            "split.train_repetitions": self.train, "split.test_repetitions": [self.held_out],
            "source.kind": "recordings", "source.data": data, "tune": {}})
        return Run(self.base.folder / "trials" / recipe.digest, recipe)

    def score(self, settings: dict[str, Any]) -> float:
        """Runs a trial, or resumes it, or takes what it gave; returns its mean accuracy.

        Raises:
            InputError: the settings do not fit the recordings; `failed.json` says so too, for the chief to read.
        """
        import keras
        from filelock import FileLock

        from tfkfin.stages import run_stage

        trial = self.trial(settings)
        failed = trial.folder / "failed.json"
        trial.folder.parent.mkdir(exist_ok=True)
        with FileLock(f"{trial.folder}.lock"):  # workers may be given equal trials
            trial = open_run(trial.recipe, trial.folder)
            try:
                if trial.done(self.stage) is None or not trial.results():
                    keras.utils.clear_session()
                    run_stage(trial, self.stage)
            except InputError as error:
                write_json(failed, {"error": str(error)})
                raise
            failed.unlink(missing_ok=True)
        return trial.done(self.stage)["accuracy"]["mean"]

    def rows(self, proposed: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Settings and scores of the proposed trials, each once: best first, failed ones last."""
        rows = {}
        for settings in proposed:
            trial = self.trial(settings)
            rows[trial.folder.name] = row = {"settings": settings, "folder": f"trials/{trial.folder.name}"}
            if (scores := trial.done(self.stage)) is not None:
                row |= {"accuracy": scores["accuracy"], "seconds": sum(trial.results()["seconds"].values())}
            else:
                row |= json.loads((trial.folder / "failed.json").read_text(encoding="utf-8"))
        return sorted(rows.values(), key=lambda row: -row["accuracy"]["mean"] if "accuracy" in row else 1)


def open_search(recipe: Recipe, folder: Path, stage: str, held_out: int | None) -> Search:
    """Opens the folder and chooses the repetition to hold out, by the recordings' labels.

    Raises:
        InputError: what `open_run` and `open_dataset` raise, or there is no such repetition to hold out.
    """
    if recipe.source.kind == "signals":
        raise InputError("source.kind = 'signals' has no movements to decode: tune on recordings")
    base = open_run(recipe, folder)
    there = base.dataset.split.train_repetitions
    held_out = there[-1] if held_out is None else held_out
    if held_out not in there or len(there) < 2:
        raise InputError(f"--held-out takes one of two or more training repetitions: {held_out} of {list(there)}")
    for name in ("pretrain_repetitions", "finetune_repetitions"):
        if stage == "finetune" and getattr(recipe.split, name) == (held_out,):
            raise InputError(f"split.{name} is {held_out} alone: hold out another one with --held-out")
    return Search(base, stage, tuple(r for r in there if r != held_out), held_out)


def role() -> str:
    """"alone", "chief" or "worker", by KerasTuner's environment variables."""
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if missing and len(missing) < len(VARIABLES):
        raise InputError(f"a search on several processes needs {', '.join(missing)} too: see --help")
    if missing:
        return "alone"
    if not os.environ[VARIABLES[2]].isdecimal():
        raise InputError(f"KERASTUNER_ORACLE_PORT is no port: {os.environ[VARIABLES[2]]!r}")
    return "chief" if "chief" in os.environ[VARIABLES[0]] else "worker"
