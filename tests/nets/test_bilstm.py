"""The compiled Bi-LSTM against stock Keras layers with the same weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkfin.nets.bilstm.layer import BiLSTM, chosen_engine, engine


def data(*shape, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype("float32")


def layer_for(shape, units=8, num_layers=2, readout="both", **kwargs):
    layer = BiLSTM(units, num_layers, readout=readout, **kwargs)
    layer.build(shape)
    for i, w in enumerate(layer.weights):
        w.assign(w + data(*w.shape, seed=i, scale=0.1))
    return layer


def stock(layer, x):
    """The same stack from stock Keras layers, written out."""
    for i, pair in enumerate(layer.pairs):
        copy = keras.layers.Bidirectional(keras.layers.LSTM(layer.units, return_sequences=i < layer.num_layers - 1))
        copy.build(x.shape)
        copy.set_weights([w for lstm in pair for w in lstm.get_weights()])
        x = copy(x)
    return x if layer.readout == "both" else x[:, layer.units:]


def gradients(layer, x, function):
    """Outputs, and gradients of a random projection of them wrt input and weights."""

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
            loss = tf.reduce_sum(y * data(*y.shape, seed=9))
        return [y, *tape.gradient(loss, [x, *[w.value for w in layer.weights]])]

    traced = tf.function(run) if x.shape[1] > 50 else run  # Keras steps through time in Python when it runs eagerly
    return [v.numpy() for v in traced(tf.constant(x))]


def assert_same(ours, theirs, tolerance=1e-5):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(np.abs(b).max(), 1e-2))


@pytest.mark.kernel
@pytest.mark.parametrize("readout", ["both", "reverse"])
@pytest.mark.parametrize("shape, units, num_layers", [
    ((1, 7, 1), 8, 1), ((5, 7, 3), 32, 2), ((17, 7, 1), 32, 3), ((33, 7, 3), 5, 3), ((100, 40, 1), 8, 2),
    ((17, 600, 1), 32, 3), ((2, 1, 2), 8, 2),
])
def test_values_and_gradients_match_stock_keras(shape, units, num_layers, readout):
    layer, x = layer_for(shape, units, num_layers, readout), data(*shape)
    with engine("keras"):
        theirs = gradients(layer, x, layer)
    for keep in (False, True):
        with engine("native"):
            assert_same(gradients(layer, x, lambda v: layer(v, training=keep)), theirs)


def test_keras_engine_is_the_stock_stack():
    for readout in ("both", "reverse"):
        layer, x = layer_for((3, 9, 2), readout=readout), data(3, 9, 2)
        with engine("keras"):
            np.testing.assert_allclose(layer(x), stock(layer, tf.constant(x)), atol=1e-6)


def test_weights_are_keras_defaults():
    keras.utils.set_random_seed(3)
    layer = BiLSTM(4, 1)
    layer.build((None, 5, 2))
    keras.utils.set_random_seed(3)
    peers = [keras.layers.LSTM(4), keras.layers.LSTM(4)]
    for lstm, peer in zip(layer.stack, peers, strict=True):
        peer.build((None, 5, 2))
        for a, b in zip(lstm.get_weights(), peer.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.kernel
def test_inside_tf_function_with_unknown_batch():
    layer = layer_for((None, 6, 1))
    run = tf.function(layer, input_signature=[tf.TensorSpec((None, 6, 1))])
    assert run.get_concrete_function().output_shapes.as_list() == [None, 16]
    with engine("keras"):
        expected = [layer(data(n, 6, 1)) for n in (3, 20)]
    for n, y in zip((3, 20), expected):
        np.testing.assert_allclose(run(data(n, 6, 1)), y, atol=1e-6)


def model(readout="both"):
    inputs = keras.Input((10, 1))
    return keras.Model(inputs, keras.layers.Dense(1)(BiLSTM(8, 1, readout=readout)(inputs)))


@pytest.mark.kernel
def test_fit_follows_the_keras_engine():
    x, y, histories = data(24, 10, 1), data(24, 1, seed=1), []
    for name in ("keras", "native"):
        with engine(name):
            keras.utils.set_random_seed(0)
            net = model()
            net.compile("adam", "mse")
            histories.append(net.fit(x, y, epochs=2, batch_size=12, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's saving with NumPy 2
@pytest.mark.parametrize("name", ["keras", "auto"])
def test_saved_model_loads_and_agrees(tmp_path, name):
    net, x = model("reverse"), data(4, 10, 1)
    net.save(tmp_path / "net.keras")
    with engine(name):
        loaded = keras.models.load_model(tmp_path / "net.keras")
        np.testing.assert_allclose(loaded(x), net(x), atol=1e-6)
    assert loaded.layers[1].get_config()["readout"] == "reverse"


@pytest.mark.kernel
def test_engine_is_chosen_by_argument_variable_and_context(monkeypatch):
    assert chosen_engine("auto") == "native"
    assert chosen_engine("keras") == "keras"
    monkeypatch.setenv("TFKFIN_ENGINE", "keras")
    assert chosen_engine("native") == "keras"
    with engine("native"):
        assert chosen_engine("keras") == "native"
        with engine("keras"):
            assert chosen_engine("native") == "keras"
    assert chosen_engine("auto", "bfloat16") == "keras"


def test_keras_engine_traces_stock_operations_only():
    layer = layer_for((None, 6, 1))
    with engine("keras"):
        graph = tf.function(layer).get_concrete_function(tf.TensorSpec((None, 6, 1))).graph
    assert not any("PyFunc" in op.type for op in graph.get_operations())


@pytest.mark.kernel
@pytest.mark.parametrize("value", [0.0, 1e4, -1e4, 1e30])
def test_extreme_inputs_stay_finite(value):
    layer, x = layer_for((3, 12, 1), 32, 3), np.full((3, 12, 1), value, "float32")
    x[1, ::2] *= -1
    for v in gradients(layer, x, layer):
        assert np.isfinite(v).all()
    with engine("keras"):
        theirs = layer(x)
    np.testing.assert_allclose(layer(x), theirs, atol=1e-5)


@pytest.mark.kernel
def test_nan_reaches_its_own_sequence_only():
    layer, x = layer_for((4, 12, 1)), data(4, 12, 1)
    x[2, 5] = np.nan
    assert np.isnan(np.asarray(layer(x))).any(axis=1).tolist() == [False, False, True, False]


@pytest.mark.parametrize("kwargs, message", [
    ({"units": 0}, "`units` must be a positive integer. Received: units=0"),
    ({"num_layers": 1.5}, "`num_layers` must be a positive integer. Received: num_layers=1.5"),
    ({"readout": "last"}, "`readout` must be one of .* Received: readout='last'"),
    ({"engine": "gpu"}, "`engine` must be one of .* Received: engine='gpu'"),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        BiLSTM(**kwargs)


def test_bad_engine_variable_and_shape(monkeypatch):
    with pytest.raises(ValueError, match="`inputs` must have shape"):
        BiLSTM().build((None, 5))
    monkeypatch.setenv("TFKFIN_ENGINE", "fast")
    with pytest.raises(ValueError, match="`TFKFIN_ENGINE` must be one of .* Received: TFKFIN_ENGINE='fast'"):
        chosen_engine("auto")
