"""Synthetic windows that shipped FINs learn from: each kind is what its name says, by its own statistics."""

import numpy as np
import pytest

from tfkfin.pipeline import signals

LENGTH = 600


def drawn(kind, rate_hz=2000.0, count=400):
    return signals.windows(np.random.default_rng(7), count, LENGTH, rate_hz, kind).astype(float)


@pytest.mark.parametrize("rate_hz", [2000.0, 1000.0])
@pytest.mark.parametrize("kind", [*signals.KINDS, None])
def test_windows_are_finite_repeatable_and_within_the_peak(kind, rate_hz):
    x = drawn(kind, rate_hz, 64)
    assert x.shape == (64, LENGTH) and np.isfinite(x).all() and np.abs(x).max() <= signals.PEAK
    np.testing.assert_array_equal(x, drawn(kind, rate_hz, 64))


def test_shares_are_of_a_whole():
    assert sum(share for _, share in signals.KINDS.values()) == pytest.approx(1)


def slow_share(x, below_hz):
    """The share of power below a frequency, the mean left out, median over windows."""
    power = np.abs(np.fft.rfft(x - x.mean(axis=1, keepdims=True), axis=1)) ** 2
    return np.median(power[:, np.fft.rfftfreq(LENGTH, 1 / 2000) < below_hz].sum(axis=1) / power.sum(axis=1))


@pytest.mark.parametrize("kind, statistic, low, high", [
    ("emg", lambda x: np.median(np.abs(x.mean(axis=1)) / x.std(axis=1)), 0, 0.1),
    ("emg", lambda x: slow_share(x, 20), 0, 0.2),
    ("envelope", lambda x: slow_share(x, 40), 0.9, 1),
    ("envelope", lambda x: np.mean(x.min(axis=1) >= -1.7), 1, 1),  # it never falls below what silence is
    ("offset", lambda x: np.median(np.abs(x.mean(axis=1))), 2, 3),  # of -5 to 5
    ("drift", lambda x: slow_share(x, 20), 0.3, 1),
    ("hum", lambda x: slow_share(x, 320), 0.5, 1),
    ("spikes", lambda x: np.median(np.abs(x).max(axis=1) / x.std(axis=1)), 5, 30),
    ("clipped", lambda x: np.median([np.mean(one == one.max()) for one in x]), 0.02, 1),
    ("quantised", lambda x: np.median([len(np.unique(one.round(9))) for one in x]), 2, 300),
    ("still", lambda x: np.median(x.std(axis=1)), 0, 0.05),
    ("rest", lambda x: np.mean([np.abs(np.diff(one)).min() < 1e-3 for one in x]), 0.9, 1)])
def test_a_kind_is_what_its_name_says(kind, statistic, low, high):
    assert low <= statistic(drawn(kind)) <= high


def test_amplitudes_span_four_decades():
    spread = np.percentile(drawn("emg", count=4000).std(axis=1), (0.5, 99.5))
    assert spread[1] / spread[0] > 1e3
    assert drawn("still").std(axis=1).min() < 1e-4 * spread[1]
