"""Trials in files of their own, joined: no window, filter or look back goes across a seam."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tfkfin.experiments import evaluation
from tfkfin.pipeline import preprocessing, splits
from tfkfin.pipeline.subject import Subject
from tfkfin.recipe import Split, Window
from tfkfin.recordings import readers
from tfkfin.recordings.recording import Recording, RecordingFile

SEAMS = (100, 230)


def recording(**changes) -> Recording:
    """Three trials; the first two are the same movement and repetition, and what is between them is a seam alone."""
    labels = np.repeat([1, 1, 0, 2, 0], [100, 130, 40, 60, 70]).astype(np.int16)
    repetitions = np.where(np.arange(400) < 230, 1, 2).astype(np.int16)
    emg = np.random.default_rng(0).standard_normal((400, 2)).astype(np.float32)
    return replace(Recording(RecordingFile(Path("x"), 1), emg, labels, repetitions, 1000.0, seams=SEAMS), **changes)


def test_segments_end_at_seams_and_rest_belongs_to_its_own_file():
    found = [(s.start, s.stop, s.movement, s.repetition) for s in splits.segments(recording(), Split(), rest=True)]
    assert found == [(0, 100, 1, 1), (100, 230, 1, 1), (230, 270, 0, 2), (270, 330, 2, 2), (330, 400, 0, 2)]


@pytest.mark.parametrize("rate", [500.0, 2000.0, 1300.0])
def test_resampling_is_that_of_each_file_alone(rate):
    whole = preprocessing.resampled(recording(), rate)
    assert whole.seams == tuple(-(-seam * int(rate) // 1000) for seam in SEAMS)
    edges, new = [0, *SEAMS, 400], [0, *whole.seams, len(whole.emg)]
    for i, (a, b) in enumerate(zip(edges, edges[1:], strict=False)):
        other = recording()
        other.emg[:a], other.emg[b:] = 1e3, -1e3  # what lies beyond has no say
        again = preprocessing.resampled(other, rate)
        np.testing.assert_array_equal(again.emg[new[i] : new[i + 1]], whole.emg[new[i] : new[i + 1]])


def test_windows_and_what_decisions_look_back_on_stay_in_their_file():
    subject = Subject.of([recording()], Window(length_ms=20, stride_ms=10, rate_hz=0), context=6)
    starts = subject.places
    assert not any(((starts < seam) & (starts + 20 > seam)).any() for seam in SEAMS)
    led, _, own = subject.with_context(6, 10)
    assert (~own).sum() == 4  # the movement at 270 alone has samples before it in its file: 40
    assert min(led.places[~own]) == 230


def test_a_movement_ahead_is_looked_for_in_the_same_file():
    made = recording()
    owner = evaluation.owners(made.labels, made.repetitions)
    last = np.array([50, 95, 225, 265])
    labels, there = evaluation.label_ahead(made.labels, owner, last, 10, SEAMS)
    assert there.tolist() == [1, 0, 0, 2] and labels[[0, 3]].tolist() == [1, 2]


def test_a_folder_of_trials_is_one_recording_a_person(tmp_path):
    """Windows, counts and content are those of the trials one by one."""
    made = recording()
    for i, (a, b) in enumerate(zip([0, *SEAMS], [*SEAMS, 400], strict=True)):
        np.save(tmp_path / f"p1_{i + 1}.npy", np.column_stack([made.emg[a:b], made.labels[a:b], made.repetitions[a:b]]))
    (tmp_path / "recordings.toml").write_text('rate_hz = 1000\nunit = "V"\nfiles = "p{subject}_{run}.npy"\n'
                                              "channels = [1, 2]\nlabel = 3\nrepetition = 4\n")
    (file,) = readers.find(tmp_path)
    back = readers.read(file)
    assert back.seams == SEAMS and len(file.paths) == 3
    np.testing.assert_array_equal(back.emg, made.emg)
