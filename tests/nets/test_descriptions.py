"""Every description that is registered: saved as it is, streamed as windows are described, side by side as alone."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkfin import recipe as recipes
from tfkfin.base import registry
from tfkfin.base.console import InputError
from tfkfin.nets import descriptions, fins
from tfkfin.nets.layers import Correlations
from tfkfin.store import presets

KINDS = registry.names("nets/descriptions")
rng = np.random.default_rng(4)
LENGTH, STRIDE, CHANNELS = 50, 12, 3


@pytest.fixture
def options(correlation_fin):
    return lambda *kinds, lags=(1, 2, 5): SimpleNamespace(describe=kinds, lags=lags, correlation_fin=correlation_fin)


@pytest.fixture(params=[*((kind,) for kind in KINDS), KINDS], ids="+".join)
def layer(request, options):
    return descriptions.new(options(*request.param), "describe")


def test_streamed_as_windows_are_described(layer):
    x = rng.normal(size=(2, 200, CHANNELS)).cumsum(axis=1).astype(np.float32) / 5
    windows = np.lib.stride_tricks.sliding_window_view(x, LENGTH, axis=1)[:, ::STRIDE].swapaxes(2, 3)
    wanted = np.stack([layer(one) for one in windows])
    for compiled in (False, True):
        np.testing.assert_allclose(layer.stream(tf.constant(x), LENGTH, STRIDE, compiled), wanted, atol=5e-5)


def test_saved_it_is_the_same(layer, tmp_path):
    inputs = keras.Input((LENGTH, CHANNELS))
    model = keras.Model(inputs, layer(inputs))
    assert model.output_shape == layer.compute_output_shape(inputs.shape)
    model.save(tmp_path / "model.keras")
    x = rng.normal(size=(4, LENGTH, CHANNELS)).astype(np.float32)
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(x), model(x))


def test_side_by_side_is_one_after_another(options):
    x = rng.normal(size=(4, LENGTH, CHANNELS)).astype(np.float32)
    alone = [descriptions.new(options(kind), kind)(x) for kind in KINDS]
    np.testing.assert_array_equal(descriptions.new(options(*KINDS), "describe")(x), np.concatenate(alone, axis=1))


@pytest.mark.parametrize("lags", [(), (1, 2, 5)])
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_imitated_correlations_are_what_the_fin_says_of_each_two_signals(channels, lags, options, correlation_fin):
    if not lags and channels == 1:
        pytest.skip("nothing correlates")
    x = rng.normal(size=(3, LENGTH, channels)).cumsum(axis=1).astype(np.float32) / 5
    fin, = fins.fins_of(presets.load(correlation_fin))
    pairs = [(x[:, : LENGTH - max(lags), c], x[:, lag : LENGTH - max(lags) + lag, c])
             for c in range(channels) for lag in lags]
    pairs += [(signal[:, :, i], signal[:, :, j]) for signal in (x, np.diff(x, axis=1))
              for i, j in zip(*np.triu_indices(channels, 1), strict=True)]
    wanted = []
    for pair in pairs:
        hidden = np.stack(pair, axis=2)
        for part in fin.layers[1:]:
            hidden = part(hidden)
        wanted.append(np.ravel(hidden))
    made = descriptions.new(options("imitated_correlations", lags=lags), "describe")
    np.testing.assert_allclose(made(x), np.stack(wanted, axis=1), atol=1e-5)
    assert made.compute_output_shape(x.shape) == Correlations(lags).compute_output_shape(x.shape) == made(x).shape


def test_a_fin_is_needed_that_is_of_correlations(tmp_path):
    for name, why in (("", "need classifier.correlation_fin"), ("conv", "holds no FIN of correlations")):
        with pytest.raises(InputError, match=f"{why}.*--pipeline fin_correlation"):
            descriptions.new(SimpleNamespace(describe=("imitated_correlations",), lags=(1,), correlation_fin=name), "d")


def test_unknown_ones_are_refused():
    with pytest.raises(InputError, match="there are .*correlations"):
        recipes.load(settings={"classifier.describe": "correlation"})
