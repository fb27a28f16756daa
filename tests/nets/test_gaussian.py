"""The head that remembers sessions against scikit-learn's LDA, and, once it knows one, the hierarchical Gaussian."""

import numpy as np
import pytest

from tfkfin import recipe
from tfkfin.base.errors import InputError
from tfkfin.nets import heads, saving
from tfkfin.nets.descriptions.broad import Broad
from tfkfin.nets.heads import gaussian
from tfkfin.nets.heads.gaussian import GaussianHead
from tfkfin.nets.lda import lda
from tfkfin.sessions.posterior import SessionPosterior
from tfkfin.sessions.prior import SessionPrior

NAMES, CHANNELS, DESCRIBED = ("ENT", "RMS"), 3, 4
OPTIONS = recipe.Classifier(kind="gaussian", lags=(), vote=1)


def drawn(classes, sessions=3, seed=0, moved=0.5):
    """Features and descriptions of windows, their class indices, sessions and repetitions."""
    rng, session, repetition = np.random.default_rng(seed), *np.divmod(np.arange(sessions * 2), 2)
    count = len(classes) * 15
    labels = np.tile(np.repeat(classes, 15), len(session))
    session, repetition = np.repeat(session, count), np.repeat(repetition, count)
    shift = rng.normal(0, moved, (sessions, 1, DESCRIBED))[session, 0]
    features = rng.lognormal(size=(len(labels), CHANNELS, 2)) * (1 + labels[:, None, None])
    described = rng.normal(size=(len(labels), DESCRIBED)) + labels[:, None] + shift
    return [features, described], labels, (session, repetition)


def plain(seen):
    """What the head's z-score is given, by NumPy: ENT as it is, RMS by its logarithm."""
    features, described = seen
    logged = np.stack([features[..., 0], np.log(features[..., 1].astype(np.float32))], axis=-1)
    return np.concatenate([logged.reshape(len(logged), -1), described], axis=1)


def solved(classes, sessions=3):
    head = GaussianHead(GaussianHead.new(OPTIONS, NAMES, CHANNELS, DESCRIBED, 5))
    seen, labels, groups = drawn(classes, sessions)
    head.solve(inputs(head, seen), labels, groups)
    return head, SessionPrior().fit(plain(seen), labels, *groups), seen


def inputs(head, seen):
    return np.asarray(head.inputs(*(part.astype(np.float32) for part in seen)))


def answers(head, seen):
    return np.asarray(head.classifier([part.astype(np.float32) for part in seen]))


def reloaded(head, tmp_path):
    head.classifier.save(tmp_path / "head.keras")
    return GaussianHead(saving.load(tmp_path / "head.keras"))


@pytest.mark.parametrize("classes", [(0, 1, 2, 3, 4), (0, 2), (1, 3, 4)])
@pytest.mark.parametrize("sessions", [1, 3])
def test_the_head_is_the_hierarchical_gaussian(classes, sessions, tmp_path):
    head, expected, seen = solved(classes, sessions)
    _, labels, _ = drawn(classes, sessions)
    wanted = lda().fit(plain(seen), labels)  # until a session is known all are alike
    np.testing.assert_allclose(answers(head, seen)[:, classes], wanted.predict_proba(plain(seen)), atol=1e-4)
    assert np.delete(answers(head, seen), classes, axis=1).max(initial=0) < 1e-6
    head = reloaded(head, tmp_path)
    new, labels, (_, repetition) = drawn(classes, 1, seed=9, moved=2)
    first = repetition == 0
    given = [part[first] for part in new]
    for known, after in ((labels[first], SessionPosterior(expected).update(plain(given), labels[first])),
                         (None, SessionPosterior(expected).adapt(plain(given)))):
        said = head.calibrate(inputs(head, given), known)
        np.testing.assert_allclose(answers(head, new)[:, classes], after.probabilities(plain(new)), atol=1e-4)
        assert said.get("moved", True) == after.moved or known is not None
    head.calibrate(inputs(head, given), labels[first])  # what came between is forgotten: it can be undone
    expected = SessionPosterior(expected).update(plain(given), labels[first])
    np.testing.assert_allclose(answers(head, new)[:, classes], expected.probabilities(plain(new)), atol=1e-4)


def test_movements_that_are_not_shown_are_named_and_still_decided():
    head, _, _ = solved((0, 1, 2, 3))
    new, labels, _ = drawn((0, 1, 2, 3), 1, seed=9)
    shown = labels < 3
    assert head.calibrate(inputs(head, new)[shown], labels[shown]) == {"known_sessions": 3, "unseen": [3]}
    assert np.mean(answers(head, new)[~shown].argmax(axis=1) == 3) > 0.5


def test_a_head_that_knows_no_session_says_so():
    head = GaussianHead(GaussianHead.new(OPTIONS, NAMES, CHANNELS, DESCRIBED, 5))
    x = inputs(head, drawn((0, 1), 1)[0])
    with pytest.raises(ValueError, match="solved first"):
        head.calibrate(x, None)
    with pytest.raises(ValueError, match="solved first"):
        head.update(x, np.zeros(60, int))


@pytest.mark.parametrize("sessions", [1, 3])
def test_the_days_before_count(sessions, tmp_path):
    """Calibrated on Monday, saved, on Tuesday: as if Monday had been among the sessions that it was solved for."""
    head, _, seen = solved((0, 1, 2), sessions)
    _, labels, (session, repetition) = drawn((0, 1, 2), sessions)
    monday, tuesday = (drawn((0, 1, 2), 1, seed=seed, moved=2) for seed in (9, 10))

    def calibrated(day, known=True):
        new, own, (_, executions) = day
        copy = head.copy()
        said = copy.calibrate(inputs(head, new), own if known else None, executions)
        return reloaded(copy, tmp_path), said["known_sessions"]

    x, own, (_, executions) = monday
    every = SessionPrior().fit(
        np.concatenate([plain(seen), plain(x)]), np.concatenate([labels, own]),
        np.concatenate([session, np.full(len(own), 99)]), np.concatenate([repetition, executions]))
    head, known = calibrated(monday)
    assert known == sessions
    again, known = calibrated((([part[:-20] for part in x]), own[:-20], (None, executions[:-20])))
    assert known == sessions and len(again.knowledge.memory.last[0]) == len(own) - 20  # not twice
    last, known = calibrated(tuesday)
    assert known == sessions + 1
    expected = SessionPosterior(every).update(plain(tuesday[0]), tuesday[1])
    np.testing.assert_allclose(answers(last, tuesday[0])[:, :3], expected.probabilities(plain(tuesday[0])), atol=1e-4)
    head, known = calibrated(tuesday, known=False)
    assert known == sessions + 1 and calibrated(monday)[1] == sessions + 1  # of Tuesday nothing was told


def test_a_file_that_knows_nothing_of_single_sessions_still_calibrates(tmp_path, monkeypatch):
    head, expected, _ = solved((0, 1, 2))
    with monkeypatch.context() as patch:  # as versions before wrote it
        patch.setattr(gaussian.Knowledge, "save_own_variables", gaussian.layers.Layer.save_own_variables)
        head = reloaded(head, tmp_path)
    for seed in (9, 10):
        new, labels, _ = drawn((0, 1, 2), 1, seed=seed, moved=2)
        assert head.calibrate(inputs(head, new), labels)["known_sessions"] == 3
        after = SessionPosterior(expected).update(plain(new), labels)
        np.testing.assert_allclose(answers(head, new)[:, :3], after.probabilities(plain(new)), atol=1e-4)


def test_updates_are_one_calibration(tmp_path):
    """After an adaptation, and after a calibration whose windows count too, before it is saved and after."""
    head, expected, _ = solved((0, 2, 3))
    new, labels, (_, repetition) = drawn((0, 2, 3), 1, seed=9, moved=2)
    first, every = repetition == 0, np.arange(len(labels))
    x = inputs(head, new)
    head.calibrate(x, None)
    for part in np.array_split(every, 20):
        head.update(x[part], labels[part])
    whole = SessionPosterior(expected).update(plain(new), labels).probabilities(plain(new))
    np.testing.assert_allclose(answers(head, new)[:, (0, 2, 3)], whole, atol=1e-4)
    head.calibrate(x[first], labels[first])
    head.update(x[~first], labels[~first])
    np.testing.assert_allclose(answers(head, new)[:, (0, 2, 3)], whole, atol=1e-4)
    head.calibrate(x[first], labels[first])
    again = reloaded(head, tmp_path)
    again.update(x[~first], labels[~first])
    np.testing.assert_allclose(answers(again, new)[:, (0, 2, 3)], whole, atol=1e-4)
    assert len(again.knowledge.memory.last[0]) == len(labels)  # all of it is what the next day knows


def test_a_day_of_some_movements_teaches_the_next_nothing():
    head, _, _ = solved((0, 1, 2))
    for seed, known in ((9, 3), (10, 3), (11, 4)):
        new, labels, _ = drawn((0, 1, 2), 1, seed=seed, moved=2)
        shown = labels < (2 if seed == 9 else 3)
        said = head.calibrate(inputs(head, new)[shown], labels[shown])
        assert said["known_sessions"] == known


def test_virtual_forces_and_electrodes_go_into_files(tmp_path):
    """A session that is added after loading counts as if it had been added before."""
    described = Broad()
    size = len(described.layout(2))
    rng, labels = np.random.default_rng(0), np.tile(np.repeat((0, 1, 2), 20), 4)
    groups, shown = np.divmod(np.arange(240) // 60, 2), np.arange(240) < 180  # two repetitions in each of two sessions
    x = rng.normal(size=(240, size)) * rng.uniform(0.5, 2, size) + labels[:, None] * rng.normal(size=size)
    head = GaussianHead(GaussianHead.new(OPTIONS, (), 2, size, 3), described, 2)
    virtual = [rows[shown] for rows in (0.5 * x, 1.5 * x)]
    head.solve(x[shown], labels[shown], [group[shown] for group in groups], virtual)
    expected = SessionPrior().fit(x[shown], labels[shown], *(group[shown] for group in groups), virtual,
                                  described.layout(2))
    without = SessionPrior().fit(x[shown], labels[shown], *(group[shown] for group in groups))
    for name, value in head.knowledge.state.items():
        np.testing.assert_array_equal(value, expected.state()[name], err_msg=name)
    assert any(not np.array_equal(value, expected.state()[name]) for name, value in without.state().items())
    executions = 2 * groups[0][shown] + groups[1][shown]
    pooled = SessionPrior().fit(x[shown], labels[shown], np.zeros(180), executions, virtual,
                                described.layout(2))  # before a session is known all are one
    np.testing.assert_allclose(head.probabilities(x), SessionPosterior(pooled).probabilities(x), atol=1e-4)
    again = reloaded(head, tmp_path)
    new = x[~shown], labels[~shown], groups[1][~shown]
    for name, value in expected.add_session(*new).state().items():
        np.testing.assert_array_equal(again._prior().add_session(*new).state()[name], value, err_msg=name)
    np.testing.assert_allclose(head.log_amplitude(x), x[:, 16:18].mean(axis=1))  # log power, for activity detection


def test_forces_need_a_prior():
    with pytest.raises(InputError, match="classifier.forces .* such as gaussian.*linear"):
        heads.new(recipe.Classifier(kind="linear", forces=True), NAMES, 50, CHANNELS, 3)
