"""`python -m tfkfin.evaluate`: scores a run, a SavedModel or FINs on recordings.

examples:
  python -m tfkfin.evaluate runs/demo-1a2b3c --json scores.json
      a finished run, on its own test repetitions
  python -m tfkfin.evaluate savedmodels/demo_s1 --data DB2 --subjects 1 --repetitions 2,5
      an exported model, on any recordings with its channels
  python -m tfkfin.evaluate --fin bilstm --data DB2 --json fin.json
      the shipped FINs, zero-shot: they were not trained on these recordings
  python -m tfkfin.evaluate savedmodels/demo_s1 --data DB2 --subjects 1 --stream --decisions decisions.jsonl
      whole recordings, decided from the first sample to the last as python -m tfkfin.live decides them
"""

import argparse
from pathlib import Path

from tfkfin.base.answers import answer, command_line, paper, parsed
from tfkfin.base.console import InputError, format_numbers, log, parse_numbers, run
from tfkfin.base.extras import load_tensorflow
from tfkfin.base.files import making, replacing
from tfkfin.base.options import add_options
from tfkfin.fit import run_folder
from tfkfin.store import presets


def parser() -> argparse.ArgumentParser:
    p = command_line("evaluate", "MODEL --data DIR [options]", str(__doc__))
    add_options(p, "evaluate")
    return p


def main(argv: list[str]) -> None:
    arguments = parsed(parser(), argv)
    folder, is_run = _model(arguments)
    load_tensorflow()
    subjects, repetitions = (text and parse_numbers(text) for text in (arguments.subjects, arguments.repetitions))
    exercise = parse_numbers(arguments.exercise)
    if arguments.stream:
        from tfkfin.live import offline

        streams = offline.run_streams(folder, arguments.data, subjects, arguments.adapt) if is_run else \
            offline.model_streams(folder, arguments.data, subjects, exercise, repetitions, arguments.engine,
                                  arguments.adapt)
        scores = offline.evaluate(str(folder), streams, arguments.stride_ms, arguments.decisions, arguments.adapt,
                                  bool(repetitions))
        show_training(scores)
        answer(scores)
        return
    from tfkfin.fit import metrics, scoring

    if is_run:
        cases = scoring.run_cases(folder, arguments.data, subjects)
    else:
        from tfkfin.serving.engines import Exported

        model = scoring.Fins(folder) if arguments.fin else Exported(folder, "savedmodel")
        cases = scoring.model_cases(model, arguments.data, subjects, exercise, repetitions,
                                    arguments.stride_ms or 50.0, arguments.windows)
    scores, figures = scoring.evaluate(str(folder), cases)
    show(scores)
    if arguments.fin and (poor := [name for name, one in scores["fin"].items() if one["r2"] < metrics.HOLDS]):
        log.warning("warning: these FINs do not hold on these recordings: R² of %s is below %g. A run lets them learn "
                    "from recordings first with imitate.epochs=auto", ", ".join(poor), metrics.HOLDS)
    answer(scores)
    to = Path(arguments.json) if arguments.json not in ("", "-") else None
    if plots := arguments.plots or (to and to.parent):
        with making(plots):
            for name, figure in figures.items():
                with replacing(plots / f"{to.stem if to else folder.name}_{name}.png") as partial:
                    figure.savefig(partial, dpi=110, bbox_inches="tight")


def _model(arguments: argparse.Namespace) -> tuple[Path, bool]:
    """What is to be scored, and whether it is a run; options that do not fit it are refused before TensorFlow loads."""
    if (arguments.fin is None) == (arguments.model is None):
        raise InputError("give either a run or SavedModel to score, or --fin NAME_OR_DIR")
    if not (folder := Path(arguments.fin or arguments.model)).exists() and not arguments.fin:
        raise InputError(f"{folder} is not there: give a run folder or a model folder")
    is_run = not arguments.fin and run_folder.is_run(folder)
    if not is_run:
        presets.find(folder)
        if arguments.data is None:
            raise InputError("name the folder of recordings with --data DIR")
    asked = arguments.engine != "auto" or arguments.decisions or arguments.adapt
    if arguments.stream and arguments.fin or asked and not arguments.stream:
        raise InputError("--stream is for decoders" if arguments.stream else
                         "--stream is missing: --engine, --decisions and --adapt go with it")
    return folder, is_run


def show(scores: dict) -> None:
    console, made = paper(), " (synthetic recordings)" if scores["synthetic"] else ""
    columns = [(f"raw signal, {what}", scores[key]) for key, what in (("accuracy", "a window"), (
        "execution", "a repetition")) if key in scores]
    run_folder.show_scores(scores["fin"], f"FINs against exact features{made}", columns, f"Accuracy %{made}")
    if scores["synthetic"]:
        console.print("No person was recorded: these scores say nothing about people.")
    show_training(scores)


def show_training(scores: dict) -> None:
    if scores["trained_on"]:
        paper().print(f"The model has learnt from repetitions {format_numbers(scores['trained_on'])}: if these are the "
                      "recordings that it was made from, choose others with --repetitions.")


if __name__ == "__main__":
    run(main)
