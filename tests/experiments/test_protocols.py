"""The ladder's rungs by hand: who learns from what, what is known, what is tested."""

from types import SimpleNamespace

import numpy as np
import pytest

from tfkfin.experiments import protocols
from tfkfin.recipe import Split


def session(person, number, repetitions):
    """Rest, then movements 1 and 2, in each repetition; two windows of each."""
    labels = np.tile(np.repeat([0, 1, 2], 2), len(repetitions))
    each = np.repeat(repetitions, 6)

    class Fake(SimpleNamespace):
        def __len__(self):
            return len(labels)

    return Fake(person=person, number=number, labels=labels, repetitions=each, order=tuple(repetitions))


def rungs(people, split):
    found = {}
    for group in protocols.groups(people, split, 7):
        for trial in group.trials:
            found.setdefault((trial.rung, group.person), []).append((group, trial))
    return found


def kept(session, mask):
    return session.number, tuple(np.unique(session.repetitions[mask]).tolist())


def test_days():
    people = {p: [session(p, day, range(4 * day - 3, 4 * day + 1)) for day in (1, 2, 3)] for p in (1, 2)}
    split = Split(subjects=(1, 2), train_sessions=(1, 2), test_sessions=3, train_repetitions=tuple(range(1, 9)),
                  test_repetitions=(9, 10, 11, 12))
    found = rungs(people, split)
    assert {rung for rung, _ in found} == set(protocols.RUNGS) - {"repetition-4"}  # nothing would be left to test
    ((group, trial),) = found["session-0", 1]
    assert [kept(s, m) for s, m in group.learnt] == [(1, (1, 2, 3, 4)), (2, (5, 6, 7, 8))]
    assert trial.known is None and kept(trial.session, trial.tested) == (3, (9, 10, 11, 12))
    for rung, labelled in (("session-0u", False), ("session-1", True)):
        ((_, trial),) = found[rung, 1]
        assert kept(trial.session, trial.known.windows) == (3, (9,)) and trial.known.labelled is labelled
        assert kept(trial.session, trial.tested) == (3, (10, 11, 12))
    ((group, trial),) = found["person-1", 2]
    assert {s.person for s, _ in group.learnt} == {1} and {s.number for s, _ in group.learnt} == {1, 2}
    assert trial.session.person == 2 and kept(trial.session, trial.tested) == (3, (10, 11, 12))
    ((group, trial),) = found["repetition-2", 1]
    assert [kept(s, m) for s, m in group.learnt] == [(3, (9, 10))] and kept(trial.session, trial.tested)[1] == (11, 12)


def test_one_session():
    people = {p: [session(p, 1, (1, 2, 3))] for p in (1, 2)}
    split = Split(subjects=(1, 2), train_repetitions=(1, 3), test_repetitions=(2,))
    found = rungs(people, split)
    assert {rung for rung, _ in found} == set(protocols.RUNGS) - {
        "repetition-4", "session-0", "session-0u", "session-1"}
    for k, learnt in ((1, (1,)), (2, (1, 3))):
        ((group, trial),) = found[f"repetition-{k}", 1]
        assert kept(*group.learnt[0])[1] == learnt and kept(trial.session, trial.tested)[1] == (2,)
    ((group, trial),) = found["person-0u", 1]
    assert [(s.person, kept(s, m)[1]) for s, m in group.learnt] == [(2, (1, 3))]
    assert kept(trial.session, trial.known.windows)[1] == (1,) and kept(trial.session, trial.tested)[1] == (2, 3)


def test_what_cannot_be_tried_is_no_rung():
    """Where what would be tested is rest alone, and where a session has no repetition beside the one that is known."""
    people = {p: [session(p, day, (2 * day - 1, 2 * day)) for day in (1, 2)] for p in (1, 2)}
    between = Split(subjects=(1, 2), train_sessions=1, test_sessions=2, train_repetitions=(1, 2),
                    test_repetitions=(3, 4))
    quiet = people[1][1]
    quiet.labels = np.where(quiet.repetitions == 4, 0, quiet.labels)
    quiet.order = (3,)
    found = rungs(people, between)
    assert {rung for rung, person in found if person == 1} == {"random", "session-0", "person-0"}
    quiet.labels = 0 * quiet.labels
    assert not [rung for rung, person in rungs(people, between) if person == 1 and rung in ("session-0", "random")]
    one = Split(subjects=(1, 2), train_repetitions=(1,), test_repetitions=(2,))
    alone = {p: [session(p, 1, (1, 2))] for p in (1, 2)}
    alone[1][0].labels = np.where(alone[1][0].labels == 2, 0, alone[1][0].labels)  # movement 1 is one too
    assert ("repetition-1", 1) in rungs(alone, one)
    alone[1][0].labels = np.where(alone[1][0].repetitions == 2, 0, alone[1][0].labels)
    assert ("repetition-1", 1) not in rungs(alone, one)


@pytest.mark.parametrize("split", [
    Split(subjects=(1, 2), train_sessions=(1, 2), test_sessions=3, train_repetitions=tuple(range(1, 9)),
          test_repetitions=(9, 10, 11, 12)),
    Split(subjects=(1, 2), train_repetitions=(1, 2, 5), test_repetitions=(3, 4))])
def test_nothing_tested_is_learnt_from(split):
    people = {p: [session(p, day, range(4 * day - 3, 4 * day + 1)) for day in (1, 2, 3)] for p in (1, 2)}
    for trials in rungs(people, split).values():
        for group, trial in trials:
            assert trial.tested.any()
            assert trial.known is None or not (trial.known.windows & trial.tested).any()
            for learnt, mask in group.learnt:
                assert learnt is not trial.session or not (mask & trial.tested).any()
                assert not trial.rung.startswith("person") or learnt.person != trial.session.person
