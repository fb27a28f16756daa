"""Feature imitation networks: one small network a feature, shared by all channels.

A FIN maps one channel's standardised window to one closed-form feature. A bank runs the FINs of several features on
every channel by folding channels into the batch: `TimeDistributed`'s mathematics without its copies of the graph.
Paper §3.1: three Bi-LSTM layers of 32 units, then a dense layer to one value.
"""

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers, ops

from tfkfin.models.bilstm.layer import BiLSTM
from tfkfin.models.layers import LOG_SCALED, FeatureScale, LogScale

FAMILIES = ("bilstm", "conv", "dense")
LAYERS = {"bilstm": 3, "conv": 2, "dense": 3}
STARTS = ("long_memory", "keras")


@keras.saving.register_keras_serializable(package="tfkfin")
class PerChannel(layers.Wrapper):
    """Applies a one-channel model to every channel: (B, L, C) -> (B, C, D) for a model (N, L, 1) -> (N, D)."""

    def build(self, input_shape):
        if not self.layer.built:
            self.layer.build((None, input_shape[1], 1))
        self.built = True

    def call(self, inputs, training=None):
        _, length, channels = ops.shape(inputs)  # static where known; shipped FINs leave the channels open
        folded = ops.reshape(ops.transpose(inputs, (0, 2, 1)), (-1, length, 1))  # (B, L, C) -> (B·C, L, 1)
        outputs = self.layer(folded, training=training)
        return ops.reshape(outputs, (-1, channels, outputs.shape[-1]))  # (B·C, D) -> (B, C, D)

    def compute_output_shape(self, input_shape):
        depth = self.layer.compute_output_shape((None, input_shape[1], 1))[-1]
        return (input_shape[0], input_shape[2], depth)


def fin(feature: str, length: int, family: str = "bilstm", units: int = 32, num_layers: int = 0,
        readout: str = "both", start: str = "long_memory") -> keras.Model:
    """A FIN of one feature: standardised one-channel window (N, length, 1) -> feature (N, 1) in its own units.

    Args:
        feature: name of the feature; it decides the scale of the output only.
        length: samples a window; 600 is 300 ms at 2 kHz.
        family: "bilstm" (paper), "conv" or "dense".
        units: width of a layer.
        num_layers: Bi-LSTM layers, or hidden layers of the other families; 0 takes the family's own.
        readout: Bi-LSTM states read: "both" directions (paper's text) or "reverse" (authors' code).
        start: a Bi-LSTM's random weights: "long_memory" (see `start_with_long_memory`) or Keras's own.

    Raises:
        ValueError: unknown family or start.
    """
    if family not in FAMILIES:
        raise ValueError(f"`family` must be one of {FAMILIES}. Received: family={family!r}")
    if start not in STARTS:
        raise ValueError(f"`start` must be one of {STARTS}. Received: start={start!r}")
    num_layers = num_layers or LAYERS[family]
    inputs = keras.Input((length, 1), name="emg")
    if family == "bilstm":
        body = BiLSTM(units, num_layers, readout=readout, name="bilstm")
        x = body(inputs)
        if start == "long_memory":
            start_with_long_memory(body, length)
    elif family == "conv":
        x = _conv_body(inputs, units, num_layers)
    else:
        x = _dense_body(inputs, units, num_layers)
    y = layers.Dense(1, name="linear")(x)
    outputs = FeatureScale(log=feature in LOG_SCALED, name="scale", dtype="float32")(y)
    return keras.Model(inputs, outputs, name=f"fin_{feature.lower()}")


def start_with_long_memory(body: BiLSTM, length: int) -> None:
    """Gives a Bi-LSTM random weights from which averages over a window are near: the FINs' own start.

    A gate bias of 1, Keras's default, forgets within four samples of 600. Here every unit remembers for a time drawn
    log-uniformly from 10 samples to twice the window, and takes in as much less a step: biases log T of the forget and
    -log T of the input gate (chrono initialisation, Tallec and Ollivier, ICLR 2018). The first layer's units respond
    to the signal at scattered slopes and thresholds, a few standard deviations wide, so that its states are averages
    of random sigmoidal features of the samples, with little feedback between units.
    """
    rng = np.random.default_rng(np.random.randint(2**31))  # the global state that keras.utils.set_random_seed sets
    for i, pair in enumerate(body.pairs):
        for lstm in pair:
            kernel, recurrent, bias = lstm.get_weights()  # gates in Keras's order: input, forget, cell, output
            taking, keeping, cell, showing = (slice(k * lstm.units, (k + 1) * lstm.units) for k in range(4))
            memory = np.exp(rng.uniform(np.log(10), np.log(2 * length), lstm.units))  # samples
            bias[keeping], bias[taking] = np.log(memory), -np.log(memory)
            if i == 0:
                slope = rng.choice([-1.0, 1.0], lstm.units) * np.exp(rng.uniform(np.log(0.1), np.log(2), lstm.units))
                kernel[:, cell] = slope
                bias[cell] = -slope * rng.normal(0, 2.5, lstm.units)  # thresholds in sd
                for gate, sd in ((taking, 0.7), (keeping, 0.02), (showing, 0.05)):
                    kernel[:, gate] = rng.normal(0, sd, (kernel.shape[0], lstm.units))
                recurrent *= 0.2
            lstm.set_weights([kernel, recurrent, bias])


def _conv_body(inputs, units: int, num_layers: int):
    """Nonlinearities of short filters, averaged over time, then compared on a logarithmic scale.

    What most temporal features are: the mean of some function of a few neighbouring samples, and a function of such
    means. The first filters start with scattered slopes and thresholds (in sd), as the Bi-LSTMs' units do.
    """
    first = layers.Conv1D(units, 3, padding="same", activation="relu", name="conv_1")
    x = first(inputs)
    rng = np.random.default_rng(np.random.randint(2**31))
    slope = rng.choice([-1.0, 1.0], units) * np.exp(rng.uniform(np.log(0.2), np.log(2), units))
    taps = rng.normal(0, 0.3, (3, 1, units))
    taps[1, 0] += 1
    first.set_weights([slope * taps, -np.abs(slope) * np.abs(rng.normal(0, 3, units))])
    for i in range(2, num_layers):
        x = layers.Conv1D(units, 1, activation="relu", name=f"conv_{i}")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    x = LogScale(("RMS",) * units, floor=1e-4, name="log")(x)
    x = layers.Dense(2 * units, activation="gelu", name="mix_1")(x)
    return layers.Dense(units, activation="gelu", name="mix_2")(x)


def _dense_body(inputs, units: int, num_layers: int):
    x = layers.Flatten()(inputs)
    for i in range(num_layers):
        x = layers.Dense(4 * units, activation="relu", name=f"dense_{i + 1}")(x)
    return x


def bank(fins: Sequence[keras.Model], channels: int) -> keras.Model:
    """FINs run together on every channel: standardised windows (B, L, C) -> features (B, C, F), own units."""
    length = fins[0].input_shape[1]
    inputs = keras.Input((length, channels), name="emg")
    outputs = [PerChannel(model, name=f"{model.name}_per_channel")(inputs) for model in fins]
    features = layers.Concatenate(name="features")(outputs) if len(outputs) > 1 else outputs[0]
    return keras.Model(inputs, features, name="fins")


def fins_of(bank_model: keras.Model) -> list[keras.Model]:
    """The one-channel FINs inside a bank, in the order of its features."""
    return [layer.layer for layer in bank_model.layers if isinstance(layer, PerChannel)]
