"""Baselines: against scikit-learn's and pyriemann's own estimators, the model's own draws, and shuffled executions."""

from functools import partial

import numpy as np
import pytest
from pyriemann.estimation import Covariances
from pyriemann.geometry.tangentspace import untangent_space
from pyriemann.tangentspace import TangentSpace
from pyriemann.transfer import TLCenter, encode_domains
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tfkfin.experiments.ladder import baselines
from tfkfin.experiments.ladder.baselines import Hierarchical, SessionLDA

D, CLASSES, EACH = 6, (1, 2, 3), 12
RECENTRED = partial(SessionLDA, partial(baselines.ZScored, 200))
RIEMANN, RIEMANN_RECENTRED = (partial(SessionLDA, baselines.TangentSpace),
                              partial(SessionLDA, partial(baselines.RecentredTangentSpace, 200)))
MODELS = {"lda": SessionLDA, "recentred": RECENTRED, "hierarchical": Hierarchical, "riemann": RIEMANN,
          "riemann recentred": RIEMANN_RECENTRED}


def drawn(seed, repetitions=4, days=0.7, trials=1.2):
    """A session of the hierarchical model: means of it and of repetitions, windows about them; labels, repetitions."""
    rng, base = np.random.default_rng(seed), np.random.default_rng(0).normal(0, 1.6, (len(CLASSES), D))
    day, x = base + rng.normal(0, days, base.shape), []
    for _ in range(repetitions):
        for i in range(len(CLASSES)):
            x.append(day[i] + rng.normal(0, trials, D) + rng.normal(size=(EACH, D)))
    return np.concatenate(x), np.tile(np.repeat(CLASSES, EACH), repetitions), np.repeat(
        np.arange(1, repetitions + 1), len(CLASSES) * EACH)


def seen(name, x):
    """Descriptions as the model `name` takes them: for the Riemannian ones positive matrices of three channels."""
    return untangent_space(0.1 * x, np.eye(3)) if name.startswith("riemann") else x


EARLIER, LATER = [drawn(10 + n) for n in range(1, 7)], [drawn(50 + n) for n in range(7, 27)]


def fitted(name, sessions=EARLIER):
    x, y, r = (np.concatenate(part) for part in zip(*sessions, strict=True))
    return MODELS[name]().fit(seen(name, x), y, np.repeat(np.arange(len(sessions)), [len(s[1]) for s in sessions]), r)


def later(name, model, session, known):
    """Probabilities of a session: nothing known ("0"), or its first repetition, without labels ("0u") or with ("1")."""
    x, y, r = session
    first = seen(name, x[r == 1])
    if known != "0":
        model = model.calibrate(first, y[r == 1] if known == "1" else None)
    return model.predict_proba(seen(name, x))


def accuracy(name, model, session, known):
    _, y, r = session
    return np.mean((np.array(CLASSES)[later(name, model, session, known).argmax(axis=1)] == y)[r > 1])


def test_plain_lda_is_scikit_learns():
    x, y, _ = (np.concatenate(part) for part in zip(*EARLIER, strict=True))
    wanted = discriminant().fit(x, y)
    np.testing.assert_allclose(later("lda", fitted("lda"), LATER[0], "0"), wanted.predict_proba(LATER[0][0]), atol=1e-6)
    np.testing.assert_array_equal(fitted("lda").predict(LATER[0][0]), wanted.predict(LATER[0][0]))


@pytest.mark.parametrize("name", MODELS)
def test_they_are_scikit_learns_estimators(name):
    model = fitted(name)
    again = clone(model)
    assert not hasattr(again, "classes_") and model.classes_.tolist() == list(CLASSES)
    x, y, r = LATER[0]
    again.fit(seen(name, x), y)  # one session
    assert again.score(seen(name, x), y) > 0.5
    assert again.predict_proba(seen(name, x)).sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("name", MODELS)
def test_windows_without_a_label_are_centred_with_the_others_and_trained_on_by_none(name):
    """Where nothing is centred by sessions, it is as if they were not there."""
    x, y, r = EARLIER[0]
    part = np.where(np.arange(len(y)) % 3 == 0, -1, y)
    model = MODELS[name]().fit(seen(name, x), part, repetitions=r)
    assert model.classes_.tolist() == list(CLASSES)
    if name in ("lda", "hierarchical"):
        kept = part > 0
        other = MODELS[name]().fit(x[kept], y[kept], repetitions=r[kept])
        np.testing.assert_array_equal(model.predict_proba(x), other.predict_proba(x))
    if name == "recentred":
        z = (x - x.mean(axis=0)) / x.std(axis=0)
        wanted = discriminant().fit(z[part > 0], y[part > 0])
        np.testing.assert_allclose(model.predict_proba(x, 0), wanted.predict_proba(z), atol=1e-6)


def test_a_labelled_repetition_helps_and_earlier_sessions_help_it():
    """Means over 20 drawn sessions with fixed seeds."""
    model = fitted("hierarchical")
    before = np.mean([accuracy("hierarchical", model, s, "0u") for s in LATER])
    after = np.mean([accuracy("hierarchical", model, s, "1") for s in LATER])
    alone = []
    for session in LATER:
        x, y, r = session
        alone.append(accuracy("lda", SessionLDA().fit(x[r == 1], y[r == 1]), session, "0"))
    assert after > before + 0.01 and after > np.mean(alone) + 0.01


@pytest.mark.parametrize("name", MODELS)
def test_what_is_tested_steers_nothing(name):
    """Windows that come later change no decision, nor does deciding change the model."""
    model, (x, y, r) = fitted(name), LATER[0]
    for known in ("0", "0u", "1"):
        before = later(name, model, (x, y, r), known)
        others = np.where(np.arange(len(x))[:, None] < 40, x, 3.0)  # the first repetition are 36 windows
        np.testing.assert_array_equal(later(name, model, (others, y, r), known)[:40], before[:40])
        np.testing.assert_array_equal(later(name, model, (x, y, r), known), before)
        shuffled = np.where(r == 1, y, np.roll(y, EACH))
        np.testing.assert_array_equal(later(name, model, (x, shuffled, r), known), before)


@pytest.mark.parametrize("name", MODELS)
def test_a_stream_leaves_nothing_to_the_next_one_of_the_same_session(name):
    model, (x, _, _) = fitted(name), LATER[0]
    before = model.predict_proba(seen(name, x), "new")
    np.testing.assert_array_equal(model.predict_proba(seen(name, x), "new"), before)
    np.testing.assert_array_equal(model.predict_proba(seen(name, x)), before)


@pytest.mark.parametrize("name", MODELS)
def test_a_session_that_it_learnt_from_is_known_and_not_adapted_to(name):
    """So each window is decided by itself, whichever came before; of another session those before have a say."""
    model, (x, _, _) = fitted(name), EARLIER[2]
    order = np.random.default_rng(0).permutation(len(x))
    for session, alike in ((2, True), ("new", name in ("lda", "riemann"))):
        found, mixed = (model.predict_proba(seen(name, rows), session) for rows in (x, x[order]))
        assert np.allclose(mixed, found[order], atol=1e-9) == alike


@pytest.mark.parametrize("name", MODELS)
def test_the_order_of_executions_does_not_matter(name):
    model, causal = fitted(name), []
    for i, (x, y, r) in enumerate(LATER):
        executions = np.random.default_rng(i).permutation(len(x) // EACH)
        order = (executions[:, None] * EACH + np.arange(EACH)).ravel()
        other = x[order], y[order], r[order]
        for known in ("0u", "1"):
            np.testing.assert_allclose(later(name, model, other, known), later(name, model, (x, y, r), known)[order],
                                       atol=1e-6)
        causal.append(accuracy(name, model, other, "0") - accuracy(name, model, (x, y, r), "0"))
    assert abs(np.mean(causal)) < 0.02


def test_partial_recentring_by_a_loop():
    rng = np.random.default_rng(1)
    x, centring = rng.normal(3, 2, (7, 2)), baselines.ZScored(3)
    rows = np.array([[1.0, 1], [-1, -1]])  # of mean 0, sd 1
    centring.fit(np.concatenate([rows, rows]), np.repeat([1, 2], 2))
    found = centring(x)
    for i in range(len(x)):
        every = np.concatenate([rows] * 3 + [np.repeat(x[: i + 1], 2, axis=0)])  # 3 windows of the prior
        np.testing.assert_allclose(found[i], (x[i] - every.mean(axis=0)) / every.std(axis=0), rtol=1e-6)


# === Riemannian ones ===

CHANNELS, LENGTH = 3, 40


def volts(number):
    """90 windows in volts: each movement mixes channels in its own way, each session amplifies anew."""
    rng, base = np.random.default_rng(number), np.random.default_rng(99)
    labels = np.tile(np.repeat(CLASSES, 10), 3)
    mixing = base.normal(size=(len(CLASSES), CHANNELS, CHANNELS)) * 1e-5
    windows = rng.normal(size=(len(labels), LENGTH, CHANNELS)) @ mixing[labels - 1] * rng.uniform(0.5, 2, CHANNELS)
    return windows.astype(np.float32), labels, np.repeat((1, 2, 3), 30)


def discriminant():
    return make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))


def pyriemanns(windows):
    return Covariances("oas").fit_transform(windows.transpose(0, 2, 1).astype(float))


BEFORE = [tuple(part[:60] for part in volts(number)) for number in (1, 2)]


def of_matrices(make):
    windows, y, _ = (np.concatenate(part) for part in zip(*BEFORE, strict=True))
    return make().fit(baselines.covariances(windows, 200.0), y, np.repeat([1, 2], 60)), windows, y


def test_tangent_space_is_pyriemanns():
    model, windows, y = of_matrices(RIEMANN)
    wanted = make_pipeline(TangentSpace(), discriminant()).fit(pyriemanns(windows), y)
    new, _, _ = volts(3)
    np.testing.assert_allclose(model.predict_proba(baselines.covariances(new, 200.0)),
                               wanted.predict_proba(pyriemanns(new)), atol=1e-4)


@pytest.mark.parametrize("labelled", [False, True])
def test_recentring_is_pyriemanns(labelled):
    """`TLCenter` whitens each domain by its mean; a new one by that of its first repetition."""
    (new, labels, repetitions), (model, windows, y) = volts(3), of_matrices(RIEMANN_RECENTRED)
    own = repetitions == 1
    domains = np.repeat(["first", "second"], 60)
    centred = TLCenter(target_domain="").fit_transform(*encode_domains(pyriemanns(windows), y, domains))
    centre = TLCenter(target_domain="new").fit(*encode_domains(pyriemanns(new)[own], labels[own], ["new"] * own.sum()))
    at_identity = TangentSpace().fit(np.eye(CHANNELS)[None])
    rows, tested = at_identity.transform(centred), at_identity.transform(centre.transform(pyriemanns(new)))
    if labelled:
        times = len(rows) // own.sum()
        rows, y = np.concatenate([rows, *[tested[own]] * times]), np.concatenate([y, *[labels[own]] * times])
    wanted, matrices = discriminant().fit(rows, y).predict_proba(tested), baselines.covariances(new, 200.0)
    found = model.calibrate(matrices[own], labels[own] if labelled else None).predict_proba(matrices)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_the_running_riemannian_mean_by_hand():
    """Of diagonal matrices it is the running mean of logarithms, moved after each block."""
    logs, prior = np.random.default_rng(0).normal(size=(50, 2)), np.array([1.0, -1.0])
    centring = baselines.RecentredTangentSpace(30).fit(np.diag(np.exp(prior))[None], np.array([1]))
    found = centring(np.stack([np.diag(row) for row in np.exp(logs)]))
    for i in range(50):
        before = logs[: i // baselines.BLOCK * baselines.BLOCK]
        mean = (30 * prior + before.sum(axis=0)) / (30 + len(before))
        np.testing.assert_allclose(found[i, [0, 2]], logs[i] - mean, atol=1e-9)
        assert abs(found[i, 1]) < 1e-9


def test_silence_has_a_place_too():
    windows, _, _ = volts(4)
    windows[5] = 0
    matrices = baselines.covariances(windows, 200.0)
    assert np.isfinite(matrices).all()
    assert np.isfinite(of_matrices(RIEMANN_RECENTRED)[0].predict_proba(matrices)).all()
