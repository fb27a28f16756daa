"""The Bi-LSTM on TensorFlow's stock `BlockLSTMV2`: a whole sequence in one operation, with CPU and GPU kernels.

For exported graphs, and for CPUs without a compiler. Keras traces an LSTM into a loop of some 20 small operations a
sample. Same weights, same gate order, same numbers to 1e-6. README.md has what it costs.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf


def block_bilstm(inputs: tf.Tensor, pairs: Sequence[tuple[keras.layers.LSTM, keras.layers.LSTM]],
                 readout: str = "both") -> tf.Tensor:
    """Sequences (N, T, D) -> final states of a stack of bidirectional LSTMs: (N, 2 units), or (N, units) "reverse"."""
    x = tf.transpose(inputs, (1, 0, 2))  # (T, N, D)
    for forward, backward in pairs:
        ahead = _lstm(x, forward.cell)
        back = tf.reverse(_lstm(tf.reverse(x, [0]), backward.cell), [0])
        x = tf.concat([ahead, back], -1)
    return tf.concat([ahead[-1], back[0]], -1) if readout == "both" else back[0]


def _lstm(x: tf.Tensor, cell: keras.layers.LSTMCell) -> tf.Tensor:
    """(T, N, D) -> all hidden states (T, N, units), from zero states."""
    kernel, recurrent, bias = (tf.convert_to_tensor(w.value) for w in (cell.kernel, cell.recurrent_kernel, cell.bias))
    if x.shape[-1] % 2:  # with an odd batch as well, the operation is slow and says so on stderr at every call
        x, kernel = tf.pad(x, [[0, 0], [0, 0], [0, 1]]), tf.pad(kernel, [[0, 1], [0, 0]])
    return _sequence(x, tf.concat([kernel, recurrent], 0), bias)


@tf.custom_gradient
def _sequence(x: tf.Tensor, w: tf.Tensor, b: tf.Tensor):
    """`BlockLSTMV2` of x (T, N, D), weights (D + units, 4 units) and bias (4 units), with its own gradient.

    TensorFlow gives the operation the gradient of its predecessor `BlockLSTM`, which orders the gates i, g, f, o and
    not i, f, g, o: the loss would fall all the same, along a wrong direction.
    """
    units = b.shape[0] // 4
    states, peephole = tf.zeros((tf.shape(x)[1], units), x.dtype), tf.zeros((units,), x.dtype)
    given = {"seq_len_max": tf.cast(tf.shape(x)[0], tf.int64), "x": x, "cs_prev": states, "h_prev": states, "w": w,
             "wci": peephole, "wcf": peephole, "wco": peephole, "b": b, "use_peephole": False}
    made = tf.raw_ops.BlockLSTMV2(**given, cell_clip=0.0)

    def gradient(dh: tf.Tensor):
        back = tf.raw_ops.BlockLSTMGradV2(**given, **made._asdict(), cs_grad=tf.zeros_like(made.cs), h_grad=dh)
        return back.x_grad, back.w_grad, back.b_grad

    return made.h, gradient
