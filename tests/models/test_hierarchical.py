"""The hierarchical Gaussian against scikit-learn and SciPy, on draws of its own model, and what must not steer it."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf

from tfkfin.sessions import hierarchical, kinship, onwards
from tfkfin.sessions.hierarchical import HierarchicalGaussian
from tfkfin.sessions.prior import NOISE
from tfkfin.sessions.taught import Scatter, Taught

D, G, EACH = 5, 3, 20


def covariance(rows):
    return Scatter.of(rows).covariance()


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
    np.testing.assert_allclose(covariance(rows), ledoit_wolf(rows, assume_centered=True)[0], rtol=1e-10)


def test_a_labelled_repetition_is_seen_exactly():
    """Class means: SciPy's joint Gaussian of (the session's mean, what is seen of it), conditioned by matrices."""
    x, y, r = LATER[0]
    new = MODEL.calibrate(x[r == 0], y[r == 0])
    z = (x - x[r == 0].mean(axis=0)) / (x[r == 0].std(axis=0) + 1e-9)
    noise = MODEL.repeated + MODEL.within / NOISE
    seen = np.array([z[(r == 0) & (y == c)].mean(axis=0) for c in MODEL.classes])
    prior = np.kron(MODEL._kin, MODEL.between)  # classes that look alike move alike
    gain = prior @ np.linalg.inv(prior + np.kron(np.eye(G), noise))
    means = MODEL.means + (gain @ (seen - MODEL.means).ravel()).reshape(G, D)
    left = (prior - gain @ prior).reshape(G, D, G, D)
    np.testing.assert_allclose(new._now, means, atol=1e-9)
    np.testing.assert_allclose(new._unknown, np.mean([left[k, :, k] for k in range(G)], axis=0), atol=1e-9)
    own = z[r == 0] - seen[y[r == 0] - 1]
    spread = (MODEL.within + covariance(own)) / 2 + MODEL.repeated + new._unknown
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
    monkeypatch.setattr(onwards, "BLOCK", 30)
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
def test_a_class_that_a_session_lacks_moves_as_those_that_look_like_it(gone):
    x, y, r = LATER[1]
    kept = (r == 0) & (y != gone)
    new = MODEL.calibrate(x[kept], y[kept])
    z = (x - new._mean) / new._sd  # where it lies is another test's
    there = np.array([c != gone for c in MODEL.classes])
    seen = np.array([z[kept & (y == c)].mean(axis=0) for c in MODEL.classes[there]])
    noise = np.kron(np.eye(G - 1), MODEL.repeated + MODEL.within / NOISE)
    own, across = (np.kron(MODEL._kin[np.ix_(rows, there)], MODEL.between) for rows in (there, ~there))
    moved = across @ np.linalg.solve(own + noise, (seen - MODEL.means[there]).ravel())
    np.testing.assert_allclose(new._now[gone - 1], MODEL.means[gone - 1] + moved, atol=1e-9)
    assert np.isfinite(new.probabilities(x)).all()


def test_a_session_more_is_as_if_it_had_been_among_the_first():
    """Everything that was taught, by NumPy and scikit-learn from all windows of all sessions at once."""
    parts = [session(100 + s, repetitions=3) for s in range(4)]
    parts[3] = tuple(part[(parts[3][2] == 0) & (parts[3][1] != 2)] for part in parts[3])  # as one is calibrated for
    x, y, r = (np.concatenate(column) for column in zip(*parts[:3], strict=True))
    model = HierarchicalGaussian().fit(x, y, np.repeat(np.arange(3), len(parts[0][0])), r)
    before = {name: value.copy() for name, value in model.state().items()}
    kept = HierarchicalGaussian.from_state(before, Taught.of_arrays(model.taught.arrays()))
    more = kept.learn(*parts[3])
    within, repeated, means, sizes = [], [], np.full((4, G, D), np.nan), []
    for s, (x, y, r) in enumerate(parts):
        z = (x - x.mean(axis=0)) / x.std(axis=0)
        for c in np.unique(y):
            each = [z[(y == c) & (r == one)] for one in np.unique(r)]
            of_each = [rows.mean(axis=0) for rows in each]
            means[s, c - 1] = np.mean(of_each, axis=0)
            within += [row - mean for rows, mean in zip(each, of_each, strict=True) for row in rows]
            if len(each) > 1:
                repeated += [(mean - means[s, c - 1]) * np.sqrt(len(each) / (len(each) - 1)) for mean in of_each]
            sizes += [len(rows) for rows in each]
    between = ((means - np.nanmean(means, axis=0)) * np.sqrt(4 / 3)).reshape(-1, D)
    between = between[np.isfinite(between).all(axis=1)]
    for found, rows in ((more.within, within), (more.repeated, repeated), (more.between, between)):
        np.testing.assert_allclose(found, ledoit_wolf(np.array(rows), assume_centered=True)[0], atol=1e-8)
    np.testing.assert_allclose(more.means, np.nanmean(means, axis=0), atol=1e-8)
    np.testing.assert_allclose(more.centre, np.mean([x.mean(axis=0) for x, _, _ in parts], axis=0))
    np.testing.assert_allclose(more.spread, np.mean([x.std(axis=0) for x, _, _ in parts], axis=0), rtol=1e-6)
    assert more.sessions == 4 and more.execution == pytest.approx(np.mean(sizes))
    assert all(np.array_equal(model.state()[name], value) for name, value in before.items())  # it stays as it was


def test_days_before_help():
    """From one session, five days of one repetition each, then the sixth: means of 20 people, seeds fixed."""
    alone, together = [], []
    for person in range(20):
        days = [drawn_day(person, day) for day in range(7)]
        x, y, r = days[0]
        first = model = HierarchicalGaussian().fit(x, y, np.zeros(len(x)), r)
        for x, y, r in days[1:-1]:
            model = model.learn(x[r == 0], y[r == 0], r[r == 0])
        x, y, r = days[-1]
        for one, found in ((first, alone), (model, together)):
            found.append(accuracy(one.calibrate(x[r == 0], y[r == 0]).probabilities(x[r > 0]), y[r > 0]))
    assert np.mean(together) > np.mean(alone) + 0.01


def drawn_day(person, day, size=20):
    """A day of a person: class means differ from day to day and from repetition to repetition, mostly in some ways."""
    own, rng = np.random.default_rng([7, person]), np.random.default_rng([8, person, day])
    base, ways = own.normal(0, 0.6, (G, size)), own.normal(size=(size, 3))
    means, x = base + rng.normal(size=(G, 3)) @ ways.T, []
    for _ in range(3):
        for k in range(G):
            x.append(means[k] + 0.5 * rng.normal(size=size) + rng.normal(size=(EACH, size)))
    return np.concatenate(x), np.tile(np.repeat(np.arange(1, G + 1), EACH), 3), np.repeat(np.arange(3), G * EACH)


def test_a_state_without_sessions_cannot_learn():
    with pytest.raises(ValueError, match="fit anew"):
        HierarchicalGaussian.from_state(MODEL.state()).learn(*LATER[0])


def plainly(x, own):
    """Probabilities where the windows `own` alone say how features are z-scored, and nothing else is known."""
    z = (x - own.mean(axis=0)) / own.std(axis=0)
    return MODEL.begin().probabilities(MODEL.centre + MODEL.spread * z)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("shown", [1, 2, 3])
def test_one_movement_alone_costs_little(shown, labelled):
    """Means over twelve sessions drawn from the model, each moved: z-scored by one movement alone, more is lost.

    With its label, one of three movements tells more of the session than nothing does.
    """
    found = {"nothing": [], "plainly": [], "told": []}
    for i, (x, y, r) in enumerate(LATER):
        x = x + np.random.default_rng(i).normal(size=D)
        own, later = (r == 0) & (y == shown), r > 0
        told = MODEL.calibrate(x[own], y[own]) if labelled else MODEL.adapt(x[own])
        for name, p in (("nothing", MODEL.begin().probabilities(x)), ("plainly", plainly(x, x[own])),
                        ("told", told.probabilities(x))):
            found[name].append(accuracy(p[later], y[later]))
    mean = {name: np.mean(values) for name, values in found.items()}
    assert mean["told"] > mean["plainly"] + 0.1 and mean["told"] > mean["nothing"] + (0.02 if labelled else -0.1)


@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_few_windows_of_one_movement_break_nothing(count):
    x, y, r = LATER[2]
    told = MODEL.begin().update(x[:count], y[:count])
    assert accuracy(told.probabilities(x), y) > accuracy(MODEL.begin().probabilities(x), y) - 0.1


@pytest.mark.parametrize("seed", range(6))
def test_unlabelled_windows_move_no_more_than_is_said(seed, monkeypatch):
    """Hostile ones too, even were they not found to be far; and the stream that goes on from there."""
    monkeypatch.setattr(hierarchical, "FAR", np.inf)
    monkeypatch.setattr(onwards, "BLOCK", 30)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(300, D)) ** 5 * 10.0 ** rng.uniform(-4, 4, D) + 10.0 ** rng.uniform(-3, 4, D)
    streamed = MODEL.begin()
    streamed.stream(x, np.ones(len(x), bool))
    adapted = MODEL.adapt(x)
    adapted.stream(-x, np.ones(len(x), bool))
    for new in (MODEL.adapt(x), streamed, adapted):
        assert 0 < new.moves.max() <= hierarchical.REACH * (1 + 1e-9)
        assert (np.abs(new._mean - MODEL.centre) <= hierarchical.SHIFTED * MODEL.spread * (1 + 1e-9)).all()
        change = np.abs(np.log(new._sd / MODEL.spread))
        assert (change <= np.log(hierarchical.WIDENED) * (1 + 1e-9)).all()
    near = MODEL.begin()
    monkeypatch.setattr(hierarchical, "REACH", 0.01)
    assert 0 < near.adapt(LATER[0][0]).moves.max() <= 0.01


def test_moves_are_those_of_the_posterior():
    """By SciPy-free matrices: the Mahalanobis length of the move where sessions differ, over all directions."""
    x, y, r = LATER[3]
    new = MODEL.calibrate(x[r == 0], y[r == 0])
    apart = new._now - MODEL.means
    wanted = np.sqrt(np.einsum("gd,de,ge->g", apart, np.linalg.inv(MODEL.between), apart) / D)
    np.testing.assert_allclose(new.moves, wanted, rtol=1e-6)


@pytest.mark.parametrize("repetitions, few", [(2, True), (80, False)])
def test_electrodes_are_taken_to_be_alike_where_repetitions_are_few(repetitions, few):
    """Then every electrode's variance between repetitions is near the mean of all; of many each has its own."""
    parts = [session(100 + s, repetitions=repetitions) for s in range(2)]
    x, y, r = (np.concatenate(column) for column in zip(*parts, strict=True))
    x = x + np.where(np.arange(D) == 0, 1, 0) * np.random.default_rng(0).normal(
        0, 3, (len(r) // EACH, 1)).repeat(EACH, axis=0)  # the first electrode differs more from execution to execution
    given = x, y, np.repeat(np.arange(2), len(parts[0][0])), r
    plain, even = (HierarchicalGaussian().fit(*given, (), which) for which in (
        None, kinship.alike([0] * D, [(d,) for d in range(D)])))
    mean = np.full(D, np.trace(plain.repeated) / D)
    apart = [np.abs(np.diag(model.repeated) - mean).max() for model in (plain, even)]
    assert apart[1] < 0.1 * apart[0] if few else 0.5 * apart[0] < apart[1]
    np.testing.assert_allclose(np.trace(even.repeated), np.trace(plain.repeated))
