"""Descriptions in NumPy against SciPy's matrix logarithm and Toeplitz solver, and NumPy's covariance."""

import numpy as np
import pytest
import scipy.linalg

from tfkfin.features import describe

rng = np.random.default_rng(5)


@pytest.mark.parametrize("difference", [0, 1, 2])
def test_covariances_are_numpys(difference):
    windows = rng.normal(size=(4, 50, 3)) @ rng.normal(size=(3, 3)) + 7
    for found, window in zip(describe.covariances(windows, difference), windows, strict=True):
        np.testing.assert_allclose(found, np.cov(np.diff(window, n=difference, axis=0).T, bias=True), rtol=1e-9)


def test_the_logarithm_is_scipys():
    windows = rng.normal(size=(3, 200, 4)) * [1, 10, 0.1, 3]
    matrices = describe.covariances(windows)
    rows, columns = np.triu_indices(4)
    for found, matrix in zip(describe.log_euclidean(matrices, ridge=0), matrices, strict=True):
        log = scipy.linalg.logm(matrix)
        np.testing.assert_allclose(found, log[rows, columns] * np.where(rows == columns, 1, 2**0.5), atol=1e-9)
        assert np.sum(found**2) == pytest.approx(np.sum(log**2))  # the triangle keeps the Frobenius norm


def test_flat_channels_stay_finite_and_gain_only_shifts():
    windows = rng.normal(size=(2, 100, 3))
    one, other = (describe.log_euclidean(describe.covariances(windows * gain)) for gain in (1, 10))
    shift = np.where(np.equal(*np.triu_indices(3)), 2 * np.log(10), 0)
    np.testing.assert_allclose(other - one, np.broadcast_to(shift, one.shape), atol=1e-9)
    windows[..., 1] = 0
    assert np.isfinite(describe.log_euclidean(describe.covariances(windows))).all()
