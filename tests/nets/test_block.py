"""The stock operation against Keras's own layers."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkfin.nets.bilstm.layer import BiLSTM, engine

STRANGER = """
import sys
import numpy as np, tensorflow as tf
given = np.load(sys.argv[1] + "/given.npz")
x, loaded = tf.constant(given["x"]), tf.saved_model.load(sys.argv[1] + "/saved")
with tf.GradientTape() as tape:
    tape.watch(x)
    y = loaded.signatures["serving_default"](x=x)["y"]
np.testing.assert_allclose(y, given["y"], atol=1e-6)
np.testing.assert_allclose(tape.gradient(y, x), given["dx"], atol=1e-6)
assert "tfkfin" not in sys.modules
"""


def layer_for(shape, units, num_layers, readout="both"):
    """A layer whose weights, biases too, are moved away from what they are set to first."""
    layer, rng = BiLSTM(units, num_layers, readout=readout), np.random.default_rng(1)
    layer.build(shape)
    for w in layer.weights:
        w.assign(w + 0.1 * rng.standard_normal(w.shape))
    return layer, rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("readout", ["both", "reverse"])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_block_engine_answers_as_keras(readout, num_layers):
    layer, x = layer_for((4, 37, 2), 5, num_layers, readout)
    with engine("keras"):
        wanted = layer(x).numpy()
    with engine("block"):
        got = layer(x).numpy()
        traced = tf.function(layer, input_signature=[tf.TensorSpec((None, None, 2))])
        graph = traced.get_concrete_function().graph
    assert got.shape == layer.compute_output_shape(x.shape)
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    np.testing.assert_allclose(traced(x), wanted, atol=1e-6)
    kinds = [node.op for node in graph.as_graph_def().node]
    assert kinds.count("BlockLSTMV2") == 2 * num_layers and "While" not in kinds


@pytest.mark.parametrize("readout", ["both", "reverse"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape, units, num_layers", [
    ((1, 1, 1), 3, 1), ((5, 12, 3), 4, 2), ((3, 7, 1), 32, 3), ((18, 40, 2), 8, 2),
])
def test_gradients_are_those_of_keras(shape, units, num_layers, training, readout):
    """TensorFlow's own gradient of the operation takes the gates in another order."""
    layer, x = layer_for(shape, units, num_layers, readout)
    sides, found = np.random.default_rng(2).standard_normal(layer.compute_output_shape(shape)).astype("float32"), {}
    for name in ("keras", "block"):
        given = tf.constant(x)
        with engine(name), tf.GradientTape() as tape:
            tape.watch(given)
            loss = tf.reduce_sum(sides * layer(given, training=training))
        found[name] = tape.gradient(loss, [given, *(w.value for w in layer.weights)])
    for ours, theirs, name in zip(found["block"], found["keras"], ["input", *(w.path for w in layer.weights)],
                                  strict=True):
        worst = np.abs(theirs).max()  # nothing, for a top layer that is not read out
        np.testing.assert_allclose(0 if ours is None else ours, theirs, atol=2e-6 * max(worst, 1e-2), err_msg=name)


def test_saved_it_answers_and_has_gradients_without_the_package(tmp_path):
    layer, x = layer_for((3, 9, 1), 4, 2)
    net = keras.Sequential([keras.Input((9, 1)), layer])

    @tf.function(input_signature=[tf.TensorSpec((None, 9, 1), name="x")])
    def answer(x):
        with engine("block"):
            return {"y": net(x, training=False)}

    module, given = tf.Module(), tf.constant(x)
    module.net, module.answer = net, answer
    tf.saved_model.save(module, tmp_path / "saved", signatures=answer)
    with engine("keras"), tf.GradientTape() as tape:
        tape.watch(given)
        wanted = net(given)
    np.savez(tmp_path / "given.npz", x=x, y=wanted, dx=tape.gradient(wanted, given))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", STRANGER, str(tmp_path)], capture_output=True, text=True,
                          cwd=tmp_path, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
