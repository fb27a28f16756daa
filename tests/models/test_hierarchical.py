"""The hierarchical Gaussian against scikit-learn and SciPy, on draws of its own model, and what must not steer it."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf

from tfkfin.models import hierarchical
from tfkfin.models.hierarchical import HierarchicalGaussian

D, G, EACH = 5, 3, 20


def session(seed, days=0.8, trials=0.4, repetitions=4):
    """Windows of one session in order of time: (x (N, D), labels, repetitions)."""
    rng, base = np.random.default_rng(seed), np.random.default_rng(0).normal(0, 2, (G, D))
    means, x = base + rng.normal(0, days, base.shape), []
    for _ in range(repetitions):
        for k in range(G):
            x.append(means[k] + rng.normal(0, trials, D) + rng.normal(size=(EACH, D)))
    return np.concatenate(x), np.tile(np.repeat(np.arange(1, G + 1), EACH), repetitions), np.repeat(
        np.arange(repetitions), G * EACH)


def learnt(count=8, virtual=()):
    parts = [session(100 + s) for s in range(count)]
    x, y, r = (np.concatenate(column) for column in zip(*parts, strict=True))
    return HierarchicalGaussian().fit(x, y, np.repeat(np.arange(count), len(parts[0][0])), r, virtual)


MODEL, LATER = learnt(), [session(500 + s) for s in range(12)]


def accuracy(probabilities, labels):
    return np.mean(MODEL.classes[probabilities.argmax(axis=1)] == labels)


def test_covariance_is_scikit_learns():
    rows = np.random.default_rng(1).normal(size=(40, 6)) @ np.diag([1, 2, 3, 1, 1, 0.1])
    np.testing.assert_allclose(hierarchical.covariance(rows), ledoit_wolf(rows, assume_centered=True)[0], rtol=1e-10)


def test_a_labelled_repetition_is_seen_exactly():
    """Class means: SciPy's joint Gaussian of (the session's mean, what is seen of it), conditioned by matrices."""
    x, y, r = LATER[0]
    new = MODEL.calibrate(x[r == 0], y[r == 0])
    z = (x - x[r == 0].mean(axis=0)) / (x[r == 0].std(axis=0) + 1e-9)
    noise = MODEL.repeated + MODEL.within / hierarchical.NOISE
    gain = MODEL.between @ np.linalg.inv(MODEL.between + noise)
    seen = np.array([z[(r == 0) & (y == c)].mean(axis=0) for c in MODEL.classes])
    means = MODEL.means + (seen - MODEL.means) @ gain.T
    np.testing.assert_allclose(new._now, means, atol=1e-9)
    np.testing.assert_allclose(new._unknown, MODEL.between - gain @ MODEL.between, atol=1e-9)
    own = z[r == 0] - seen[y[r == 0] - 1]
    spread = (MODEL.within + hierarchical.covariance(own)) / 2 + MODEL.repeated + new._unknown
    density = np.stack([multivariate_normal(m, spread).pdf(z) for m in means], axis=1)
    np.testing.assert_allclose(new.probabilities(x), density / density.sum(axis=1, keepdims=True), atol=1e-9)


def test_what_is_given_helps():
    """Means over twelve sessions drawn from the model, seeds fixed: each more that is given is at least as good."""
    found = {"nothing": [], "stream": [], "unlabelled": [], "labelled": []}
    for x, y, r in LATER:
        first, rest, every = r == 0, r > 0, np.ones(len(x), bool)
        found["nothing"].append(accuracy(MODEL.begin().probabilities(x), y))
        found["stream"].append(accuracy(MODEL.begin().stream(x, every)[rest], y[rest]))
        found["unlabelled"].append(accuracy(MODEL.adapt(x[first]).probabilities(x[rest]), y[rest]))
        found["labelled"].append(accuracy(MODEL.calibrate(x[first], y[first]).probabilities(x[rest]), y[rest]))
    mean = {name: np.mean(values) for name, values in found.items()}
    assert MODEL.trusted and mean["labelled"] > mean["nothing"] + 0.02
    assert mean["stream"] >= mean["nothing"] - 0.005 and mean["unlabelled"] >= mean["nothing"] - 0.005


def test_a_stream_looks_back_only(monkeypatch):
    monkeypatch.setattr(hierarchical, "BLOCK", 30)
    x, y, _ = LATER[0]
    every, other = np.ones(len(x), bool), x.copy()
    other[90:] = 50.0
    one, two = (MODEL.begin().stream(part, every) for part in (x, other))
    np.testing.assert_array_equal(one[:90], two[:90])
    assert not np.array_equal(MODEL.begin().stream(x, every)[60:], MODEL.begin().probabilities(x)[60:])
    np.testing.assert_array_equal(MODEL.begin().stream(x, every), one)  # what began it is as it was
    still = MODEL.begin().stream(x, ~every)  # nothing may be learnt from
    np.testing.assert_allclose(still, MODEL.begin().probabilities(x))


def test_a_session_unlike_the_others_moves_nothing():
    rng = np.random.default_rng(3)
    far = 6 * rng.normal(size=(300, D)) ** 3
    new = MODEL.adapt(far)
    assert new._distance((far - new._mean) / new._sd) > hierarchical.FAR or not MODEL.trusted
    np.testing.assert_array_equal(new._now, MODEL.means)


def test_sessions_that_tell_nothing_of_each_other_are_not_trusted():
    parts = [session(s, days=6.0) for s in range(6)]
    x, y, r = (np.concatenate(column) for column in zip(*parts, strict=True))
    model = HierarchicalGaussian().fit(x, y, np.repeat(np.arange(6), len(parts[0][0])), r)
    assert not model.trusted
    one = HierarchicalGaussian().fit(*(parts[0][0], parts[0][1], np.zeros(len(parts[0][0])), parts[0][2]))
    assert not one.trusted and not one.between.any()


def test_carrying_on_is_bounded():
    x, _, _ = LATER[0]
    new = MODEL.begin()
    new.stream(x + 3.0, np.ones(len(x), bool))
    after = new.carried(MODEL)
    np.testing.assert_allclose(after.centre, MODEL.centre + hierarchical.CARRY * (new._mean - MODEL.centre))
    np.testing.assert_allclose(after.means, MODEL.means + hierarchical.CARRY * (new._now - MODEL.means))


def test_other_forces_widen_and_shift():
    parts = [session(100 + s) for s in range(3)]
    x, y, r = (np.concatenate(column) for column in zip(*parts, strict=True))
    sessions = np.repeat(np.arange(3), len(parts[0][0]))
    plain = HierarchicalGaussian().fit(x, y, sessions, r)
    same, away = (HierarchicalGaussian().fit(x, y, sessions, r, [x + step, x - step]) for step in (0.0, 2.0))
    np.testing.assert_allclose(same.shift, 0, atol=1e-12)
    assert np.trace(away.within) > np.trace(plain.within)


@pytest.mark.parametrize("gone", [1, 3])
def test_a_class_that_a_session_lacks_keeps_what_others_taught(gone):
    x, y, r = LATER[1]
    kept = (r == 0) & (y != gone)
    new = MODEL.calibrate(x[kept], y[kept])
    np.testing.assert_allclose(new._now[gone - 1], MODEL.means[gone - 1])
    assert np.isfinite(new.probabilities(x)).all()
