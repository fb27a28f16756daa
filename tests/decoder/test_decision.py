"""Decisions against brute force, window by window and all at once; nothing later and no true label has a say."""

import numpy as np
import pytest

from tfkfin.decoder.decision import Decision, Smoothed

LABELS = (3, 5, 9)
P = np.random.default_rng(3).dirichlet((1, 1, 1), 40).astype(np.float32)


def by_hand(p, vote, reject):
    labels = []
    for i in range(len(p)):
        mean = np.mean(p[max(0, i - vote + 1) : i + 1], axis=0, dtype=np.float64)
        labels.append(LABELS[mean.argmax()] if mean.max() >= reject else -1)
    return labels


@pytest.mark.parametrize(("vote", "reject"), [(1, 0.0), (4, 0.0), (1, 0.6), (7, 0.45), (100, 0.4)])
def test_whole_and_piece_by_piece_are_brute_force(vote, reject):
    decision = Decision(vote, reject)
    whole, voted = decision(P, LABELS)
    assert whole.tolist() == by_hand(P, vote, reject) and voted.shape == P.shape
    stretch = decision.start(LABELS)
    pieces = [stretch(part) for part in np.split(P, [1, 2, 7, 30])]
    np.testing.assert_array_equal(np.concatenate([labels for labels, _ in pieces]), whole)
    np.testing.assert_array_equal(np.concatenate([mean for _, mean in pieces]), voted)


def test_later_windows_change_nothing():
    decision, other = Decision(5, 0.3), P.copy()
    other[20:] = other[20:][:, ::-1]
    np.testing.assert_array_equal(decision(P, LABELS)[0][:20], decision(other, LABELS)[0][:20])


def test_nothing_decides_nothing():
    labels, voted = Decision(3, 0.5)(P[:0], LABELS)
    assert labels.shape == (0,) and voted.shape == (0, 3)


@pytest.mark.parametrize("wrong", [{"vote": 0}, {"reject": 1.0}, {"reject": -0.1}])
def test_unfit_decisions_are_refused(wrong):
    with pytest.raises(ValueError, match="Received"):
        Decision(**wrong)


def test_smoothed_is_a_hidden_markov_models_forward_step():
    """By hand for two classes; however windows are parted into calls; no order of classes is preferred."""
    p = np.array([[0.8, 0.2], [0.3, 0.7]])
    seen = np.sqrt(p)
    now = seen[0] / seen[0].sum()
    then = np.array([(0.95 * now[0] + 0.05 * now[1]) * seen[1, 0], (0.05 * now[0] + 0.95 * now[1]) * seen[1, 1]])
    np.testing.assert_allclose(Smoothed(2)(p), [now, then / then.sum()])
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.ones(4), 50)
    turned, parted = rng.permutation(4), Smoothed(4)
    np.testing.assert_allclose(Smoothed(4)(q[:, turned]), Smoothed(4)(q)[:, turned])
    np.testing.assert_array_equal(np.concatenate([parted(part) for part in (q[:1], q[1:1], q[1:20], q[20:])]),
                                  Smoothed(4)(q))


def test_smoothing_of_windows_that_lie_closer_is_nearly_the_same():
    """Five windows where one was, all alike: after each five about what one gives."""
    q = np.repeat(np.random.default_rng(1).dirichlet(np.ones(3), 30), 5, axis=0)
    np.testing.assert_allclose(Smoothed(3, 5)(q)[4::5], Smoothed(3)(q[::5]), atol=0.03)
