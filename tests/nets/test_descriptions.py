"""Every description that is registered: saved as it is, streamed as windows are described, side by side as alone."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkfin import recipe as recipes
from tfkfin.base import registry
from tfkfin.base.errors import InputError
from tfkfin.nets import descriptions, saving

KINDS = registry.names("nets/descriptions")
rng = np.random.default_rng(4)
LENGTH, STRIDE, CHANNELS = 50, 12, 3


def options(*kinds):
    return SimpleNamespace(describe=kinds, lags=(1, 2, 5))


@pytest.fixture(params=[*((kind,) for kind in KINDS), KINDS], ids="+".join)
def layer(request):
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


def test_electrodes_that_change_places_change_the_outputs_places(layer):
    x, order = rng.normal(size=(4, LENGTH, CHANNELS)).cumsum(axis=1).astype(np.float32), [2, 0, 1]
    layout = layer.layout(CHANNELS)
    place = {(kind, *sorted(of)): i for i, (kind, *of) in enumerate(layout.tolist())}
    turned = [place[kind, *sorted(order[c] for c in of)] for kind, *of in layout.tolist()]
    np.testing.assert_allclose(layer(x[..., order]), np.asarray(layer(x))[:, turned], rtol=1e-4, atol=1e-4)
    assert len(place) == len(layout) == layer.compute_output_shape(x.shape)[1]


def test_activity_follows_the_gain_where_a_description_says_so(layer):
    x = rng.normal(size=(4, LENGTH, CHANNELS)).cumsum(axis=1).astype(np.float32)
    chosen = layer.log_amplitude(CHANNELS)
    assert chosen.shape == layer.compute_output_shape(x.shape)[1:]
    np.testing.assert_allclose(np.asarray(layer(3 * x) - layer(x))[:, chosen], 2 * np.log(3), atol=1e-4)


def test_side_by_side_is_one_after_another():
    x = rng.normal(size=(4, LENGTH, CHANNELS)).astype(np.float32)
    alone = [descriptions.new(options(kind), kind)(x) for kind in KINDS]
    np.testing.assert_array_equal(descriptions.new(options(*KINDS), "describe")(x), np.concatenate(alone, axis=1))


def test_unknown_ones_are_refused():
    with pytest.raises(InputError, match="there are .*correlations"):
        recipes.load(settings={"classifier.describe": "correlation"})


def test_a_saved_layer_that_was_removed_says_so(tmp_path):
    @keras.saving.register_keras_serializable(package="tfkfin", name="ImitatedCorrelations")
    class Former(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    inputs = keras.Input((LENGTH, CHANNELS))
    keras.Model(inputs, Former()(inputs)).save(tmp_path / "model.keras")
    keras.saving.get_custom_objects().pop("tfkfin>ImitatedCorrelations")
    with pytest.raises(InputError, match="holds FINs of two channels, which were removed: train it anew"):
        saving.load(tmp_path / "model.keras")
