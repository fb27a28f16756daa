"""The layer against the formulas in NumPy, over signals, in ONNX, and where channels are flat."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkfin.features import describe
from tfkfin.nets.bilstm.layer import engine
from tfkfin.nets.descriptions.broad import Broad
from tfkfin.nets.one_stride import Sums
from tfkfin.sessions import kinship

rng = np.random.default_rng(6)


def signals(channels, samples=400):
    """Coloured noise of several loudnesses about means that are not 0."""
    x = rng.normal(size=(2, samples, channels)) @ rng.normal(size=(channels, channels))
    x += np.cumsum(x, axis=1) / 20
    return (x * np.geomspace(0.05, 3, channels) + rng.normal(size=channels)).astype(np.float32)


@pytest.mark.parametrize(("channels", "length"), [(1, 9), (4, 60), (8, 61), (12, 300)])
def test_the_layer_is_numpys(channels, length):
    x = signals(channels)[:, :length]
    wanted = describe.broad(x)
    np.testing.assert_allclose(Broad()(x), wanted, rtol=1e-5, atol=1e-5)
    with engine("keras"):
        np.testing.assert_allclose(Broad()(x), wanted, rtol=1e-5, atol=2e-5)
    assert Broad().compute_output_shape(x.shape) == wanted.shape


@pytest.mark.parametrize("stride", [7, 20, 60, 90])
def test_streamed_as_windows_are_described(stride):
    x = signals(5)
    windows = np.lib.stride_tricks.sliding_window_view(x, 60, axis=1)[:, ::stride].swapaxes(2, 3)
    wanted = np.stack([describe.broad(one) for one in windows])
    for compiled in (False, True):
        found = Broad().stream(tf.constant(x), 60, stride, compiled)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_live_signal_is_described_from_sums_that_go_on():
    x, length, stride = signals(3)[:1], 60, 25
    kept, windows = [], [x[:, i : i + length] for i in range(0, 340, stride)]

    def begun(terms, _, length, stride, reach=0, of=None):
        kept.append(Sums(terms, length, stride, reach, of, np.float64))
        return tf.constant(kept[-1].begin(windows[0]))

    Broad().stream(tf.constant(windows[0]), length, stride, slide=begun)
    for window in windows[1:]:
        left = iter([sums.go_on(window) for sums in kept])
        found = Broad().stream(tf.constant(window), length, stride, slide=lambda *_: tf.constant(next(left)))
        np.testing.assert_allclose(found[:, 0], describe.broad(window), rtol=1e-5, atol=1e-5)


def test_flat_channels_and_silence_stay_small():
    x = signals(4)[:, :100]
    for value in (0.0, 0.3, -50.0):  # unplugged, and at the end of the converter's range
        x[0, :, 1] = value
        for found in (np.asarray(Broad()(x)), describe.broad(x)):
            assert np.isfinite(found).all() and np.abs(found).max() < 100
        assert np.abs(np.asarray(Broad()(x))[0, 1 + 4 * np.arange(11, 19)]).max() < 1e-3  # correlates with nothing
    assert np.isfinite(Broad()(0 * x)).all()


def test_activity_is_log_power_and_nothing_else():
    x, layer = signals(3)[:, :100], Broad()
    chosen = layer.log_amplitude(3)
    np.testing.assert_allclose(np.asarray(layer(x))[:, chosen], np.log(x.var(axis=1)), rtol=1e-5, atol=1e-6)


def test_electrodes_that_change_places_change_the_outputs_places():
    x, order = signals(3)[:, :100], [2, 0, 1]
    kinds, electrodes = Broad().layout(3)
    place = {(kind, frozenset(of)): i for i, (kind, of) in enumerate(zip(kinds, electrodes, strict=True))}
    turned = [place[kind, frozenset(order[c] for c in of)] for kind, of in zip(kinds, electrodes, strict=True)]
    np.testing.assert_allclose(Broad()(x[..., order]), np.asarray(Broad()(x))[:, turned], rtol=1e-5, atol=1e-5)
    assert len(place) == len(kinds) == kinship.alike(kinds, electrodes).shape[0]


def test_windows_of_eight_samples_are_refused():
    with pytest.raises(ValueError, match="more than 8 samples"):
        Broad()(keras.Input((8, 2)))


def test_in_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    from tfkfin.serving import onnx_file

    inputs = keras.Input((100, 4), name="emg")
    model, x = keras.Model(inputs, Broad()(inputs)), signals(4)[:, :100]

    def answer(emg):
        with engine("keras"):
            return {"y": model(emg)}

    onnx_file.save(answer, tf.TensorSpec((None, 100, 4), tf.float32, name="emg"), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    np.testing.assert_allclose(session.run(None, {"emg": x})[0], describe.broad(x), rtol=2e-5, atol=2e-5)
