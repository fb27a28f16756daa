"""Linear discriminant analysis by its formula, with scikit-learn's covariance of Ledoit and Wolf."""

import numpy as np
from sklearn.covariance import ledoit_wolf

from tfkfin.nets.lda import lda


def test_decisions_are_of_the_formula():
    rng = np.random.default_rng(0)
    y = np.repeat([1, 4, 5], 30)
    x = rng.normal(size=(90, 4)) * [1, 10, 0.1, 3] + y[:, None]
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    means, covariance = np.array([z[y == c].mean(axis=0) for c in (1, 4, 5)]), np.zeros((4, 4))
    for c in (1, 4, 5):  # scikit-learn shrinks each class's, on a scale of its own
        own = z[y == c]
        sd = own.std(axis=0)
        covariance += ledoit_wolf((own - own.mean(axis=0)) / sd)[0] * np.outer(sd, sd) / 3
    weights = np.linalg.solve(covariance, means.T)
    scores = z @ weights - 0.5 * (means.T * weights).sum(axis=0)
    wanted = np.exp(scores - scores.max(axis=1, keepdims=True))
    found = lda().fit(x, y).predict_proba(x)
    np.testing.assert_allclose(found, wanted / wanted.sum(axis=1, keepdims=True), atol=1e-6)
