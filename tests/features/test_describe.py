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


def test_broad_descriptions_by_their_formulas():
    windows = rng.normal(size=(3, 120, 2)).cumsum(axis=1) / 5 + rng.normal(size=(3, 120, 2))
    found = describe.broad(windows)
    x, dx = windows - windows.mean(axis=1, keepdims=True), np.diff(windows, axis=1)
    assert found.shape == (3, 19 * 2 + 3 * 3)
    np.testing.assert_allclose(found[:, :2], np.abs(windows).mean(axis=1))
    np.testing.assert_allclose(found[:, 2:4], np.abs(dx).mean(axis=1))
    for at, signal in ((4, windows), (6, dx)):
        changes = np.sign(signal[:, 1:]) * np.sign(signal[:, :-1]) < 0
        np.testing.assert_allclose(found[:, at : at + 2], changes.mean(axis=1))
    np.testing.assert_allclose(found[:, 16:18], np.log(x.var(axis=1)), atol=1e-6)
    np.testing.assert_allclose(found[:, 18:20], np.log(np.mean(np.abs(windows) ** 0.5, axis=1)), atol=1e-5)
    np.testing.assert_allclose(np.exp(found[:, 20:22]), np.sum(x[:, 60:] ** 2, 1) / np.sum(x[:, :60] ** 2, 1))
    for n, c in np.ndindex(3, 2):
        r = [np.sum(x[n, k:, c] * x[n, : 120 - k, c]) for k in range(9)]
        ar = -scipy.linalg.solve_toeplitz([r[0] * (1 + 1e-5), *r[1:4]], r[1:5])  # a ridge keeps flat ones finite
        np.testing.assert_allclose(found[n, 8 + c : 16 : 2], ar, atol=1e-8)
        np.testing.assert_allclose(found[n, 22 + c : 38 : 2], np.array(r[1:]) / r[0], atol=1e-4)
    for order in range(3):
        at, rows = 38 + 3 * order, np.diff(windows, n=order, axis=1)
        for description, window in zip(found[:, at : at + 3], rows, strict=True):
            matrix = np.cov(window.T, bias=True)
            log = scipy.linalg.logm(matrix + describe.RIDGE * np.trace(matrix) / 2 * np.eye(2))
            np.testing.assert_allclose(description, [log[0, 0], 2**0.5 * log[0, 1], log[1, 1]], atol=1e-9)
    windows[1] = 0
    assert np.isfinite(describe.broad(windows)).all()
