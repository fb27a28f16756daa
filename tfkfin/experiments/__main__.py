"""`python -m tfkfin.experiments`: the paper's experiments and a ladder of protocols on your recordings.

examples:
  python -m tfkfin.experiments all --pipeline pipelines/demo.toml
      everything on an embedded synthetic DB2, in minutes; shows that it runs, says nothing about people
  python -m tfkfin.experiments downstream --data MINE --set split.train_repetitions=1,3 \\
      --set split.test_repetitions=2
      classifiers on exact features of your own recordings
  python -m tfkfin.experiments finetune --data DB2 --pipeline db2_all --seeds 3
      gain of pre-training on Ninapro DB2; the same command goes on where it stopped
  python -m tfkfin.experiments downstream --data DB2 --pipeline db2_all --launcher local
      people and seeds by as many processes as cores allow
  python -m tfkfin.experiments ladder --data MINE --set split.repetitions_per_session=4 \\
      --set split.train_sessions=1-5 --set split.test_sessions=6-30
      how decoders hold from repetition to repetition, day to day, person to person
  python -m tfkfin.experiments faults --data MINE --set split.train_repetitions=1,3 \\
      --set split.test_repetitions=2
      what an offset, hum, a dead electrode and others cost
  python -m tfkfin.experiments ablation --data MINE --set split.train_repetitions=1,3 \\
      --set split.test_repetitions=2
      on the same ladder: the paper's network from FINs and from random weights, at equal updates
  python -m tfkfin.experiments finetune --data DB2 --pipeline db2_all --protocol paper
      the authors' way of scoring, marked as optimistic wherever it is shown
"""

import argparse
from pathlib import Path

from tfkfin import launch
from tfkfin import recipe as recipes
from tfkfin.base.answers import command_line, parsed
from tfkfin.base.console import log, run
from tfkfin.base.errors import InputError
from tfkfin.base.options import add_options
from tfkfin.experiments import kinds
from tfkfin.fit import run_folder
from tfkfin.recipe import Recipe

QUICK = {"windows_per_epoch": 64, "test_windows": 96}


def parser() -> argparse.ArgumentParser:
    there, (about, head, examples) = kinds.summaries(), __doc__.partition("examples:")
    listed = "experiments:\n" + "".join(f"  {name:12} {summary}\n" for name, summary in there.items())
    p = command_line("experiments", "all --data DIR [options]", about, f"{listed}\n{head}{examples}")
    p.add_argument("experiment", choices=(*there, "all"), help="which one; all: the paper's, which share fits")
    run_folder.add_options(p, "experiments-")
    add_options(p, "experiments", launcher=launch.names())
    return p


def named(experiment: str) -> tuple[str, ...]:
    """The experiments meant; "all" are the paper's."""
    return kinds.papers() if experiment == "all" else (experiment,)


def resolve(arguments: argparse.Namespace) -> tuple[Recipe, Path, int, int]:
    """The recipe, run folder, number of seeds and cap on test windows that a command line asks for."""
    if arguments.protocol:
        arguments.settings = [*arguments.settings, f"protocol={arguments.protocol}"]
    if arguments.experiment != "all":
        arguments.pipeline = arguments.pipeline or kinds.load(arguments.experiment).pipeline or None
    recipe, folder = run_folder.resolve(arguments)
    if recipe.source.kind == "signals":
        raise InputError("experiments need recordings: this recipe trains FINs on synthetic signals alone")
    for name in named(arguments.experiment):
        kinds.load(name).check(recipe)
    quick = recipe.source.kind == "synthetic" if arguments.quick is None else arguments.quick
    if quick:
        windows = min(recipe.finetune.windows_per_epoch or QUICK["windows_per_epoch"], QUICK["windows_per_epoch"])
        recipe = recipes.replaced(recipe, **{"finetune.windows_per_epoch": windows})
    if not arguments.run:
        folder = folder.with_name(f"experiments-{folder.name.rpartition('-')[0]}-{recipe.digest}")
    seeds = arguments.seeds if arguments.seeds is not None else 1 if quick else 3
    cap = arguments.max_test_windows
    cap = cap if cap is not None else QUICK["test_windows"] if quick else 0
    if seeds < 1 or cap < 0:
        raise InputError(f"--seeds takes 1 or more and --max-test-windows 0 or more. Received: {seeds} and {cap}")
    return recipe, folder, seeds, cap


def rows_of(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The ladder's rows that a command line names; (): all.

    Raises:
        InputError: there is no such row, or the experiment has none.
    """
    if arguments.rows is None:
        return ()
    if arguments.experiment not in ("ladder", "faults"):
        raise InputError(f"--rows chooses rows of the experiments ladder and faults. Received: {arguments.experiment}")
    from tfkfin.experiments.ladder import rows

    return rows.chosen([name.strip() for name in arguments.rows.split(",")])


def main(argv: list[str]) -> None:
    arguments = parsed(parser(), argv)
    recipe, folder, seeds, cap = resolve(arguments)
    rows = rows_of(arguments)
    from tfkfin.fit.run import cleared, open_run

    with cleared(folder), (opened := open_run(recipe, folder)).alone():
        data = opened.dataset
        log.info("%d subjects, %d channels, %g Hz, %d movements%s", len(data.split.subjects), data.channels,
                 data.rate_hz, len(data.movements), " (synthetic recordings: nobody was recorded)" * data.synthetic)
        from tfkfin.fit.device import set_up_device

        set_up_device(arguments.device, False)
        from tfkfin.experiments.runner import Runner

        runner, names = Runner(opened, seeds, cap, rows), named(arguments.experiment)
        if arguments.launcher:
            tasks, failed = runner.run_by(names, arguments.launcher, arguments.device)
            launch.end_if_failed(failed, tasks, folder, "tasks")
        runner.run(names)
    runner.show(names)


if __name__ == "__main__":
    run(main)
