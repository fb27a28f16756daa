import keras
import numpy as np
import pytest

from tfkfin.nets.descriptions.correlations import Correlations

rng = np.random.default_rng(7)


def by_hand(x, lags):
    """One window (L, C), straight from the definitions."""
    channels = x.shape[1]
    auto = [np.sum(x[lag:, c] * x[:-lag, c]) / np.sum(x[:, c] ** 2) for c in range(channels) for lag in lags]
    between = [np.sum(s[:, i] * s[:, j]) / np.sqrt(np.sum(s[:, i] ** 2) * np.sum(s[:, j] ** 2))
               for s in (x, np.diff(x, axis=0)) for i in range(channels) for j in range(i + 1, channels)]
    return np.arctanh(np.clip([*auto, *between], -0.999, 0.999))


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_definitions(channels):
    x = rng.normal(size=(3, 50, channels)) + np.sin(np.arange(50) / 3)[None, :, None]
    layer = Correlations((1, 2, 5))
    expected = np.stack([by_hand(window, (1, 2, 5)) for window in x])
    np.testing.assert_allclose(layer(x.astype("float32")), expected, atol=2e-5)
    assert layer.compute_output_shape(x.shape) == expected.shape


def test_an_offset_that_is_taken_away_changes_nothing():
    """Of either sign, and ten standard deviations; in the calls, and streamed."""
    x = rng.normal(size=(3, 120, 4)) + np.sin(np.arange(120) / 9)[None, :, None]
    layer = Correlations((1, 2, 5))
    expected = np.stack([by_hand(window, (1, 2, 5)) for window in x])
    for added in ([0, 0, 0, 0], [1, -1, 0.1, 3], [-10] * 4):
        moved, offset = (x + added).astype("float32"), np.tile(np.float32(added), (3, 1))
        np.testing.assert_allclose(layer(moved, offset=offset), expected, atol=1e-4)
        np.testing.assert_allclose(layer.stream(moved, 120, 120, offset=offset[:, None])[:, 0], expected, atol=1e-4)


def test_no_gain_changes_them_and_flat_channels_correlate_with_nothing():
    x = rng.normal(size=(2, 80, 3)).astype("float32")
    layer = Correlations()
    np.testing.assert_allclose(layer(x * np.float32([1, 30, 0.02])), layer(x), atol=1e-4)
    x[:, :, 1] = 0
    values = np.asarray(layer(x))
    assert np.isfinite(values).all() and (values[:, 6:12] == 0).all()


def test_saved_and_loaded_they_are_the_same(tmp_path):
    inputs = keras.Input((40, 3))
    model = keras.Model(inputs, Correlations((1, 4))(inputs))
    model.save(tmp_path / "m.keras")
    x = rng.normal(size=(2, 40, 3)).astype("float32")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "m.keras")(x), model(x))
