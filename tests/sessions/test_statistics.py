"""Statistics of windows one by one are those of all at once, by NumPy and scikit-learn; so are updates by them."""

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from tfkfin.sessions import online
from tfkfin.sessions.posterior import SessionPosterior
from tfkfin.sessions.prior import SessionPrior
from tfkfin.sessions.statistics import ClassMoments, Scatter

G = 4


def drawn(count, size, seed=0):
    """Windows (N, size) of unlike scales, far from 0, and their class indices; the last class comes late."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(G - 1, size=count)
    classes[count // 2 :: 7] = G - 1
    x = rng.normal(size=(count, size)) @ rng.normal(size=(size, size)) + 4 * rng.normal(size=(G, size))[classes]
    return (100 * rng.normal(size=size) + x) * rng.lognormal(0, 2, size), classes


def fitted(sessions, size, seed=0):
    """A prior of windows about class means that differ by session; labels are 10, 20, ..."""
    rng = np.random.default_rng(seed)
    session, repetition = np.divmod(np.repeat(np.arange(2 * sessions), G * 30), 2)
    c = np.tile(np.repeat(np.arange(G), 30), 2 * sessions)
    x = rng.normal(size=(G, size))[c] + 0.4 * rng.normal(size=(sessions, G, size))[session, c]
    return SessionPrior().fit(x + rng.normal(size=x.shape), 10 * (c + 1), session, repetition)


def close(found, wanted, tolerance=1e-9):
    """To a share of the largest of each."""
    for one, other in zip(found, wanted, strict=True):
        assert np.abs(one - other).max() <= tolerance * np.abs(other).max()


def test_the_covariance_is_scikit_learns():
    rows = np.random.default_rng(1).normal(size=(40, 6)) @ np.diag([1, 2, 3, 1, 1, 0.1])
    added = Scatter.of(rows[:15]) + Scatter.of(rows[15:])
    np.testing.assert_allclose(added.covariance(), ledoit_wolf(rows, assume_centered=True)[0], rtol=1e-10)


@pytest.mark.parametrize("blocks", [1, 7, 300])
def test_moments_are_those_of_all_windows(blocks):
    """Mean, deviation, class means and Ledoit and Wolf's covariance: NumPy's and scikit-learn's of the rows at once."""
    x, c = drawn(300, 9)
    moments = ClassMoments(G, 9)
    for part, classes in zip(np.array_split(x, blocks), np.array_split(c, blocks), strict=True):
        moments.add(part, classes)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    means = np.array([z[c == k].mean(axis=0) for k in range(G)])
    mean, variance = moments.total()
    close((mean, variance), (x.mean(axis=0), x.var(axis=0)))
    close(moments.z_scored(mean, np.sqrt(variance)), (means, ledoit_wolf(z - means[c], assume_centered=True)[0]))


@pytest.mark.parametrize("sessions", [1, 4])
def test_ten_thousand_updates_are_one_calibration(sessions):
    """At every tenth of the way what decides is that of a calibration on all windows so far: to 1e-6 and far below."""
    prior, (x, c) = fitted(sessions, 12), drawn(10_000, 12, seed=1)
    labels, session = 10 * (c + 1), SessionPosterior(prior)
    for i in range(len(x)):
        session.update(x[i : i + 1], labels[i : i + 1])
        if (i + 1) % 1000 == 0:
            wanted = SessionPosterior(prior).update(x[: i + 1], labels[: i + 1])
            close(session.linear(), wanted.linear())
            close((session.means, session.means_covariance), (wanted.means, wanted.means_covariance))
    two = SessionPosterior(prior).update(x[:500], labels[:500]).update(x[500:], labels[500:])
    close(two.linear(), session.linear())


def test_an_update_leaves_what_began_it():
    prior, (x, c) = fitted(3, 6), drawn(200, 6, seed=2)
    before = {name: value.copy() for name, value in prior.state().items()}
    one = SessionPosterior(prior).update(x[:100], 10 * (c[:100] + 1))
    kept = [part.copy() for part in one.linear()]
    SessionPosterior(prior).update(x[100:], 10 * (c[100:] + 1))
    assert all(np.array_equal(prior.state()[name], value) for name, value in before.items())
    assert all(np.array_equal(a, b) for a, b in zip(one.linear(), kept, strict=True))


def test_labels_come_while_a_stream_goes_on():
    """Unlabelled windows before stay what they are when a label moves the z-score."""
    prior, (x, c) = fitted(3, 6), drawn(400, 6, seed=3)
    session = SessionPosterior(prior)
    online.stream(session, x[:300], np.ones(300, bool))
    session.update(x[300:], 10 * (c[300:] + 1))
    np.testing.assert_allclose(session._past * session.sd + session.centre, x[:300], rtol=1e-6, atol=1e-6)
    close(session.linear()[:2], SessionPosterior(prior).update(x[300:], 10 * (c[300:] + 1)).linear()[:2])
