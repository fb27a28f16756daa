"""The one calibration: a decoder is adapted to a session or a person, and scored before and after.

The command, Python's `Decoder.calibrate` and calibration in a live session all call `calibrate`. The mathematics of
heads that are solved are in `tfkfin.sessions`; heads that are trained by gradients are trained further.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from tfkfin.base.console import format_numbers, log
from tfkfin.base.errors import InputError
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.fit import metrics, scoring
from tfkfin.nets import heads, quality
from tfkfin.pipeline.subject import Subject
from tfkfin.pipeline.windows import evenly
from tfkfin.recordings import readers
from tfkfin.recordings.recording import RecordingFile
from tfkfin.signal import condition
from tfkfin.store import card as cards

Kind = TypeVar("Kind", bound=BaseDecoder)


def calibrate(decoder: Kind, subject: Subject, repetitions: tuple[int, ...] = (), *, labelled: bool = True,
              movements: tuple[int, ...] = (), session: int | None = None, where: str = "`data`") -> tuple[Kind, dict]:
    """Calibrates a decoder on some repetitions of one person; the other repetitions are scored and change nothing.

    Args:
        decoder: stays as it is.
        subject: windows as of `scoring.windows_of`.
        repetitions: calibrated on; (): all, so that none is left to score.
        labelled: False uses where movements are and not which they are.
        movements: calibrated on; (): all of these repetitions.
        session: of the recordings, for the card.
        where: the recordings' name, for messages.

    Returns:
        The new decoder, whose card has the report as `calibration`; and the report: what it was calibrated on,
        `seconds` that solving took, what `Decoder.calibrated` reports, and scores `before` and `after`.

    Raises:
        InputError: this decoder has no session statistics, or the recordings do not fit it.
    """
    repetitions = tuple(repetitions) or tuple(np.unique(subject.windows.repetitions).tolist())
    scoring.check(decoder.card, subject, where, "decoder")
    if not subject.windows.movements[np.isin(subject.windows.repetitions, repetitions)].any():
        raise InputError(f"{where} has no movement in repetitions {format_numbers(repetitions)}: it has "
                         f"{format_numbers(np.unique(subject.windows.repetitions).tolist()) or 'none'}")
    subject, segments, own = subject.with_context(decoder.decision.memory, decoder.stride)
    inputs, windows = decoder.inputs(subject.emg, subject.windows.starts), subject.windows
    known = own & np.isin(windows.repetitions, repetitions)
    used = known & np.isin(windows.movements, movements) if movements else known
    if not subject.cued and 0 not in decoder.movements:
        used &= decoder.head.resume()[1](inputs)  # where it is active
    if not used.any():
        there = format_numbers(np.unique(windows.movements[known]).tolist())
        raise InputError(f"there is no movement {format_numbers(movements)} in repetitions "
                         f"{format_numbers(repetitions)}, but {there}")
    began, rows = time.monotonic(), windows[used]
    executions = np.unique(np.stack([rows.sessions, rows.repetitions]), axis=1, return_inverse=True)[1].ravel()
    new, report = _calibrated(decoder, inputs[used], rows.movements if labelled else None, executions)
    report = {"subject": subject.number, "repetitions": list(repetitions), "session": session, "labelled": labelled,
              "windows": len(rows), "seconds": time.monotonic() - began} | report
    report |= {"movements": list(movements)} if movements else {}
    left, right = own & ~known & ~scoring.learnt(decoder.card, subject), {}
    for when, one in (("before", decoder), ("after", new)):
        decided = scoring.decide(one.probabilities(inputs), segments, one.decision, one.movements)
        report[when] = _scores(one, windows[left], decided[left], np.unique(rows.movements))
        right[when] = (decided == windows.movements)[left]
    report["trained_on"] = sorted(scoring.trained_on(decoder.card, windows[left], subject.number))
    report["worse"] = metrics.fewer_right(right["before"], right["after"], windows.segments[left])
    recorded = {*decoder.card.get("recorded_hz", [decoder.card["rate_hz"]]), *subject.recorded_hz}
    new.card = cards.of_calibrated(decoder.card, report) | {
        "recorded_hz": sorted(recorded), "learnt_from": scoring.taught(decoder.card, replace(subject, windows=rows))}
    if "signal" in new.card:
        volts = subject.volts(decoder.length, np.flatnonzero(used)[evenly(int(used.sum()), quality.MOST_WINDOWS)])
        new.card["signal"] = condition.wider(new.card["signal"], quality.learnt(
            [volts], *(np.asarray(decoder.card[name]) for name in ("mean_v", "sd_v")), decoder.card["rate_hz"]))
    return new, report


def evidence(decoder: BaseDecoder, subject: Subject) -> dict:
    """What the windows of a calibration on all of them say of it: shares of windows that are decided right.

    Args:
        decoder: before the calibration, one that keeps session statistics.

    Returns:
        `after`: of the new decoder, each repetition by a calibration on the others; where there is one alone, each half
        of its executions by the other halves; None where that leaves no window. `before`: of `decoder`. `chance`: who
        always says the most frequent movement. `trusted`: whether `after` is not below `before`, and more than a third
        of the way from `chance` to 1.
    """
    windows, inputs = subject.windows, decoder.inputs(subject.emg, subject.windows.starts)
    folds = windows.repetitions
    if len(np.unique(folds)) == 1:
        middles = {s: np.median(windows.starts[windows.segments == s]) for s in np.unique(windows.segments).tolist()}
        later = windows.starts - np.array([middles[s] for s in windows.segments.tolist()])
        folds = np.where(later >= 0, 2, np.where(later + decoder.length <= 0, 1, 0))  # 0: in both halves
    decided = np.full(len(folds), -1)
    for fold in np.unique(folds[folds > 0]).tolist():
        others, left = (folds > 0) & (folds != fold), folds == fold
        if others.any():
            new = decoder.calibrated(inputs[others], windows.movements[others], windows.repetitions[others])[0]
            decided[left] = decoder.movements[new.probabilities(inputs[left]).argmax(axis=1)]
    right, known = windows.movements == decided, decided >= 0
    before = decoder.movements[decoder.probabilities(inputs).argmax(axis=1)] == windows.movements
    chance = float(np.bincount(windows.movements).max() / len(windows))
    after = float(right[known].mean()) if known.any() else None
    found = {"after": after, "before": float(before.mean()), "chance": chance}
    return found | {"trusted": after is not None and after >= max(found["before"], chance + (1 - chance) / 3)}


def _calibrated(decoder: Kind, inputs: np.ndarray, labels: np.ndarray | None,
                executions: np.ndarray) -> tuple[Kind, dict]:
    """As `Decoder.calibrated`; a head that is trained by gradients is trained further."""
    kind = heads.kind(decoder.card["head"])
    if kind.solve or kind.calibrate:
        return decoder.calibrated(inputs, labels, executions)
    if labels is None:
        raise InputError(f"a decoder with the head {decoder.card['head']} is trained by gradients, so it can be "
                         "calibrated with labels only")
    from tfkfin.fit import trainers

    return trainers.train_on(decoder, inputs, decoder._indices(labels))


def _scores(decoder: BaseDecoder, windows, decided: np.ndarray, shown: np.ndarray) -> dict | None:
    """The three numbers, and the mean recall of movements that it was calibrated on (`shown`) and of others."""
    if not len(windows):
        return None
    found = scoring.score(windows, decided, decoder.movements, decoder.stride / decoder.card["rate_hz"])
    right = windows.movements == decided
    recall = {m: float(right[windows.movements == m].mean()) for m in np.unique(windows.movements).tolist() if m}
    parts = {"recall_seen": [r for m, r in recall.items() if m in shown],
             "recall_unseen": [r for m, r in recall.items() if m not in shown]}
    return {name: found[name] for name in scoring.THREE_NUMBERS} | {
        name: float(np.mean(part)) if part else None for name, part in parts.items()}


def files_of(data: str | Path, card: dict, subject: int | None = None) -> list[RecordingFile]:
    """One person's recordings in a folder: `subject`'s, the only person's, or those of the decoder's own person.

    Raises:
        InputError: there are none, or it is not clear whose.
    """
    people = readers.by_subject(readers.find(data, (subject,) if subject else None))
    whose = card["subject"] if len(people) > 1 else next(iter(people))
    if whose not in people:
        raise InputError(f"{data} has subjects {format_numbers(people)}: choose one with --subject")
    rates = {readers.header(file).rate_hz for file in people[whose]}
    if rates != {card["rate_hz"]}:
        log.info("recordings at %s Hz are resampled to the decoder's %g Hz",
                 ", ".join(f"{rate:g}" for rate in sorted(rates)), card["rate_hz"])
    return people[whose]
