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
from tfkfin.base.console import InputError, format_numbers, numeric, parse_numbers, quiet_start, run
from tfkfin.base.files import making, replacing
from tfkfin.fit import run_folder
from tfkfin.fit.score_table import show_scores
from tfkfin.store import presets


def parser() -> argparse.ArgumentParser:
    about, head, examples = __doc__.partition("examples:")
    p = command_line("evaluate", "MODEL --data DIR [options]", about, head + examples)
    p.add_argument("model", nargs="?", help="a run folder, or a SavedModel (its version folder or the one above)")
    p.add_argument("--fin", metavar="NAME_OR_DIR", help="FINs to score instead: bilstm, conv or a model folder")
    p.add_argument("--data", metavar="DIR", help="folder of recordings (default: the run's own)")
    p.add_argument("--subjects", metavar="1-25", help="default: all there are")
    p.add_argument("--repetitions", metavar="2,5", help="to score (default: all there are; of a run "
                   "always its test repetitions)")
    p.add_argument("--exercise", metavar="K", default="1", help="the k of S{n}_E{k}_A1.mat; several together: 1-3 "
                   "(default: 1)")
    p.add_argument("--stride-ms", type=numeric(float, 0.01, 1e5), help="between windows, but for a run (default: 50; "
                   "with --stream the model's own)")
    p.add_argument("--stream", action="store_true", help="decide whole recordings as a live session does, rest and "
                   "transitions too")
    p.add_argument("--adapt", action="store_true", help="with --stream: online adaptation without labels, carried from "
                   "session to session")
    p.add_argument("--engine", default="auto", help="with --stream, as of tfkfin.live (default: the fastest)")
    p.add_argument("--decisions", metavar="FILE", type=Path, help="with --stream: every decision as a line of JSON, to "
                   "a new file")
    p.add_argument("--windows", type=numeric(int, 0, 10**8), default=2000, help="FINs: how many windows, evenly spaced "
                   "in the recordings (default: 2000; 0: every one)")
    p.add_argument("--plots", metavar="DIR", type=Path, help="where to write PNG plots (default: beside --json)")
    return p


def main(argv: list[str]) -> None:
    arguments = parsed(parser(), argv)
    folder, is_run = _model(arguments)
    with quiet_start():
        import tensorflow as tf

        tf.zeros(1)
    subjects, repetitions = (text and parse_numbers(text) for text in (arguments.subjects, arguments.repetitions))
    exercise = parse_numbers(arguments.exercise)
    if arguments.stream:
        from tfkfin.live import offline

        streams = offline.run_streams(folder, arguments.data, subjects, arguments.adapt) if is_run else \
            offline.model_streams(folder, arguments.data, subjects, exercise, repetitions, arguments.engine,
                                  arguments.adapt)
        scores = offline.evaluate(str(folder), streams, arguments.stride_ms, arguments.decisions, arguments.adapt)
        answer(scores)
        return
    from tfkfin.fit import evaluation

    if is_run:
        cases = evaluation.run_cases(folder, arguments.data, subjects)
    else:
        from tfkfin.serving.engines import Exported

        model = evaluation.Fins(folder) if arguments.fin else Exported(folder, "savedmodel")
        cases = evaluation.model_cases(model, arguments.data, subjects, exercise, repetitions,
                                       arguments.stride_ms or 50.0, arguments.windows)
    scores, figures = evaluation.evaluate(str(folder), cases)
    show(scores)
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
    columns = [(f"accuracy % {what}", scores[key]) for key, what in (("accuracy", "a window"), (
        "execution", "an execution")) if key in scores]
    show_scores(scores["fin"], f"Imitation{made}", columns, f"Accuracy{made}")
    if scores["synthetic"]:
        console.print("No person was recorded: these scores say nothing about people.")
    if scores["trained_on"]:
        console.print(f"The model was trained on repetitions {format_numbers(scores['trained_on'])}: if these are the "
                      "recordings that it was made from, choose others with --repetitions.")


if __name__ == "__main__":
    run(main)
