"""`python -m tfkfin.tune`: tries the values of a recipe's [tune] table and writes the best as a recipe.

Trials are scored on one held-out training repetition. No trial uses the test repetitions, so that the winner's own run
on them is an honest score.

examples:
  python -m tfkfin.tune --set 'tune.classify.learning_rate=[3e-3,1e-2]' --set 'tune.classifier.copies=[1,12]'
      four trials on an embedded synthetic DB2
  python -m tfkfin.tune --data MINE --pipeline tune_head --search random --max-trials 8 \\
      --set split.train_repetitions=1,3,4 --set split.test_repetitions=2,5
      a shipped [tune] table on your recordings; repetition 4 is held out, 2 and 5 are not used
  tensorboard --logdir runs
      the trials side by side, under HParams
  python -m tfkfin.train --stage finetune --pipeline runs/tune-.../best.toml
      the winner, trained on all its training repetitions and scored on the test repetitions
  python -m tfkfin.tune --data MINE --pipeline tune_head --launcher local
      trials many at once, by processes of this machine
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tfkfin import launch
from tfkfin.base.answers import answer, command_line, paper, parsed
from tfkfin.base.console import lasting, log, quiet_start, run
from tfkfin.base.errors import InputError
from tfkfin.base.options import add_options
from tfkfin.fit import run_folder
from tfkfin.fit.device import set_up_device
from tfkfin.fit.search import Search, check, combinations, described, open_search, state_of

OBJECTIVE = "held_out_accuracy"


def parser() -> argparse.ArgumentParser:
    p = command_line("tune", "--data DIR --pipeline tune_head [options]", str(__doc__))
    run_folder.add_options(p, "tune-")
    add_options(p, "tune", launcher=launch.names())
    return p


def explore(search: Search, options: dict[str, Any], score: Callable[[int, dict], float]) -> list[dict[str, Any]]:
    """Runs KerasTuner's loop with `score` of each trial's number and settings; returns the settings in that order.

    A resumed search starts this loop again: the same seed proposes the same trials, and `Search` keeps the results of
    those that were finished.
    """
    import keras_tuner
    from keras_tuner.engine import base_tuner
    from sklearn.exceptions import ConvergenceWarning

    class RecipeTuner(base_tuner.BaseTuner):
        def run_trial(self, trial):
            try:
                return {OBJECTIVE: score(1 + int(trial.trial_id), _settings(trial))}
            except Exception as error:  # KerasTuner swallows other errors
                raise keras_tuner.errors.FatalError(f"trial {described(_settings(trial))}: {error}") from error

        def save(self):
            pass

    space, recipe = keras_tuner.HyperParameters(), search.base.recipe
    for key, values in recipe.tune.items():
        space.Choice(key, [json.dumps(value) for value in values])  # any values, and as text they stay exact
    limit, oracles = options["max_trials"], keras_tuner.oracles
    if options["search"] == "grid" and limit == combinations(recipe):
        limit = None
    kind = {"grid": oracles.GridSearchOracle, "random": oracles.RandomSearchOracle,
            "bayesian": oracles.BayesianOptimizationOracle}[options["search"]]
    oracle = kind(objective=keras_tuner.Objective(OBJECTIVE, "max"), max_trials=limit, hyperparameters=space,
                  seed=1 + options["seed"] % 2**31,  # KerasTuner takes 0 for none
                  tune_new_entries=False, allow_new_entries=False)
    oracle.verbose = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of a Gaussian process on equal scores
        RecipeTuner(oracle, directory=str(search.base.folder), project_name="oracle").search()
    return [_settings(trial) for trial in oracle.trials.values()]


def _settings(trial) -> dict[str, Any]:
    return {key: json.loads(text) for key, text in trial.hyperparameters.values.items()}


def run_trial(search: Search, most: int, number: int, settings: dict[str, Any]) -> float:
    """The accuracy of a trial, of `most`; 0 where the settings do not fit the recordings, which `Search` notes."""
    log.info("trial %d: %s", number, described(settings))
    began = time.monotonic()
    try:
        score = search.score(settings)
    except InputError as error:
        log.warning("warning: trial %d failed: %s", number, error)
        return 0.0
    left = (time.monotonic() - began) * (most - number)
    log.info("trial %d: accuracy %.1f %%, about %s left", number, 100 * score, lasting(left))
    return score


def trials_by(arguments: argparse.Namespace, search: Search, options: dict[str, Any], folder: Path) -> None:
    """Runs the trials of a grid or random search by a launcher; KerasTuner names them without scores.

    Exit code 1 if a trial failed for another reason than settings that do not fit the recordings.
    """
    asked = explore(search, options, lambda number, settings: 0.0)
    recipe, base = search.base.recipe, search.base.folder.absolute()
    given = {"folder": str(base), "data": recipe.source.data, "stage": arguments.stage, "held_out": search.held_out,
             "device": arguments.device}
    trials = {search.trial(settings).folder.name: settings for settings in asked}
    tasks = [launch.Task(f"trials/{name}", "tfkfin.fit.search:work", given | {"settings": settings})
             for name, settings in trials.items()]

    def done(task: launch.Task) -> bool:
        return search.trial(task.arguments["settings"]).done(arguments.stage) is not None

    failed = launch.launch(tasks, done, arguments.launcher, recipe.launch, folder, "trials")
    failed = {key: why for key, why in failed.items() if search.base.ledger.get(f"{key}.failed") is None}
    launch.end_if_failed(failed, tasks, folder, "trials")


def show(folder: Path) -> None:
    """Prints the table of trials."""
    answer(state_of(folder) | {"run": folder})
    from rich.table import Column, Table

    state, console = state_of(folder), paper()
    what = "synthetic recordings" if state["dataset"]["synthetic"] else "mean ± sd over subjects"
    columns = [Column(name, overflow="fold") for name in (*state["tune"], "accuracy %", "s", "folder")]
    table = Table(*columns, title=f"{state['stage']} on held-out repetition {state['held_out']} ({what})")
    for row in state["trials"]:
        found = (f"{100 * row['accuracy']['mean']:.2f} ± {100 * row['accuracy']['std']:.2f}",
                 f"{row['seconds']:.0f}") if "accuracy" in row else (f"failed: {row['error']}", "")
        table.add_row(*(str(row["settings"][key]) for key in state["tune"]), *found, row["folder"])
    console.print(table)
    console.print(f"{folder / 'tuning.json'}   watch: tensorboard --logdir {folder}\nthe winner on the test "
                  f"repetitions: python -m tfkfin.train --stage {state['stage']} --pipeline "
                  f"{folder / state['best']['recipe']}", soft_wrap=True)


def main(argv: list[str]) -> None:
    arguments = parsed(parser(), argv)
    if os.environ.get("KERASTUNER_TUNER_ID"):
        raise InputError("KERASTUNER_TUNER_ID: searches by a chief and workers were removed: --launcher runs the "
                         "trials of a grid or random search many at once")
    recipe, folder = run_folder.resolve(arguments)
    check(recipe, arguments.stage)
    if arguments.max_trials is not None and arguments.max_trials < 1:
        raise InputError(f"--max-trials takes a number from 1. Received: {arguments.max_trials}")
    if arguments.launcher and arguments.search == "bayesian":
        raise InputError("--launcher goes with --search grid and random: a bayesian search chooses each trial by the "
                         "scores of those before")
    folder = folder if arguments.run else folder.with_name(f"tune-{folder.name}")
    every = combinations(recipe)
    most = arguments.max_trials or (every if arguments.search == "grid" else 20)
    options = {"stage": arguments.stage, "held_out": arguments.held_out, "search": arguments.search,
               "seed": recipe.seed if arguments.seed is None else arguments.seed, "max_trials": min(most, every)}
    from tfkfin.fit.run import cleared

    with cleared(folder):
        search = open_search(recipe, folder, arguments.stage, arguments.held_out)
        if begun := search.begin(options):
            log.info("%d of %d combinations, train repetitions %s, held out %d", options["max_trials"], every,
                     list(search.train), search.held_out)
            with quiet_start():
                import keras_tuner  # noqa: F401  brings TensorFlow
            if arguments.launcher:
                trials_by(arguments, search, options, folder)
            set_up_device(arguments.device, mixed_precision=False)
    if begun:
        search.finish(explore(search, options, partial(run_trial, search, options["max_trials"])), options)
    show(folder)


if __name__ == "__main__":
    run(main)
