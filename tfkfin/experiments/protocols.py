"""The ladder's rungs: what may be learnt from, what of the stream is known beforehand, and what is tested.

    random         windows at random out of each session: neighbours overlap, so that it leaks; marked wherever shown
    repetition-k   the first k repetitions of a session, tested on its others
    session-0      the training sessions, tested on the others with nothing known of them but what came earlier
    session-0u     the same, with the first repetition of each without labels, which is not tested then
    session-1      the same with its labels
    person-...     as session-..., from all other people's training side

Where a dataset has no sessions of its own to test, repetitions are those of the split: `repetition-k` learns from the
first k training repetitions and tests the test repetitions. Of many sessions, `random` and `repetition-k` take `FEW`,
evenly spread: each is learnt anew there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tfkfin.experiments.sessions import Session
from tfkfin.experiments.transfer import Known, Learnt
from tfkfin.pipeline import splits
from tfkfin.recipe import Split

RUNGS = ("random", "repetition-1", "repetition-2", "repetition-4", "session-0", "session-0u", "session-1", "person-0",
         "person-0u", "person-1")
LEAKS = ("random",)
FEW = 5


@dataclass(frozen=True)
class Trial:
    """A stream to be decided: what is known of it beforehand, and which of its windows (N,) are tested."""

    rung: str
    session: Session
    known: Known | None
    tested: np.ndarray


@dataclass(frozen=True)
class Group:
    """Trials of one person that share what is learnt from."""

    person: int
    learnt: Learnt
    trials: tuple[Trial, ...]


def groups(people: Mapping[int, Sequence[Session]], split: Split, seed: int,
           tested_people: Sequence[int] = ()) -> Iterator[Group]:
    """Every group that the data allow, of all people or of some."""
    train, test = splits.part(split, "train"), splits.part(split, "test")
    for person in tested_people or split.subjects:
        own = people[person]
        tested = [s for s in own if (_in(s, test) & (s.labels > 0)).any()] if split.between_sessions else own
        spread = np.unique(np.linspace(0, len(tested) - 1, FEW).round().astype(int)) if tested else ()
        for session in (tested[i] for i in spread):
            yield _random(person, session, seed)
            yield from _repetitions(person, session, train, test, split.between_sessions)
        if split.between_sessions:
            yield Group(person, [(s, _in(s, train)) for s in own if _in(s, train).any()],
                        tuple(t for s in tested for t in _calibrations("session", s, _in(s, test))))
        others = [(s, _in(s, train)) for other in split.subjects if other != person for s in people[other]
                  if _in(s, train).any()]
        if others:
            yield Group(person, others, tuple(
                t for s in tested
                for t in _calibrations("person", s, _in(s, test) if split.between_sessions else np.ones(len(s), bool))))


def _in(session: Session, part: splits.Part) -> np.ndarray:
    return part.holds(session.repetitions, np.full(len(session), session.number))


def _random(person: int, session: Session, seed: int) -> Group:
    chosen = np.random.default_rng([seed, person, session.number]).random(len(session)) < 0.7
    return Group(person, [(session, chosen)], (Trial("random", session, None, ~chosen),))


def _repetitions(person: int, session: Session, train: splits.Part, test: splits.Part, whole: bool) -> Iterator[Group]:
    order = session.order if whole else [r for r in session.order if r in train.repetitions]
    for k in (1, 2, 4):
        learnt = np.isin(session.repetitions, order[:k])
        tested = ~learnt if whole else _in(session, test)
        if len(order) >= k and (tested & (session.labels > 0)).any():
            yield Group(person, [(session, learnt)], (Trial(f"repetition-{k}", session, None, tested),))


def _calibrations(kind: str, session: Session, wanted: np.ndarray) -> Iterator[Trial]:
    """The three trials of a session of which the windows `wanted` (N,) may be tested."""
    order = [r for r in session.order if wanted[session.repetitions == r].any()]
    first = np.isin(session.repetitions, order[:1])
    yield Trial(f"{kind}-0", session, None, wanted)
    if len(order) > 1:
        yield Trial(f"{kind}-0u", session, Known(first, False), wanted & ~first)
        yield Trial(f"{kind}-1", session, Known(first, True), wanted & ~first)
