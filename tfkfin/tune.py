"""`python -m tfkfin.tune`: tries the values of a recipe's [tune] table and writes the best as a recipe.

Trials are judged on one training repetition that is held out; the test repetitions stay unseen, so that the winner's
own run on them is an honest score.
"""

import argparse
import json
import os
import socket
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from tfkfin import launch
from tfkfin.base.answers import answer, command_line, paper, parsed
from tfkfin.base.console import InputError, log, numeric, quiet_start, run
from tfkfin.fit import run_folder
from tfkfin.fit.device import set_up_device
from tfkfin.fit.search import Search, check, combinations, open_search, said, state_of

OBJECTIVE = "held_out_accuracy"
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

  python -m tfkfin.tune --data MINE --pipeline tune_head --launcher local
      trials by as many processes as pay

one search on several processes or machines, which see the same folder at --run: one chief hands out the trials,
workers run them. Each gets the same command line; KerasTuner's environment variables tell them apart.
  export KERASTUNER_ORACLE_IP=127.0.0.1 KERASTUNER_ORACLE_PORT=8500   # of the chief
  tune="python -m tfkfin.tune --data MINE --pipeline tune_head --run runs/tuned"
  KERASTUNER_TUNER_ID=chief $tune &
  KERASTUNER_TUNER_ID=worker1 $tune &
  KERASTUNER_TUNER_ID=worker2 $tune &
  wait
The chief writes the results when every worker has left. Whichever was killed, the chief too: start it again under its
own name. Finished trials are reused.
"""


def parser() -> argparse.ArgumentParser:
    p = command_line("tune", "--data DIR --pipeline tune_head [options]", __doc__, EXAMPLES)
    p.add_argument("--pipeline", metavar="FILE", help="a recipe with a [tune] table: TOML file or name of a shipped "
                   "one, such as tune_head (default: demo, or own with --data)")
    p.add_argument("--data", metavar="DIR", help="folder with S{n}_E{k}_A1.mat or S{n}_A1_E{k}.mat at any depth")
    p.add_argument("--stage", choices=("classify", "finetune"), default="classify", help="whose accuracy, mean over "
                   "subjects, is the objective; earlier stages run as needed (default: classify)")
    p.add_argument("--held-out", metavar="R", type=int, help="the training repetition to judge by (default: the last)")
    p.add_argument("--search", choices=("grid", "random", "bayesian"), default="grid",
                   help="how the next trial is chosen; bayesian begins with three random ones a field (default: grid)")
    p.add_argument("--max-trials", metavar="N", type=int, help="default: every combination, or 20 of them "
                   "with --search random and bayesian")
    p.add_argument("--seed", type=numeric(int, 0, 2**32 - 1), help="of the search (default: the recipe's)")
    p.add_argument("--run", metavar="DIR", help="folder of the search (default: runs/tune-<recipe>-<digest>)")
    p.add_argument("--subjects", metavar="1-25", help="short for --set split.subjects=1-25")
    p.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="settings",
                   help="sets one option of the recipe, such as window.stride_ms=50; repeatable")
    p.add_argument("--launcher", choices=launch.names(), help="run the trials of a grid or random search many at once, "
                   "by processes here, on a Ray cluster or in Slurm jobs (default: one after another)")
    p.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto", help="default: a GPU if there is one")
    return p


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


def new_tuner(search: Search, options: dict[str, Any], asked: list[dict[str, Any]] | None = None):
    """KerasTuner's loop over the trials of a search; with `asked` it runs none, and notes their settings there.

    Nothing of it is reloaded when a search is resumed: the same seed proposes the same trials, and `Search` has kept
    those that were finished, whenever the process was killed.
    """
    import keras_tuner
    from keras_tuner.engine import base_tuner

    class RecipeTuner(base_tuner.BaseTuner):
        def pre_create_trial(self):
            time.sleep(0.1)  # a worker without a trial asks again and again

        def run_trial(self, trial):
            settings = settings_of(trial)
            if asked is not None:
                asked.append(settings)
                return {OBJECTIVE: 0.0}
            log.info("trial %d: %s", 1 + int(trial.trial_id), said(settings))
            try:
                score = search.score(settings)
            except InputError as error:
                log.warning("warning: trial %d failed: %s", 1 + int(trial.trial_id), error)
                return {OBJECTIVE: 0.0}  # KerasTuner would print a traceback; `Search` knows that it failed
            except Exception as error:
                raise keras_tuner.errors.FatalError(f"trial {said(settings)}: {error}") from error  # else swallowed
            log.info("trial %d: accuracy %.1f %%", 1 + int(trial.trial_id), 100 * score)
            return {OBJECTIVE: score}

        def save(self):
            pass

    space, tune = keras_tuner.HyperParameters(), search.base.recipe.tune
    for key, values in tune.items():
        space.Choice(key, [json.dumps(value) for value in values])  # any values, and as text they stay exact
    limit, oracles = options["max_trials"], keras_tuner.oracles
    if options["search"] == "grid" and limit == combinations(search.base.recipe):
        limit = None
    kind = {"grid": oracles.GridSearchOracle, "random": oracles.RandomSearchOracle,
            "bayesian": oracles.BayesianOptimizationOracle}[options["search"]]
    oracle = forgiving(kind)(
        objective=keras_tuner.Objective(OBJECTIVE, "max"), max_trials=limit, hyperparameters=space,
        seed=1 + options["seed"] % 2**31,  # KerasTuner takes 0 for none
        tune_new_entries=False, allow_new_entries=False)
    oracle.verbose = 0
    return RecipeTuner(oracle, directory=str(search.base.folder), project_name="oracle")


def forgiving(kind: type) -> type:
    """The oracle class, but a chief started again takes what a worker says of a trial that its predecessor gave out.

    The worker's run is kept in its folder anyway. KerasTuner would raise while it holds a lock, and never end.
    """
    from keras_tuner.engine import trial as trials

    class Forgiving(kind):
        def get_trial(self, trial_id):
            return self.trials.get(trial_id) or trials.Trial(self.get_space(), trial_id)

        def update_trial(self, trial_id, metrics, step=0):
            if trial_id not in self.trials:
                return self.get_trial(trial_id)
            return super().update_trial(trial_id, metrics, step)

        def end_trial(self, trial):
            given = {known.trial_id: settings_of(known) for known in self.ongoing_trials.values()}
            if given.get(trial.trial_id) == settings_of(trial):
                super().end_trial(trial)

    return Forgiving


def settings_of(trial) -> dict[str, Any]:
    """The settings of KerasTuner's trial."""
    return {key: json.loads(text) for key, text in trial.hyperparameters.values.items()}


def explore(tuner, who: str) -> None:
    """Runs the trials; a chief waits until its workers have run them."""
    import grpc
    from sklearn.exceptions import ConvergenceWarning

    address = ":".join(os.environ.get(name, "") for name in VARIABLES[1:])
    if who == "chief":
        log.info("chief at %s: start the workers", address)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # equal scores, which say nothing to a Gaussian process
            tuner.search()
    except grpc.RpcError:
        raise InputError(f"the chief at {address} has gone: start it, and this worker, again") from None
    except RuntimeError as error:
        if who != "chief":
            raise
        raise InputError(f"the chief cannot listen at {address}: {error}") from None


def trials_by(arguments: argparse.Namespace, search: Search, options: dict[str, Any], folder: Path) -> None:
    """Runs the trials by a launcher, ahead of KerasTuner, which then finds them finished. It knows what to try without
    scores; those that do not fit the recordings are its own to tell. Exit code 1 if others failed.
    """
    asked: list[dict[str, Any]] = []
    new_tuner(search, options, asked).search()
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
    if failed:
        launch.tell_failures(failed, tasks, folder)
        log.error("error: %d of %d trials failed; the same command tries them again", len(failed), len(tasks))
        sys.exit(1)


def wait_for_chief(folder: Path, options: dict[str, Any]) -> bool:
    """Waits until the chief listens; False if the search is finished and no chief will."""
    address = os.environ[VARIABLES[1]], int(os.environ[VARIABLES[2]])
    log.info("worker %s: waiting for the chief at %s:%d", os.environ[VARIABLES[0]], *address)
    while not (state := state_of(folder)).get("complete") or state["options"] != options:
        try:
            socket.create_connection(address, 5).close()
            return True
        except OSError:
            time.sleep(0.5)
    return False


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
    recipe, folder = run_folder.resolve(arguments)
    check(recipe, arguments.stage)
    if arguments.max_trials is not None and arguments.max_trials < 1:
        raise InputError(f"--max-trials takes a number from 1. Received: {arguments.max_trials}")
    folder = folder if arguments.run else folder.with_name(f"tune-{folder.name}")
    who, every = role(), combinations(recipe)
    if arguments.launcher and (who != "alone" or arguments.search == "bayesian"):
        raise InputError("--launcher goes with --search grid and random, and without KerasTuner's chief and workers: "
                         "what a bayesian search tries next depends on what it has seen")
    most = arguments.max_trials or (every if arguments.search == "grid" else 20)
    options = {"stage": arguments.stage, "held_out": arguments.held_out, "search": arguments.search,
               "seed": recipe.seed if arguments.seed is None else arguments.seed, "max_trials": min(most, every)}
    if who == "worker" and not wait_for_chief(folder, options):
        log.info("the search in %s is finished", folder)
        return
    from tfkfin.fit.run import cleared

    with cleared(folder):
        search = open_search(recipe, folder, arguments.stage, arguments.held_out)
        begun = search.begin(options, writes=who != "worker")
        if begun:
            log.info("%d of %d combinations, train repetitions %s, held out %d", options["max_trials"], every,
                     list(search.train), search.held_out)
            with quiet_start():
                import keras_tuner  # noqa: F401  brings TensorFlow
            if arguments.launcher:
                trials_by(arguments, search, options, folder)
            if who != "chief":
                set_up_device(arguments.device, mixed_precision=False)
    if begun:
        tuner = new_tuner(search, options)
        explore(tuner, who)
        if who == "worker":
            log.info("no trial is left; the chief writes the results to %s", folder)
            return
        search.finish([settings_of(trial) for trial in tuner.oracle.trials.values()], options)
    show(folder)


if __name__ == "__main__":
    run(main)
