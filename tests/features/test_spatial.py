"""Log-covariances against SciPy's matrix logarithm and NumPy's covariance."""

import numpy as np
import pytest
import scipy.linalg

from tfkfin.features import spatial

rng = np.random.default_rng(5)


@pytest.mark.parametrize("difference", [0, 1, 2])
def test_covariances_are_numpys(difference):
    windows = rng.normal(size=(4, 50, 3)) @ rng.normal(size=(3, 3)) + 7
    for found, window in zip(spatial.covariances(windows, difference), windows, strict=True):
        np.testing.assert_allclose(found, np.cov(np.diff(window, n=difference, axis=0).T, bias=True), rtol=1e-9)


def test_the_logarithm_is_scipys():
    windows = rng.normal(size=(3, 200, 4)) * [1, 10, 0.1, 3]
    matrices = spatial.covariances(windows)
    rows, columns = np.triu_indices(4)
    for found, matrix in zip(spatial.log_euclidean(matrices, ridge=0), matrices, strict=True):
        log = scipy.linalg.logm(matrix)
        np.testing.assert_allclose(found, log[rows, columns] * np.where(rows == columns, 1, 2**0.5), atol=1e-9)
        assert np.sum(found**2) == pytest.approx(np.sum(log**2))  # the triangle keeps the Frobenius norm


def test_flat_channels_stay_finite_and_gain_only_shifts():
    windows = rng.normal(size=(2, 100, 3))
    one, other = (spatial.log_euclidean(spatial.covariances(windows * gain)) for gain in (1, 10))
    shift = np.where(np.equal(*np.triu_indices(3)), 2 * np.log(10), 0)
    np.testing.assert_allclose(other - one, np.broadcast_to(shift, one.shape), atol=1e-9)
    windows[..., 1] = 0
    assert np.isfinite(spatial.log_euclidean(spatial.covariances(windows))).all()


def test_broad_descriptions_by_their_formulas():
    from tfkfin.features import describe

    windows = rng.normal(size=(3, 120, 2)).cumsum(axis=1) / 5 + rng.normal(size=(3, 120, 2))
    found = describe.broad(windows, 1000.0)
    x = windows - windows.mean(axis=1, keepdims=True)
    assert found.shape == (3, 19 * 2 + 3 * 3)
    np.testing.assert_allclose(found[:, :2], np.abs(x).mean(axis=1))
    np.testing.assert_allclose(found[:, 2:4], np.abs(np.diff(windows, axis=1)).mean(axis=1))
    np.testing.assert_allclose(found[:, 16:18], np.log(x.var(axis=1)), atol=1e-6)
    for n, c in np.ndindex(3, 2):
        r = [np.sum(x[n, k:, c] * x[n, : 120 - k, c]) for k in range(9)]
        ar = -scipy.linalg.solve_toeplitz([r[0] * (1 + 1e-5), *r[1:4]], r[1:5])  # a ridge keeps flat ones finite
        np.testing.assert_allclose(found[n, 8 + c : 16 : 2], ar, atol=1e-9)
        np.testing.assert_allclose(found[n, 22 + c : 38 : 2], np.array(r[1:]) / r[0], atol=1e-4)
    np.testing.assert_allclose(found[:, 38:41], spatial.log_euclidean(spatial.covariances(windows)))
    windows[1] = 0
    assert np.isfinite(describe.broad(windows, 1000.0)).all()


@pytest.mark.parametrize(("sd", "power"), [(2e-5, 1e-5), (0.9, 1.0), (40.0, 100.0)])
def test_units_are_powers_of_ten(sd, power):
    from tfkfin.features import describe

    assert describe.unit(sd) == pytest.approx(power)
