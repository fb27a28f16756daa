"""The layer against its formulas in NumPy and SciPy, over signals, in ONNX, and where channels are flat."""

import keras
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

from tfkfin.nets.bilstm.layer import engine
from tfkfin.nets.descriptions.broad import Broad
from tfkfin.nets.one_stride import RunningSums

pytestmark = pytest.mark.filterwarnings("ignore:logm result may be inaccurate, approximate err = .*e-1[0-9]")
rng = np.random.default_rng(6)


def broad(windows):
    """The description by its formulas, in NumPy: windows (N, L, C) -> (N, S)."""
    x = np.asarray(windows, np.float64)
    about, dx, length, half = x - x.mean(axis=1, keepdims=True), np.diff(x, axis=1), x.shape[1], x.shape[1] // 2
    floor = 1e-12 + 1e-10 * x.mean(axis=1) ** 2
    r = np.stack([np.sum(about[:, lag:] * about[:, : length - lag], axis=1) for lag in range(9)])  # (9, N, C)
    r[0] = r[0] * (1 + 1e-5) + length * floor
    ar = np.zeros((4, *r.shape[1:]))
    for n, c in np.ndindex(r.shape[1:]):
        ar[:, n, c] = -scipy.linalg.solve_toeplitz(r[:4, n, c], r[1:5, n, c])
    power, second, first = (np.log(np.mean(part**2, axis=1) + floor)
                            for part in (about, about[:, half:], about[:, :half]))
    single = [np.abs(x).mean(axis=1), np.abs(dx).mean(axis=1), *(np.diff(signal < 0, axis=1).mean(axis=1)
              for signal in (x, dx)), *ar, power, np.log(np.sqrt(np.abs(x)).mean(axis=1) + 1e-6), second - first,
              *(r[1:] / r[0])]
    rows, columns = np.triu_indices(x.shape[2])
    between = []
    for order in range(3):
        matrices = np.stack([np.cov(np.diff(window, n=order, axis=0).T, bias=True).reshape(2 * x.shape[2:])
                             for window in x])
        ridge = 1e-3 * np.trace(matrices, axis1=1, axis2=2) / x.shape[2] + 1e-30
        logs = np.stack([scipy.linalg.logm(m + r * np.eye(len(m))) for m, r in zip(matrices, ridge, strict=True)])
        between.append(logs[:, rows, columns] * np.where(rows == columns, 1, 2**0.5))
    return np.concatenate([*single, *between], axis=1)


def signals(channels, samples=400):
    """Coloured noise of several loudnesses about means that are not 0."""
    x = rng.normal(size=(2, samples, channels)) @ rng.normal(size=(channels, channels))
    x += np.cumsum(x, axis=1) / 20
    return (x * np.geomspace(0.05, 3, channels) + rng.normal(size=channels)).astype(np.float32)


@pytest.mark.parametrize(("channels", "length"), [(1, 9), (4, 60), (8, 61), (12, 300)])
def test_the_layer_is_numpys(channels, length):
    x = signals(channels)[:, :length]
    wanted = broad(x)
    np.testing.assert_allclose(Broad()(x), wanted, rtol=1e-5, atol=1e-5)
    with engine("keras"):
        np.testing.assert_allclose(Broad()(x), wanted, rtol=1e-5, atol=2e-5)
    assert Broad().compute_output_shape(x.shape) == wanted.shape


@pytest.mark.parametrize("stride", [7, 20, 60, 90])
def test_streamed_as_windows_are_described(stride):
    x = signals(5)
    windows = np.lib.stride_tricks.sliding_window_view(x, 60, axis=1)[:, ::stride].swapaxes(2, 3)
    wanted = np.stack([broad(one) for one in windows])
    for compiled in (False, True):
        found = Broad().stream(tf.constant(x), 60, stride, compiled)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_live_signal_is_described_from_sums_that_go_on():
    x, length, stride = signals(3)[:1], 60, 25
    kept, windows = [], [x[:, i : i + length] for i in range(0, 340, stride)]

    def begun(terms, _, length, stride, reach=0, of=None):
        kept.append(RunningSums(terms, length, stride, reach, of, np.float64))
        return tf.constant(kept[-1].begin(windows[0]))

    Broad().stream(tf.constant(windows[0]), length, stride, slide=begun)
    for window in windows[1:]:
        left = iter([sums.go_on(window) for sums in kept])
        found = Broad().stream(tf.constant(window), length, stride, slide=lambda *_: tf.constant(next(left)))
        np.testing.assert_allclose(found[:, 0], broad(window), rtol=1e-5, atol=1e-5)


def test_flat_channels_and_silence_stay_small():
    x = signals(4)[:, :100]
    for value in (0.0, 0.3, -50.0):  # unplugged, and at the end of the converter's range
        x[0, :, 1] = value
        for found in (np.asarray(Broad()(x)), broad(x)):
            assert np.isfinite(found).all() and np.abs(found).max() < 100
        assert np.abs(np.asarray(Broad()(x))[0, 1 + 4 * np.arange(11, 19)]).max() < 1e-3  # correlates with nothing
    assert np.isfinite(Broad()(0 * x)).all()


def test_activity_is_log_power_and_nothing_else():
    x, layer = signals(3)[:, :100], Broad()
    chosen = layer.log_amplitude(3)
    np.testing.assert_allclose(np.asarray(layer(x))[:, chosen], np.log(x.var(axis=1)), rtol=1e-5, atol=1e-6)


def test_windows_of_eight_samples_are_refused():
    with pytest.raises(ValueError, match="more than 8 samples"):
        Broad()(keras.Input((8, 2)))


def test_in_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    from tfkfin.serving.version import save_onnx

    inputs = keras.Input((100, 4), name="emg")
    model, x = keras.Model(inputs, Broad()(inputs)), signals(4)[:, :100]

    def answer(emg):
        with engine("keras"):
            return {"y": model(emg)}

    save_onnx(answer, tf.TensorSpec((None, 100, 4), tf.float32, name="emg"), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    np.testing.assert_allclose(session.run(None, {"emg": x})[0], broad(x), rtol=2e-5, atol=2e-5)
