"""The layer against the features in NumPy, by eigenvalues and by rotations, saved, and in ONNX."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkfin.features import describe
from tfkfin.nets.bilstm.layer import engine
from tfkfin.nets.spatial import LogCovariance, _rounds

rng = np.random.default_rng(2)


def windows(channels):
    """One strong common source beside weak ones: eigenvalues over six decades, and a flat channel."""
    x = rng.normal(size=(5, 60, 1)) * 1e-3 + rng.normal(size=(5, 60, channels)) * np.geomspace(1e-6, 1e-4, channels)
    x[4, :, 0] = 0
    return x.astype(np.float32)


@pytest.mark.parametrize("channels", [1, 4, 7, 12])
@pytest.mark.parametrize("difference", [0, 1])
def test_the_layer_is_numpys(channels, difference):
    x = windows(channels)
    wanted = describe.log_euclidean(describe.covariances(x.astype(np.float64), difference))
    layer = LogCovariance(difference)
    np.testing.assert_allclose(layer(x), wanted, atol=2e-5, rtol=1e-5)
    with engine("keras"):
        np.testing.assert_allclose(layer(x), wanted, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [2, 5, 8])
def test_rounds_have_every_pair_once(size):
    pairs = [pair for round_ in _rounds(size) for pair in zip(*(side.tolist() for side in round_), strict=True)]
    assert sorted(pairs) == [(i, j) for i in range(size) for j in range(i + 1, size)]
    assert all(len(set(np.concatenate(round_).tolist())) == 2 * len(round_[0]) for round_ in _rounds(size))


def test_saved_and_in_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    from tfkfin.serving.version import save_onnx

    x = windows(4)
    inputs = keras.Input((60, 4), name="emg")
    model = keras.Model(inputs, LogCovariance(1)(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    save_onnx(lambda emg: {"y": model(emg)}, tf.TensorSpec((None, 60, 4), tf.float32, name="emg"),
              tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    np.testing.assert_allclose(session.run(None, {"emg": x})[0], model(x), atol=2e-5, rtol=1e-5)
