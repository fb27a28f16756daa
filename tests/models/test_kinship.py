"""Movements that drift together and electrodes that could change places, against whole joint Gaussians and averages
over every permutation.
"""

import itertools

import numpy as np

from tfkfin.features import describe
from tfkfin.sessions import kinship

rng = np.random.default_rng(0)


def test_posterior_is_the_joint_gaussian_conditioned():
    classes, size = 4, 3
    kin = kinship.kernel(rng.normal(size=(classes, size)))
    values, counts = np.array([0.0, 0.7, 5.0]), np.array([1.0, 0.0, 2.5, 0.3])
    apart = rng.normal(size=(classes, size))
    moved, left = kinship.posterior(apart, counts, values, kin)
    there = counts > 0
    for d in range(size):
        prior = values[d] * kin
        gain = prior[:, there] @ np.linalg.inv(prior[np.ix_(there, there)] + np.diag(1 / counts[there]))
        np.testing.assert_allclose(moved[:, d], gain @ apart[there, d], atol=1e-12)
        np.testing.assert_allclose(left[d], np.diag(prior - gain @ prior[there]).mean(), atol=1e-12)


def test_classes_apart_move_alone_and_one_class_or_equal_ones_are_no_fault():
    far = kinship.kernel(np.array([[0.0], [1e-3], [100.0], [200.0]]))
    np.testing.assert_allclose(far[0, 1], kinship.TOGETHER, atol=1e-6)
    assert far[0, 3] < far[0, 2] < far[0, 1] and np.linalg.eigvalsh(far).min() > 0
    assert (kinship.kernel(np.ones((1, 2))) == 1).all() and (kinship.kernel(np.ones((3, 2))) == np.eye(3)).all()


def test_exchangeable_is_the_mean_over_every_permutation_of_real_descriptions():
    channels = 4
    windows = rng.normal(size=(60, 80, channels)) @ rng.normal(size=(channels, channels))
    x = describe.broad(windows)
    sample = np.cov(x, rowvar=False)
    turned = []
    for order in itertools.permutations(range(channels)):
        turned.append(np.cov(describe.broad(windows[..., list(order)]), rowvar=False))
    found = kinship.exchangeable(sample, kinship.alike(*describe.broad_layout(channels)))
    np.testing.assert_allclose(found, np.mean(turned, axis=0), rtol=1e-8, atol=1e-10)
    assert np.linalg.eigvalsh(found).min() > -1e-9 * np.linalg.eigvalsh(found).max()
