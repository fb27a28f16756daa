"""Segments and windows against plain loops over samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfkfin.base.errors import InputError
from tfkfin.pipeline.windows import Segment, samples, segments, starts

recordings = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(1, 9)), max_size=12).map(
    lambda runs: (np.repeat([r[0] for r in runs], [r[2] for r in runs]).astype(np.int16),
                  np.repeat([r[1] for r in runs], [r[2] for r in runs]).astype(np.int16)))


def loop_segments(labels, repetitions, rest):
    """Sample by sample: a segment goes on as long as both numbers stay."""
    found, current = [], None
    for i, pair in enumerate(zip(labels.tolist(), repetitions.tolist(), strict=True)):
        if current and current[1] == pair:
            continue
        if current:
            found.append(Segment(current[0], i, *current[1]))
        current = (i, pair)
    if current:
        found.append(Segment(current[0], len(labels), *current[1]))
    return [s for s in found if (s.movement > 0 and s.repetition > 0) or (rest and s.movement == 0)]


@given(recordings, st.booleans())
def test_segments_are_those_of_a_loop(arrays, rest):
    assert segments(*arrays, rest=rest) == loop_segments(*arrays, rest)


@given(recordings, st.integers(1, 6), st.integers(1, 7), st.booleans())
def test_windows_are_those_of_a_loop(arrays, length, stride, rest):
    cut = segments(*arrays, rest=rest)
    expected = [(start, s.movement, s.repetition) for s in cut
                for start in range(s.start, s.stop - length + 1, stride)]
    if cut and not expected:
        with pytest.raises(InputError, match="longer than every segment"):
            starts(cut, length, stride)
        return
    found = starts(cut, length, stride)
    columns = (column.tolist() for column in (found.starts, found.movements, found.repetitions))
    assert list(zip(*columns, strict=True)) == expected
    assert found.starts.dtype == np.int64 and len(found) == len(expected)
    labels, repetitions = arrays
    for start, movement, repetition in expected:  # no window straddles: one label and one repetition in each
        assert set(labels[start : start + length].tolist()) == {movement}
        assert set(repetitions[start : start + length].tolist()) == {repetition}


def test_each_segment_may_have_its_own_stride():
    cut = [Segment(0, 20, 1, 1), Segment(20, 40, 1, 2)]
    assert starts(cut, 8, [4, 6]).starts.tolist() == [0, 4, 8, 12, 20, 26, 32]
    with pytest.raises(ValueError, match="must be at least 1 sample"):
        starts(cut, 8, [4, 0])


def test_last_window_of_the_paper_is_counted():
    (segment,) = segments(np.ones(10_000, np.int16), np.ones(10_000, np.int16))
    found = starts([segment], 600, 20)
    assert len(found) == (10_000 - 600) // 20 + 1 == 471
    assert found.starts[-1] + 600 == 10_000


def test_a_movement_seen_twice_in_a_repetition_gives_two_segments():
    labels = np.array([1, 1, 0, 1, 1, 1, 2], np.int16)
    assert segments(labels, np.ones(7, np.int16)) == [Segment(0, 2, 1, 1), Segment(3, 6, 1, 1), Segment(6, 7, 2, 1)]


def test_recordings_without_rest_and_without_anything():
    labels, repetitions = np.array([1, 1, 1, 1], np.int16), np.array([1, 1, 2, 2], np.int16)
    assert segments(labels, repetitions) == [Segment(0, 2, 1, 1), Segment(2, 4, 1, 2)]
    assert segments(labels[:0], repetitions[:0]) == [] and len(starts([], 600, 20)) == 0


def test_too_long_a_window_names_the_longest_segment():
    with pytest.raises(InputError, match=r"600 samples \(300 ms\).*longest has 400 samples \(200 ms\)"):
        starts([Segment(0, 100, 1, 1), Segment(200, 600, 2, 1)], 600, 20, rate_hz=2000)
    with pytest.raises(ValueError, match="stride"):
        starts([Segment(0, 100, 1, 1)], 10, 0)


@pytest.mark.parametrize(("ms", "rate", "count"), [(300, 2000, 600), (10, 2000, 20), (300, 2048, 614), (10, 100, 1),
                                                   (2.5, 1000, 3), (300, 2148.1481, 644)])
def test_samples(ms, rate, count):
    assert samples(ms, rate) == count


def test_less_than_a_sample():
    with pytest.raises(InputError, match="less than one sample: give at least 10 ms"):
        samples(4, 100)
