"""Riemannian baselines against pyriemann's own estimators, and the mean of a stream by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
from pyriemann.estimation import Covariances
from pyriemann.tangentspace import TangentSpace
from pyriemann.transfer import TLCenter, encode_domains
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tfkfin.experiments import riemann
from tfkfin.experiments.transfer import Discriminant, Known

CLASSES, CHANNELS, LENGTH = (1, 2, 3), 3, 40


class Fake(SimpleNamespace):
    """A session of 90 windows in volts: each movement mixes channels in its own way, each session amplifies anew."""

    def __init__(self, number):
        rng, base = np.random.default_rng(number), np.random.default_rng(99)
        labels = np.tile(np.repeat(CLASSES, 10), 3)
        mixing = base.normal(size=(len(CLASSES), CHANNELS, CHANNELS)) * 1e-5
        windows = rng.normal(size=(len(labels), LENGTH, CHANNELS)) @ mixing[labels - 1] * rng.uniform(0.5, 2, CHANNELS)
        super().__init__(person=1, number=number, labels=labels, repetitions=np.repeat((1, 2, 3), 30), length=LENGTH,
                         rate_hz=200.0, windows=windows.astype(np.float32))
        self.subject = SimpleNamespace(volts=lambda length, at: self.windows[at])

    def __len__(self):
        return len(self.labels)

    def kept(self, key, make):
        return make()


EARLIER, LATER = [Fake(1), Fake(2)], Fake(3)
LEARNT = [(session, session.repetitions < 3) for session in EARLIER]


def known():
    return np.concatenate([s.windows[chosen] for s, chosen in LEARNT]).transpose(0, 2, 1).astype(float), np.concatenate(
        [s.labels[chosen] for s, chosen in LEARNT]), np.repeat(["first", "second"], [c.sum() for _, c in LEARNT])


def discriminant():
    return make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))


def test_tangent_space_is_pyriemanns():
    model = Discriminant(riemann.covariances, riemann.Tangents).fit(LEARNT, CLASSES)
    x, y, _ = known()
    wanted = make_pipeline(Covariances("oas"), TangentSpace(), discriminant()).fit(x, y)
    new = LATER.windows.transpose(0, 2, 1).astype(float)
    np.testing.assert_allclose(model.decide(LATER, None), wanted.predict_proba(new), atol=1e-4)


@pytest.mark.parametrize("labelled", [False, True])
def test_recentring_is_pyriemanns(labelled):
    """`TLCenter` whitens each domain by its mean; a new one by that of its first repetition."""
    own = LATER.repetitions == 1
    model = Discriminant(riemann.covariances, riemann.Recentred).fit(LEARNT, CLASSES)
    x, y, domains = known()
    new = Covariances("oas").fit_transform(LATER.windows.transpose(0, 2, 1).astype(float))
    centred = TLCenter(target_domain="").fit_transform(*encode_domains(Covariances("oas").fit_transform(x), y, domains))
    centre = TLCenter(target_domain="new").fit(*encode_domains(new[own], LATER.labels[own], ["new"] * own.sum()))
    at_identity = TangentSpace().fit(np.eye(CHANNELS)[None])
    rows, tested = at_identity.transform(centred), at_identity.transform(centre.transform(new))
    if labelled:
        times = len(rows) // own.sum()
        rows, y = np.concatenate([rows, *[tested[own]] * times]), np.concatenate([y, *[LATER.labels[own]] * times])
    wanted = discriminant().fit(rows, y).predict_proba(tested)
    np.testing.assert_allclose(model.decide(LATER, Known(own, labelled)), wanted, atol=1e-4)


def test_the_mean_of_a_stream_by_hand():
    """Of diagonal matrices it is the running mean of logarithms, moved after each block."""
    logs, prior = np.random.default_rng(0).normal(size=(50, 2)), np.array([1.0, -1.0])
    found = riemann.running(np.stack([np.diag(row) for row in np.exp(logs)]), np.diag(np.exp(prior)), prior=30)
    for i in range(50):
        before = logs[: i // riemann.BLOCK * riemann.BLOCK]
        mean = (30 * prior + before.sum(axis=0)) / (30 + len(before))
        np.testing.assert_allclose(found[i, [0, 2]], logs[i] - mean, atol=1e-9)
        assert abs(found[i, 1]) < 1e-9


def test_silence_has_a_place_too():
    quiet = Fake(4)
    quiet.windows[5] = 0
    assert np.isfinite(riemann.covariances(quiet)).all()
    model = Discriminant(riemann.covariances, riemann.Recentred).fit(LEARNT, CLASSES)
    assert np.isfinite(model.decide(quiet, None)).all()
