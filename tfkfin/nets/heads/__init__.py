"""Heads, from features to movements: one module a kind, which registers a class as `HEAD`.

A head decides by a Keras model, its classifier, of the imitated features (B, C, F) in their own units and, where it
wants them, of descriptions (B, S) of the whole window (`tfkfin.nets.descriptions`). Around the classifier the class
`Head` says how it is solved, calibrated and updated. Everything but `new` is optional.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import keras
import numpy as np

from tfkfin.base import registry
from tfkfin.base.errors import InputError
from tfkfin.nets import descriptions
from tfkfin.nets.network import Parts, joined_head, picked

Groups = tuple[np.ndarray, np.ndarray]  # of windows: sessions and repetitions (N,)
CHUNK = 4096  # head inputs in the classifier at a time


class Head:
    """A kind of head around one classifier.

    The classifier has a layer named `z_score`. The rows that this layer is given are the *head inputs* x: (N, D), or
    (N, C, F) of a head that z-scores channels alike. All methods take them, as `inputs` makes them or as
    `tfkfin.nets.forward.Forward` gives them. Labels are class indices (N,).

    A method that a kind of head lacks is None::

        prepare(x)                              sets statistics before training by gradients
        solve(x, labels, groups)                sets all weights in closed form; without it the head is trained. A head
                                                with `takes_virtual` also takes `virtual`, head inputs (N, D) of the
                                                same windows at other forces, an array for each force
        rest_statistics(x)                      takes note of windows of rest, where rest is no class
        calibrate(x, labels or None, repetitions or None) -> dict
                                                sets the weights for a new session, from some of its windows, with
                                                labels or without; {"known_sessions": number of sessions before,
                                                "unseen": class indices without windows, "moved": without labels,
                                                whether class means moved}
        update(x, labels)                       adds windows to the session of the last calibration
        resume() -> (session, active)           begins online adaptation: the session to continue, with what
                                                `tfkfin.sessions.online` calls (`prior.classes`, `probabilities`,
                                                `append`, `em_update`, `recentre`, `moved`), and a function of x (N, D)
                                                -> (N,) that says which windows are active, more than rest
        carry(session) -> bool                  moves the prior of the next session towards a finished session that was
                                                not calibrated with labels; whether it did

    A head that can `calibrate` has all four of calibrate, update, resume and carry.

    Attributes:
        describes: whether it takes descriptions of windows beside features; such a head must be solved.
        classifier: the Keras model that decides.
        z_score: its layer that the head inputs go into.
        describe: the layer that describes windows; None: there is none, or nobody needs to know.
        channels: of the windows; 0: nobody needs to know.
    """

    describes: ClassVar[bool] = False
    takes_virtual: ClassVar[bool] = False

    # Methods with the signatures above, or None: `Any`, since callers ask for one first and call another then.
    prepare: Any = None
    solve: Any = None
    rest_statistics: Any = None
    calibrate: Any = None
    update: Any = None
    resume: Any = None
    carry: Any = None

    def __init_subclass__(cls):
        if cls.describes and not cls.solve:
            raise TypeError(f"`describes` needs `solve`: a trained head sees features alone. Received: {cls.__name__} "
                            "without `solve`")
        missing = [name for name in ("update", "resume", "carry") if cls.calibrate and not getattr(cls, name)]
        if missing:
            raise TypeError(f"a head with `calibrate` must have {', '.join(missing)}. Received: {cls.__name__}")

    def __init__(self, classifier: keras.Model, describe: keras.layers.Layer | None = None, channels: int = 0):
        self.classifier, self.describe, self.channels = classifier, describe, channels
        self.z_score = classifier.get_layer("z_score")

    @classmethod
    def of(cls, parts: Parts) -> Self:
        """The head of a network."""
        return cls(parts.classifier, parts.describe, parts.bank.input_shape[2])

    @classmethod
    def new(cls, options, names: tuple[str, ...], channels: int, described: int, classes: int) -> keras.Model:
        """A classifier with random weights, whose inputs are called "features" (B, C, F) and "described" (B, S).

        Args:
            options: the recipe's `classifier`.
            names: of the F features; without any there is no input "features".
            channels: C.
            described: S; 0: there is no input "described".
            classes: G.
        """
        raise NotImplementedError

    @cached_property
    def _before(self) -> keras.Model:
        return keras.Model(self.classifier.input, self.z_score.input)

    @cached_property
    def _after(self) -> keras.Model:
        return keras.Model(self.z_score.input, self.classifier.output)

    def inputs(self, features, described=None):
        """Head inputs, a tensor (N, D), of features (N, C, F) in their own units and descriptions (N, S)."""
        return self._before(picked(self.classifier, {"features": features, "described": described}))

    def decide(self, x, training: bool = False):
        """Head inputs (N, D) -> probabilities (N, G), a tensor."""
        return self._after(x, training=training)

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """The same in NumPy, a few thousand windows at a time."""
        parts = [np.asarray(self.decide(np.asarray(x[i : i + CHUNK], np.float32)))
                 for i in range(0, max(1, len(x)), CHUNK)]
        return np.concatenate(parts)

    def copy(self) -> Self:
        """The same head once more, whose weights change by themselves."""
        classifier = type(self.classifier).from_config(self.classifier.get_config())
        classifier.set_weights(self.classifier.get_weights())
        return type(self)(classifier, self.describe, self.channels)

    def snapshot(self) -> Any:
        """All that `update` changes, for `restore`."""
        return self.classifier.get_weights()

    def restore(self, snapshot: Any) -> None:
        """Puts the head back to a `snapshot` of it."""
        self.classifier.set_weights(snapshot)


def kind(name: str) -> type[Head]:
    """The class of heads registered under a name.

    Raises:
        ValueError: there is none.
    """
    return registry.load("nets/heads", name, "HEAD")


def new(options, names: Sequence[str], length: int, channels: int, classes: int) -> keras.Model:
    """The model `head` of a recipe's `classifier`, with random weights.

    [features (B, C, F), standardised windows (B, L, C)] -> probabilities (B, G); inside it are the layer `describe`, if
    the head wants descriptions, and the model `classifier`.

    Args:
        options: the recipe's `classifier`.
        names: of the F features.
        length, channels: of the windows.
        classes: G.

    Raises:
        InputError: there is nothing that this head could decide from.
    """
    made, names = kind(options.kind), tuple(names)
    describe = descriptions.new(options, "describe") if made.describes and options.describe else None
    if not names and describe is None:
        raise InputError(f"features.names is empty and the head {options.kind} " + (
            "has no classifier.describe either" if made.describes else "sees features alone") +
            ": there is nothing to decide from")
    if options.forces and not made.takes_virtual:
        raise InputError(f"classifier.forces is for heads that keep a prior of sessions, such as gaussian. Received: "
                         f"{options.kind}")
    if not hasattr(describe, "without"):  # where no electrodes are mixed, a lost one spoils what is its own alone
        options = options.model_copy(update={"lost_electrode": False})
    described = describe.compute_output_shape((None, length, channels))[-1] if describe is not None else 0
    return joined_head(made.new(options, names, channels, described, classes), describe, length, channels, len(names))
