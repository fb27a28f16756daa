"""Scores and times of a session against the same, computed at once from everything."""

import numpy as np
import pytest

from tfkfin.fit import metrics
from tfkfin.live.measures import UNKNOWN, Distribution, Proportional, Recent, Scores, Times, Timing

rng = np.random.default_rng(8)


def test_scores_are_those_of_all_windows_together():
    length, stride, rate = 40, 10, 100.0
    runs = [(int(rng.integers(0, 4)), int(rng.integers(20, 200))) for _ in range(60)]
    labels = np.concatenate([np.full(n, label) for label, n in runs])
    starts = np.arange(0, len(labels) - length + 1, stride)
    inside = [labels[s : s + length] for s in starts]
    true = np.array([w[0] if (w == w[0]).all() else UNKNOWN for w in inside])
    decided = np.where(rng.random(len(starts)) < 0.5, [w[-1] for w in inside], rng.integers(-1, 4, len(starts)))
    scores, truth, given = Scores([0, 1, 2, 3], stride / rate, rate, True), Recent(length), 0
    for end in range(37, len(labels) + 37, 37):  # chunks
        new = labels[given:end]
        truth.add(new)
        for i in range(given, min(end, len(labels))):
            if i == 0 or labels[i] != labels[i - 1]:
                scores.changed(i, int(labels[i]))
        for w in np.flatnonzero((starts + length > given) & (starts + length <= end)):
            seen = truth.within(starts[w], starts[w] + length - 1)
            np.testing.assert_array_equal(seen, inside[w])
            scores.add(int(decided[w]), int(true[w]), int(starts[w] + length - 1))
        given = end
    found, known = scores.summary(), true != UNKNOWN
    assert found["accuracy"] == pytest.approx(np.mean((true == decided)[known])) and found["windows"] == known.sum()
    edges = np.concatenate([[0], np.flatnonzero(np.diff(labels)) + 1, [len(labels)]])
    segments = np.searchsorted(edges, starts, "right")
    assert found["execution"] == pytest.approx(metrics.execution_accuracy(
        true[known], decided[known], segments[known]))
    rest, begins = true == 0, (decided > 0) & (np.concatenate([[0], decided[:-1]]) != decided)
    assert found["false_per_minute"] == pytest.approx(np.sum(rest & begins) / (rest.sum() * stride / rate / 60))
    delays = []
    for begin, end in zip(edges[1:-1], edges[2:], strict=True):
        ends = starts + length - 1
        there = np.flatnonzero((ends >= begin) & (ends < end) & (decided == labels[begin]))
        delays += [(ends[there[0]] - begin + 1) / rate] if len(there) else []
    assert found["transition"]["count"] == len(edges) - 2 and found["transition"]["followed"] == len(delays)
    median = 1e3 * np.percentile(delays, 50, method="inverted_cdf")
    assert found["transition"]["p50_ms"] == pytest.approx(median, rel=0.011)


def test_a_decoder_that_cannot_rest_has_no_false_activations():
    scores = Scores([1, 2], 0.01, 100, False)
    scores.add(1, 0, 50)
    assert scores.summary()["false_per_minute"] is None and scores.summary()["accuracy"] is None


def test_distributions_are_right_to_a_hundredth():
    values, found = rng.lognormal(-6, 1.5, 5000), Distribution()
    for value in [*values, np.nan]:
        found.add(value)
    for q in (50, 95, 99):
        assert found.percentile(q) == pytest.approx(np.percentile(values, q, method="inverted_cdf"), rel=0.011)
    assert found.sd == pytest.approx(values.std()) and found.most == values.max() and found.count == 5000
    assert Distribution().summary() == {"p50_ms": None, "p95_ms": None, "p99_ms": None, "most_ms": None}


def test_what_is_late_is_missed():
    timing = Timing(0.01)
    for i, total in enumerate((0.002, 0.011, 0.009)):
        timing.add(Times(float("nan"), 0.001, 0.0005, total - 0.0015, total), 0.01 * i)
    found = timing.summary()
    assert (found["missed"], found["decisions"], found["dropped"]) == (1, 3, 0)
    assert found["acquisition"]["p50_ms"] is None and found["jitter_ms"] == pytest.approx(0, abs=1e-6)
    assert timing.sustained_ms(0.5) == pytest.approx(11.5, abs=0.51)  # 10 ms and a tenth, in half milliseconds


def test_speed_is_graded_by_the_persons_own_range():
    speed, features = Proportional(["ENT", "RMS"], 0.01), np.ones((4, 2))
    for level in np.repeat([1.0, 8.0] * 20, 100):
        features[:, 1] = level
        last = speed(features)
    assert last > 0.9
    for _ in range(100):
        features[:, 1] = 2.8  # half way between, in decibels
        last = speed(features)
    assert 0.3 < last < 0.7
    assert Proportional(["ZC"], 0.01)(features) == 1
