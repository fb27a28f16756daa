"""The ladder's rungs by hand: what is trained on, what is known, what is decided and what is tested."""

from pathlib import Path

import numpy as np
import pytest

from tfkfin.experiments.kinds.ladder import decisions
from tfkfin.experiments.ladder import rows, rungs
from tfkfin.experiments.ladder.rows import Answers
from tfkfin.experiments.ladder.rungs import MIXED, content, cut, places
from tfkfin.recipe import Filter, Split, Window
from tfkfin.recordings.recording import Recording, RecordingFile, owners

EACH, RATE = 40, 100.0  # samples of a rest or movement
WINDOW = Window(length_ms=100, stride_ms=50, rate_hz=0)
DAYS = Split(subjects=(1, 2), train_sessions=(1, 2), test_sessions=3, train_repetitions=tuple(range(1, 9)),
             test_repetitions=(9, 10, 11, 12))


def recording(person, session, repetitions, movements=(1, 2)):
    """Rest (repetition 0), then each movement, in each repetition; the signal counts samples."""
    labels = np.tile(np.repeat([0, *movements], EACH), len(repetitions)).astype(np.int16)
    each = np.repeat(repetitions, (1 + len(movements)) * EACH)
    count = np.arange(len(labels), dtype=np.float32)
    return Recording(RecordingFile(Path(f"S{person}"), person, session=session), np.stack([count, -count], axis=1),
                     labels, np.where(labels > 0, each, 0).astype(np.int16), RATE)


def people(days=(1, 2, 3), each=4):
    return {p: [part for day in days for part in rungs.sessions(
        p, [recording(p, day, range(each * (day - 1) + 1, each * day + 1))], 0)] for p in (1, 2)}


def climbed(there, split):
    found = {}
    for group in rungs.groups(there, split, WINDOW, 7):
        for trial in group.trials:
            found.setdefault((trial.rung, group.person), []).append((group, trial))
    return found


def known(part):
    return part.person, part.session, part.repetitions


def test_days():
    found = climbed(people(), DAYS)
    assert {rung for rung, _ in found} == set(rungs.RUNGS) - {"repetition-4"}  # nothing would be left to test
    ((group, trial),) = found["session-0", 1]
    assert [known(part) for part in group.parts] == [(1, 1, (1, 2, 3, 4)), (1, 2, (5, 6, 7, 8))]
    assert trial.known is None and known(trial.stream) == (1, 3, (9, 10, 11, 12)) and trial.tested == (9, 10, 11, 12)
    for rung, labelled in (("session-0u", False), ("session-1", True)):
        ((_, trial),) = found[rung, 1]
        assert known(trial.known) == (1, 3, (9,)) and trial.labelled is labelled
        assert known(trial.stream) == (1, 3, (10, 11, 12)) and trial.tested == (10, 11, 12)
    ((group, trial),) = found["person-1", 2]
    assert {known(part)[:2] for part in group.parts} == {(1, 1), (1, 2)}
    assert trial.stream.person == 2 and trial.tested == (10, 11, 12)
    ((group, trial),) = found["repetition-2", 1]
    assert [known(part) for part in group.parts] == [(1, 3, (9, 10))] and trial.tested == (11, 12)
    ((group, trial),) = found["random", 1]
    assert [known(part)[:2] for part in group.parts] == [(1, 3)] and trial.stream.session == 3


def test_sessions_are_calibrated_before_they_are_carried_on():
    """In order of time, and of each session the stream without calibration last, which the next session begins with."""
    there = people(days=range(1, 6))
    split = DAYS.model_copy(update={"test_sessions": (3, 4, 5), "test_repetitions": tuple(range(9, 21))})
    ((group, _), *_) = climbed(there, split)["session-0", 1]
    assert [(t.stream.session, t.rung) for t in group.trials] == [
        (day, f"session-{kind}") for day in (3, 4, 5) for kind in ("0u", "1", "0")]


def test_one_session():
    there = {p: rungs.sessions(p, [recording(p, 1, (1, 2, 3))], 0) for p in (1, 2)}
    found = climbed(there, Split(subjects=(1, 2), train_repetitions=(1, 3), test_repetitions=(2,)))
    assert {rung for rung, _ in found} == set(rungs.RUNGS) - {
        "repetition-4", "session-0", "session-0u", "session-1"}
    for k, wanted in ((1, (1,)), (2, (1, 3))):
        ((group, trial),) = found[f"repetition-{k}", 1]
        assert known(group.parts[0])[2] == wanted and trial.tested == trial.stream.repetitions == (2,)
    ((group, trial),) = found["person-0u", 1]
    assert [known(part) for part in group.parts] == [(2, 1, (1, 3))]
    assert known(trial.known)[2] == (1,) and trial.tested == (2, 3)


def test_what_cannot_be_tried_is_no_rung():
    """Where a session has no movement, and where it has no repetition beside the one that is known."""
    split = Split(subjects=(1, 2), train_sessions=1, test_sessions=2, train_repetitions=(1, 2), test_repetitions=(3, 4))
    there = people(days=(1, 2), each=2)
    there[1][1] = there[1][1].select([3])
    assert {rung for rung, person in climbed(there, split) if person == 1} == {"random", "session-0", "person-0"}
    assert rungs.sessions(1, [recording(1, 2, (3, 4), movements=(0, 0))], 0) == []
    del there[1][1]
    assert not [rung for rung, person in climbed(there, split) if person == 1]


def test_sessions_are_read_out_of_repetitions():
    found = rungs.sessions(1, [recording(1, 1, range(1, 9))], 4)
    assert [known(part) for part in found] == [(1, 1, (1, 2, 3, 4)), (1, 2, (5, 6, 7, 8))]
    joined = np.concatenate([one.emg for part in found for one in part.recordings])
    np.testing.assert_array_equal(joined, recording(1, 1, range(1, 9)).emg)  # every sample is in one of them


@pytest.mark.parametrize("split", [DAYS, Split(subjects=(1, 2), train_repetitions=(1, 2, 5), test_repetitions=(3, 4))])
def test_nothing_tested_is_trained_on(split):
    """By the samples themselves: the signal counts them, and its sign of the person and session is in the part."""
    there = people() if split is DAYS else people(days=(1,), each=5)
    for trials in climbed(there, split).values():
        for group, trial in trials:
            tested = {(trial.stream.person, trial.stream.session, sample) for one in trial.stream.recordings
                      for sample, label, r in zip(one.emg[:, 0], one.labels, owners(one))
                      if r in trial.tested and label > 0}
            assert tested
            for part in (*group.parts, *([trial.known] if trial.known else [])):
                samples = {(part.person, part.session, sample) for one in part.recordings for sample in one.emg[:, 0]}
                assert trial.rung == "random" or not samples & tested
            assert not trial.rung.startswith("person") or all(p.person != group.person for p in group.parts)


def test_random_windows_are_trained_on_or_tested():
    ((group, trial),) = climbed(people(), DAYS)["random", 1]
    (one,), (train,) = trial.stream.recordings, group.parts[0].recordings
    begins, ends = places(len(one.emg), RATE, 10, 5, RATE)
    inside = content(one, begins, ends)
    drawn = trial.drawn[0][:len(begins)]
    windows = one.emg[begins[:, None] + np.arange(10)]
    np.testing.assert_array_equal(train.emg.reshape(-1, 10, 2), windows[drawn & (inside.movements != MIXED)])
    assert train.seams == tuple(range(10, len(train.emg), 10)) and 0.5 < drawn.mean() < 0.9
    answers = Answers(begins, ends, np.full((len(begins), 2), 0.5), np.array([1, 2]), np.arange(len(begins)))
    kept = decisions(trial, [answers], 0.0)
    np.testing.assert_array_equal(kept[1], np.flatnonzero(~drawn & (inside.movements != MIXED)))


def naive(one, begin, end):
    """Label and repetition of a window, sample by sample; None across a change or a seam."""
    labels, owner = set(one.labels[begin:end].tolist()), set(owners(one)[begin:end].tolist())
    across = any(begin < seam < end for seam in one.seams)
    return None if across or len(labels) > 1 or len(owner) > 1 else (labels.pop(), owner.pop())


def test_windows_are_known_by_all_of_their_samples():
    one = recording(1, 1, (1, 2, 3)).select([1, 3])
    for rate, length, stride in ((RATE, 10, 5), (2 * RATE, 21, 9), (64.0, 7, 3)):
        begins, ends = places(len(one.emg), RATE, length, stride, rate)
        assert begins[1] == int(stride * RATE / rate) and ends[-1] <= len(one.emg) < ends[-1] + stride * RATE / rate + 1
        found = content(one, begins, ends)
        for i, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            wanted = naive(one, begin, end)
            assert (None if found.movements[i] == MIXED else (found.movements[i], found.repetitions[i])) == wanted
        assert len(np.unique(found.segments[found.movements > 0])) == 4  # two movements, twice


def test_training_windows_are_those_of_the_definition():
    one = recording(1, 1, (1, 2, 3)).select([1, 3])
    found = cut([one, one], WINDOW, Filter(), False)
    edges = np.unique([0, *one.seams, *(np.flatnonzero(np.diff(one.labels)) + 1), len(one.labels)])
    starts = [s for low, high in zip(edges, edges[1:]) for s in range(low, high - 9, 5)]
    np.testing.assert_array_equal(found.starts, [*starts, *(s + len(one.emg) for s in starts)])
    np.testing.assert_array_equal(found.volts([0, -1])[:, 0, 0], one.emg[[starts[0], starts[-1]], 0])
    assert found.sizes == (len(starts), len(starts)) and (found.labels != MIXED).all()


class Adapting:
    """In a decoder's place: answers with what it was made by, and counts its own streams."""

    length, stride, card, movements, made = 10, 5, {"rate_hz": RATE}, np.array([1, 2]), 0

    def __init__(self, history=()):
        self.history = history

    def calibrate(self, recordings, labelled, repetitions):
        return Adapting((*self.history, "labels" if labelled else "no labels"))

    def session(self, smooth):
        return Adapting(self.history)

    def stream(self, recording):
        self.made += 1
        return {"probabilities": self.history, "label": np.zeros(1), "streams": self.made}

    def carried(self):
        return Adapting((*self.history, "carried"))


@pytest.mark.parametrize("adapts", [True, False])
def test_every_trial_begins_a_session_of_its_own(adapts, monkeypatch):
    """Two trials of one session share nothing; what one trial without calibration adapted goes on to the next."""
    answers = []
    monkeypatch.setattr(rows, "answered", lambda recording, length, stride, rate_hz, history, movements, labels:
                        answers.append((recording.file.session, history)))
    model = rows.DecoderModel.__new__(rows.DecoderModel)
    model.row = rows.DecoderRow("", "", adapts=adapts)
    begun = Adapting()
    monkeypatch.setattr(model, "_fitted", lambda group: begun)
    sessions = [rungs.SessionPart(1, s, (recording(1, s, range(1, 4)),)) for s in (1, 2)]
    group = rungs.Group(1, (), tuple(trial for s in sessions for trial in rungs._calibrations("session", s, (1, 2, 3))))
    assert len(list(model.decide(group))) == 6
    after = ("carried",) if adapts else ()
    assert answers == [(s, (*before, *known)) for s, before in ((1, ()), (2, after))
                       for known in (("no labels",), ("labels",), ())]
    assert begun.made == (0 if adapts else 2)


def test_a_baseline_knows_the_sessions_that_it_learnt_from(monkeypatch):
    model, asked = rows.BaselineModel.__new__(rows.BaselineModel), []
    monkeypatch.setattr(model, "fit", lambda parts: "fitted")
    monkeypatch.setattr(model, "answers", lambda fitted, trial, session=None: asked.append(session))
    parts = [rungs.SessionPart(person, session, ()) for person, session in ((1, 3), (1, 4), (2, 4))]
    streams = (*parts, rungs.SessionPart(2, 3, ()))
    list(model.decide(rungs.Group(1, tuple(parts), tuple(rungs.Trial("session-0", s, (1,)) for s in streams))))
    assert asked == [0, 1, 2, None]
