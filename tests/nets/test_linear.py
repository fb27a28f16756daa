"""The linear head against scikit-learn's own discriminant, to float32."""

import numpy as np
import pytest

from tfkfin import recipe
from tfkfin.nets.heads.linear import LinearHead
from tfkfin.nets.lda import lda

rng = np.random.default_rng(11)
NAMES = ("ENT", "RMS")


@pytest.mark.parametrize("classes", [(0, 1, 2), (0, 2), (1, 3)])
def test_the_head_is_scikit_learns_discriminant(classes):
    labels = rng.choice(classes, 300)
    features = rng.lognormal(size=(300, 3, 2)) * (1 + labels[:, None, None])
    correlations = rng.normal(size=(300, 4)) + labels[:, None]
    options = recipe.Classifier(kind="linear", lags=(), vote=1)
    head = LinearHead(LinearHead.new(options, NAMES, 3, 4, 4))
    given = features.astype("float32"), correlations.astype("float32")
    head.solve(np.asarray(head.inputs(*given)), labels, (0 * labels, 0 * labels))
    logged = np.stack([features[..., 0], np.log(features[..., 1])], axis=-1).reshape(300, -1)
    inputs = np.concatenate([logged, correlations], axis=1)
    expected = lda().fit(inputs, labels).predict_proba(inputs)
    got = np.asarray(head.classifier(list(given)))
    np.testing.assert_allclose(head.inputs(*given), inputs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[:, classes], expected, atol=1e-4)
    assert np.delete(got, classes, axis=1).max(initial=0) < 1e-6
