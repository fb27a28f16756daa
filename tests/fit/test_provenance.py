"""A model knows what calibrated it, on every door that scores: by the samples, not by names."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import tfkfin
from tfkfin import evaluate
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.fit import scoring
from tfkfin.fit.calibration import calibrate
from tfkfin.live import offline
from tfkfin.recordings import matfile
from tfkfin.recordings.recording import UNKNOWN, digests
from tfkfin.store import card as cards

OTHERS = (2, 3, 4, 5, 6)


@pytest.fixture(scope="module")
def people(tiny_db2):
    return list(tfkfin.read(tiny_db2))


@pytest.fixture(scope="module")
def fitted(people):
    return tfkfin.Decoder.from_preset("best", length_ms=100, window__stride_ms=50).fit(people[0])


@pytest.fixture(scope="module")
def calibrated(fitted, people):
    return fitted.calibrate(people[1], repetitions=1)


@pytest.fixture(scope="module")
def model(calibrated, tmp_path_factory):
    return calibrated.export(tmp_path_factory.mktemp("models") / "mine").parent


def accuracy(decoder, recording, repetitions):
    """Of the windows of these repetitions alone."""
    subject = scoring.windows_of(decoder.card, [recording]).select(repetitions)
    return scoring.judged(scoring.Case(decoder, subject, decoder.stride, False))[0]["accuracy"]


def test_a_repetition_is_known_by_its_samples_wherever_it_lies(people):
    one = people[0]
    found = digests(one)
    assert sorted(found) == [1, *OTHERS]
    for repetition, digest in found.items():
        own = one.emg[(one.labels > 0) & (one.repetitions == repetition)]
        assert hashlib.sha256(own.astype("<f4").tobytes()).hexdigest().startswith(digest) and len(digest) == 16
    elsewhere = replace(one.select([3, 5]), file=replace(one.file, subject=9, session=4))
    assert digests(elsewhere) == {r: found[r] for r in (3, 5)}
    assert not set(digests(people[1]).values()) & set(found.values())
    subject = scoring.windows_of({"length": 200, "rate_hz": 2000.0, "stride_ms": 50}, people)
    assert len(set(found.values()) & set(subject.repetition_digests.tolist())) == 6
    own = [digests(people[file])[r] for file, r in zip(subject.files, subject.windows.repetitions, strict=True)]
    assert subject.repetition_digests.tolist() == own


def test_from_python_what_calibrated_it_does_not_count(fitted, calibrated, people):
    today = people[1]
    assert accuracy(calibrated, today, [1]) > accuracy(calibrated, today, OTHERS)  # what is at stake
    assert calibrated.score(today) == accuracy(calibrated, today, OTHERS)
    assert calibrated.score(today.select(1)) == pytest.approx(accuracy(calibrated, today, [1]), abs=0.05)  # no others
    assert fitted.score(today) == accuracy(fitted, today, [1, *OTHERS]) and "learnt_from" not in fitted.card
    tomorrow = replace(today, emg=today.emg + np.float32(1e-7))  # another recording with the same numbers
    assert calibrated.score(tomorrow) == accuracy(calibrated, tomorrow, [1, *OTHERS])


def test_updates_and_later_calibrations_count_too_and_revert_forgets(calibrated, people):
    today = people[1]
    new = calibrated.calibrate(today, repetitions=2)
    before, after = (new.card["calibration"][when]["accuracy"] for when in ("before", "after"))
    assert before == accuracy(calibrated, today, OTHERS[1:]) and after == accuracy(new, today, OTHERS[1:])
    kept = list(new.card["learnt_from"])
    new.update(today.select(3))
    assert new.score(today) == accuracy(new, today, (4, 5, 6))
    assert new.revert().card["learnt_from"] == kept and new.score(today) == accuracy(new, today, (3, 4, 5, 6))


def test_calibrating_tells_of_training_repetitions(calibrated, people):
    """A card of a run says which repetitions trained it: of its own person alone."""
    card = calibrated.card | {"subject": 1, "dataset": {"train_repetitions": [2, 5], "finetune_repetitions": [2]}}
    decoder = BaseDecoder(card, calibrated.model)
    for one, known in zip(people, ([2, 5], []), strict=True):
        subject = scoring.windows_of(card, [one])
        assert calibrate(decoder, subject, (3,))[1]["trained_on"] == known


def evaluated(folder, model, data, *words):
    evaluate.main([str(model), "--data", str(data), "--json", str(folder / "scores.json"), *map(str, words)])
    return json.loads((folder / "scores.json").read_text())


def test_evaluate_leaves_out_what_calibrated_it(model, tiny_db2, tmp_path):
    found = evaluated(tmp_path, model, tiny_db2)
    wanted = evaluated(tmp_path, model, tiny_db2, "--subjects", 2, "--repetitions", "2-6")
    assert found["left_out"] == [1] and found["trained_on"] == wanted["left_out"] == wanted["trained_on"] == []
    for name in ("accuracy", "execution"):
        assert found[name]["per_subject"]["2"] == wanted[name]["per_subject"]["2"]
    asked = evaluated(tmp_path, model, tiny_db2, "--subjects", 2, "--repetitions", "1,2")
    assert asked["left_out"] == [] and asked["trained_on"] == [1]


def test_evaluate_knows_it_by_its_samples(model, tiny_db2, tmp_path):
    """As another person's elsewhere; and not another signal by the same name."""
    elsewhere, others = tmp_path / "elsewhere", tmp_path / "others"
    for folder in (elsewhere, others):
        folder.mkdir()
    (path,) = tiny_db2.rglob("S2_*.mat")
    shutil.copy(path, elsewhere / "S7_E1_A1.mat")
    content = matfile.load(path, tuple(matfile.shapes(path)))
    matfile.save(others / path.name, content | {"emg": np.asarray(content["emg"]) * 1.01}, "others")
    assert evaluated(tmp_path, model, elsewhere)["left_out"] == [1]
    assert evaluated(tmp_path, model, others)["left_out"] == []


def test_whole_recordings_are_not_scored_where_they_calibrated_it(calibrated, people):
    """Samples of that repetition have unknown labels, rest after it too, unless it was asked for."""
    card = calibrated.card | {"subject": 2, "dataset": {"train_repetitions": [4]}}
    for one, asked, left_out, trained in ((people[1], False, {1}, {4}), (people[1], True, set(), {1, 4}),
                                          (people[0], False, set(), set())):
        known = {"trained_on": set(), "left_out": set()}
        found = offline._scored(card, one, known, asked)
        assert known == {"trained_on": trained, "left_out": left_out}
        there = found.labels != UNKNOWN
        np.testing.assert_array_equal(found.labels[there], one.labels[there])
        moving = one.labels > 0
        np.testing.assert_array_equal(there[moving], ~np.isin(one.repetitions[moving], list(left_out)))
        assert there.all() == (not left_out)


def test_so_does_the_command(model, tiny_db2, tmp_path):
    found = evaluated(tmp_path, model, tiny_db2, "--stream")
    assert found["left_out"] == [1] and found["trained_on"] == []
    assert found["windows"]["2"] / found["windows"]["1"] == pytest.approx(5 / 6, abs=0.05)


def test_another_person_does_not_begin_where_the_one_before_ended(fitted, people):
    """All sessions are number 1: what is adapted to one person's must not decide the other's."""
    decided, made = offline.Offline(fitted, fitted.stride, adapt=True), []
    for one in (people[0], people[1], people[1]):
        lines: list[dict] = []
        decided._take = lines.append
        decided([one.select([1, 2])])
        made.append([line["probability"] for line in lines])
    assert made[1] == made[2] and made[0] != made[1]


@pytest.mark.parametrize(("sessions", "wanted"), [
    ({}, "trained on repetitions 1, 3, fine-tuned on 1, scored on every window of repetitions 2 of the same subject "
         "and session;"),
    ({"train_sessions": [1, 2], "test_sessions": [3]}, "trained on repetitions 1, 3 of sessions 1, 2, fine-tuned on 1, "
     "scored on every window of repetitions 2 of sessions 3 of the same subject;")])
def test_a_card_says_which_sessions_were_scored(sessions, wanted):
    about = {"train_repetitions": [1, 3], "finetune_repetitions": [1], "test_repetitions": [2]} | sessions
    assert wanted in cards._protocol({"protocol": "honest", "length_ms": 100, "stride_ms": 50}, about)
