"""Online adaptation: the same however windows are parted into calls, against a loop over blocks; virtual forces."""

import copy

import numpy as np
import pytest

from tfkfin.sessions import online, posterior
from tfkfin.sessions.online import BLOCK, OnlineAdaptation, stream
from tfkfin.sessions.posterior import MAX_REPETITIONS, SessionPosterior
from tfkfin.sessions.prior import SessionPrior

D, G, EACH = 4, 3, 30


def session(seed):
    """Windows (N, D) of one session in order of time, and their labels."""
    rng, base = np.random.default_rng(seed), np.random.default_rng(0).normal(0, 2, (G, D))
    means = base + rng.normal(0, 0.6, base.shape)
    labels = np.tile(np.repeat(np.arange(G), EACH), 8)
    return means[labels] + rng.normal(size=(len(labels), D)), labels


@pytest.fixture(scope="module")
def prior():
    parts = [session(100 + s) for s in range(6)]
    x, y = (np.concatenate(column) for column in zip(*parts, strict=True))
    count = len(parts[0][1])
    return SessionPrior().fit(x, y, np.repeat(np.arange(6), count), np.tile(np.arange(count) // (G * EACH), 6))


X, Y = session(7)
ACTIVE = np.random.default_rng(1).random(len(X)) > 0.2


BEGINS = {"nothing": SessionPosterior, "unlabelled": lambda prior: SessionPosterior(prior).adapt(X[:90]),
          "labelled": lambda prior: SessionPosterior(prior).update(X[:90], Y[:90])}


def recentred(session, windows):
    """Centred by all windows before (N, D), one by one, and by windows as it began: what `recentre` says it does."""
    mean, sd, count = session.start
    soft = session._soft_labels()[len(session._past) - len(windows) :]
    longest = MAX_REPETITIONS * session.prior.repetition_windows
    shares = [min(1.0, longest / sum(row[k] for row in soft)) for k in range(G)]
    weights = [sum(row[k] * shares[k] for k in range(G)) for row in soft]
    everything = np.concatenate([windows, [mean - sd, mean + sd]])
    weights = [*weights, count / 2, count / 2]
    centre = np.average(everything, axis=0, weights=weights)
    sd = np.sqrt(np.average((everything - centre) ** 2, axis=0, weights=weights))
    session._past = (session._past * session.sd + session.centre - centre) / sd
    session.centre, session.sd = centre, sd


@pytest.mark.parametrize("begin", BEGINS.values(), ids=BEGINS)
def test_however_windows_are_parted(prior, begin, monkeypatch):
    """Against a loop over blocks of all windows, as the method is said to be."""
    monkeypatch.setattr(posterior, "MAX_DISTANCE", np.inf)
    new, found, start, before = begin(prior), [], begin(prior), X[:0]
    for i in range(0, len(X), BLOCK):
        if len(before):
            recentred(new, before)
        if len(new._past):
            new._em_step(new._soft_labels())
        found.append(new.probabilities(X[i : i + BLOCK]))
        block = X[i : i + BLOCK][ACTIVE[i : i + BLOCK]]
        before = np.concatenate([before, block])
        new._past = np.concatenate([new._past, (block - new.centre) / new.sd])
    expected = np.concatenate(found)
    assert prior.trusted and len(found) > 3 and not np.array_equal(expected, start.probabilities(X))
    np.testing.assert_allclose(stream(begin(prior), X, ACTIVE), expected, atol=1e-9)
    for cuts in ([BLOCK], [1, 2, 2, BLOCK - 1, BLOCK + 1, 3 * BLOCK], range(7, len(X), 7)):
        parted = OnlineAdaptation(copy.copy(start))
        parts = [parted(x, on) for x, on in zip(np.split(X, cuts), np.split(ACTIVE, cuts), strict=True)]
        np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-9)


def test_an_update_with_a_lag_decides_later(prior, monkeypatch):
    """With a lag, in a thread: until then a block's windows are decided as before it, from then on as without a lag."""
    monkeypatch.setattr(posterior, "MAX_DISTANCE", np.inf)
    at_once, later, lag = OnlineAdaptation(SessionPosterior(prior)), OnlineAdaptation(SessionPosterior(prior), 25), 25
    expected = [at_once(X[:BLOCK], ACTIVE[:BLOCK])]
    before = copy.copy(at_once.session)  # what the next block's first windows are decided by
    expected.append(at_once(X[BLOCK : 2 * BLOCK], ACTIVE[BLOCK : 2 * BLOCK]))
    got = np.concatenate([later(x, on) for x, on in zip(np.split(X, range(9, len(X), 9)),
                                                        np.split(ACTIVE, range(9, len(X), 9)), strict=True)])
    np.testing.assert_allclose(got[:BLOCK], expected[0], atol=1e-9)
    np.testing.assert_allclose(got[BLOCK : BLOCK + lag], before.probabilities(X[BLOCK : BLOCK + lag]), atol=1e-9)
    np.testing.assert_allclose(got[BLOCK + lag : 2 * BLOCK], expected[1][lag:], atol=1e-9)
    assert np.abs(expected[1][:lag] - got[BLOCK : BLOCK + lag]).max() > 1e-4
    whole = OnlineAdaptation(SessionPosterior(prior), 25)
    np.testing.assert_allclose(whole(X, ACTIVE), got, atol=1e-9)


def test_windows_that_do_not_count_are_decided_only(prior):
    """Every window three times, counted once: decided as if it had been there once."""
    once, thrice = OnlineAdaptation(SessionPosterior(prior)), OnlineAdaptation(SessionPosterior(prior))
    every = np.arange(3 * len(X)) % 3 == 0
    expected = once(X, ACTIVE)
    got = thrice(np.repeat(X, 3, axis=0), np.repeat(ACTIVE, 3), every)
    np.testing.assert_allclose(got[::3], expected, atol=1e-9)
    same = np.arange(len(X)) % BLOCK < BLOCK - 1  # those after a block's last are decided by the next update
    np.testing.assert_allclose(got[1::3][same], expected[same], atol=1e-9)


def test_a_stream_is_decided_by_windows_before_alone(prior):
    every, other = np.ones(len(X), bool), X.copy()
    other[3 * BLOCK :] = 50.0
    one, two = (stream(SessionPosterior(prior), x, every) for x in (X, other))
    np.testing.assert_array_equal(one[: 3 * BLOCK], two[: 3 * BLOCK])
    assert not np.array_equal(one[2 * BLOCK :], SessionPosterior(prior).probabilities(X)[2 * BLOCK :])
    np.testing.assert_array_equal(stream(SessionPosterior(prior), X, every), one)  # the prior is as it was


@pytest.mark.parametrize("step, taken", [(0.0, True), (30.0, False)])
def test_virtual_forces_are_taken_unless_they_make_it_worse(step, taken):
    """Sessions at one force: virtual ones far away cost more than a point, of windows as they are nothing."""
    parts = [session(100 + s) for s in range(3)]
    x, y = (np.concatenate(column) for column in zip(*parts, strict=True))
    sessions, r = np.repeat(np.arange(3), len(X)), np.tile(np.arange(len(X)) // (G * EACH), 3)
    virtual = [x + step * np.random.default_rng(0).normal(size=(G, D))[(y + 1) % G]]
    expected = SessionPrior().fit(x, y, sessions, r, virtual if taken else ())
    for name, value in online.fit_prior(x, y, sessions, r, virtual).state().items():
        np.testing.assert_array_equal(value, expected.state()[name])
    two = sessions < 2  # too few to leave one out
    prior = online.fit_prior(x[two], y[two], sessions[two], r[two], [rows[two] for rows in virtual])
    assert len(prior.statistics.virtual_shifts) == 2


def test_a_session_that_is_left_out_is_not_among_those_that_decide_it(monkeypatch):
    """Each of three is decided with virtual forces and without, by the other two."""
    decided, real = [], online.stream

    def spy(begun, x, active):
        others = {int(s) for s in range(3) if np.isclose(begun.prior.statistics.centres, parts[s][0].mean(axis=0)).all(
            axis=1).any()}
        (own,) = {s for s in range(3) if x[0, 0] in parts[s][0][:, 0]}
        decided.append((own, tuple(sorted(others)), len(begun.prior.statistics.virtual_shifts)))
        return real(begun, x, active)

    monkeypatch.setattr(online, "stream", spy)
    parts = [session(100 + s) for s in range(3)]
    x, y = (np.concatenate(column) for column in zip(*parts, strict=True))
    online.fit_prior(x, y, np.repeat(np.arange(3), len(X)), np.tile(np.arange(len(X)) // (G * EACH), 3), [0.5 * x])
    assert sorted(decided) == [(own, others, forces) for own, others in ((0, (1, 2)), (1, (0, 2)), (2, (0, 1)))
                               for forces in (0, 2)]


def test_without_active_windows_nothing_changes(prior):
    begun = OnlineAdaptation(SessionPosterior(prior))
    assert begun(X[:0], ACTIVE[:0]).shape == (0, G)
    quiet = begun(X, np.zeros(len(X), bool))
    np.testing.assert_allclose(quiet, SessionPosterior(prior).probabilities(X), atol=1e-9)
    assert not begun.session.moved


def test_one_movement_held_for_long_does_not_draw_the_centre(prior):
    """After a hundred executions of one class alone the others are found; a plain mean of all windows loses them."""
    right = {"recentred": [], "plain": []}
    for held in range(G):
        others, long = X[Y != held], np.concatenate([X[Y == held]] * 12)
        new = SessionPosterior(prior)
        stream(new, long, np.ones(len(long), bool))
        scores = {"recentred": new.probabilities(others),
                  "plain": (others - long.mean(axis=0)) / long.std(axis=0) @ new.weights + new.bias}
        for name, found in scores.items():
            right[name].append(np.mean(found.argmax(axis=1) == Y[Y != held]))
    assert np.mean(right["recentred"]) > 0.85 > np.mean(right["plain"]) + 0.05


def test_labels_that_the_prior_decides_right_let_the_centre_go_on(prior):
    """And of a session in which movements are exchanged they hold it."""
    assert prior.trusted
    for labels, goes_on in ((Y, True), ((Y + 1) % G, False)):
        new = SessionPosterior(prior).update(X[:90], labels[:90])
        before = new.linear()[0]
        stream(new, X[90:] + 1, ACTIVE[90:])
        moved = np.abs(new.linear()[0] - before).max()
        assert (moved > 0.3) == goes_on and (moved == 0) != goes_on


def test_bounds_are_about_the_centre_that_labels_gave(prior):
    """A session far from earlier ones, as of another amplifier, is decided as well after updates as at first."""
    far = 100 * X + 1000
    new = SessionPosterior(prior).update(far[:90], Y[:90])
    first = new.probabilities(far[90:])
    found = stream(new, far[90:], ACTIVE[90:])
    right = [np.mean(part.argmax(axis=1) == Y[90:]) for part in (first, found)]
    assert new.moved and right[0] > 0.9 and right[1] > right[0] - 0.02
    assert (np.abs(new.linear()[0] - new.start[0]) <= posterior.MAX_CENTRE_SHIFT * new.start[1]).all()
