"""A linear head that keeps statistics of sessions: solved as the linear head is, calibrated as a hierarchical Gaussian.

Its network is that of the linear head. Beside the weights lies the prior that the sessions gave that it was solved for
(`tfkfin.sessions.prior`), so that a new session needs one repetition, or a signal without labels, and no old
recording. A session that it was calibrated for with labels is added to the prior by the next calibration. Until then
its head inputs are kept, so that the calibration can be repeated.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import keras
import numpy as np
from keras import layers
from scipy.spatial.distance import cdist

from tfkfin.nets.heads import Groups
from tfkfin.nets.heads.linear import LinearHead
from tfkfin.nets.layers import found
from tfkfin.sessions.online import fit_prior
from tfkfin.sessions.posterior import SessionPosterior
from tfkfin.sessions.prior import STATE, SessionPrior
from tfkfin.sessions.statistics import EPSILON, SessionStatistics

SAME = 1e-3  # sd: windows whose head inputs all lie this near to each other are the same window
NONE = np.empty(0)
LAST, AMPLITUDES = ("x", "labels", "repetitions"), ("low", "middle", "rest")  # as they are called in files


@dataclass(frozen=True)
class Memory:
    """What grows from session to session, so that no weights of a network could hold it.

    Attributes:
        statistics: of each session; None in files of versions that did not keep them.
        last: the session of the last labelled calibration: windows (N, D), class indices, repetitions (N,); or ().
        low, middle: log amplitudes that a twentieth and half of the windows of movements lie below.
        rest: median log amplitude of rest; nan where none was recorded.
    """

    statistics: SessionStatistics | None = None
    last: tuple[np.ndarray, ...] = ()
    low: float = -np.inf
    middle: float = -np.inf
    rest: float = np.nan

    def with_amplitudes(self, moving: np.ndarray = NONE, rest: np.ndarray = NONE) -> "Memory":
        """The same with log amplitudes of windows of movements and of rest (N,), as far as there are any."""
        known = len(moving) and np.isfinite(moving).all()
        low, middle = np.quantile(moving, (0.05, 0.5)).tolist() if known else (self.low, self.middle)
        return replace(self, low=low, middle=middle, rest=float(np.median(rest)) if len(rest) else self.rest)

    @property
    def threshold(self) -> float:
        """The log amplitude above which there is activity: midway between rest and the weakest movements.

        Where rest was not recorded, as far below these as most movements lie above them.
        """
        if not np.isfinite(self.low):  # no head input is a log amplitude, or nothing was solved
            return -np.inf
        return (self.low + self.rest) / 2 if np.isfinite(self.rest) else 2 * self.low - self.middle


@keras.saving.register_keras_serializable(package="tfkfin")
class Knowledge(layers.Layer):
    """Keeps a `SessionPrior` of `classes` classes, as weights that nothing trains.

    Input and output: (B, D), unchanged. `state` is as of `SessionPrior.state`; None before there is one. `memory` goes
    with it and is saved with the weights. `session` is that of the last calibration, if it was in this process.
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
        store["loudness"] = np.array([getattr(self.memory, name) for name in AMPLITUDES])

    def load_own_variables(self, store):
        parts = {name: np.array(store[name]) for name in store.keys()}
        super().load_own_variables({name: part for name, part in parts.items() if name.isdecimal()})
        self.memory = Memory(SessionStatistics.from_arrays(parts) if "executions" in parts else None,
                             tuple(parts[f"last_{name}"] for name in LAST if f"last_{name}" in parts),
                             *parts.get("loudness", ()))

    def get_config(self):
        return {**super().get_config(), "classes": self.classes}


class GaussianHead(LinearHead):
    """The linear head with a prior of sessions.

    Attributes:
        knowledge: the layer that keeps the prior (`state`), what grows with sessions (`memory`) and the session that
            goes on in this process (`session`).
    """

    takes_virtual = True

    def __init__(self, classifier: keras.Model, describe: layers.Layer | None = None, channels: int = 0):
        super().__init__(classifier, describe, channels)
        self.knowledge = found(classifier, "knowledge")

    @classmethod
    def new(cls, options, names, channels, described, classes):
        return cls._network(names, channels, described, classes, Knowledge(classes, name="knowledge"),
                            options.lost_electrode and described > 0)

    def copy(self):
        new = super().copy()
        new.knowledge.memory = self.knowledge.memory
        return new

    def snapshot(self):
        return super().snapshot(), copy.deepcopy(self.knowledge.session), self.knowledge.memory

    def restore(self, snapshot) -> None:
        weights, session, memory = snapshot
        super().restore(weights)
        self.knowledge.session, self.knowledge.memory = copy.deepcopy(session), memory

    def solve(self, x: np.ndarray, labels: np.ndarray, groups: Groups, virtual: Sequence[np.ndarray] = ()) -> None:
        """Sets the weights to shrinkage LDA's of all sessions together, and the prior to what the sessions give.

        A decoder that is not calibrated decides by the first, which takes signals as they come; `calibrate` takes the
        second, which centres each session by itself. LDA knows no virtual forces: with them the first are the weights
        of a prior for which all sessions are one.

        Args:
            groups: sessions and repetitions (N,) of the windows.
            virtual: virtual forces, as of `tfkfin.sessions.prior`: head inputs (N, D) of the same windows at other
                gains. They are left out where sessions that are left out in turn lose by them.
        """
        x, self.knowledge.memory = np.asarray(x, np.float64), Memory()
        prior = fit_prior(x, labels, *groups, virtual, self._layout)
        self._keep(prior)
        self._remember_amplitudes(self.log_amplitude(x))
        super().solve(x, labels, groups)
        if len(prior.statistics.virtual_shifts):
            if prior.sessions > 1:
                executions = np.unique(np.stack(groups), axis=1, return_inverse=True)[1].ravel()
                prior = SessionPrior().fit(x, labels, np.zeros(len(x)), executions, virtual, self._layout)
            self._weigh(SessionPosterior(prior))

    def rest_statistics(self, x: np.ndarray) -> None:
        """Notes the log amplitude of windows of rest, which is none of its classes."""
        self._remember_amplitudes(rest=self.log_amplitude(np.asarray(x, np.float64)))

    def calibrate(self, x: np.ndarray, labels: np.ndarray | None, repetitions: np.ndarray | None = None) -> dict:
        """Sets the weights for the session of these windows: with labels by the posterior, without them by EM.

        The previous labelled calibration becomes part of the prior if its session had all movements. If this is that
        session again, this calibration replaces it.

        Args:
            labels: class indices (N,); None: not known.
            repetitions: which of a class's executions each window is of (N,); None: they are all of one.

        Returns:
            `known_sessions`, how many sessions the prior is of; `unseen`, class indices that the windows do not show;
            and without labels `moved`, whether they moved class means or only the z-score, because they or the sessions
            before differ too much.

        Raises:
            ValueError: the head was never solved.
        """
        x, prior, last = np.asarray(x, np.float64), self._prior(), self.knowledge.memory.last
        if last and not _again(last, x) and len(np.unique(last[1])) == len(prior.classes):
            prior = prior.add_session(last[0].astype(np.float64), prior.classes[last[1]], last[2])
        session = SessionPosterior(prior)
        new = session.adapt(x) if labels is None else session.update(x, labels)
        self._keep(prior)
        if labels is not None:
            self._remember_amplitudes(self.log_amplitude(x))
        self._decide_as(new)
        if labels is not None and prior.statistics:
            windows = (x.astype(np.float32), np.searchsorted(prior.classes, labels),
                       np.zeros(len(x)) if repetitions is None else repetitions)
            self.knowledge.memory = replace(self.knowledge.memory, last=windows)
        shown = prior.classes[np.unique(new.probabilities(x).argmax(axis=1))] if labels is None else labels
        report = {"known_sessions": prior.sessions,
                  "unseen": sorted(set(prior.classes.tolist()) - set(shown.tolist()))}
        return report | ({"moved": new.moved} if labels is None else {})

    def update(self, x: np.ndarray, labels: np.ndarray) -> None:
        """Adds labelled windows to the session of the last calibration: the same as `calibrate` with all of them.

        Raises:
            ValueError: the head was never solved.
        """
        x, session, last = np.asarray(x, np.float64), self._session(), self.knowledge.memory.last
        self._decide_as(session.update(x, labels))
        if session.prior.statistics:
            new = x.astype(np.float32), np.searchsorted(session.prior.classes, labels), np.full(len(x), -1.0)
            self.knowledge.memory = replace(self.knowledge.memory, last=tuple(
                np.concatenate(parts) for parts in zip(last, new, strict=True)) if last else new)

    def resume(self) -> tuple[SessionPosterior, Callable[[np.ndarray], np.ndarray]]:
        """The session of the last calibration, or a new one, and the activity detection; the head does not change.

        After a calibration without labels in another process it is a new one.

        Raises:
            ValueError: the head was never solved.
        """
        threshold = self.knowledge.memory.threshold
        return copy.copy(self._session()), lambda x: self.log_amplitude(x) > threshold

    def carry(self, session: SessionPosterior) -> bool:
        """Moves the prior of the next session towards a finished session that was adapted to without labels.

        Returns:
            Whether it did: a session that the head was calibrated for does not move it.
        """
        if self.knowledge.session is not None or self.knowledge.memory.last:
            return False
        self.knowledge.state = session.next_prior().state()
        return True

    def log_amplitude(self, x: np.ndarray) -> np.ndarray:
        """Mean of those head inputs (N, D) that are logarithms of amplitudes: (N,); infinite if there are none."""
        return x[:, self._amplitudes].mean(axis=1) if self._amplitudes.any() else np.full(len(x), np.inf)

    @cached_property
    def _amplitudes(self) -> np.ndarray:
        """Which head inputs (D,) scale with the signal: features; where there are none, outputs of descriptions."""
        chosen = np.zeros(self.z_score.mean.shape[0], bool)
        if self.log_scale is not None:
            logged = np.tile(self.log_scale.logged, self.log_scale.output.shape[1])
            chosen[: len(logged)] = logged
        elif hasattr(self.describe, "log_amplitude"):
            chosen[:] = self.describe.log_amplitude(self.channels)
        return chosen

    @property
    def _layout(self) -> np.ndarray | None:
        """Kinds and electrodes of the head inputs (D, 3), where descriptions say them and there are no features."""
        known = self.log_scale is None and hasattr(self.describe, "layout")
        return self.describe.layout(self.channels) if known else None

    def _remember_amplitudes(self, moving: np.ndarray = NONE, rest: np.ndarray = NONE) -> None:
        self.knowledge.memory = self.knowledge.memory.with_amplitudes(moving, rest)

    def _session(self) -> SessionPosterior:
        """The session that goes on, or is again as the last calibration with labels left it, or begins."""
        if self.knowledge.session is not None:
            return self.knowledge.session
        session, last = SessionPosterior(self._prior()), self.knowledge.memory.last
        return session.update(last[0].astype(np.float64), session.prior.classes[last[1]]) if last else session

    def _prior(self) -> SessionPrior:
        if (state := self.knowledge.state) is None:
            raise ValueError("the head must be solved first. Received: a head without a prior")
        return SessionPrior.from_state(state, self.knowledge.memory.statistics)

    def _decide_as(self, session: SessionPosterior) -> None:
        self._weigh(session)
        self.knowledge.session = session

    def _weigh(self, session: SessionPosterior) -> None:
        mean, sd, weights, bias = session.linear()
        self.z_score.set(mean, sd)
        self.set_weights(session.prior.classes, weights, bias)

    def _keep(self, prior: SessionPrior) -> None:
        self.knowledge.state = prior.state()
        self.knowledge.memory = replace(self.knowledge.memory, statistics=prior.statistics, last=())


def _again(last: tuple[np.ndarray, ...], x: np.ndarray) -> bool:
    """Whether the first window of one of the last session's executions is among the windows (N, D)."""
    firsts = last[0][np.unique(np.stack(last[1:]), axis=1, return_index=True)[1]]
    sd = last[0].std(axis=0) + EPSILON
    return bool((cdist(firsts / sd, x / sd, "chebyshev") < SAME).any())


HEAD = GaussianHead
