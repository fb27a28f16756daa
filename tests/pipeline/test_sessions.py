"""Sessions: from files, from repetition numbers; split so that no raw sample is shared, each file in its place."""

import numpy as np
import pytest

from tfkfin import recipe as recipes
from tfkfin.base.errors import InputError
from tfkfin.pipeline import dataset, splits
from tfkfin.pipeline import subject as subjects
from tfkfin.pipeline.splits import Part
from tfkfin.pipeline.subject import ChannelStatistics, Subject
from tfkfin.pipeline.windows import Segment
from tfkfin.recipe import Split
from tfkfin.recordings import matfile, readers
from tfkfin.recordings.recording import Header, RecordingFile

HELD, REST, DAYS, EACH = 100, 40, 3, 2  # samples of a movement and of a rest; sessions, trials in each
NATIVE = {"source.kind": "recordings", "window.length_ms": 20, "window.stride_ms": 5, "window.rate_hz": 0}
BETWEEN = {"split.train_sessions": "1-2", "split.test_sessions": 3}


def trials(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Trials that rest opens and two movements fill: labels, repetitions, and the trial of each sample, rest too."""
    labels = np.tile(np.repeat([0, 1, 2], [REST, HELD, HELD]), count)
    owner = np.repeat(np.arange(1, count + 1), REST + 2 * HELD)
    return labels, np.where(labels > 0, owner, 0), owner


def signal(labels: np.ndarray, seed: int) -> np.ndarray:
    """Unique samples, so that each tells where it comes from."""
    rng = np.random.default_rng(seed)
    return (rng.permutation(len(labels) * 3).reshape(-1, 3) + 10_000 * seed).astype(np.float32) * 1e-6


@pytest.fixture
def numbered(tmp_path):
    """One file whose repetition numbers run on through the sessions."""
    labels, repetitions, _ = trials(DAYS * EACH)
    matfile.save(tmp_path / "S1_E1_A1.mat", {
        "emg": signal(labels, 1), "restimulus": labels.astype(np.uint8)[:, None],
        "rerepetition": repetitions.astype(np.uint8)[:, None], "frequency": np.array([[1000.0]])}, "test")
    return tmp_path, {**NATIVE, **BETWEEN, "split.repetitions_per_session": EACH}


@pytest.fixture
def parted(tmp_path):
    """One file a session, each counting its repetitions from 1."""
    for day in range(1, DAYS + 1):
        labels, repetitions, _ = trials(EACH)
        np.save(tmp_path / f"p1_day{day}.npy", np.column_stack([1e3 * signal(labels, day), labels, repetitions]))
    (tmp_path / "recordings.toml").write_text('rate_hz = 1000\nunit = "mV"\nfiles = "p{subject}_day{session}.npy"\n'
                                              "channels = [1, 2, 3]\nlabel = 4\nrepetition = 5\n")
    return tmp_path, {**NATIVE, **BETWEEN}


@pytest.mark.parametrize("kind", ["numbered", "parted"])
def test_no_raw_sample_is_shared_between_sessions(kind, request):
    folder, settings = request.getfixturevalue(kind)
    opened = dataset.open_dataset(recipes.load(settings=settings), folder)
    subject = opened.load(1)
    sides = [subject.select(opened.part(name)) for name in ("train", "test")]
    train, test = (set(side.volts(opened.length)[..., 0].ravel().tolist()) for side in sides)
    assert train and test and not train & test
    windows = (HELD - 20) // 5 + 1
    assert [len(side.windows) for side in sides] == [2 * 2 * EACH * windows, 2 * EACH * windows]
    assert [sorted(set(side.windows.sessions.tolist())) for side in sides] == [[1, 2], [3]]
    assert len(set(sides[1].windows.segments.tolist())) == 2 * EACH  # executions
    taught = {float(v) for v in subject.emg[:, 0] if v in train}
    np.testing.assert_allclose(subject.mean[0], np.mean(list(taught)), rtol=1e-6)


def test_windows_know_their_file_and_place(parted):
    folder, settings = parted
    opened = dataset.open_dataset(recipes.load(settings=settings), folder)
    subject = opened.load(1)
    every = zip(subject.files, subject.windows.starts, subject.places, strict=True)
    for number, (file, start, place) in enumerate(every):
        if number % 7 == 0:
            stored = np.load(opened.files[1][file].path)[place : place + opened.length, :3]
            np.testing.assert_array_equal(subject.emg[start : start + opened.length],
                                          (stored * 1e-3).astype(np.float32))
    assert len(opened.files[1]) == DAYS and set(subject.files.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("opens", [True, False])
def test_rest_belongs_to_the_trial_that_it_opens_or_ends(opens):
    labels, repetitions, owner = trials(4)
    if not opens:  # rest after each trial, as between Ninapro's movements
        labels, repetitions, owner = (np.concatenate([column[REST:], column[:REST]]) for column in
                                      (labels, repetitions, owner))
        owner = np.where(labels > 0, owner, np.roll(owner, REST))
        owner[-REST:] = 4
    header = Header(RecordingFile("x", 1), labels, repetitions, 1000.0, 1, (), False)
    found = splits.segments(header, Split(repetitions_per_session=2), rest=True)
    assert sum(s.stop - s.start for s in found) == len(labels) and [s.start for s in found] == sorted(
        s.start for s in found)
    for s in found:
        assert s.repetition == owner[s.start] == owner[s.stop - 1] and s.session == (s.repetition + 1) // 2


def test_a_repetition_may_be_learnt_in_one_session_and_tested_in_another(parted):
    folder, settings = parted
    chosen = {"split.train_repetitions": 1, "split.test_repetitions": 1}
    opened = dataset.open_dataset(recipes.load(settings=settings | chosen), folder)
    assert opened.part("train") == Part((1,), (1, 2)) and opened.part("test") == Part((1,), (3,))
    assert opened.describe()["test_sessions"] == [3]


@pytest.mark.parametrize(("settings", "message"), [
    ({"split.train_sessions": "1-2", "split.test_sessions": "2-3"}, r"sessions \[2\] are both"),
    ({"split.train_sessions": 1, "split.test_sessions": 9}, "no recording has the test_sessions"),
    ({"split.test_sessions": 3, "split.test_repetitions": 1, "split.train_repetitions": 1}, "are both in train_rep"),
])
def test_what_does_not_part_is_said(parted, settings, message):
    folder, base = parted
    with pytest.raises(InputError, match=message):
        dataset.open_dataset(recipes.load(settings=NATIVE | settings), folder)


def test_two_files_of_one_session_are_an_error(parted):
    folder, settings = parted
    (folder / "more").mkdir()
    (folder / "more" / "p1_day2.npy").write_bytes((folder / "p1_day2.npy").read_bytes())
    with pytest.raises(InputError, match="session 2 has two files"):
        dataset.open_dataset(recipes.load(settings=settings), folder)


def test_rest_before_the_first_movement_belongs_to_none_where_rest_also_ends():
    labels = np.repeat([0, 1, 0, 2, 0], 10)
    header = Header(RecordingFile("x", 1), labels, np.repeat([0, 3, 3, 4, 0], 10), 1000.0, 1, (), False)
    found = splits.segments(header, Split(), rest=True)
    assert [(s.start, s.movement, s.repetition) for s in found] == [(10, 1, 3), (20, 0, 3), (30, 2, 4), (40, 0, 4)]


def test_recordings_are_cut_midway_between_what_is_tested_and_what_is_not():
    labels = np.repeat([1, 0, 2, 0, 1], [10, 6, 10, 8, 10])
    repetitions = np.repeat([1, 1, 2, 2, 3], [10, 6, 10, 8, 10])
    header = Header(RecordingFile("x", 1), labels, repetitions, 1000.0, 1, (), False)
    split = Split(train_repetitions=(1, 3), test_repetitions=(2,))
    found = splits.segments(header, split, rest=True)
    assert splits.cuts(found, split, rest=False) == [13, 30]
    assert splits.cuts(found, split, rest=True) == [16, 34]  # rest after a movement is of its repetition


def test_moments_of_parts_are_those_of_the_whole():
    emg = np.random.default_rng(0).normal(3, 2, (500, 2)) * [1, 7]
    parts = [ChannelStatistics.of(emg, [Segment(a, b, 1, 1)]) for a, b in ((0, 90), (90, 90), (90, 400), (400, 500))]
    for found in (sum(parts[1:], parts[0]), sum(parts[:-1], parts[-1])):
        mean, sd = found.mean_and_sd()
        np.testing.assert_allclose(mean, emg.mean(axis=0))
        np.testing.assert_allclose(sd, emg.std(axis=0))


def test_all_of_a_subjects_files_are_one_whole(parted, monkeypatch):
    """Standardised by the statistics of every file, some rows at a time, with what a decision looks back at."""
    folder, settings = parted
    files = readers.by_subject(readers.find(folder))[1]
    window = recipes.load(settings=settings).window
    monkeypatch.setattr(subjects, "_ROWS", 37)
    subject = Subject.of(map(readers.read, files), window, context=2)
    held = np.concatenate([readers.read(f).emg[readers.read(f).labels > 0] for f in files]).astype(np.float64)
    assert subject.rate_hz == 1000 and set(subject.files.tolist()) == {0, 1, 2}
    np.testing.assert_allclose(subject.mean, held.mean(axis=0))
    np.testing.assert_allclose(subject.sd, held.std(axis=0))
    np.testing.assert_allclose(subject.standardised(), (subject.emg - subject.mean) / subject.sd, rtol=1e-5)
    led, segments, own = subject.with_context(2, 5)
    assert not any(own[rows[0]] for rows in segments) and own.sum() == len(subject.windows)
    assert len(led.windows) == len(subject.windows) + 2 * len(segments)
