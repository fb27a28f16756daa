"""`python -m tfkfin.evaluate`: scores a run, a SavedModel or FINs on recordings."""

import argparse
import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tfkfin import recipe as recipes
from tfkfin.base.answers import answer, command_line, paper, parsed, showing
from tfkfin.base.console import (
    InputError,
    format_numbers,
    log,
    numeric,
    parse_numbers,
    quiet_start,
    run,
)
from tfkfin.base.files import making, replacing
from tfkfin.decoder.decision import Decision
from tfkfin.store import presets
from tfkfin.train import show_scores

EXAMPLES = """examples:
  python -m tfkfin.evaluate runs/demo-1a2b3c --json scores.json
      a finished run, on its own test repetitions
  python -m tfkfin.evaluate savedmodels/demo_s1 --data DB2 --subjects 1 --repetitions 2,5
      an exported model, on any recordings with its channels
  python -m tfkfin.evaluate --fin bilstm --data DB2 --json fin.json
      the shipped FINs, zero-shot: they have never seen these recordings
  python -m tfkfin.evaluate savedmodels/demo_s1 --data DB2 --subjects 1 --stream --decisions decisions.jsonl
      whole recordings, decided from the first sample to the last as python -m tfkfin.live decides them
"""


def parser() -> argparse.ArgumentParser:
    p = command_line("evaluate", "MODEL --data DIR [options]", __doc__, EXAMPLES)
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
    p.add_argument("--adapt", action="store_true", help="with --stream: go on learning from it without labels, and "
                   "from session to session")
    p.add_argument("--engine", default="auto", help="with --stream, as of tfkfin.live (default: the fastest)")
    p.add_argument("--decisions", metavar="FILE", type=Path, help="with --stream: every decision as a line of JSON, to "
                   "a new file")
    p.add_argument("--windows", type=numeric(int, 0, 10**8), default=2000, help="FINs: how many windows, spread over "
                   "the recordings (default: 2000; 0: every one)")
    p.add_argument("--plots", metavar="DIR", type=Path, help="where to write PNG plots (default: beside --json)")
    return p


class Fins:
    """FINs alone, in a decoder's place: they imitate features and decide nothing."""

    decision = Decision()

    def __init__(self, name: Path):
        self._trained, self.card = presets.load(name), presets.card(presets.find(name))

    def over(self, emg: np.ndarray, starts: np.ndarray) -> dict[str, np.ndarray]:
        """A standardised recording (T, C), any C, and where windows begin (N,) -> {"features": (N, C, F)}."""
        channels = emg.shape[1]
        return self._trunk(channels).recording(emg, starts, np.zeros(channels), np.ones(channels))

    @functools.cache  # noqa: B019  one object a process
    def _trunk(self, channels: int):
        from tfkfin.nets import fins
        from tfkfin.nets.forward import Trunk

        return Trunk.of(fins.bank(fins.fins_of(self._trained), channels))


def _opened(folder: Path, arguments: argparse.Namespace) -> tuple[Any, tuple[int, ...]]:
    """A run, its recordings or those that are given, and whose are wanted."""
    from tfkfin.fit.run import Run
    from tfkfin.pipeline.dataset import open_dataset

    opened, wanted = Run(folder, recipes.load(folder / "recipe.toml")), _numbers(arguments.subjects)
    if not any(folder.glob("finetune/S*.json")):
        raise InputError(f"{folder} has fine-tuned nobody: run --stage finetune, or export its FINs and give --fin")
    if arguments.data is not None:
        opened.dataset = open_dataset(opened.recipe, arguments.data)
    elif opened.recipe.source.kind == "recordings":
        opened.claim()
    there = opened.dataset.split.subjects
    if unknown := set(wanted or ()) - set(there):
        raise InputError(f"{folder} knows subjects {format_numbers(there)}, not {format_numbers(unknown)}")
    return opened, wanted or there


def of_run(folder: Path, arguments: argparse.Namespace) -> Iterator[tuple]:
    """A run's fine-tuned decoders on the test repetitions of its own, or of other, recordings: as `of_recordings`."""
    from tfkfin.fit.stages import finetune

    opened, wanted = _opened(folder, arguments)
    dataset = opened.dataset
    for subject in dataset.subjects(wanted, memory=opened.recipe.classifier.vote - 1):
        yield (finetune.load(opened, subject.number), subject.select(dataset.part("test")), dataset.stride,
               dataset.synthetic)


def streams(folder: Path, arguments: argparse.Namespace, is_run: bool) -> Iterator[tuple]:
    """A decoder, whose recordings, and these, one after another, with labels where they are to be scored.

    Of a run its test repetitions are scored, of an exported decoder `--repetitions`, by default all.
    """
    from tfkfin.live import scoring, stream
    from tfkfin.pipeline.splits import Part
    from tfkfin.recordings import readers

    if is_run:
        from tfkfin.fit.stages import finetune

        opened, wanted = _opened(folder, arguments)
        split, part, people = opened.dataset.split, opened.dataset.part("test"), opened.dataset.files
    else:
        decoder, engine = stream.load(folder, arguments.engine)
        decoder, engine = (stream.whole(decoder, folder), "keras") if arguments.adapt and decoder.model is None else (
            decoder, engine)
        log.info("engine %s", engine)
        wanted, repetitions = _numbers(arguments.subjects), _numbers(arguments.repetitions)
        split, part = recipes.Split(), repetitions and Part(repetitions)
        people = readers.by_subject(readers.find(arguments.data, wanted, parse_numbers(arguments.exercise)))
    for number in wanted or people:
        recordings = (readers.read(file) for file in people[number])
        if arguments.adapt:
            recordings = (piece for recording in recordings for piece in scoring.of_sessions(recording, split, part))
        if part:
            recordings = (scoring.masked(recording, split, part) for recording in recordings)
        yield finetune.load(opened, number) if is_run else decoder, number, recordings


def of_recordings(model: Any, arguments: argparse.Namespace) -> Iterator[tuple]:
    """The model, a `Subject`, samples from window to window, and whether nobody was recorded: one after another.

    `model`: an exported decoder, on all windows of some repetitions; or `Fins`, on windows spread over the recordings.
    """
    from tfkfin.pipeline import dataset
    from tfkfin.pipeline.windows import samples
    from tfkfin.recordings import readers

    card, rate, repetitions = model.card, float(model.card["rate_hz"]), _numbers(arguments.repetitions)
    stride_ms = arguments.stride_ms or 50.0
    window = recipes.Window(length_ms=1000 * card["length"] / rate, stride_ms=stride_ms, rate_hz=rate)
    people = readers.by_subject(readers.find(arguments.data, _numbers(arguments.subjects),
                                             parse_numbers(arguments.exercise)))
    for files in people.values():
        subject, _ = dataset.whole(files, window, model.decision.memory, card.get("filter"))
        subject = subject.select(repetitions) if repetitions else subject
        cut = subject.windows
        if not len(cut):
            raise InputError(f"{files[0].path} has no window of repetitions {arguments.repetitions or 'at all'}")
        if card["kind"] == "decoder":
            if subject.emg.shape[1] != model.channels:
                raise InputError(f"{files[0].path} has {subject.emg.shape[1]} channels, the model {model.channels}")
            if unknown := sorted(set(cut.movements.tolist()) - set(card["movements"])):
                raise InputError(f"{files[0].path} has movements {unknown} that the model does not know: "
                                 f"{card['movements']}")
            subject = replace(subject, mean=np.asarray(card["mean_v"]), sd=np.asarray(card["sd_v"]))  # for features
        elif arguments.windows:
            count = min(len(cut), -(-arguments.windows // len(people)))
            chosen = np.unique(np.linspace(0, len(cut) - 1, count).astype(int))
            subject = replace(subject, windows=cut[chosen])
        synthetic = any(readers.header(file).synthetic for file in files)
        yield model, subject, samples(stride_ms, rate), synthetic


def judged(model: Any, subject: Any, stride: int) -> tuple[dict, np.ndarray, np.ndarray]:
    """A subject's scores, a decoder's as windows are decided in order of time; true and imitated features (N·C, F)."""
    from tfkfin.fit import metrics, scores

    card, decision = model.card, model.decision
    every, _, own = subject.led(decision.memory, stride)
    emg = every.emg if card["kind"] == "decoder" else every.standardised()
    answers = model.over(emg, every.windows.starts)
    true = subject.features(tuple(card["features"]), card["length"], card["rate_hz"])
    true, imitated = (a.reshape(-1, true.shape[2]) for a in (true, answers["features"][own]))
    found = {"fin": metrics.imitation(true, imitated, card["features"])}
    if card["kind"] == "decoder":
        labels, _ = scores.decided(subject, lambda _: answers["probabilities"], decision, card["movements"], stride)
        found |= scores.score(subject.windows, labels, card["movements"], stride / card["rate_hz"], decision.reject)
    return found, true, imitated


def evaluate(name: str, parts: Iterator[tuple]) -> tuple[dict, dict]:
    """Scores of what is called `name` over all parts, as they are written to JSON, and figures by name."""
    from tfkfin.fit import board, metrics
    from tfkfin.fit.scores import mean_imitation, three_numbers

    found, features, seen, synthetic = {}, [], set(), False
    for model, subject, stride, made in parts:
        with showing(f"scoring S{subject.number}"):
            one, *both = judged(model, subject, stride)
        log.info("S%d: R² %s", subject.number, "  ".join(f"{n} {fin['r2']:.3f}" for n, fin in one["fin"].items()))
        found[str(subject.number)] = one
        features += [both] if model.card["kind"] == "fins" else []
        seen |= learnt_from(model.card, subject.windows)
        synthetic |= made
    card, names = model.card, model.card["features"]
    summary = {"model": name, "synthetic": synthetic,  # nor is a run scored on what its decoders were trained on
               "trained_on": sorted(seen),
               "subjects": {s: {n: fin["r2"] for n, fin in one["fin"].items()} for s, one in found.items()}}
    if features:
        true, imitated = (np.concatenate(arrays) for arrays in zip(*features, strict=True))
        fin = metrics.imitation(true, imitated, names)
        return (summary | {"fin": fin, "windows": len(true)},
                {"imitation": board.imitation_figure(true, imitated, names, fin)})
    movements = list(card["movements"])
    counts = np.sum([one["confusion"] for one in found.values()], axis=0)
    return (summary | three_numbers(found) | {"fin": mean_imitation([one["fin"] for one in found.values()]),
                                              "confusion": {"movements": movements, "counts": counts.tolist()}} | (
                                                  {"names": card["names"]} if card.get("names") else {}),
            {"confusion": board.confusion_figure(counts, movements, name, {int(m): n for m, n in
                                                                            card.get("names", {}).items()})})


def learnt_from(card: dict, windows: Any) -> set[int]:
    """Repetitions among these windows that the model of a card was trained on, if these are its recordings.

    Where sessions are files of their own, their repetitions may all count from 1: then sessions have to agree too.
    """
    about, parts = card.get("dataset") or {}, ("train", "finetune") if card["kind"] == "decoder" else ("pretrain",)
    split, there = card.get("recipe", {}).get("split", {}), windows.repetitions
    if "train_sessions" in about and not split.get("repetitions_per_session"):
        there = there[np.isin(windows.sessions, about["train_sessions"])]
    return set(there.tolist()) & {r for part in parts for r in about.get(f"{part}_repetitions", ())}


def _numbers(text: str | None) -> tuple[int, ...] | None:
    return parse_numbers(text) if text else None


def main(argv: list[str]) -> None:
    arguments = parsed(parser(), argv)
    if (arguments.fin is None) == (arguments.model is None):
        raise InputError("give either a run or SavedModel to score, or --fin NAME_OR_DIR")
    if not (folder := Path(arguments.fin or arguments.model)).exists() and not arguments.fin:
        raise InputError(f"{folder} is not there: give a run folder or a model folder")
    is_run = not arguments.fin and (folder / "recipe.toml").is_file()
    if not is_run:
        presets.find(folder)  # what is unfit is said before TensorFlow loads
        if arguments.data is None:
            raise InputError("name the folder of recordings with --data DIR")
    asked = arguments.engine != "auto" or arguments.decisions or arguments.adapt
    if arguments.stream and arguments.fin or asked and not arguments.stream:
        raise InputError("--stream is for decoders" if arguments.stream else
                         "--stream is missing: --engine, --decisions and --adapt go with it")
    with quiet_start():
        import tensorflow as tf

        tf.zeros(1)
    if arguments.stream:
        from tfkfin.live import offline

        offline.evaluate(str(folder), streams(folder, arguments, is_run), arguments.stride_ms, arguments.decisions,
                         arguments.adapt)
        return
    from tfkfin.serving.engines import Exported

    scores, figures = evaluate(str(folder), of_run(folder, arguments) if is_run else of_recordings(
        Fins(folder) if arguments.fin else Exported(folder, "savedmodel"), arguments))
    show(scores)
    answer(scores)
    to = Path(arguments.json) if arguments.json not in ("", "-") else None
    if plots := arguments.plots or (to and to.parent):
        with making(plots):
            for name, figure in figures.items():
                stem = to.stem if to else folder.name
                with replacing(plots / f"{stem}_{name}.png") as partial:
                    figure.savefig(partial, dpi=110, bbox_inches="tight")


def show(scores: dict) -> None:
    console, made = paper(), " (synthetic recordings)" if scores["synthetic"] else ""
    columns = [(f"accuracy % {what}", scores[key]) for key, what in (("accuracy", "a window"), (
        "execution", "an execution")) if key in scores]
    show_scores(scores["fin"], f"Imitation{made}", columns, f"Accuracy{made}")
    if scores["synthetic"]:
        console.print("Nobody was recorded: these scores say nothing about people.")
    if scores["trained_on"]:
        console.print(f"The model was trained on repetitions {format_numbers(scores['trained_on'])}: if these are the "
                      "recordings that it was made from, choose others with --repetitions.")


if __name__ == "__main__":
    run(main)
