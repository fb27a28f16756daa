"""Feature imitation networks: one small network a feature, or one trunk of several, shared by all channels.

A FIN maps one channel's standardised window to closed-form features. A bank runs FINs on every channel by folding
channels into the batch: `TimeDistributed`'s mathematics without its copies of the graph. A FIN of what two channels
have in common is run on every two. Paper §3.1: three Bi-LSTM layers of 32 units, then a dense layer to one value.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np
from keras import layers, ops

from tfkfin.base import registry
from tfkfin.features.spatial import OF_TWO
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
        body: (standardised windows (N, L, 1), or of two channels (N, L, 2), Options) -> what the last, linear layer
            sees (N, D).
        layers: how many it has unless told.
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


@keras.saving.register_keras_serializable(package="tfkfin")
class PerPair(PerChannel):
    """Applies a model of two channels to every two: (B, L, C) -> (B, C (C - 1) / 2, D), by `np.triu_indices(C, 1)`."""

    def build(self, input_shape):
        if not self.layer.built:
            self.layer.build((None, input_shape[1], 2))
        self.built = True

    def call(self, inputs, training=None):
        length, channels = inputs.shape[1:]
        of = np.stack(np.triu_indices(channels, 1), axis=1)  # (P, 2)
        pairs = ops.reshape(ops.take(inputs, of.ravel(), axis=2), (-1, length, len(of), 2))
        outputs = self.layer(ops.reshape(ops.transpose(pairs, (0, 2, 1, 3)), (-1, length, 2)), training=training)
        return ops.reshape(outputs, (-1, len(of), outputs.shape[-1]))

    def compute_output_shape(self, input_shape):
        depth = self.layer.compute_output_shape((None, input_shape[1], 2))[-1]
        return (input_shape[0], input_shape[2] * (input_shape[2] - 1) // 2, depth)


def fin(feature: str | Sequence[str], length: int, family: str = "bilstm", units: int = 32, num_layers: int = 0,
        readout: str = "both", start: str = "long_memory") -> keras.Model:
    """A FIN: standardised one-channel window (N, length, 1) -> feature (N, 1) in its own units.

    Args:
        feature: name of the feature, which decides the scale of the output only; several: one trunk with an output for
            each, (N, F). Of one that is of two channels (`features.spatial.OF_TWO`) windows are (N, length, 2).
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
    names = (feature,) if isinstance(feature, str) else tuple(feature)
    inputs = keras.Input((length, 1 + any(name in OF_TWO for name in names)), name="emg")
    x = chosen.body(inputs, replace(Options(units, num_layers, readout, start), layers=num_layers or chosen.layers))
    y = layers.Dense(len(names), name="linear")(x)
    log = [name in LOG_SCALED for name in names]
    outputs = FeatureScale(log=log[0] if len(log) == 1 else log, name="scale", dtype="float32")(y)
    return keras.Model(inputs, outputs, name="_".join(("fin", *map(str.lower, names))))


@keras.saving.register_keras_serializable(package="tfkfin")
class NoFeatures(layers.Layer):
    """What a bank without FINs computes: windows (B, L, C) -> features (B, C, 0)."""

    def call(self, inputs):
        return ops.transpose(inputs[:, :0], (0, 2, 1))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[2], 0)


def bank(fins: Sequence[keras.Model], channels: int, length: int = 0) -> keras.Model:
    """FINs run together on every channel: standardised windows (B, L, C) -> features (B, C, F), own units.

    FINs of two channels are run on every two: (B, C (C - 1) / 2, F).

    Args:
        length: samples a window; needed where there are no FINs, so that features are (B, C, 0).
    """
    inputs = keras.Input((fins[0].input_shape[1] if fins else length, channels), name="emg")
    outputs = [_applied(model, f"{model.name}_per_channel")(inputs) for model in fins] or [
        NoFeatures(name="features")(inputs)]
    features = layers.Concatenate(name="features")(outputs) if len(outputs) > 1 else outputs[0]
    return keras.Model(inputs, features, name="fins")


def _applied(model: keras.Model, name: str) -> PerChannel:
    return (PerPair if model.input_shape[2] == 2 else PerChannel)(model, name=name)


def fins_of(bank_model: keras.Model) -> list[keras.Model]:
    """The FINs inside a bank, of a channel or of two each, in the order of its features."""
    return [layer.layer for layer in bank_model.layers if isinstance(layer, PerChannel)]
