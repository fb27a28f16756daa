"""Splits: which sessions and repetitions train and which test, so that no raw sample is on both sides."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from tfkfin.base.console import format_numbers, log
from tfkfin.base.errors import InputError
from tfkfin.pipeline import windows as cutting
from tfkfin.pipeline.windows import Segment, Windows
from tfkfin.recipe import Split, Window
from tfkfin.recordings.recording import Header, Recording, owners

DEFAULT = Split.model_fields["test_repetitions"].default
SIDES = ("train", "pretrain", "finetune", "test")


@dataclass(frozen=True)
class Part:
    """One side of a split: these repetitions of these sessions; None is all of them."""

    repetitions: tuple[int, ...] | None = None
    sessions: tuple[int, ...] | None = None

    def holds(self, repetitions: np.ndarray | int, sessions: np.ndarray | int) -> np.ndarray:
        """Whether windows or segments of these repetitions and sessions belong to it, elementwise."""
        inside = np.ones(np.shape(repetitions), bool)
        for values, wanted in ((repetitions, self.repetitions), (sessions, self.sessions)):
            inside &= True if wanted is None else np.isin(values, wanted)
        return inside

    def __contains__(self, segment: Segment) -> bool:
        return bool(self.holds(segment.repetition, segment.session))

    def __str__(self) -> str:
        text = "repetitions " + (format_numbers(self.repetitions or ()) or "(none given)")
        return text + (f" of the sessions {format_numbers(self.sessions)}" if self.sessions else "")


def part(split: Split, name: str) -> Part:
    """A side of a split by its name: "train", "pretrain", "finetune" or "test"."""
    sessions = split.test_sessions if name == "test" else split.train_sessions
    return Part(getattr(split, f"{name}_repetitions"), sessions or None)


def stride_ms(split: Split | None, window: Window, segment: Segment) -> float:
    """Between the windows of a segment: closer where it trains, if the recipe says so; without a split all train."""
    trains = split is None or any(segment in part(split, name) for name in SIDES if name != "test")
    return window.train_stride_ms if trains and window.train_stride_ms else window.stride_ms


def repetitions_present(windows: Windows) -> tuple[int, ...]:
    """Repetitions that have a movement, sorted."""
    return tuple(np.unique(windows.repetitions[windows.movements > 0]).tolist())


def select(windows: Windows, wanted: Part | Iterable[int]) -> Windows:
    """The windows of a part, or of the given repetitions, in the order they were."""
    wanted = wanted if isinstance(wanted, Part) else Part(tuple(wanted))
    return windows[wanted.holds(windows.repetitions, windows.sessions)]


def resolved(split: Split, every: dict[int, Windows]) -> Split:
    """The split with its defaults filled in from the sessions and repetitions of each subject's windows."""
    sessions = sorted({int(s) for w in every.values() for s in np.unique(w.sessions)})
    for name in ("train_sessions", "test_sessions"):
        if getattr(split, name) and not set(getattr(split, name)) & set(sessions):
            raise InputError(f"no recording has the {name} {getattr(split, name)}: there are sessions {sessions}; "
                             "split.repetitions_per_session=4 reads them out of repetition numbers")

    def present(side: Part) -> tuple[int, ...]:
        return tuple(sorted(set().union(*(repetitions_present(select(w, side)) for w in every.values()))))

    there = present(Part())
    training, tested = (present(Part(None, s or None)) for s in (split.train_sessions, split.test_sessions))
    if split.test_repetitions == DEFAULT and len(tested) > 1 and not set(DEFAULT) <= set(tested):
        free = [r for r in tested if r not in split.train_repetitions]
        split = split.model_copy(update={"test_repetitions": tuple(set(DEFAULT) & set(free)) or tuple(free[-1:])})
        log.info("there are repetitions %s: %s is tested, unless split.test_repetitions says otherwise",
                 format_numbers(tested), format_numbers(split.test_repetitions))
    test = tuple(r for r in split.test_repetitions or tested if r in tested)
    missing = {name: gone for name, have in (("test_repetitions", tested), ("train_repetitions", training))
               if (gone := sorted(set(getattr(split, name)) - set(have)))}
    if not test or missing:
        what = ", ".join(f"{name} {gone}" for name, gone in missing.items()) or "test_repetitions ()"
        raise InputError(f"no recording has the {what}: there are repetitions {list(there)}; choose with "
                         "--set split.train_repetitions=1,3 --set split.test_repetitions=2")
    train = split.train_repetitions or tuple(r for r in training if split.between_sessions or r not in test)
    subjects = split.subjects or tuple(sorted(every))
    return split.model_copy(update={
        "subjects": subjects, "train_repetitions": train, "test_repetitions": test,
        "pretrain_subjects": split.pretrain_subjects or subjects,
        "pretrain_repetitions": split.pretrain_repetitions or train,
        "finetune_repetitions": split.finetune_repetitions or train})


def check(windows: Mapping[int, Windows], train: Part | Iterable[int], test: Part | Iterable[int]) -> None:
    """Makes sure that every subject can be trained on `train` and tested on `test`.

    Args:
        windows: subject -> all windows of that subject.
        train, test: parts of a split, or repetitions.

    Raises:
        InputError: a repetition is on both sides, a subject has no training or no test window, or a movement that is
            tested has no training window.
    """
    train, test = (side if isinstance(side, Part) else Part(tuple(side)) for side in (train, test))
    apart = train.sessions and test.sessions and not set(train.sessions) & set(test.sessions)
    if not apart and (both := sorted(set(train.repetitions or ()) & set(test.repetitions or ()))):
        raise InputError(f"{format_numbers(both)} is both in train and in test: keep each in one of them")
    for subject, every in windows.items():
        there = format_numbers(repetitions_present(every)) or "none"
        training, tested = select(every, train), select(every, test)
        for side, numbers, chosen in (("train", train, training), ("test", test, tested)):
            if not len(chosen):
                raise InputError(f"subject {subject} has no window in the {side} {numbers}: it has repetitions {there}")
        if gone := sorted(set(test.repetitions or ()) - set(np.unique(tested.repetitions).tolist())):
            log.warning("warning: subject %d has no window in test repetition %s: its score is of the others", subject,
                        format_numbers(gone))
        if missing := sorted(set(every.movements.tolist()) - set(training.movements.tolist())):
            raise InputError(f"subject {subject} has no window of movement {format_numbers(missing)} in the train "
                             f"{train}: train on more of its repetitions {there}, or leave the subject out")


def segments(recording: Recording | Header, split: Split | None, rest: bool) -> list[Segment]:
    """Segments of movements with their sessions; with `rest` those of rest too, whose repetition `owners` gives."""
    each = split.repetitions_per_session if split else 0
    found = cutting.segments(recording.labels, recording.repetitions, rest, recording.seams)
    if rest:
        owner = owners(recording)
        found = [replace(s, repetition=int(owner[s.start])) for s in found if owner[s.start]]
    return [replace(s, session=(s.repetition - 1) // each + 1 if each else recording.file.session) for s in found]


def cuts(segments: Sequence[Segment], split: Split | None, rest: bool) -> list[int]:
    """Samples midway between a segment that is tested and a neighbour that is not; with `rest` segments of rest count.
    """
    if split is None:
        return []
    test, chosen = part(split, "test"), [s for s in segments if s.movement or rest]
    return [(one.stop + other.start) // 2 for one, other in pairwise(chosen) if (one in test) != (other in test)]
