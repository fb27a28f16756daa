"""The paper's metrics are checked on three elements worked by hand, true R² and confusion against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, r2_score

from tfkfin.fit import metrics

rng = np.random.default_rng(3)


def test_r2_is_scikit_learns():
    true, predicted = rng.normal(size=(2, 200, 3))
    assert metrics.r2(true, predicted) == pytest.approx(r2_score(true.ravel(), predicted.ravel()))
    assert np.isnan(metrics.r2(np.ones(4), np.zeros(4)))


def test_nrmse_of_a_known_case():
    assert metrics.nrmse([0.0, 2.0], [1.0, 3.0]) == pytest.approx(1.0)  # error 1, sd 1


def test_paper_metrics_by_hand():
    # z-scores of (1, 2, 3): mean 2, sd sqrt(2/3); the predictions are scaled alike.
    true, predicted = np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.0, 6.0])
    # elementwise (ŷ-y)²/(y-ȳ)²: 0.25/1, 0/0 counts as right, 9/1 clipped to 0 -> (0.75 + 1 + 0) / 3
    assert metrics.paper_r2(true, predicted) == pytest.approx((0.75 + 1 + 0) / 3)
    # |ŷ-y|/|y| in z: 0.5/1, 0/0 counts as right, 3/1 -> (50 + 100 + 0) / 3
    assert metrics.paper_map(true, predicted) == pytest.approx((50 + 100 + 0) / 3)


def test_perfect_imitation():
    true = rng.normal(size=(50, 2, 2))
    scores = metrics.imitation(true, true, ("A", "B"))["B"]
    assert scores["r2"] == 1 and scores["paper_r2"] == 1 and scores["paper_map"] == 100


def test_confusion_is_scikit_learns():
    labels = [1, 2, 4, 9]
    true, predicted = rng.choice(labels, (2, 300))
    np.testing.assert_array_equal(metrics.confusion(true, predicted, labels), confusion_matrix(true, predicted))
