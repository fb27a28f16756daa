"""A linear head that remembers sessions: solved as the linear head is, and calibrated as a hierarchical Gaussian.

Its network is that of the linear head. Beside the weights lies what the sessions it was solved for taught
(`tfkfin.sessions.prior`), so that a new session needs one repetition, or a stretch without labels, and no old
recording. Sessions that it was calibrated for with labels count among them from the next calibration on. Until then the
last one's descriptions are kept, so that it can be done again.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import keras
import numpy as np
from keras import layers
from scipy.spatial.distance import cdist

from tfkfin.nets import descriptions
from tfkfin.nets.heads import Groups, Head, linear
from tfkfin.sessions.posterior import SessionPosterior
from tfkfin.sessions.prior import STATE, SessionPrior
from tfkfin.sessions.statistics import EPSILON, SessionStatistics

SAME = 1e-3  # deviations: a window whose descriptions all lie as near to another's is that window
NONE = np.empty(0)
LAST, LOUD = ("x", "labels", "repetitions"), ("low", "middle", "rest")


@dataclass
class Memory:
    """What grows from session to session, so that no weights of a network could hold it.

    Attributes:
        statistics: of each session; None in files of versions that did not keep them.
        last: the session that it was last calibrated for: windows (N, D), class indices, repetitions (N,); or ().
        low, middle, rest: loudness of movements, which a twentieth and half of windows are below, and of rest.
    """

    statistics: SessionStatistics | None = None
    last: tuple[np.ndarray, ...] = ()
    low: float = -np.inf
    middle: float = -np.inf
    rest: float = np.nan

    def heard(self, moving: np.ndarray = NONE, rest: np.ndarray = NONE) -> "Memory":
        """The same, told how loud windows of movements and of rest are (N,), as far as any are given."""
        tells = len(moving) and np.isfinite(moving).all()
        low, middle = np.quantile(moving, (0.05, 0.5)).tolist() if tells else (self.low, self.middle)
        return replace(self, low=low, middle=middle, rest=float(np.median(rest)) if len(rest) else self.rest)

    @property
    def quiet(self) -> float:
        """The loudness below which no movement is expected: midway between rest and the quietest movements.

        Where rest was not recorded, as far below these as most movements lie above them.
        """
        if not np.isfinite(self.low):  # no feature tells loudness, or nothing was solved
            return -np.inf
        return (self.low + self.rest) / 2 if np.isfinite(self.rest) else 2 * self.low - self.middle


@keras.saving.register_keras_serializable(package="tfkfin")
class Knowledge(layers.Layer):
    """Keeps a `SessionPrior` of `classes` classes, as weights that nothing trains.

    Input and output: (B, D), unchanged. `state` is as of `SessionPrior.state`; None before there is one.
    `memory` goes with it; it is saved with the weights. `session` is the one that goes on, if it began in this process.
    """

    session: SessionPosterior | None = None

    def __init__(self, classes: int, **kwargs):
        super().__init__(**kwargs)
        self.classes, self.memory = classes, Memory()

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

    def save_own_variables(self, store):
        super().save_own_variables(store)
        more = self.memory.statistics.arrays() if self.memory.statistics else {}
        for name, part in (more | {f"last_{name}": p for name, p in zip(LAST, self.memory.last, strict=False)}).items():
            store[name] = part
        store["loudness"] = np.array([getattr(self.memory, name) for name in LOUD])

    def load_own_variables(self, store):
        parts = {name: np.array(store[name]) for name in store.keys()}
        super().load_own_variables({name: part for name, part in parts.items() if name.isdecimal()})
        self.memory = Memory(SessionStatistics.from_arrays(parts) if "executions" in parts else None,
                             tuple(parts[f"last_{name}"] for name in LAST if f"last_{name}" in parts),
                             *parts.get("loudness", ()))

    def get_config(self):
        return {**super().get_config(), "classes": self.classes}


def classifier(options, names: tuple[str, ...], channels: int, described: int, classes: int) -> keras.Model:
    """Features (B, C, F) in own units and descriptions (B, S) -> probabilities (B, classes)."""
    return linear.classifier(options, names, channels, described, classes, Knowledge(classes, name="knowledge"))


def solve(model: keras.Model, seen: list[np.ndarray], labels: np.ndarray, groups: Groups) -> None:
    """Sets the weights to shrinkage LDA's of all sessions together, and keeps a `SessionPrior` of them.

    While nothing is known of a new session the one decides, because it takes signals as they come; `adapt` takes the
    other, which centres each session by itself.

    Args:
        model: made by `classifier`.
        seen: features (N, C, F) in own units, true or imitated, and descriptions (N, S).
        labels: class indices (N,).
        groups: sessions and repetitions (N,) of the windows.
    """
    x, model.get_layer("knowledge").memory = linear.inputs(model, seen), Memory()
    _keep(model, SessionPrior().fit(x, labels, *groups))
    knowledge = model.get_layer("knowledge")
    knowledge.memory = knowledge.memory.heard(loudness(model, x))
    linear.solve(model, seen, labels, groups)


def adapt(model: keras.Model, seen: list[np.ndarray], labels: np.ndarray | None,
          repetitions: np.ndarray | None = None) -> dict:
    """Sets the weights for the session that the windows `seen` are of: as `calibrate`, or `adapt` without labels.

    What earlier sessions taught stays, and the session of the last labelled calibration is one of them, unless it did
    not show all movements, or this is that session again: then it is as if that calibration had never been.

    Args:
        labels: class indices (N,); None: not known.
        repetitions: which of a class's executions each window is of (N,); None: they are all of one.

    Returns:
        `known_sessions`, how many taught it before; `unseen`, class indices that the windows do not show; and without
        labels `moved`, whether they moved class means or only where features are centred, because they or the sessions
        before are too unlike each other.

    Raises:
        ValueError: the head was never solved.
    """
    knowledge, x, prior = model.get_layer("knowledge"), linear.inputs(model, seen), _prior(model)
    last = knowledge.memory.last
    if last and not _again(last, x) and len(np.unique(last[1])) == len(prior.classes):
        prior = prior.add_session(last[0].astype(np.float64), prior.classes[last[1]], last[2])
    new = SessionPosterior(prior)
    new = new.adapt(x) if labels is None else new.update(x, labels)
    _keep(model, prior)
    if labels is not None:
        knowledge.memory = knowledge.memory.heard(loudness(model, x))
    _decide_as(model, new)
    if labels is not None and prior.statistics:
        knowledge.memory.last = (x.astype(np.float32), np.searchsorted(prior.classes, labels),
                                 np.zeros(len(x)) if repetitions is None else repetitions)
    shown = prior.classes[np.unique(new.probabilities(x).argmax(axis=1))] if labels is None else labels
    said = {"known_sessions": prior.sessions, "unseen": sorted(set(prior.classes.tolist()) - set(shown.tolist()))}
    return said | ({"moved": new.moved} if labels is None else {})


def update(model: keras.Model, seen: list[np.ndarray], labels: np.ndarray) -> None:
    """Takes in more labelled windows of the session that it was last adapted to: as `adapt` with all of them.

    Args:
        labels: class indices (N,).

    Raises:
        ValueError: the head was never solved.
    """
    knowledge, x, session = model.get_layer("knowledge"), linear.inputs(model, seen), _session(model)
    last = knowledge.memory.last
    _decide_as(model, session.update(x, labels))
    if session.prior.statistics:
        new = x.astype(np.float32), np.searchsorted(session.prior.classes, labels), np.full(len(x), -1.0)
        knowledge.memory = replace(knowledge.memory, last=tuple(
            np.concatenate(parts) for parts in zip(last, new, strict=True)) if last else new)


def onwards(model: keras.Model) -> tuple[SessionPosterior, Callable[[np.ndarray], np.ndarray]]:
    """The session that it was last calibrated for, or a new one that nothing is known of, to go on with.

    Nothing of the model changes with it. One that was calibrated without labels in another process begins anew.

    Returns:
        The session, and what says which inputs of the z-score (N, D) are as loud as movements are.

    Raises:
        ValueError: the head was never solved.
    """
    quiet = model.get_layer("knowledge").memory.quiet
    return copy.copy(_session(model)), lambda x: loudness(model, x) > quiet


def carry(model: keras.Model, session: SessionPosterior) -> bool:
    """Moves what the next session begins with towards where a session went on to, of which nothing was told.

    Returns:
        Whether it did: a session that the model was calibrated for is not carried.
    """
    knowledge = model.get_layer("knowledge")
    if knowledge.session is not None or knowledge.memory.last:
        return False
    knowledge.state = session.next_prior().state()
    return True


def loudness(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Mean over channels of the features that scale with the signal, logarithms: inputs of the z-score (N, D) -> (N,).

    Infinite if there are none: then nothing is quiet.
    """
    log_scale, channels = model.get_layer("log_scale"), model.inputs[0].shape[1]
    features = x[:, : channels * len(log_scale.features)].reshape(len(x), channels, -1)
    logged = features[..., log_scale.logged]
    return logged.mean(axis=(1, 2)) if logged.size else np.full(len(x), np.inf)


def resting(model: keras.Model, seen: list[np.ndarray]) -> None:
    """Learns how loud rest is, which is none of its classes, from windows `seen` of it."""
    knowledge = model.get_layer("knowledge")
    knowledge.memory = knowledge.memory.heard(rest=loudness(model, linear.inputs(model, seen)))


def _session(model: keras.Model) -> SessionPosterior:
    """The session that goes on, or is again as the last calibration with labels left it, or begins."""
    knowledge = model.get_layer("knowledge")
    if knowledge.session is not None:
        return knowledge.session
    prior, last = _prior(model), knowledge.memory.last
    session = SessionPosterior(prior)
    return session.update(last[0].astype(np.float64), prior.classes[last[1]]) if last else session


def _prior(model: keras.Model) -> SessionPrior:
    knowledge = model.get_layer("knowledge")
    if (state := knowledge.state) is None:
        raise ValueError("`model` must be solved first. Received: a head that knows no session")
    return SessionPrior.from_state(state, knowledge.memory.statistics)


def _decide_as(model: keras.Model, session: SessionPosterior) -> None:
    centre, spread, weights, bias = session.linear()
    model.get_layer("z_score").set(centre, spread)
    linear.set_weights(model, session.prior.classes, weights, bias)
    model.get_layer("knowledge").session = session


def _keep(model: keras.Model, prior: SessionPrior) -> None:
    knowledge = model.get_layer("knowledge")
    knowledge.state, knowledge.memory = prior.state(), replace(knowledge.memory, statistics=prior.statistics, last=())


def _again(last: tuple[np.ndarray, ...], x: np.ndarray) -> bool:
    """Whether the first window of one of the last session's executions is among the windows (N, D)."""
    firsts = last[0][np.unique(np.stack(last[1:]), axis=1, return_index=True)[1]]
    spread = last[0].std(axis=0) + EPSILON
    return bool((cdist(firsts / spread, x / spread, "chebyshev") < SAME).any())


HEAD = Head(classifier, describe=descriptions.new, solve=solve, adapt=adapt, update=update,
            onwards=onwards, carry=carry, resting=resting)
