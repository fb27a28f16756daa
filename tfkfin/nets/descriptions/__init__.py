"""What heads see of whole windows beside features of single channels: one module a kind, registered as `DESCRIPTION`.

A description is (options, name) -> a Keras layer, standardised windows (B, L, C) -> (B, S). In closed form, or a
network that imitates one: FINs of pairs of channels or of all of them belong here. A layer that is made of sums over
the window may also have `stream`, as `Correlations` has, so that over a recording each sample is touched once.
"""

from collections.abc import Sequence

import keras
from keras import layers, ops

from tfkfin.base import registry


@keras.saving.register_keras_serializable(package="tfkfin")
class Beside(layers.Layer):
    """Several descriptions of a window side by side: (B, L, C) -> (B, sum of S).

    Args:
        parts: the layers, or their configurations.
    """

    def __init__(self, parts: Sequence[layers.Layer | dict], **kwargs):
        super().__init__(**kwargs)
        self.parts = [keras.saving.deserialize_keras_object(p) if isinstance(p, dict) else p for p in parts]
        if all(hasattr(part, "stream") for part in self.parts):
            self.stream = self._stream

    def build(self, input_shape):
        for part in self.parts:
            part.build(input_shape)

    def call(self, inputs):
        return ops.concatenate([part(inputs) for part in self.parts], axis=-1)

    def _stream(self, *arguments, **options):
        return ops.concatenate([part.stream(*arguments, **options) for part in self.parts], axis=-1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], sum(part.compute_output_shape(input_shape)[1] for part in self.parts))

    def get_config(self):
        return {**super().get_config(), "parts": [keras.saving.serialize_keras_object(p) for p in self.parts]}


def new(options, name: str) -> layers.Layer:
    """The layer of the recipe's `classifier.describe`, by this name."""
    made = [registry.load("nets/descriptions", kind, "DESCRIPTION") for kind in options.describe]
    if len(made) == 1:
        return made[0](options, name)
    return Beside([make(options, kind) for make, kind in zip(made, options.describe, strict=True)], name=name)
