"""Remakes the decisions that the ladder saved, by `tfkfin.read` and public methods of decoders and recordings alone.

    python benchmarks/remake.py RUN --data DIR [--rows best,best_adapt] [--people 1,2]

RUN is a folder of `python -m tfkfin.experiments ladder`. Its recipe says how the recordings are split; its results.json
says how each row's decoder is made. Every decision and every label of every rung must be the same; exit code 1 if one
is not. Smoothed decisions are remade by the formula of docs/lasting.md.
"""

import argparse
import json
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np

import tfkfin

STAY, WEIGHT = 0.95, 0.5  # of the smoothing


class Ladder:
    """The rungs of one run: what is trained on, calibrated on, decided and tested."""

    def __init__(self, run: Path, data: Path):
        self.recipe, self.results = tomllib.loads((run / "recipe.toml").read_text()), json.loads(
            (run / "results.json").read_text())
        about, each = self.results["dataset"], self.recipe["split"]["repetitions_per_session"]
        self.people, self.run = {person: {} for person in about["subjects"]}, run
        for recording in tfkfin.read(data):
            if recording.subject in self.people:
                for session, one in recording.by_session(each).items():
                    self.people[recording.subject].setdefault(session, []).append(one)
        self.train, self.test = (set(about[f"{side}_repetitions"]) for side in ("train", "test"))
        self.train_sessions, self.test_sessions = (set(about.get(f"{side}_sessions", ())) for side in ("train", "test"))
        self.between = bool(self.test_sessions)

    def trained_on(self, person: int) -> list:
        return [one for session, recordings in sorted(self.people[person].items())
                if not self.between or session in self.train_sessions
                for one in chosen(recordings, [r for r in order(recordings) if r in self.train])]

    def groups(self, person: int):
        """(recordings to train on, trials); a trial: (rung, known, labelled, stream, repetitions tested, drawn)."""
        own = sorted(self.people[person].items())
        tested = [(session, one) for session, one in own
                  if not self.between or session in self.test_sessions and set(order(one)) & self.test]
        for i in np.unique(np.linspace(0, len(tested) - 1, 5).round().astype(int)):
            session, recordings = tested[i]
            yield self.random(person, session, recordings)
            for k in (1, 2, 4):
                names = order(recordings) if self.between else [r for r in order(recordings) if r in self.train]
                others = [r for r in order(recordings) if r not in names[:k] and (self.between or r in self.test)]
                if len(names) >= k and others:
                    yield chosen(recordings, names[:k]), [(f"repetition-{k}", None, None, chosen(recordings, others),
                                                           others, None)]
        if self.between:
            yield self.trained_on(person), [t for _, one in tested for t in self.calibrated("session", one, self.test)]
        others = [one for other in self.people if other != person for one in self.trained_on(other)]
        if others:
            yield others, [t for _, one in tested for t in self.calibrated(
                "person", one, self.test if self.between else set(order(one)))]

    def calibrated(self, kind: str, recordings: list, wanted: set):
        tested = [r for r in order(recordings) if r in wanted]
        if len(tested) > 1:
            rest = chosen(recordings, [r for r in order(recordings) if r != tested[0]])
            for rung, labelled in ((f"{kind}-0u", False), (f"{kind}-1", True)):
                yield rung, chosen(recordings, tested[:1]), labelled, rest, tested[1:], None
        yield f"{kind}-0", None, None, recordings, tested, None

    def random(self, person: int, session: int, recordings: list):
        rng, window, parts, drawn = np.random.default_rng([self.recipe["seed"], person, session]), self.recipe[
            "window"], [], []
        for one in recordings:
            length, stride = (window[key] / 1000 * one.rate_hz for key in ("length_ms", "stride_ms"))
            begins = [int(i * stride + 1e-6) for i in range(len(one.emg)) if i * stride + length <= len(one.emg) + 1e-6]
            size, mask = int(np.ceil(length - 1e-6)), rng.random(len(begins)) < 0.7
            belongs = owners(one)
            alone = [(b, *inside(one, belongs, b, b + size)) for b, taken in zip(begins, mask, strict=True) if taken]
            alone = [(min(b, len(one.emg) - size), label, r) for b, label, r in alone if label >= 0 and r > 0]
            parts.append(replace(one, emg=np.concatenate([one.emg[b : b + size] for b, *_ in alone]),
                                 labels=np.repeat([label for _, label, _ in alone], size).astype(np.int16),
                                 repetitions=np.repeat([r for *_, r in alone], size).astype(np.int16),
                                 seams=tuple(range(size, size * len(alone), size))))
            drawn.append(mask)
        return parts, [("random", None, None, recordings, order(recordings), drawn)]


def order(recordings: list) -> list[int]:
    """Repetitions of movements as they come in time."""
    return list(dict.fromkeys(r for one in recordings for r in one.repetitions[(one.labels > 0) & (one.repetitions > 0)]
                              .tolist()))


def chosen(recordings: list, repetitions: list[int]) -> list:
    if repetitions == order(recordings):
        return recordings
    return [one.select(repetitions) for one in recordings if set(order([one])) & set(repetitions)]


def owners(recording) -> np.ndarray:
    """The repetition that each sample belongs to, by which selection it is in."""
    numbered, found = replace(recording, emg=np.arange(len(recording.emg))[:, None]), np.zeros(len(recording.emg), int)
    for r in order([recording]):
        found[numbered.select(r).emg[:, 0]] = r
    return found


def inside(recording, belongs: np.ndarray, begin: int, end: int) -> tuple[int, int]:
    """Label and repetition of a window, -1 for one that lies across a change or a seam."""
    labels, across = recording.labels[begin:end], any(begin < seam < end for seam in recording.seams)
    alike = (labels == labels[0]).all() and (belongs[begin:end] == belongs[begin]).all() and not across
    return (int(labels[0]) if alike else -1), int(belongs[begin])


def smoothed(probabilities: np.ndarray, before: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Each window's probabilities after those before it, and the last of them."""
    classes = probabilities.shape[1]
    now = np.full(classes, 1 / classes) if before is None else before
    leave, found = (1 - STAY) / (classes - 1), []
    for seen in probabilities:
        now = (leave + (STAY - leave) * now) * np.maximum(seen, 1e-12) ** WEIGHT
        now = now / now.sum()
        found.append(now.astype(np.float32))
    return np.array(found), now


def remade(ladder: Ladder, row: dict, person: int) -> dict[str, np.ndarray]:
    """{rung: true, decided and smoothed labels (3, N)} of the windows that are tested."""
    found: dict[str, list] = {}
    for parts, trials in ladder.groups(person):
        decoder = tfkfin.Decoder.from_preset(row["preset"], **row["settings"]).fit(parts)
        for rung, known, labelled, stream, tested, drawn in trials:
            now = decoder
            if known and (labelled or "updates" not in row):  # heads that are trained by gradients need labels
                now = decoder.calibrate(known, labelled=labelled, repetitions=None)
            session, before = now.session(smooth=False) if row["adapts"] else now, None
            for i, one in enumerate(stream):
                answers, belongs = session.stream(one), owners(one)
                smooth, before = smoothed(answers["probabilities"], before)
                for w, label in enumerate(answers["label"].tolist()):
                    begin, end = (at * one.rate_hz / now.card["rate_hz"] for at in (
                        w * now.stride, w * now.stride + now.length))
                    begin, end = int(begin + 1e-6), int(np.ceil(end - 1e-6))
                    true, r = inside(one, belongs, begin, end) if end <= len(one.emg) else (-1, 0)
                    if true >= 0 and r in tested and (drawn is None or w < len(drawn[i]) and not drawn[i][w]):
                        found.setdefault(rung, []).append((true, label, now.movements[smooth[w].argmax()]))
            if row["adapts"] and known is None:
                decoder = session.carried()
    return {rung: np.array(rows).T for rung, rows in found.items()}


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("run", type=Path)
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--rows", help="default: all decoders in the results")
    p.add_argument("--people", help="default: all")
    arguments = p.parse_args()
    ladder, wrong = Ladder(arguments.run, arguments.data), 0
    rows = {name: row for name, row in ladder.results["rows"].items()
            if "preset" in row and (not arguments.rows or name in arguments.rows.split(","))}
    for person in map(int, arguments.people.split(",")) if arguments.people else ladder.people:
        for name, row in rows.items():
            kept = np.load(arguments.run / "cells" / f"ladder-{name}" / "plain" / f"S{person}.npz")
            mine = remade(ladder, row, person)
            for rung in sorted({*kept.files, *mine}):
                saved = kept[rung][[0, 1, 3]] if rung in kept.files else np.empty((3, 0))
                same = np.array_equal(saved, mine.get(rung))
                wrong += not same
                print(f"{'same' if same else 'DIFFERS'}: person {person}, {name}, {rung}, {saved.shape[1]} windows")
    return int(wrong > 0 or not rows)


if __name__ == "__main__":
    sys.exit(main())
