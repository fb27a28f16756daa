import keras
import numpy as np
import pytest

from tfkfin.nets.augment import SignalAugment

rng = np.random.default_rng(2)
X = rng.normal(size=(64, 100, 3)).astype("float32")
EVERY = {"gain": 0.2, "shift": 0.3, "noise": 0.1, "warp": 0.1, "dropout": 0.2}


def test_off_at_inference_and_without_options():
    np.testing.assert_array_equal(SignalAugment(**EVERY, seed=1)(X), X)
    np.testing.assert_array_equal(SignalAugment(seed=1)(X, training=True), X)


def test_gain_scales_each_channel_by_its_own_factor():
    ratio = np.asarray(SignalAugment(gain=0.3, seed=1)(X, training=True)) / X
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-4)
    assert np.log(ratio[:, 0]).std() == pytest.approx(0.3, rel=0.15)  # 192 draws


def test_noise_and_dropout_have_their_size():
    noise = np.asarray(SignalAugment(noise=0.5, seed=1)(X, training=True)) - X
    assert noise.std() == pytest.approx(0.5, rel=0.03)
    silent = (np.asarray(SignalAugment(dropout=0.25, seed=1)(X, training=True)) == 0).all(axis=1)
    assert silent.mean() == pytest.approx(0.25, abs=0.1)


def test_shift_mixes_neighbours():
    x = np.zeros((50, 4, 3), np.float32)
    x[:, :, 0] = 1
    y = np.asarray(SignalAugment(shift=0.4, seed=1)(x, training=True))[:, 0]
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-5)
    assert (y[:, 0] >= 0.6).all() and (y[:, 1] > 0).any() and (y[:, 2] > 0).any()
    assert not ((y[:, 1] > 0) & (y[:, 2] > 0)).any()


def test_warp_stretches_about_the_middle():
    ramp = np.broadcast_to(np.arange(101, dtype=np.float32)[None, :, None], (20, 101, 1))
    y = np.asarray(SignalAugment(warp=0.2, seed=1)(ramp, training=True))[..., 0]
    speed = (y[:, 60] - y[:, 40]) / 20
    assert (np.abs(speed - 1) <= 0.2 + 1e-5).all() and speed.std() > 0.05
    np.testing.assert_allclose(y[:, 50], 50, atol=1e-3)
    np.testing.assert_allclose(y[:, 45], 50 - 5 * speed, atol=1e-3)


def test_one_seed_one_sequence_and_config_round_trip():
    first = SignalAugment(**EVERY, seed=5)
    again = SignalAugment.from_config(first.get_config())
    np.testing.assert_array_equal(first(X, training=True), again(X, training=True))
    inputs = keras.Input((100, 3))
    keras.Model(inputs, SignalAugment(**EVERY)(inputs))
