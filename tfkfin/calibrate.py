"""`python -m tfkfin.calibrate`: a decoder goes on to a new session or person, from one repetition, as a new version."""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfkfin import launch
from tfkfin import recipe as recipes
from tfkfin.base.answers import answer, command_line, parsed
from tfkfin.base.console import (
    InputError,
    format_numbers,
    log,
    parse_numbers,
    quiet_start,
    run,
)
from tfkfin.base.files import read_json
from tfkfin.store import presets

if TYPE_CHECKING:
    from tfkfin.decoder.decoder import BaseDecoder
    from tfkfin.pipeline.subject import Subject

EXAMPLES = """examples:
  python -m tfkfin.calibrate savedmodels/mine_s1 --data TODAY --repetitions 1
      savedmodels/mine_s1 gets a new version, which knows the movements of repetition 1 in TODAY
  python -m tfkfin.calibrate savedmodels/mine_s1 --data TODAY --repetitions 1 --unlabelled
      the same without using which movement is which
  python -m tfkfin.calibrate savedmodels/mine_s1 --data TODAY --repetitions 1 --movements 3,5
      from two movements alone; what that does to the others is told
  python -m tfkfin.calibrate runs/mine-1a2b3c --from-subject 2 --data WEEK --session 3 --to savedmodels/mine
      subject 2's decoder of a run; of the recordings only session 3

  python -m tfkfin.calibrate runs/mine-1a2b3c --subjects 1-40 --data TODAY --to savedmodels/today --launcher slurm
      everybody's own decoder, by jobs

The decoder must remember sessions: train it with --pipeline best, or --set classifier.kind=gaussian. What the new
version scores is told on the other repetitions of the recordings, before and after; they do not steer anything.
"""


def parser() -> argparse.ArgumentParser:
    p = command_line("calibrate", "MODEL --data DIR --repetitions 1 [options]", __doc__, EXAMPLES)
    p.add_argument("model", metavar="MODEL", type=Path, help="model folder, version folder, or run folder")
    p.add_argument("--data", metavar="DIR", required=True, help="folder of recordings of one person")
    p.add_argument("--repetitions", metavar="LIST", default="1", help="learnt from, as in 1 or 1,2 (default: 1)")
    p.add_argument("--movements", metavar="LIST", help="learnt from, of these repetitions (default: all)")
    p.add_argument("--subject", type=int, metavar="N", help="whose recordings (default: the only subject's, or the "
                   "decoder's own)")
    p.add_argument("--subjects", metavar="1-25", help="several people, each from the run's decoder of their own if it "
                   "has one; DIR of --to gets a model folder s<N> and a file s<N>.json for each")
    p.add_argument("--launcher", choices=launch.names(), default="local", help="who does several people: processes "
                   "here, a Ray cluster or Slurm jobs (default: local)")
    p.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="settings",
                   help="an option of the launcher, such as launch.workers=8; repeatable")
    p.add_argument("--from-subject", type=int, metavar="N", help="whose decoder of a run (default: its first one's)")
    p.add_argument("--session", type=int, metavar="N", help="of the recordings (default: all that there are)")
    p.add_argument("--unlabelled", action="store_true", help="use where movements are, not which they are")
    p.add_argument("--to", type=Path, metavar="DIR", help="model folder, which gets a new version (default: MODEL's "
                   "own, or savedmodels/<run>_s<N>)")
    p.add_argument("--format", choices=("savedmodel", "onnx", "both"), help="default: as MODEL's, or savedmodel")
    return p


def place(arguments: argparse.Namespace) -> tuple[Path, dict, Path]:
    """Where the decoder is, its card as exported, and the model folder for the new version.

    Raises:
        InputError: no such decoder.
    """
    from tfkfin import export
    from tfkfin.store import card

    if (arguments.model / "recipe.toml").is_file():
        source, own = export.finished(arguments.model, arguments.from_subject)
        if own["kind"] != "decoder":
            raise InputError(f"{arguments.model} has fine-tuned nobody: run --stage finetune")
        name = arguments.model.resolve().name
        results = read_json(arguments.model / "results.json") or {}
        about = {"run": name, "format": "savedmodel"} | card.of_decoder(own, results)
        return source, about, arguments.to or Path("savedmodels", f"{name}_s{own['subject']}")
    version = presets.find(arguments.model)
    about = presets.card(version)
    if about.get("kind") != "decoder":
        raise InputError(f"{version} holds {about.get('kind', 'something else')}, no decoder")
    return version, about, arguments.to or version.parent


def recorded(arguments: argparse.Namespace, card: dict) -> "Subject":
    """The windows of one person's recordings at the decoder's rate.

    Raises:
        InputError: recordings that do not fit the decoder, or none of the repetitions.
    """
    from tfkfin.pipeline import dataset
    from tfkfin.recordings import readers

    people = readers.by_subject(readers.find(arguments.data, (arguments.subject,) if arguments.subject else None))
    whose = card["subject"] if len(people) > 1 else next(iter(people))
    if whose not in people:
        raise InputError(f"{arguments.data} has subjects {format_numbers(people)}: choose one with --subject")
    files = people[whose]
    rates = {readers.header(file).rate_hz for file in files}
    if rates != {card["rate_hz"]}:
        log.info("recordings at %s Hz are resampled to the decoder's %g Hz",
                 ", ".join(f"{rate:g}" for rate in sorted(rates)), card["rate_hz"])
    window = recipes.Window(length_ms=1000 * card["length"] / card["rate_hz"], stride_ms=card["stride_ms"],
                            rate_hz=card["rate_hz"], rest=0 in card["movements"])
    subject, _ = dataset.whole(files, window, card["decision"]["vote"] - 1, card.get("filter"))
    if arguments.session:
        subject = replace(subject, windows=subject.windows[subject.windows.sessions == arguments.session])
    fitting(subject, card, parse_numbers(arguments.repetitions), str(files[0].path))
    return subject


def fitting(subject: "Subject", card: dict, repetitions: tuple[int, ...], where: str) -> None:
    """Makes sure that a decoder can learn from these repetitions of a person's recordings.

    Raises:
        InputError: other channels than the decoder's, none of these repetitions, or a movement that it does not know.
    """
    if subject.emg.shape[1] != card["channels"]:
        raise InputError(f"{where} has {subject.emg.shape[1]} channels, the decoder {card['channels']}")
    there = subject.windows
    if not there.movements[np.isin(there.repetitions, repetitions)].any():
        raise InputError(f"{where} has no movement in repetitions {format_numbers(repetitions)}: it has "
                         f"{format_numbers(np.unique(there.repetitions).tolist()) or 'none'}")
    if unknown := sorted(set(there.movements.tolist()) - set(card["movements"])):
        raise InputError(f"{where} has movements {unknown} that the decoder does not know: {card['movements']}")


def judged(decoder, subject, inputs: np.ndarray, stretches: list[np.ndarray], tested: np.ndarray,
           shown: Sequence[int] | None = None) -> dict | None:
    """The three numbers of a decoder on the windows `tested` (N,), by its head `inputs` (N, D) of all; None of none.

    Given which movements were `shown`, the recall of these and of the others too, mean over movements.
    `stretches`: indices of windows in order of time, as of `Subject.led`.
    """
    from tfkfin.fit import scores

    if not tested.any():
        return None
    probabilities, labels = decoder.probabilities(inputs), np.zeros(len(tested), np.int64)
    for rows in stretches:
        labels[rows], _ = decoder.decision(probabilities[rows], decoder.movements)
    found = scores.score(subject.windows[tested], labels[tested], decoder.movements,
                         decoder.stride / decoder.card["rate_hz"])
    true, right = subject.windows.movements[tested], subject.windows.movements[tested] == labels[tested]
    recall = {m: float(right[true == m].mean()) for m in np.unique(true).tolist() if m}
    known, others = ([r for m, r in recall.items() if (m in (shown or ())) is wanted] for wanted in (True, False))
    numbers = {name: found[name] for name in ("accuracy", "execution", "false_per_minute")}
    return numbers if shown is None else numbers | {
        name: float(np.mean(part)) if part else None for name, part in (("recall_seen", known),
                                                                        ("recall_unseen", others))}


def calibrated(arguments: argparse.Namespace, source: Path, card: dict) -> "tuple[BaseDecoder, dict]":
    """The new decoder, and what there is to say of it: what was learnt from, and scores `before` and `after`.

    Raises:
        InputError: recordings or a decoder that do not fit.
    """
    subject, chosen = recorded(arguments, card), parse_numbers(arguments.repetitions)
    with quiet_start():
        import tensorflow as tf

        tf.zeros(1)
    from tfkfin.decoder.decoder import BaseDecoder

    movements = parse_numbers(arguments.movements) if arguments.movements else ()
    old = BaseDecoder.load(source)
    return carried_on(old, subject, chosen, not arguments.unlabelled, arguments.session, movements)


def carried_on(old: "BaseDecoder", subject: "Subject", repetitions: tuple[int, ...], labelled: bool,
               session: int | None = None, movements: tuple[int, ...] = ()) -> "tuple[BaseDecoder, dict]":
    """As `calibrated`, from a person's windows; those of other repetitions are only scored.

    Raises:
        InputError: as of `Decoder.calibrated`, or none of the `movements` is there; none given: all are learnt from.
    """
    subject, stretches, own = subject.led(old.decision.memory, old.stride)  # a decision looks back
    inputs = old.inputs(subject.emg, subject.windows.starts)
    there, known = subject.windows.movements, own & np.isin(subject.windows.repetitions, repetitions)
    learnt = known & np.isin(there, movements) if movements else known
    if not learnt.any():
        raise InputError(f"there is no movement {format_numbers(movements)} in repetitions "
                         f"{format_numbers(repetitions)}, but {format_numbers(np.unique(there[known]).tolist())}")
    began = time.monotonic()
    rows = subject.windows[learnt]
    executions = np.unique(np.stack([rows.sessions, rows.repetitions]), axis=1, return_inverse=True)[1].ravel()
    new, said = old.calibrated(inputs[learnt], there[learnt] if labelled else None, executions)
    said = {"subject": subject.number, "repetitions": list(repetitions), "session": session, "labelled": labelled,
            "windows": int(learnt.sum()), "seconds": time.monotonic() - began} | said
    if movements:
        said["movements"] = list(movements)
    shown = np.unique(there[learnt]).tolist()
    return new, said | {when: judged(decoder, subject, inputs, stretches, own & ~known, shown)
                        for when, decoder in (("before", old), ("after", new))}


def several(arguments: argparse.Namespace) -> None:
    """Each person by a command of its own, whoever does it; those that have their file already are left as they are."""
    if arguments.to is None or arguments.subject is not None or arguments.json:
        raise InputError("--subjects wants --to DIR, which gets a model and a file for each; no --subject, no --json")
    where = arguments.to.absolute()
    tasks = [launch.Task(f"s{person}", "tfkfin.calibrate:main", {"argv": [
        *_of_one(arguments, person), "--to", str(where / f"s{person}"), "--json", str(where / f"s{person}.json")]})
        for person in parse_numbers(arguments.subjects)]
    options = recipes.load(None, dict(map(recipes.parse_setting, arguments.settings))).launch
    failed = launch.launch(tasks, lambda task: (where / f"{task.key}.json").is_file(), arguments.launcher, options,
                           where, "people")
    if failed:
        launch.tell_failures(failed, tasks, where)
        log.error("error: %d of %d people failed; the same command tries them again", len(failed), len(tasks))
        sys.exit(1)


def _of_one(arguments: argparse.Namespace, person: int) -> list[str]:
    """The command line of one of several people, for a process whose current folder is another."""
    from tfkfin.recordings.remote import url_of

    model, data = arguments.model, url_of(arguments.data) or str(Path(arguments.data).absolute())
    words = [str(model.absolute() if model.exists() else model), "--data", data, "--subject", str(person),
             "--repetitions", arguments.repetitions, *(["--unlabelled"] if arguments.unlabelled else [])]
    own = person if (model / "finetune" / f"S{person}").is_dir() else None
    for option, value in (("--from-subject", own if arguments.from_subject is None else arguments.from_subject),
                          ("--movements", arguments.movements), ("--session", arguments.session),
                          ("--format", arguments.format)):
        words += [] if value is None else [option, str(value)]
    return words


def main(argv: list[str]) -> None:
    arguments = parsed(parser(), argv)
    if arguments.subjects:
        return several(arguments)
    source, about, model = place(arguments)
    new, said = calibrated(arguments, source, about)
    from tfkfin.store import card

    about = card.of_calibrated(about, said) | {"format": arguments.format or about.get("format", "savedmodel")}
    written = write(new, about, model)
    _tell(said)
    log.info("%s", written)
    answer(said | {"model": written})


def write(new: "BaseDecoder", about: dict, model: Path) -> Path:
    """Writes a calibrated decoder, with its card without name and version, as a new version of a model folder."""
    from tfkfin.serving import version
    from tfkfin.store import layout

    with layout.new_version(model) as (folder, number):
        new.card = about | {"name": model.name, "version": number}
        version.write_decoder(folder, new, new.card)
    if about["format"] != "onnx":
        layout.add_to_config(model)
    return model / str(number)


def _tell(said: dict) -> None:
    log.info("calibrated on %d windows %s labels; solved in %.2f s", said["windows"],
             "with" if said["labelled"] else "without", said["seconds"])
    if said["unseen"]:
        log.info("movements %s are not in these windows: they are decided as earlier sessions and the others say",
                 format_numbers(said["unseen"]))
    if not said.get("moved", True):
        log.info("too unlike earlier sessions, or these too unlike each other: only where features are centred moved")
    if said["after"] is None:
        log.info("there are no other repetitions to score it on")
    else:
        log.info("other repetitions: %s", "; ".join(f"{when} {100 * said[when]['accuracy']:.1f} % of windows, "
                                                    f"{100 * said[when]['execution']:.1f} % of executions"
                                                    for when in ("before", "after")))
        if said["after"]["recall_unseen"] is not None:
            log.info("recall of movements that were shown: %s; of others: %s", *(" -> ".join(
                f"{100 * said[when][part]:.1f} %" for when in ("before", "after")) for part in (
                    "recall_seen", "recall_unseen")))


if __name__ == "__main__":
    run(main)
