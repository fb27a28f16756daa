"""`python -m tfkfin.calibrate`: adapts a decoder to a new session or person, from one repetition, as a new version.

examples:
  python -m tfkfin.calibrate savedmodels/mine_s1 --data TODAY --repetitions 1
      savedmodels/mine_s1 gets a new version, calibrated on repetition 1 of the recordings in TODAY
  python -m tfkfin.calibrate savedmodels/mine_s1 --data TODAY --repetitions 1 --unlabelled
      the same without using which movement is which
  python -m tfkfin.calibrate savedmodels/mine_s1 --data TODAY --repetitions 1 --movements 3,5
      on two movements alone; the recall of the others, before and after, is reported
  python -m tfkfin.calibrate runs/mine-1a2b3c --from-subject 2 --data WEEK --session 3 --to savedmodels/mine
      subject 2's decoder of a run; of the recordings only session 3

  python -m tfkfin.calibrate runs/mine-1a2b3c --subjects 1-40 --data TODAY --to savedmodels/today --launcher slurm
      everybody's own decoder, by jobs

The decoder must hold session statistics: train it with --pipeline best, or --set classifier.kind=gaussian. It is scored
on the other repetitions of the recordings, before and after calibration; they change nothing in it.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from tfkfin import launch
from tfkfin import recipe as recipes
from tfkfin.base.answers import answer, command_line, output, parsed
from tfkfin.base.console import InputError, format_numbers, log, parse_numbers, run
from tfkfin.base.extras import load_tensorflow
from tfkfin.base.options import add_options
from tfkfin.fit import run_folder


def parser() -> argparse.ArgumentParser:
    p = command_line("calibrate", "MODEL --data DIR --repetitions 1 [options]", str(__doc__))
    add_options(p, "calibrate", launcher=launch.names())
    return p


def one(arguments: argparse.Namespace) -> None:
    """Calibrates one person's decoder."""
    source, card, folder = run_folder.find_decoder(arguments.model, arguments.from_subject)
    load_tensorflow()
    from tfkfin.decoder.decoder import BaseDecoder
    from tfkfin.fit import calibration, scoring
    from tfkfin.recordings import readers
    from tfkfin.serving import version

    files = calibration.files_of(arguments.data, card, arguments.subject)
    subject = scoring.windows_of(card, map(readers.read, files), labelled=not arguments.unlabelled)
    if arguments.session:
        subject = replace(subject, windows=subject.windows[subject.windows.sessions == arguments.session])
    decoder = BaseDecoder(card, BaseDecoder.load(source).model)
    movements = parse_numbers(arguments.movements) if arguments.movements else ()
    new, report = calibration.calibrate(decoder, subject, parse_numbers(arguments.repetitions), movements=movements,
                                        labelled=not arguments.unlabelled, session=arguments.session,
                                        where=str(files[0].path))
    made = version.publish(new.card, new.model, arguments.to or folder, arguments.format)
    show(report)
    log.info("%s", made)
    answer(report | {"model": made})


def several(arguments: argparse.Namespace) -> None:
    """Calibrates each person's decoder by a launcher; people whose file is there already are left out."""
    if arguments.to is None or arguments.subject is not None or arguments.json:
        raise InputError("--subjects wants --to DIR, which gets a model and a file for each; no --subject, no --json")
    from tfkfin.recordings.remote import url_of

    where, model = arguments.to.absolute(), arguments.model
    options = vars(arguments) | {"model": str(model.absolute() if model.exists() else model),
                                 "data": url_of(arguments.data) or str(Path(arguments.data).absolute())}
    tasks = []
    for person in parse_numbers(arguments.subjects):
        own = {"subject": person, "to": str(where / f"s{person}"), "json": str(where / f"s{person}.json")}
        if options["from_subject"] is None and (model / "finetune" / f"S{person}").is_dir():
            own["from_subject"] = person
        tasks.append(launch.Task(f"s{person}", "tfkfin.calibrate:work", options | own))
    settings = recipes.load(None, dict(map(recipes.parse_setting, arguments.settings))).launch
    failed = launch.launch(tasks, lambda task: Path(task.arguments["json"]).is_file(), arguments.launcher, settings,
                           where, "people")
    launch.end_if_failed(failed, tasks, where, "people")


def work(model: str, to: str, json: str, **options) -> None:
    """One of several people, in a process of a launcher."""
    output.json = json
    one(argparse.Namespace(model=Path(model), to=Path(to), **options))


def show(report: dict) -> None:
    """Logs what calibration did."""
    log.info("calibrated on %d windows %s labels; solved in %.2f s", report["windows"],
             "with" if report["labelled"] else "without", report["seconds"])
    if report["unseen"]:
        log.info("movements %s are not in these windows: their class means follow from earlier sessions and from the "
                 "other movements", format_numbers(report["unseen"]))
    if not report.get("moved", True):
        log.info("this session differs too much from earlier ones, or they from each other: only the centring was "
                 "adapted, class means were not")
    before, after = report["before"], report["after"]
    if after is None:
        log.info("there are no other repetitions to score it on")
        return
    log.info("other repetitions: %s", "; ".join(f"{when} {100 * one['accuracy']:.1f} % of windows, "
                                                f"{100 * one['execution']:.1f} % of executions"
                                                for when, one in (("before", before), ("after", after))))
    if report["trained_on"]:
        log.warning("warning: it was trained on repetitions %s of these if they are the recordings that it was made of",
                    format_numbers(report["trained_on"]))
    if report["worse"]:
        log.warning("warning: the new version decides them worse; the one before stays: check recordings and labels")
    if after["recall_unseen"] is not None:
        log.info("recall of movements that it was calibrated on: %s; of others: %s", *(
            f"{100 * before[part]:.1f} -> {100 * after[part]:.1f} %" for part in ("recall_seen", "recall_unseen")))


def main(argv: list[str]) -> None:
    arguments = parsed(parser(), argv)
    (several if arguments.subjects else one)(arguments)


if __name__ == "__main__":
    run(main)
