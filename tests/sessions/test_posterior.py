"""A session's posterior against brute-force Gaussians by NumPy and SciPy, on draws of its own model; and its bounds."""

import numpy as np
import pytest
from drawn_sessions import EACH, LATER, PRIOR, D, G, accuracy
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf

from tfkfin.sessions import online, posterior
from tfkfin.sessions.online import stream
from tfkfin.sessions.posterior import SessionPosterior, class_mean_posterior
from tfkfin.sessions.prior import EFFECTIVE_WINDOWS, SessionPrior, class_kernel


def begun():
    return SessionPosterior(PRIOR)


def mean_shifts(new):
    """How far class means moved, in sds between sessions: sqrt((u - M)' B^-1 (u - M) / D)."""
    apart = new.means - PRIOR.means
    return np.sqrt(np.einsum("gd,de,ge->g", apart, np.linalg.inv(PRIOR.between), apart) / D)


def test_it_is_the_joint_gaussian_of_the_model_conditioned():
    """Two features, three classes: z_n ~ N(v, W), v ~ N(u, T), cov(u_g, u_h) = K_gh B, written down as one Gaussian.

    Two classes have one repetition of 8 windows, the third has none. By the equations of `prior` alone.
    """
    rng, size, each = np.random.default_rng(4), 2, 8
    W, T, B = (s * (np.eye(size) + 0.4 * np.ones((size, size))) + np.diag([0, s]) for s in (1.0, 0.3, 0.5))
    T[0, 0] += 0.4
    M = np.array([[0.0, 0.0], [1.5, 0.5], [0.3, 2.0]])
    state = {"classes": [1, 2, 3], "sessions": 3, "means": M, "shift": 0 * M, "within": W, "looks": W, "repeated": T,
             "between": B, "centre": [0.0, 0.0], "spread": [1.0, 1.0], "execution": each, "trusted": False}
    prior = SessionPrior.from_state({name: np.asarray(value, float) for name, value in state.items()})
    x = np.array([M[k] + rng.normal(size=(each, size)) for k in (0, 1)])
    new = SessionPosterior(prior).update(x.reshape(-1, size), np.repeat([1, 2], each))
    y = (x.mean(axis=1) - new.centre) / new.sd
    noise = T + W / each  # of such a mean about u
    assert each == EFFECTIVE_WINDOWS
    variances, vectors = np.linalg.eig(np.linalg.solve(noise, B))  # K, from the docstring
    vectors = vectors / np.sqrt(np.einsum("di,de,ei->i", vectors, noise, vectors))
    m = M @ vectors / np.sqrt(variances + 1)
    squares = np.array([[np.sum((a - b) ** 2) for b in m] for a in m])
    K = 0.2 * np.eye(3) + 0.8 * np.exp(-squares / (0.5 * np.median([squares[0, 1], squares[0, 2], squares[1, 2]])))
    joint = np.zeros((10, 10))  # u_1, u_2, u_3, y_1, y_2
    observed = [0, 1, 2, 0, 1]
    for i, g in enumerate(observed):
        for j, h in enumerate(observed):
            joint[2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = K[g, h] * B + (noise if i == j and i > 2 else 0)
    gain = joint[:6, 6:] @ np.linalg.inv(joint[6:, 6:])
    means = M + (gain @ (y - M[:2]).ravel()).reshape(3, 2)
    left = joint[:6, :6] - gain @ joint[6:, :6]
    np.testing.assert_allclose(prior.kernel, K, atol=1e-12)
    np.testing.assert_allclose(new.means, means, atol=1e-12)
    np.testing.assert_allclose(new.means_covariance, np.mean([left[i : i + 2, i : i + 2] for i in (0, 2, 4)], axis=0),
                               atol=1e-12)


def test_class_means_are_the_joint_gaussian_conditioned():
    classes, size, rng = 4, 3, np.random.default_rng(0)
    kernel = class_kernel(rng.normal(size=(classes, size)))
    variances, counts = np.array([0.0, 0.7, 5.0]), np.array([1.0, 0.0, 2.5, 0.3])
    apart = rng.normal(size=(classes, size))
    mean, left = class_mean_posterior(apart, counts, variances, kernel)
    there = counts > 0
    for d in range(size):
        prior = variances[d] * kernel
        gain = prior[:, there] @ np.linalg.inv(prior[np.ix_(there, there)] + np.diag(1 / counts[there]))
        np.testing.assert_allclose(mean[:, d], gain @ apart[there, d], atol=1e-12)
        np.testing.assert_allclose(left[d], np.diag(prior - gain @ prior[there]).mean(), atol=1e-12)


def test_a_labelled_repetition_is_taken_in_exactly():
    """Class means by whole matrices, the session's W by scikit-learn, probabilities by SciPy's densities."""
    x, y, r = LATER[0]
    new = begun().update(x[r == 0], y[r == 0])
    z = (x - x[r == 0].mean(axis=0)) / (x[r == 0].std(axis=0) + 1e-9)
    noise = PRIOR.repetition + PRIOR.within / EFFECTIVE_WINDOWS
    own = np.array([z[(r == 0) & (y == c)].mean(axis=0) for c in PRIOR.classes])
    prior = np.kron(PRIOR.kernel, PRIOR.between)
    gain = prior @ np.linalg.inv(prior + np.kron(np.eye(G), noise))
    means = PRIOR.means + (gain @ (own - PRIOR.means).ravel()).reshape(G, D)
    left = (prior - gain @ prior).reshape(G, D, G, D)
    np.testing.assert_allclose(new.means, means, atol=1e-9)
    np.testing.assert_allclose(new.means_covariance, np.mean([left[k, :, k] for k in range(G)], axis=0), atol=1e-9)
    own_within = ledoit_wolf(z[r == 0] - own[y[r == 0] - 1], assume_centered=True)[0]
    covariance = (PRIOR.within + own_within) / 2 + PRIOR.repetition + new.means_covariance
    density = np.stack([multivariate_normal(m, covariance).pdf(z) for m in means], axis=1)
    np.testing.assert_allclose(new.probabilities(x), density / density.sum(axis=1, keepdims=True), atol=1e-9)


@pytest.mark.parametrize("gone", [1, 3])
def test_a_class_that_a_session_lacks_moves_as_those_that_look_like_it(gone):
    x, y, r = LATER[1]
    kept = (r == 0) & (y != gone)
    new = begun().update(x[kept], y[kept])
    z = (x - new.centre) / new.sd  # where it lies is another test's
    there = np.array([c != gone for c in PRIOR.classes])
    own = np.array([z[kept & (y == c)].mean(axis=0) for c in PRIOR.classes[there]])
    noise = np.kron(np.eye(G - 1), PRIOR.repetition + PRIOR.within / EFFECTIVE_WINDOWS)
    within, across = (np.kron(PRIOR.kernel[np.ix_(rows, there)], PRIOR.between) for rows in (there, ~there))
    moved = across @ np.linalg.solve(within + noise, (own - PRIOR.means[there]).ravel())
    np.testing.assert_allclose(new.means[gone - 1], PRIOR.means[gone - 1] + moved, atol=1e-9)
    assert np.isfinite(new.probabilities(x)).all()


def test_what_is_given_helps():
    """Means over twelve sessions drawn from the model, seeds fixed: each more that is given is at least as good."""
    found = {"nothing": [], "stream": [], "unlabelled": [], "labelled": []}
    for x, y, r in LATER:
        first, rest, every = r == 0, r > 0, np.ones(len(x), bool)
        found["nothing"].append(accuracy(begun().probabilities(x), y))
        found["stream"].append(accuracy(stream(begun(), x, every)[rest], y[rest]))
        found["unlabelled"].append(accuracy(begun().adapt(x[first]).probabilities(x[rest]), y[rest]))
        found["labelled"].append(accuracy(begun().update(x[first], y[first]).probabilities(x[rest]), y[rest]))
    mean = {name: np.mean(values) for name, values in found.items()}
    assert PRIOR.trusted and mean["labelled"] > mean["nothing"] + 0.02
    assert mean["stream"] >= mean["nothing"] - 0.005 and mean["unlabelled"] >= mean["nothing"] - 0.005


def test_days_before_help():
    """From one session, five days of one repetition each, then the sixth: means of 20 people, seeds fixed."""
    alone, together = [], []
    for person in range(20):
        days = [drawn_day(person, day) for day in range(7)]
        x, y, r = days[0]
        first = prior = SessionPrior().fit(x, y, np.zeros(len(x)), r)
        for x, y, r in days[1:-1]:
            prior = prior.add_session(x[r == 0], y[r == 0], r[r == 0])
        x, y, r = days[-1]
        for one, found in ((first, alone), (prior, together)):
            new = SessionPosterior(one).update(x[r == 0], y[r == 0])
            found.append(accuracy(new.probabilities(x[r > 0]), y[r > 0]))
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


def plainly(x, own):
    """Probabilities where the windows `own` alone say how features are z-scored, and nothing else is known."""
    z = (x - own.mean(axis=0)) / own.std(axis=0)
    return begun().probabilities(PRIOR.centre + PRIOR.sd * z)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("shown", [1, 2, 3])
def test_one_movement_alone_costs_little(shown, labelled):
    """Means over twelve sessions drawn from the model, each moved: z-scored by one movement alone, more is lost.

    With its label, one of three movements tells more of the session than nothing does.
    """
    found = {"nothing": [], "plainly": [], "one": []}
    for i, (x, y, r) in enumerate(LATER):
        x = x + np.random.default_rng(i).normal(size=D)
        own, later = (r == 0) & (y == shown), r > 0
        one = begun().update(x[own], y[own]) if labelled else begun().adapt(x[own])
        for name, p in (("nothing", begun().probabilities(x)), ("plainly", plainly(x, x[own])),
                        ("one", one.probabilities(x))):
            found[name].append(accuracy(p[later], y[later]))
    mean = {name: np.mean(values) for name, values in found.items()}
    assert mean["one"] > mean["plainly"] + 0.1 and mean["one"] > mean["nothing"] + (0.02 if labelled else -0.1)


@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_few_windows_of_one_movement_break_nothing(count):
    x, y, r = LATER[2]
    new = begun().update(x[:count], y[:count])
    assert accuracy(new.probabilities(x), y) > accuracy(begun().probabilities(x), y) - 0.1


def test_a_session_unlike_the_others_moves_nothing():
    rng = np.random.default_rng(3)
    far = 6 * rng.normal(size=(300, D)) ** 3
    new = begun().adapt(far)
    assert PRIOR.distance((far - new.centre) / new.sd) > posterior.MAX_DISTANCE or not PRIOR.trusted
    np.testing.assert_array_equal(new.means, PRIOR.means)


@pytest.mark.parametrize("seed", range(6))
def test_unlabelled_windows_move_no_more_than_is_said(seed, monkeypatch):
    """Hostile ones too, even were they not found to be far; and the stream that goes on from there."""
    monkeypatch.setattr(posterior, "MAX_DISTANCE", np.inf)
    monkeypatch.setattr(online, "BLOCK", 30)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(300, D)) ** 5 * 10.0 ** rng.uniform(-4, 4, D) + 10.0 ** rng.uniform(-3, 4, D)
    streamed, every = begun(), np.ones(len(x), bool)
    stream(streamed, x, every)
    adapted = begun().adapt(x)
    stream(adapted, -x, every)
    for new in (begun().adapt(x), streamed, adapted):
        assert 0 < mean_shifts(new).max() <= posterior.MAX_MEAN_SHIFT * (1 + 1e-6)
        assert (np.abs(new.centre - PRIOR.centre) <= posterior.MAX_CENTRE_SHIFT * PRIOR.sd * (1 + 1e-9)).all()
        change = np.abs(np.log(new.sd / PRIOR.sd))
        assert (change <= np.log(posterior.MAX_SD_RATIO) * (1 + 1e-9)).all()
    monkeypatch.setattr(posterior, "MAX_MEAN_SHIFT", 0.01)
    assert 0 < mean_shifts(begun().adapt(LATER[0][0])).max() <= 0.01 * (1 + 1e-6)


def test_labelled_and_unlabelled_windows_count_together(monkeypatch):
    """Class means by whole matrices: of n_g repetitions' worth, one of labels and those of soft labels, added."""
    monkeypatch.setattr(posterior, "MAX_DISTANCE", np.inf)
    x, y, r = LATER[3]
    new = begun().update(x[r == 0], y[r == 0])
    own = (np.array([x[(r == 0) & (y == c)].mean(axis=0) for c in PRIOR.classes]) - new.centre) / new.sd
    z, (weights, bias) = (x[r == 1] - new.centre) / new.sd, new.linear()[2:]
    new.append(x[r == 1])
    scores = z @ weights + bias
    scores = np.maximum(scores - scores.max(axis=1, keepdims=True), posterior.MIN_LOG_ODDS)
    near = np.abs(np.arange(len(z))[:, None] - np.arange(len(z))) <= posterior.NEIGHBOURS
    p = np.exp(posterior.SOFTNESS * (near @ scores))
    p /= p.sum(axis=1, keepdims=True)
    worth = 0.7 * np.minimum(p.sum(axis=0) / EACH, 2)
    mean = (worth[:, None] * (p.T @ z) / p.sum(axis=0)[:, None] + own) / (worth + 1)[:, None]
    noise = np.kron(np.diag(1 / (worth + 1)), PRIOR.repetition + PRIOR.within / EFFECTIVE_WINDOWS)
    prior = np.kron(PRIOR.kernel, PRIOR.between)
    moved = prior @ np.linalg.solve(prior + noise, (mean - PRIOR.means).ravel())
    new.em_update()
    assert PRIOR.trusted and np.ptp(worth) > 0.01
    np.testing.assert_allclose(new.means, PRIOR.means + moved.reshape(G, D), atol=1e-6)


@pytest.mark.parametrize("labelled", [False, True])
def test_a_stream_far_from_every_class_moves_no_class_mean(labelled):
    """Windows as far as those of unlike people: labels alone decide, and the z-score goes on."""
    far, (x, y, r) = 6 * np.random.default_rng(3).normal(size=(300, D)) ** 3, LATER[0]
    new = begun().update(x[r == 0], y[r == 0]) if labelled else begun()
    means, centre = new.means.copy(), new.centre.copy()
    stream(new, far, np.ones(len(far), bool))
    assert PRIOR.trusted and PRIOR.distance(new._past) > posterior.MAX_DISTANCE
    np.testing.assert_array_equal(new.means, means)
    assert (new.centre != centre).any()


@pytest.mark.parametrize("trusted", [False, True])
def test_where_sessions_do_not_predict_each_other_labels_alone_move_means_and_the_centre(trusted, monkeypatch):
    monkeypatch.setattr(posterior, "MAX_DISTANCE", np.inf)
    x, y, r = LATER[0]
    prior = PRIOR.interpolated(0.0)
    prior.trusted = trusted
    first, later, every = r == 0, r > 0, np.ones(len(x), bool)
    streamed, adapted = SessionPosterior(prior), SessionPosterior(prior).adapt(x)
    stream(streamed, x, every)
    assert streamed.moved == adapted.moved == trusted
    labelled = SessionPosterior(prior).update(x[first], y[first])
    means, centre = labelled.means.copy(), labelled.centre.copy()
    stream(labelled, x[later], every[later])
    assert (labelled.means != means).any() == (labelled.centre != centre).any() == trusted


def test_the_latest_windows_alone_are_gone_by(monkeypatch):
    """Those before 60 are as if they had never been."""
    monkeypatch.setattr(posterior, "MAX_DISTANCE", np.inf)
    monkeypatch.setattr(posterior, "MAX_PAST", 60)
    x, _, _ = LATER[0]
    every, last = begun(), begun()
    for new, windows in ((every, x[:100]), (last, x[40:100])):
        for part in np.array_split(windows, 5):
            new.append(part)
        new.em_update()
    np.testing.assert_array_equal(every.means, last.means)
    assert every.moved


def test_the_next_prior_is_bounded():
    x, _, _ = LATER[0]
    new = begun()
    stream(new, x + 3.0, np.ones(len(x), bool))
    after = new.next_prior()
    np.testing.assert_allclose(after.centre, PRIOR.centre + posterior.CARRIED_SHARE * (new.centre - PRIOR.centre))
    np.testing.assert_allclose(after.means, PRIOR.means + posterior.CARRIED_SHARE * (new.means - PRIOR.means))
    kept = SessionPrior.from_state(after.state())  # in this process and from a file it is the same
    np.testing.assert_array_equal(SessionPosterior(kept).update(*LATER[1][:2]).weights,
                                  SessionPosterior(after).update(*LATER[1][:2]).weights)
