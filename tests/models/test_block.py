"""The stock operation against Keras's own layers."""

import numpy as np
import pytest
import tensorflow as tf

from tfkfin.models.bilstm.layer import BiLSTM, engine


@pytest.mark.parametrize("readout", ["both", "reverse"])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_block_engine_answers_as_keras(readout, num_layers):
    layer = BiLSTM(5, num_layers, readout=readout)
    x = np.random.default_rng(0).standard_normal((4, 37, 2)).astype(np.float32)
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
