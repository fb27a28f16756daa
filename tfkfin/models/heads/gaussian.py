"""A linear head that remembers sessions: solved as the linear head is, and calibrated as a hierarchical Gaussian.

Its network is that of the linear head. Beside the weights lies what the sessions it was solved for taught
(`tfkfin.models.hierarchical`), so that a new session needs one repetition, or a stretch without labels, and no old
recording.
"""

import keras
import numpy as np
from keras import layers

from tfkfin.models import descriptions
from tfkfin.models.heads import Groups, Head, linear
from tfkfin.models.hierarchical import STATE, HierarchicalGaussian


@keras.saving.register_keras_serializable(package="tfkfin")
class Knowledge(layers.Layer):
    """Keeps what a `HierarchicalGaussian` of `classes` classes was taught, as weights that nothing trains.

    Input and output: (B, D), unchanged. `state` is as of `HierarchicalGaussian.state`; None before there is one.
    """

    def __init__(self, classes: int, **kwargs):
        super().__init__(**kwargs)
        self.classes = classes

    def build(self, input_shape):
        size, count = input_shape[-1], self.classes
        shapes = {"means": (count, size), "shift": (count, size), "centre": (size,), "spread": (size,),
                  "classes": (count,)} | dict.fromkeys(("within", "looks", "repeated", "between"), (size, size))
        self.parts = {name: self.add_weight(shape=shapes.get(name, ()), initializer="zeros", dtype="float64",
                                            trainable=False, name=name) for name in STATE}

    def call(self, inputs):
        return inputs

    @property
    def state(self) -> dict[str, np.ndarray] | None:
        state = {name: keras.ops.convert_to_numpy(part) for name, part in self.parts.items()}
        if not state["sessions"]:
            return None
        there = state["classes"] > 0
        state |= {name: state[name][there] for name in ("classes", "means", "shift")}
        return state | {"classes": state["classes"] - 1}

    @state.setter
    def state(self, state: dict[str, np.ndarray]) -> None:
        rows, state = state["classes"].astype(int), dict(state)  # classes of the head are 0..G-1, here 1..G; 0: unknown
        for name, values in (("classes", state["classes"] + 1), ("means", state["means"]), ("shift", state["shift"])):
            state[name] = np.zeros(self.parts[name].shape)
            state[name][rows] = values
        for name, part in self.parts.items():
            part.assign(state[name])

    def get_config(self):
        return {**super().get_config(), "classes": self.classes}


def classifier(options, names: tuple[str, ...], channels: int, described: int, classes: int) -> keras.Model:
    """Features (B, C, F) in own units and descriptions (B, S) -> probabilities (B, classes)."""
    return linear.classifier(options, names, channels, described, classes, Knowledge(classes, name="knowledge"))


def solve(model: keras.Model, seen: list[np.ndarray], labels: np.ndarray, groups: Groups) -> None:
    """Sets the weights to shrinkage LDA's of all sessions together, and keeps what a `HierarchicalGaussian` was taught.

    While nothing is known of a new session the one decides, because it takes signals as they come; `adapt` takes the
    other, which centres each session by itself.

    Args:
        model: made by `classifier`.
        seen: features (N, C, F) in own units, true or imitated, and descriptions (N, S).
        labels: class indices (N,).
        groups: sessions and repetitions (N,) of the windows.
    """
    taught = HierarchicalGaussian().fit(linear.inputs(model, seen), labels, *groups)
    model.get_layer("knowledge").state = taught.state()
    linear.solve(model, seen, labels, groups)


def adapt(model: keras.Model, seen: list[np.ndarray], labels: np.ndarray | None) -> dict:
    """Sets the weights for the session that the windows `seen` are of: as `calibrate`, or `adapt` without labels.

    What earlier sessions taught stays as it is, so that this can be done again, or undone.

    Returns:
        `unseen`, class indices that the windows do not show; and without labels `moved`, whether they moved class means
        or only where features are centred, because they or the sessions before are too unlike each other.

    Raises:
        ValueError: the head was never solved.
    """
    if (state := model.get_layer("knowledge").state) is None:
        raise ValueError("`model` must be solved first. Received: a head that knows no session")
    taught, x = HierarchicalGaussian.from_state(state), linear.inputs(model, seen)
    new = taught.adapt(x) if labels is None else taught.calibrate(x, labels)
    centre, spread, weights, bias = new.linear()
    model.get_layer("z_score").set(centre, spread)
    linear.set_weights(model, new.classes, weights, bias)
    shown = taught.classes[np.unique(new.probabilities(x).argmax(axis=1))] if labels is None else labels
    said = {"unseen": sorted(set(taught.classes.tolist()) - set(shown.tolist()))}
    return said | ({"moved": new.moved} if labels is None else {})


HEAD = Head(classifier, describe=descriptions.new, solve=solve, adapt=adapt)
