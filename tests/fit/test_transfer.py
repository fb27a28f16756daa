"""Closed-form decoders that are carried on: against scikit-learn, the model's own draws, and shuffled executions."""

from types import SimpleNamespace

import numpy as np
import pytest
from pyriemann.geometry.tangentspace import untangent_space
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tfkfin.experiments import riemann, transfer
from tfkfin.experiments.transfer import Discriminant, Hierarchical, Known
from tfkfin.sessions.hierarchical import HierarchicalGaussian

D, CLASSES, EACH = 6, (1, 2, 3), 12


def stream(person, number, seed, repetitions=4, days=0.7, trials=1.2):
    """A session drawn from the hierarchical model: means of a session and of a repetition, windows about them."""
    rng, base = np.random.default_rng(seed), np.random.default_rng(0).normal(0, 1.6, (len(CLASSES), D))
    day, x, y, r = base + rng.normal(0, days, base.shape), [], [], []
    for repetition in range(1, repetitions + 1):
        for i, c in enumerate(CLASSES):
            x.append(day[i] + rng.normal(0, trials, D) + rng.normal(size=(EACH, D)))
            y += [c] * EACH
            r += [repetition] * EACH
    x, y, r = np.concatenate(x), np.array(y), np.array(r)
    return SimpleNamespace(person=person, number=number, x=x, labels=y, repetitions=r)


def see(session):
    return session.x


def matrices(session):
    """The same as positive matrices of three channels."""
    return untangent_space(0.1 * session.x, np.eye(3))


def everything(session):
    return np.ones(len(session.x), bool)


EARLIER = [(s, everything(s)) for s in (stream(1, n, 10 + n) for n in range(1, 7))]
LATER = [stream(1, n, 50 + n) for n in range(7, 27)]
MODELS = {"lda": lambda: Discriminant(see), "recentred": lambda: Discriminant(see, transfer.Centres),
          "hierarchical": lambda: Hierarchical(see), "riemann": lambda: Discriminant(matrices, riemann.Tangents),
          "riemann recentred": lambda: Discriminant(matrices, riemann.Recentred)}


def accuracy(model, session, known=None):
    tested = ~known.windows if known else np.ones(len(session.x), bool)
    decided = np.array(CLASSES)[model.decide(session, known).argmax(axis=1)]
    return np.mean((decided == session.labels)[tested])


def first(session, labelled):
    return Known(session.repetitions == 1, labelled)


def test_plain_discriminant_is_scikit_learns():
    model = Discriminant(see).fit(EARLIER, CLASSES)
    x, y = np.concatenate([s.x for s, _ in EARLIER]), np.concatenate([s.labels for s, _ in EARLIER])
    scale = x.mean(axis=0), x.std(axis=0)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit((x - scale[0]) / scale[1], y)
    np.testing.assert_allclose(model.decide(LATER[0], None), lda.predict_proba((LATER[0].x - scale[0]) / scale[1]),
                               atol=1e-6)


def test_the_hierarchical_baseline_learns_from_the_right_windows():
    """Of two sessions the repetitions that may be learnt from, without rest, as `HierarchicalGaussian` has it."""
    sessions = [stream(1, n, 10 + n) for n in (1, 2)]
    for session in sessions:
        session.labels[::7] = 0
    chosen = [np.isin(s.repetitions, wanted) for s, wanted in zip(sessions, ((1, 2, 3), (2, 4)), strict=True)]
    model = Hierarchical(see).fit(list(zip(sessions, chosen, strict=True)), CLASSES)
    kept = [keep & (s.labels > 0) for s, keep in zip(sessions, chosen, strict=True)]
    x, y, r = (np.concatenate([getattr(s, name)[keep] for s, keep in zip(sessions, kept, strict=True)])
               for name in ("x", "labels", "repetitions"))
    wanted = HierarchicalGaussian().fit(x, y, np.repeat([1, 2], [keep.sum() for keep in kept]), r)
    later = LATER[0]
    calibrated = wanted.calibrate(later.x[later.repetitions == 1], later.labels[later.repetitions == 1])
    np.testing.assert_allclose(model.decide(later, first(later, True)), calibrated.probabilities(later.x))
    centre, spread = transfer.moments(later.x[later.repetitions == 1])
    *_, weights, bias = wanted.begin().linear()
    scores = (later.x - centre) / spread @ weights + bias
    np.testing.assert_array_equal(model.decide(later, first(later, False)).argmax(axis=1), scores.argmax(axis=1))
    own = sessions[0]  # learnt from: it is centred where it was then, however its stream begins
    np.testing.assert_allclose(model.decide(own, None), wanted.begin().probabilities(own.x))


def test_a_labelled_repetition_helps_and_earlier_sessions_help_it():
    """Means over 20 drawn sessions with fixed seeds."""
    model = Hierarchical(see).fit(EARLIER, CLASSES)
    before = np.mean([accuracy(model, s, first(s, False)) for s in LATER])
    after = np.mean([accuracy(model, s, first(s, True)) for s in LATER])
    alone = np.mean([accuracy(Discriminant(see).fit([(s, s.repetitions == 1)], CLASSES), s, first(s, False))
                     for s in LATER])
    assert after > before + 0.01 and after > alone + 0.01


@pytest.mark.parametrize("name", MODELS)
def test_what_is_tested_and_unlabelled_labels_steer_nothing(name):
    session, model = LATER[0], MODELS[name]().fit(EARLIER, CLASSES)
    for known in (None, first(session, False), first(session, True)):
        before = model.decide(session, known)
        other = SimpleNamespace(**vars(session))
        other.labels = np.where(known.windows if known and known.labelled else False, session.labels,
                                np.roll(session.labels, EACH))
        np.testing.assert_array_equal(model.decide(other, known), before)
        if known is None:  # what comes later changes nothing
            other.x = np.where(np.arange(len(session.x))[:, None] < 40, session.x, 99.0)
            np.testing.assert_array_equal(model.decide(other, known)[:40], before[:40])


@pytest.mark.parametrize("name", MODELS)
def test_the_order_of_executions_does_not_matter(name):
    model, causal = MODELS[name]().fit(EARLIER, CLASSES), []
    for i, session in enumerate(LATER):
        executions = np.random.default_rng(i).permutation(len(session.x) // EACH)
        order = (executions[:, None] * EACH + np.arange(EACH)).ravel()
        other = SimpleNamespace(person=1, number=session.number, x=session.x[order], labels=session.labels[order],
                                repetitions=session.repetitions[order])
        for labelled in (False, True):
            np.testing.assert_allclose(model.decide(other, first(other, labelled)),
                                       model.decide(session, first(session, labelled))[order], atol=1e-9)
        causal.append(accuracy(model, other) - accuracy(model, session))  # statistics of the stream so far differ
    assert abs(np.mean(causal)) < 0.02


def test_running_statistics_by_a_loop():
    x = np.random.default_rng(1).normal(3, 2, (7, 2))
    found = transfer.running(x, np.zeros(2), np.ones(2), prior=3)
    for i in range(len(x)):
        rows = np.concatenate([[[1, 1], [-1, -1]] * 3, np.repeat(x[: i + 1], 2, axis=0)])  # 3 of mean 0, sd 1
        np.testing.assert_allclose(found[i], (x[i] - rows.mean(axis=0)) / rows.std(axis=0), rtol=1e-9)
