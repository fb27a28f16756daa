"""Sessions that adapt, over a real head: nothing of one stream is left to the next, and `revert` shares nothing."""

from types import SimpleNamespace

import numpy as np
import pytest

from tfkfin import recipe
from tfkfin.decoder.decision import Decision
from tfkfin.decoder.session import AdaptiveSession
from tfkfin.nets.heads.gaussian import GaussianHead
from tfkfin.sessions import online, posterior

D, G = 4, 3


def windows(seed, repetitions=4, each=15):
    """Head inputs (N, D) of one session in order of time, class indices and repetitions."""
    rng, base = np.random.default_rng(seed), np.random.default_rng(0).normal(0, 2, (G, D))
    labels = np.tile(np.repeat(np.arange(G), each), repetitions)
    x = (base + rng.normal(0, 0.5, base.shape))[labels] + rng.normal(size=(len(labels), D))
    return x, labels, np.repeat(np.arange(repetitions), G * each)


@pytest.fixture
def head(monkeypatch):
    """Solved for four sessions, without features; it adapts after every 20 windows, however far they are."""
    monkeypatch.setattr(online, "BLOCK", 20)
    monkeypatch.setattr(posterior, "MAX_DISTANCE", np.inf)
    new = GaussianHead(GaussianHead.new(recipe.Classifier(kind="gaussian"), (), 1, D, G))
    x, labels, repetitions = (np.concatenate(part) for part in zip(*(windows(s) for s in range(1, 5)), strict=True))
    new.solve(x, labels, (np.repeat(np.arange(4), len(x) // 4), repetitions))
    return new


def session(head):
    return AdaptiveSession(SimpleNamespace(check_calibrates=lambda: None, stride=1, movements=np.arange(1, G + 1),
                                           head=head, decision=Decision(1, 0.0)), smooth=False)


@pytest.mark.parametrize("begin", ["nothing", "unlabelled", "labelled"])
def test_a_stream_leaves_nothing_to_the_next(head, begin):
    x, labels, repetitions = windows(9)
    if begin != "nothing":
        head.calibrate(x[:45], labels[:45] if begin == "labelled" else None, repetitions[:45])
    weights = [part.copy() for part in head.classifier.get_weights()]
    before = session(head)(x[45:].copy())
    assert len(before) > 3 * online.BLOCK and not np.array_equal(before[:20], session(head)(x[60:])[:20])
    np.testing.assert_array_equal(session(head)(x[45:]), before)
    for one, other in zip(weights, head.classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_taken_back_is_shared_with_nothing_that_comes_after(head):
    """Updates after a restore are as if those before had never been, the second time too."""
    x, labels, repetitions = windows(9)
    first, second, third = (repetitions == r for r in range(3))
    other = head.copy()
    for one in (head, other):
        one.calibrate(x[first], labels[first])
    kept = head.snapshot()
    other.update(x[third], labels[third])
    for _ in range(2):
        head.update(x[second], labels[second])
        head.restore(kept)
        head.update(x[third], labels[third])
        for one, wanted in zip(head.classifier.get_weights(), other.classifier.get_weights(), strict=True):
            np.testing.assert_array_equal(one, wanted)
        head.restore(kept)
