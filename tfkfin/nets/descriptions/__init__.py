"""What heads see of whole windows beside features of single channels: one module a kind, registered as `DESCRIPTION`.

A description is (options, name) -> a Keras layer, standardised windows (B, L, C) -> (B, S). Its other methods are
optional; a layer without one is one of which it is not known.

    stream(x, length, stride, compiled, slide)    signals (B, T, C) -> (B, W, S), so that each sample is touched once:
                                                  for layers made of sums over the window, as `Correlations` is
    log_amplitude(channels)                       which outputs are logarithms of a channel's amplitude or power, bool
                                                  (S,): activity detection averages them where there are no features
    layout(channels)                              kind and two electrodes of each output (S, 3), or one electrode twice;
                                                  a kind is a number that is the same for all electrodes, or for all
                                                  pairs of them. Then covariances can be averaged over all
                                                  permutations of the electrodes
    without(described, channels, electrode)       outputs (N, S) in NumPy as if an electrode's signal were constant,
                                                  those that are of it alone left as they are: for layers that mix
                                                  electrodes. With it goes
    flatness(channels)                            which outputs (S, C), 1 or 0, are the log power of a channel, and
                                                  which say how it goes with others: how a lost electrode is seen
    takes                                         names of arguments, beside the signal, that the call, with (B, C), and
                                                  `stream`, with (B, W, C), take of each electrode: "kept", 0 where its
                                                  signal counts as constant; "offset", which is subtracted first
"""

from collections.abc import Sequence
from functools import partial

import keras
import numpy as np
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
        self.takes = tuple(dict.fromkeys(name for part in self.parts for name in getattr(part, "takes", ())))
        for name in ("stream", "log_amplitude", "layout"):
            if all(hasattr(part, name) for part in self.parts):
                setattr(self, name, getattr(self, f"_{name}"))
        if hasattr(self, "layout") and any(hasattr(part, "without") for part in self.parts):
            self.without, self.flatness = partial(without, self.parts), partial(flatness, self.parts)

    def build(self, input_shape):
        for part in self.parts:
            part.build(input_shape)

    def call(self, inputs, kept=None, offset=None):
        return ops.concatenate([part(inputs, **_taken(part, kept, offset)) for part in self.parts], axis=-1)

    def _stream(self, *arguments, kept=None, offset=None, **options):
        return ops.concatenate([part.stream(*arguments, **options, **_taken(part, kept, offset))
                                for part in self.parts], axis=-1)

    def _log_amplitude(self, channels: int) -> np.ndarray:
        return np.concatenate([part.log_amplitude(channels) for part in self.parts])

    def _layout(self, channels: int) -> np.ndarray:
        return side_by_side([part.layout(channels) for part in self.parts])

    def compute_output_shape(self, input_shape):
        return (input_shape[0], sum(part.compute_output_shape(input_shape)[1] for part in self.parts))

    def get_config(self):
        return {**super().get_config(), "parts": [keras.saving.serialize_keras_object(p) for p in self.parts]}


def _taken(part: layers.Layer, kept, offset) -> dict:
    """Those of the two that are given and that a description takes."""
    given = {"kept": kept, "offset": offset}
    return {name: given[name] for name in getattr(part, "takes", ()) if given[name] is not None}


def side_by_side(layouts: Sequence[np.ndarray]) -> np.ndarray:
    """The layout of several descriptions' outputs, from that of each: kinds of the one are no kinds of the other."""
    found = [np.empty((0, 3), int)]
    for layout in layouts:
        found.append(layout + [1 + max((part[:, 0].max(initial=-1) for part in found)), 0, 0])
    return np.concatenate(found)


def without(parts: Sequence[layers.Layer], described: np.ndarray, channels: int, electrode: int) -> np.ndarray:
    """`without` of the outputs (N, S) of several descriptions side by side; those that mix no electrodes stay."""
    ends = np.cumsum([0] + [len(part.layout(channels)) for part in parts])
    return np.concatenate([part.without(described[:, a:b], channels, electrode) if hasattr(part, "without") else
                           described[:, a:b] for part, a, b in zip(parts, ends, ends[1:], strict=False)], axis=1)


def flatness(parts: Sequence[layers.Layer], channels: int) -> tuple[np.ndarray, ...]:
    """`flatness` of several descriptions side by side."""
    found = [part.flatness(channels) if hasattr(part, "flatness") else
             (np.zeros((len(part.layout(channels)), channels)),) * 2 for part in parts]
    return tuple(np.concatenate(one) for one in zip(*found, strict=True))


def new(options, name: str) -> layers.Layer:
    """The layer of the recipe's `classifier.describe`, by this name."""
    made = [registry.load("nets/descriptions", kind, "DESCRIPTION") for kind in options.describe]
    if len(made) == 1:
        return made[0](options, name)
    return Beside([make(options, kind) for make, kind in zip(made, options.describe, strict=True)], name=name)
