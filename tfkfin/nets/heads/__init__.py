"""Heads, from features to movements: one module a kind, behind one interface, `head([features, windows])`.

A head is a Keras model of the imitated features (B, C, F), own units, and the standardised windows (B, L, C) that they
were imitated from; what it wants to see beside the features it computes from the windows itself. Inside it are the
layer `describe`, if it wants something, and the model `classifier` of [features] or [features, described (B, S)].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfkfin.base import registry

Groups = tuple[np.ndarray, np.ndarray]  # of windows: sessions and repetitions (N,)


@dataclass(frozen=True)
class Head:
    """A kind of head; a module of this room registers it as `HEAD`.

    Attributes:
        classifier: (options, feature names, channels, described S or 0, classes) -> the model `classifier`.
        describe: options -> a layer, windows (B, L, C) -> (B, S); None: features are all it sees.
        solve: sets the classifier's weights in closed form from [features] or [features, described], class indices
            (N,) and `Groups`; None: it is trained by gradients.
        adapt: sets them for a new session, from the same of some of its windows, class indices or None, and which of a
            class's executions each is of or None, and says what it did; None: it keeps nothing of sessions that it
            could adapt from.
        update: goes on with more windows of that session and their class indices.
        onwards: the session that it goes on with, and what says which windows are as loud as movements; `adapt` there.
        carry: what the next session begins with moves towards where such a session went on to; whether it did.
        resting: how loud rest is, from the same of windows of it, where rest is no class.
        prepare: sets statistics from the same before training; None: nothing to set.

    Raises:
        ValueError: it describes windows and is not solved: what is trained sees features alone.
    """

    classifier: Callable[..., keras.Model]
    describe: Callable[..., keras.layers.Layer] | None = None
    solve: Callable[[keras.Model, list[np.ndarray], np.ndarray, Groups], None] | None = None
    adapt: Callable[[keras.Model, list[np.ndarray], np.ndarray | None, np.ndarray | None], dict] | None = None
    update: Callable[[keras.Model, list[np.ndarray], np.ndarray], None] | None = None
    onwards: Callable[[keras.Model], tuple] | None = None
    carry: Callable[[keras.Model, Any], bool] | None = None
    resting: Callable[[keras.Model, list[np.ndarray]], None] | None = None
    prepare: Callable[[keras.Model, list[np.ndarray]], None] | None = None

    def __post_init__(self):
        if self.describe and not self.solve:
            raise ValueError("`describe` needs `solve`: a trained head sees features alone. Received: solve=None")


def kind(name: str) -> Head:
    """The head registered under a name.

    Raises:
        ValueError: there is none.
    """
    return registry.load("nets/heads", name, "HEAD")


def new(options, names: Sequence[str], length: int, channels: int, classes: int) -> keras.Model:
    """A head with random weights: [features (B, C, F), windows (B, L, C) standardised] -> probabilities (B, G).

    Args:
        options: the recipe's `classifier`.
        names: of the F features.
        length, channels: of the windows.
        classes: G.
    """
    made = kind(options.kind)
    features = keras.Input((channels, len(names)), name="features")
    windows = keras.Input((length, channels), name="windows")
    described = [made.describe(options, name="describe")(windows)] if made.describe else []
    classifier = made.classifier(options, tuple(names), channels, described[0].shape[1] if described else 0, classes)
    seen = [features, *described]
    return keras.Model([features, windows], classifier(seen if described else features), name="head")


def describer(head: keras.Model) -> keras.Model | None:
    """What a head computes from standardised windows: (B, L, C) -> (B, S); None if nothing."""
    found = [layer for layer in head.layers if layer.name == "describe"]
    if not found:
        return None
    windows = keras.Input(head.inputs[1].shape[1:])
    return keras.Model(windows, found[0](windows))
