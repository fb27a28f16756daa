"""`python -m tfkfin.train`: runs the stages of a recipe on recordings and prints the scores.

examples:
  python -m tfkfin.train --stage finetune
      the main job on an embedded synthetic DB2: FINs, classifier, both joined, a score table
  python -m tfkfin.train --stage finetune --data DB2 --pipeline db2_within
      the paper's within-subject experiment on Ninapro DB2
  python -m tfkfin.train --stage finetune --data MINE --pipeline own --set split.train_repetitions=1,3 \\
      --set split.test_repetitions=2
      the paper's method on any folder of recordings
  python -m tfkfin.train --stage finetune --data DB2 --pipeline best --folds 6 --seeds 3 --launcher slurm
      every person, fold and seed a job of an array; the same command resumes, and writes fits.csv and results.json
  tensorboard --logdir runs
      watch it
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from tfkfin import launch
from tfkfin.base import registry
from tfkfin.base.answers import answer, command_line, paper, parsed
from tfkfin.base.console import log, run
from tfkfin.base.errors import InputError
from tfkfin.base.options import add_options
from tfkfin.fit import device, run_folder
from tfkfin.recipe import Recipe


def parser() -> argparse.ArgumentParser:
    p = command_line("train", "--stage finetune --data DIR --pipeline best [options]", __doc__)
    p.add_argument("--stage", choices=(*registry.names("fit/stages"), "all"), default="all",
                   help="the stage to reach; missing earlier ones run first, finished ones are reused (default: all)")
    run_folder.add_options(p)
    add_options(p, "train", launcher=launch.names())
    return p


def main(argv: list[str]) -> None:
    arguments = parsed(parser(), argv)
    recipe, folder = run_folder.resolve(arguments)
    arguments.stage = "finetune" if arguments.stage == "all" else arguments.stage
    if arguments.strategy != "default" and (arguments.stage != "imitate" or arguments.launcher):
        raise InputError("--strategy shares the stage imitate: give --stage imitate; the others go person by person, "
                         "--launcher does them many at once")
    if recipe.protocol != "honest":
        raise InputError("training scores are honest ones; the authors' way of scoring is in "
                         "python -m tfkfin.experiments --protocol paper")
    from tfkfin.fit.run import cleared

    apart = (arguments.launcher, arguments.folds, arguments.seeds) != (None, None, None)
    folder = folder.with_name(f"fits-{folder.name}") if apart and not arguments.run else folder
    with cleared(folder):
        (many if apart else one)(arguments, recipe, folder)


def one(arguments: argparse.Namespace, recipe: Recipe, folder: Path) -> None:
    """One run."""
    from tfkfin.fit.run import open_run

    opened = open_run(recipe, folder, arguments.profile)
    if (folder / "fits").is_dir():
        raise InputError(f"{folder} holds fits of --launcher, --folds or --seeds: give another folder with --run")
    opened.strategy = arguments.strategy
    with opened.alone():
        if recipe.source.kind != "signals":
            about = opened.dataset.describe()
            log.info("%d subject%s, %d channels, %g Hz, %d movements, train repetitions %s, test %s%s",
                     len(about["subjects"]), "s" * (len(about["subjects"]) > 1), about["channels"],
                     about["rate_hz"], len(about["movements"]), about["train_repetitions"], about["test_repetitions"],
                     " (synthetic recordings: scores show that the software works, and say nothing about people)"
                     if about["synthetic"] else "")
        device.set_up_device(arguments.device, arguments.mixed_precision, arguments.strategy)
        from tfkfin.fit.stages import run_stage

        results = run_stage(opened, arguments.stage)
    show(results, folder)


def many(arguments: argparse.Namespace, recipe: Recipe, folder: Path) -> None:
    """Fits people, folds and seeds apart, by a launcher. The exit code is 1 if some fail; the others are kept."""
    from tfkfin.fit import units

    if arguments.profile:
        raise InputError("--profile looks at one run: leave --launcher, --folds and --seeds out")
    folds, seeds = (1 if count is None else count for count in (arguments.folds, arguments.seeds))
    plan = units.open_plan(recipe, folder, arguments.stage, folds, seeds)
    plan = replace(plan, device=arguments.device, mixed_precision=arguments.mixed_precision)
    with plan.base.alone():
        failed = plan.launch(arguments.launcher or "local")
        results = plan.publish()
    show(results, folder)
    if failed:
        log.error("error: %d of %d fits failed; the same command tries them again", failed, len(plan.units()))
        sys.exit(1)


def show(results: dict, folder: Path) -> None:
    """Prints the score table of a run."""
    answer(results | {"run": folder})
    fins, joined, console = bool(results.get("fin")), results["stage"] == "finetune", paper()
    exact = (("svm", "SVM on exact features"), ("classifier", "network on exact features")) if fins else (
        ("classifier", "decoder"),) if not joined else ()  # without FINs both stages have the same decoder
    columns = [(title, results[key]) for key, title in exact if key in results]
    if joined:
        columns += [("FINs + network, raw signal" if fins else "decoder, raw signal", results["accuracy"]),
                    ("the same, a repetition", results["execution"])]
    synthetic = bool((results.get("dataset") or {}).get("synthetic"))
    what = "synthetic recordings" if synthetic else "every test window"
    run_folder.show_scores(results.get("fin"), "FINs against exact features, test windows", columns,
                           f"Accuracy %, {what}")
    known, own = (results.get(key, {}).get("mean") for key in ("classifier", "accuracy"))
    if fins and joined and synthetic and None not in (known, own) and own < known:
        console.print("FINs + network have less here than the network on exact features, on which it was trained: FINs "
                      "imitate these closely, not exactly (R² above), and a demo fine-tunes both for few steps.")
    console.print(", ".join(f"{stage} {s:.0f} s" for stage, s in results["seconds"].items()))
    console.print(f"{folder / 'results.json'}\nwatch: tensorboard --logdir {folder}", soft_wrap=True)


if __name__ == "__main__":
    run(main)
