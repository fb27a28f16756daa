"""Correlations against NumPy's."""

import numpy as np

from tfkfin.features import spatial

rng = np.random.default_rng(5)


def test_correlations_are_numpys():
    windows = rng.normal(size=(3, 80, 4)) @ rng.normal(size=(4, 4))
    windows -= windows.mean(axis=1, keepdims=True)
    for found, window in zip(spatial.correlations(windows), windows, strict=True):
        np.testing.assert_allclose(np.tanh(found), np.corrcoef(window.T)[np.triu_indices(4, 1)], atol=1e-9)
    windows[..., 1] = 0
    assert (spatial.correlations(windows)[:, [0, 3, 4]] == 0).all()
    assert np.isfinite(spatial.correlations(np.repeat(windows[..., :1], 2, axis=2))).all()
