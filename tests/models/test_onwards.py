"""A session that goes on to learn: the same however its windows are parted, and by a loop over blocks."""

import copy

import numpy as np
import pytest

from tfkfin.sessions import hierarchical
from tfkfin.sessions.hierarchical import CAP, HierarchicalGaussian
from tfkfin.sessions.onwards import BLOCK, Onwards

D, G, EACH = 4, 3, 30


def session(seed):
    """Windows (N, D) of one session in order of time, and their labels."""
    rng, base = np.random.default_rng(seed), np.random.default_rng(0).normal(0, 2, (G, D))
    means = base + rng.normal(0, 0.6, base.shape)
    labels = np.tile(np.repeat(np.arange(G), EACH), 8)
    return means[labels] + rng.normal(size=(len(labels), D)), labels


@pytest.fixture(scope="module")
def model():
    parts = [session(100 + s) for s in range(6)]
    x, y = (np.concatenate(column) for column in zip(*parts, strict=True))
    count = len(parts[0][1])
    return HierarchicalGaussian().fit(x, y, np.repeat(np.arange(6), count), np.tile(np.arange(count) // (G * EACH), 6))


X, Y = session(7)
ACTIVE = np.random.default_rng(1).random(len(X)) > 0.2


BEGINS = {"nothing": lambda model: model.begin(), "unlabelled": lambda model: model.adapt(X[:90]),
          "labelled": lambda model: model.calibrate(X[:90], Y[:90])}


def recentred(session, seen):
    """Centred by all windows seen (N, D), one by one, and by windows as it began: what `recentre` says it does."""
    mean, sd, count = session.start
    soft = session._soft()[len(session._past) - len(seen) :]
    shares = [min(1.0, CAP * session.execution / sum(row[k] for row in soft)) for k in range(G)]
    weights = [sum(row[k] * shares[k] for k in range(G)) for row in soft]
    everything = np.concatenate([seen, [mean - sd, mean + sd]])
    weights = [*weights, count / 2, count / 2]
    centre = np.average(everything, axis=0, weights=weights)
    spread = np.sqrt(np.average((everything - centre) ** 2, axis=0, weights=weights))
    session._past = (session._past * session._sd + session._mean - centre) / spread
    session._mean, session._sd = centre, spread


@pytest.mark.parametrize("begin", BEGINS.values(), ids=BEGINS)
def test_however_windows_are_parted(model, begin, monkeypatch):
    """Against a loop over blocks of all windows, as the method is said to be."""
    monkeypatch.setattr(hierarchical, "FAR", np.inf)
    new, found, start, seen = begin(model), [], begin(model), X[:0]
    for i in range(0, len(X), BLOCK):
        if len(seen):
            recentred(new, seen)
        if len(new._past):
            new._expect(new._soft())
        found.append(new.probabilities(X[i : i + BLOCK]))
        block = X[i : i + BLOCK][ACTIVE[i : i + BLOCK]]
        seen = np.concatenate([seen, block])
        new._past = np.concatenate([new._past, (block - new._mean) / new._sd])
    expected = np.concatenate(found)
    assert model.trusted and len(found) > 3 and not np.array_equal(expected, start.probabilities(X))
    np.testing.assert_allclose(begin(model).stream(X, ACTIVE), expected, atol=1e-9)
    for cuts in ([BLOCK], [1, 2, 2, BLOCK - 1, BLOCK + 1, 3 * BLOCK], range(7, len(X), 7)):
        parted = Onwards(copy.copy(start))
        parts = [parted(x, on) for x, on in zip(np.split(X, cuts), np.split(ACTIVE, cuts), strict=True)]
        np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-9)


def test_what_is_found_decides_later(model, monkeypatch):
    """With a lag, in a thread: until then a block's windows are decided as before it, from then on as without a lag."""
    monkeypatch.setattr(hierarchical, "FAR", np.inf)
    at_once, later, lag = Onwards(model.begin()), Onwards(model.begin(), 25), 25
    expected = [at_once(X[:BLOCK], ACTIVE[:BLOCK])]
    before = copy.copy(at_once.session)  # what the next block's first windows are decided by
    expected.append(at_once(X[BLOCK : 2 * BLOCK], ACTIVE[BLOCK : 2 * BLOCK]))
    got = np.concatenate([later(x, on) for x, on in zip(np.split(X, range(9, len(X), 9)),
                                                        np.split(ACTIVE, range(9, len(X), 9)), strict=True)])
    np.testing.assert_allclose(got[:BLOCK], expected[0], atol=1e-9)
    np.testing.assert_allclose(got[BLOCK : BLOCK + lag], before.probabilities(X[BLOCK : BLOCK + lag]), atol=1e-9)
    np.testing.assert_allclose(got[BLOCK + lag : 2 * BLOCK], expected[1][lag:], atol=1e-9)
    assert np.abs(expected[1][:lag] - got[BLOCK : BLOCK + lag]).max() > 1e-4
    whole = Onwards(model.begin(), 25)
    np.testing.assert_allclose(whole(X, ACTIVE), got, atol=1e-9)


def test_windows_between_are_decided_and_not_learnt_from(model):
    """Every window three times, learnt from once: decided as if it had been there once."""
    once, thrice = Onwards(model.begin()), Onwards(model.begin())
    every = np.arange(3 * len(X)) % 3 == 0
    expected = once(X, ACTIVE)
    got = thrice(np.repeat(X, 3, axis=0), np.repeat(ACTIVE, 3), every)
    np.testing.assert_allclose(got[::3], expected, atol=1e-9)
    same = np.arange(len(X)) % BLOCK < BLOCK - 1  # those after a block's last see what was learnt from it
    np.testing.assert_allclose(got[1::3][same], expected[same], atol=1e-9)


def test_nothing_comes_of_nothing(model):
    begun = Onwards(model.begin())
    assert begun(X[:0], ACTIVE[:0]).shape == (0, G)
    quiet = begun(X, np.zeros(len(X), bool))
    np.testing.assert_allclose(quiet, model.begin().probabilities(X), atol=1e-9)
    assert not begun.session.moved


def test_one_movement_held_for_long_does_not_draw_the_centre(model):
    """After a hundred executions of one class alone the others are found; a plain mean of all windows loses them."""
    right = {"recentred": [], "plain": []}
    for held in range(G):
        others, long = X[Y != held], np.concatenate([X[Y == held]] * 12)
        new = model.begin()
        new.stream(long, np.ones(len(long), bool))
        scores = {"recentred": new.probabilities(others),
                  "plain": (others - long.mean(axis=0)) / long.std(axis=0) @ new.weights + new.bias}
        for name, found in scores.items():
            right[name].append(np.mean(found.argmax(axis=1) == Y[Y != held]))
    assert np.mean(right["recentred"]) > 0.85 > np.mean(right["plain"]) + 0.05


def test_labels_that_bear_earlier_sessions_out_let_the_centre_go_on(model):
    """And of a session in which movements are exchanged they hold it."""
    assert model.trusted
    for labels, goes_on in ((Y, True), ((Y + 1) % G, False)):
        new = model.calibrate(X[:90], labels[:90])
        before = new.linear()[0]
        new.stream(X[90:] + 1, ACTIVE[90:])
        moved = np.abs(new.linear()[0] - before).max()
        assert (moved > 0.3) == goes_on and (moved == 0) != goes_on


def test_where_labels_told_the_centre_bounds_are_about_that(model):
    """A session far from earlier ones, as of another amplifier, is decided as well after looks back as at first."""
    far = 100 * X + 1000
    new = model.calibrate(far[:90], Y[:90])
    first = new.probabilities(far[90:])
    found = new.stream(far[90:], ACTIVE[90:])
    right = [np.mean(part.argmax(axis=1) == Y[90:]) for part in (first, found)]
    assert new.moved and right[0] > 0.9 and right[1] > right[0] - 0.02
    assert (np.abs(new.linear()[0] - new.start[0]) <= hierarchical.SHIFTED * new.start[1]).all()
