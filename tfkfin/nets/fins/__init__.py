"""Feature imitation networks: one small network a feature, shared by all channels.

A FIN maps one channel's standardised window to closed-form features. A bank runs FINs on every channel by folding
channels into the batch: `TimeDistributed`'s mathematics without its copies of the graph. Paper §3.1: three Bi-LSTM
layers of 32 units, then a dense layer to one value.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import keras
from keras import layers, ops

from tfkfin.base import registry
from tfkfin.nets.layers import LOG_SCALED, FeatureScale


@dataclass(frozen=True)
class Options:
    """What decides a FIN's network; see the recipe's `fin` for what each is."""

    units: int = 32
    layers: int = 0
    readout: str = "both"
    start: str = "long_memory"


@dataclass(frozen=True)
class Family:
    """A family of FINs; a module of this room registers it as `FAMILY`.

    Attributes:
        body: (standardised windows (N, L, 1), Options) -> what the last, linear layer
            sees (N, D).
        layers: how many it has by default.
        streams: its FINs are functions of a few neighbouring samples, their mean over the window, and what follows:
            `models.streaming` then computes each sample once, however many windows hold it.
    """

    body: Callable
    layers: int
    streams: bool = False


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
    """A FIN: standardised one-channel window (N, length, 1) -> feature (N, 1) in its own units.

    Args:
        feature: name of the feature, which decides the scale of the output only.
        length: samples a window; 600 is 300 ms at 2 kHz.
        family: "bilstm" (paper), "conv", "dense", or any other module of this room.
        units: width of a layer.
        num_layers: Bi-LSTM layers, or hidden layers of the other families; 0 takes the family's own.
        readout: Bi-LSTM states read: "both" directions (paper's text) or "reverse" (authors' code).
        start: a Bi-LSTM's random weights: "long_memory" (see `bilstm.start_with_long_memory`) or Keras's own.

    Raises:
        ValueError: unknown family or start.
    """
    chosen = registry.load("nets/fins", family, "FAMILY")
    inputs = keras.Input((length, 1), name="emg")
    x = chosen.body(inputs, replace(Options(units, num_layers, readout, start), layers=num_layers or chosen.layers))
    y = layers.Dense(1, name="linear")(x)
    most = math.log(length) if feature == "ENT" else None  # the entropy of a window whose samples are all alike
    outputs = FeatureScale(feature in LOG_SCALED or most is not None, most, name="scale", dtype="float32")(y)
    return keras.Model(inputs, outputs, name=f"fin_{feature.lower()}")


@keras.saving.register_keras_serializable(package="tfkfin")
class NoFeatures(layers.Layer):
    """What a bank without FINs computes: windows (B, L, C) -> features (B, C, 0)."""

    def call(self, inputs):
        return ops.transpose(inputs[:, :0], (0, 2, 1))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[2], 0)


def bank(fins: Sequence[keras.Model], channels: int, length: int = 0) -> keras.Model:
    """FINs run together on every channel: standardised windows (B, L, C) -> features (B, C, F), own units.

    Args:
        length: samples a window; needed where there are no FINs, so that features are (B, C, 0).
    """
    inputs = keras.Input((fins[0].input_shape[1] if fins else length, channels), name="emg")
    outputs = [PerChannel(model, name=f"{model.name}_per_channel")(inputs) for model in fins] or [
        NoFeatures(name="features")(inputs)]
    features = layers.Concatenate(name="features")(outputs) if len(outputs) > 1 else outputs[0]
    return keras.Model(inputs, features, name="fins")


def fins_of(bank_model: keras.Model) -> list[keras.Model]:
    """The FINs inside a bank, in the order of its features."""
    return [layer.layer for layer in bank_model.layers if isinstance(layer, PerChannel)]
