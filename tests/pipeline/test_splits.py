"""Splits: proofs by sample numbers, statistics against NumPy on what a loop picked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfkfin import recipe as recipes
from tfkfin.base.console import format_numbers, parse_numbers
from tfkfin.base.errors import InputError
from tfkfin.pipeline import dataset, splits
from tfkfin.pipeline.subject import ChannelStatistics
from tfkfin.pipeline.windows import Segment, Windows, segments, starts
from tfkfin.recordings import readers

WINDOWS = Windows(np.arange(6), np.array([1, 1, 1, 2, 2, 2], np.int16), np.array([1, 2, 3, 1, 2, 3], np.int16))


def test_no_raw_sample_is_on_both_sides(tiny_db2):
    for file in readers.find(tiny_db2):
        recording = readers.read(file)
        every = starts(segments(recording.labels, recording.repetitions), 600, 20)
        sides = [splits.select(every, chosen) for chosen in ((1, 3, 4, 6), (2, 5))]
        train, test = (set((side.starts[:, None] + np.arange(600)).ravel().tolist()) for side in sides)
        assert train and test and not train & test
        assert {int(recording.repetitions[i]) for i in train} == {1, 3, 4, 6}
        assert {int(recording.repetitions[i]) for i in test} == {2, 5}
        assert len(sides[0]) + len(sides[1]) == len(every)


@pytest.mark.parametrize(("text", "numbers"), [("1-25,30", (*range(1, 26), 30)), ("3", (3,)), (" 2 , 1-1", (1, 2)),
                                               ("5,1-3,2", (1, 2, 3, 5))])
def test_parse_numbers(text, numbers):
    assert parse_numbers(text) == numbers


@pytest.mark.parametrize("text", ["", "1,", "a", "3-1", "0", "-2", "1-", "1.5", "1 2", "²", "1-99999", 10 * "9",
                                  "1-2-3"])
def test_parse_numbers_refuses(text):
    with pytest.raises(InputError, match="as in 1-25,30"):
        parse_numbers(text)


@given(st.sets(st.integers(1, 60), min_size=1))
def test_format_is_the_way_back(numbers):
    assert parse_numbers(format_numbers(numbers)) == tuple(sorted(numbers))


def test_format_by_hand():
    assert format_numbers([7, 1, 2, 3, 9, 10]) == "1-3, 7, 9, 10" and format_numbers([]) == ""


def test_repetitions_present_of_movements_only():
    rest = Windows(np.arange(2), np.array([0, 1], np.int16), np.array([7, 4], np.int16))
    assert splits.repetitions_present(rest) == (4,)


def test_check_passes_what_is_fine():
    splits.check({1: WINDOWS, 2: WINDOWS}, (1, 3), (2,))


@pytest.mark.parametrize(("train", "test", "message"), [
    ((1, 2), (2, 3), "2 is both in train and in test"),
    ((6,), (2,), "subject 4 has no window in the train repetitions 6: it has repetitions 1-3"),
    ((), (2,), r"train repetitions \(none given\)"),
    ((1, 3), (5,), "no window in the test repetitions 5"),
])
def test_check_names_what_is_wrong(train, test, message):
    with pytest.raises(InputError, match=message):
        splits.check({4: WINDOWS}, train, test)


def test_check_names_a_movement_that_cannot_be_learnt():
    lacking = Windows(WINDOWS.starts[:5], WINDOWS.movements[:5], np.array([1, 2, 3, 2, 2], np.int16))
    with pytest.raises(InputError, match="subject 8 has no window of movement 2 in the train repetitions 1, 3"):
        splits.check({4: WINDOWS, 8: lacking}, (1, 3), (2,))


@pytest.mark.parametrize("order", ["C", "F"])
def test_statistics_are_of_the_segments_alone(order):
    rng = np.random.default_rng(0)
    emg = np.asarray(3e-6 + 1e-5 * rng.standard_normal((5000, 3)), np.float32, order=order)
    emg[1000:2000] = 1e3  # outside the segments: must not count
    parts = [Segment(0, 1000, 1, 1), Segment(2000, 2500, 2, 1), Segment(4000, 5000, 1, 3)]
    picked = np.array([emg[i] for s in parts for i in range(s.start, s.stop)], np.float64)
    mean, sd = ChannelStatistics.of(emg, parts).mean_and_sd()
    np.testing.assert_allclose(mean, picked.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(sd, picked.std(axis=0), rtol=1e-12)
    assert mean.dtype == sd.dtype == np.float64


def test_statistics_keep_their_digits_on_a_large_offset():
    emg = (1.0 + 1e-5 * np.random.default_rng(1).standard_normal((200_000, 1))).astype(np.float32)
    _, sd = ChannelStatistics.of(emg, [Segment(0, len(emg), 1, 1)]).mean_and_sd()
    np.testing.assert_allclose(sd, emg.astype(np.float64).std(axis=0), rtol=1e-9)


def test_flat_channels_standardise_to_zero():
    emg = np.full((1000, 3), 0.1, np.float32)
    emg[:, 1] = 0
    emg[::2, 2] = 0.2
    mean, sd = ChannelStatistics.of(emg, [Segment(0, 333, 1, 1), Segment(400, 777, 1, 2)]).mean_and_sd()
    assert sd[:2].tolist() == [1, 1] and sd[2] != 1
    np.testing.assert_allclose(((emg - mean) / sd)[:, :2], 0, atol=1e-8)


def test_no_training_sample():
    with pytest.raises(InputError, match="no training sample"):
        ChannelStatistics.of(np.ones((10, 2), np.float32), []).mean_and_sd()


def test_windows_that_teach_may_lie_closer_than_those_that_test(tiny_db2):
    settings = {"source.kind": "recordings", "window.stride_ms": 50, "window.train_stride_ms": 10}
    opened = dataset.open_dataset(recipes.load(settings=settings), tiny_db2)
    subject = opened.load(1)
    for repetitions, samples in ((opened.split.train_repetitions, 20), (opened.split.test_repetitions, 100)):
        own = subject.select(repetitions).windows
        steps = np.diff(own.starts)[(np.diff(own.movements) == 0) & (np.diff(own.repetitions) == 0)]
        assert set(steps.tolist()) == {samples}
    assert sum(opened.windows[1].values()) == len(subject.windows)
    alike = dataset.open_dataset(recipes.load(settings=settings | {"window.train_stride_ms": 0}), tiny_db2).load(1)
    one, other = (s.select((2, 5)).windows for s in (alike, subject))
    for name in ("starts", "movements", "repetitions"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(("there", "given", "test", "train"), [
    (range(1, 7), {}, (2, 5), (1, 3, 4, 6)), (range(1, 5), {}, (2,), (1, 3, 4)), ((1, 3), {}, (3,), (1,)),
    ((1, 3, 4), {"train_repetitions": (1, 3)}, (4,), (1, 3)), ((1, 2, 3), {"test_repetitions": (3,)}, (3,), (1, 2))])
def test_few_repetitions_have_a_default_too(there, given, test, train):
    numbers = np.array(there, np.int16)
    windows = Windows(np.arange(len(numbers)), np.ones(len(numbers), np.int16), numbers)
    found = splits.resolved(recipes.Split(**given), {1: windows})
    assert (found.test_repetitions, found.train_repetitions) == (test, train)


@pytest.mark.parametrize(("there", "given"), [((1,), {}), ((1, 2, 3), {"test_repetitions": (2, 6)})])
def test_what_is_asked_for_and_not_there_is_refused(there, given):
    numbers = np.array(there, np.int16)
    windows = Windows(np.arange(len(numbers)), np.ones(len(numbers), np.int16), numbers)
    with pytest.raises(InputError, match="no recording has the test_repetitions"):
        splits.resolved(recipes.Split(**given), {1: windows})
