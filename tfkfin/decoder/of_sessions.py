"""What a decoder does with sessions: it is calibrated for one, goes on learning in it, and takes that back."""

import copy
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tfkfin.base.console import InputError

if TYPE_CHECKING:
    import keras

    from tfkfin.decoder.adapting import Adapting
    from tfkfin.nets.over_recording import OverRecording


class OfSessions:
    """The part of `tfkfin.decoder.decoder.Decoder` that is about sessions."""

    card: dict
    model: Any
    length: int
    channels: int
    stride: int
    movements: np.ndarray
    _before: tuple | None = None  # the first update: weights, session, memory, card

    @property
    def classifier(self) -> "keras.Model":
        """The head's network of what is seen."""
        return self.model.get_layer("head").get_layer("classifier")

    def session(self, stride: int = 0, smooth: bool = True) -> "Adapting":
        """Begins a session, or goes on with the one it was calibrated for, that goes on learning without labels.

        Args:
            stride: samples between windows; 0: the decoder's own.
            smooth: False decides each window by itself; adaptation is the same.

        Raises:
            InputError: this decoder keeps nothing of sessions.
        """
        from tfkfin.decoder.adapting import Adapting

        return Adapting(self, stride, smooth=smooth)

    def seen(self, emg: np.ndarray, starts: np.ndarray) -> list[np.ndarray]:
        """What the head's classifier is given for windows of a recording: features (N, C, F), maybe descriptions."""
        return self._over_seen(np.asarray(emg, np.float32), np.asarray(starts))

    @cached_property
    def _over_seen(self) -> "OverRecording":
        from tfkfin.nets import streaming
        from tfkfin.nets.over_recording import over_recording

        return over_recording(self.model, streaming.stream_seen)

    def calibrated(self, seen: list[np.ndarray], labels: np.ndarray | None = None,
                   repetitions: np.ndarray | None = None) -> tuple[Self, dict]:
        """A decoder for the session, or the person, that the windows are of in which this was `seen`, in order of time.

        What earlier sessions taught lies in this decoder and goes on with the new one, which adds this one to them when
        it is calibrated for yet another, if it showed all movements; no old recording is needed. The same session
        again takes the place of its last calibration.

        Args:
            labels: their movements (N,), as in the files; None: they are not known.
            repetitions: which of its executions each window is of (N,); None: all are of one.

        Returns:
            The new decoder, and what there is to say of it: `known_sessions`, how many taught it before; `unseen`,
            movements that these windows do not show; and without labels `moved`, whether they were like enough to
            earlier sessions to move what movements look like.

        Raises:
            InputError: this decoder keeps nothing of sessions, or a movement that it does not know.
        """
        from tfkfin.nets import saving

        adapt, indices = self.adapting(), None if labels is None else self._indices(labels)
        model = saving.copied(self.model)
        new = type(self)(self.card, model)
        said = adapt(new.classifier, seen, indices, repetitions)
        return new, said | {"unseen": self.movements[said["unseen"]].tolist()}

    def update(self, emg: np.ndarray, labels: np.ndarray | int) -> Self:
        """Goes on learning, in place, from labelled windows of the session: exactly as if calibrated on all so far.

        In closed form, with what earlier sessions taught. Windows that it was last calibrated on count too.
        `card["updated"]` counts windows; scores in the card are from before.

        Args:
            emg: windows (B, L, C), or a stretch (T, C), whose windows at the decoder's stride are meant; volts.
            labels: movements of the windows (B,), as in the files, or one of them all.

        Raises:
            InputError: as `calibrated`, or as calling the decoder or `stream` raises.
        """
        from tfkfin.nets import heads

        self.adapting()
        emg = np.asarray(emg, np.float32)
        if emg.ndim == 2:
            emg, starts = self.stretch(emg, self.stride)
            emg = emg[starts[:, None] + np.arange(self.length)]
        if emg.shape[1:] != (self.length, self.channels) or not len(emg) or not np.isfinite(emg).all():
            raise InputError(f"`emg` must be finite, (B, {self.length}, {self.channels}). Received: shape {emg.shape}")
        if np.ndim(labels) and np.shape(labels) != (len(emg),):
            raise InputError(f"`labels` must be one, or ({len(emg)},). Received: shape {np.shape(labels)}")
        indices, classifier = self._indices(np.broadcast_to(labels, len(emg))), self.classifier
        if self._before is None:
            knowledge = classifier.get_layer("knowledge")
            self._before = classifier.get_weights(), copy.deepcopy(knowledge.session), knowledge.memory, self.card
        heads.kind(self.card["head"]).update(classifier, self._over_seen.of_windows(emg), indices)
        self.card = self.card | {"updated": self.card.get("updated", 0) + len(emg)}
        return self

    def revert(self) -> Self:
        """Takes back every `update` since this decoder was made, calibrated or loaded."""
        if self._before is not None:
            weights, session, memory, self.card = self._before
            classifier, self._before = self.classifier, None
            classifier.set_weights(weights)
            knowledge = classifier.get_layer("knowledge")
            knowledge.session, knowledge.memory = session, memory
        return self

    def adapting(self) -> Callable:
        """How its head goes on to another session, as `tfkfin.nets.heads.Head.adapt`.

        Raises:
            InputError: it keeps nothing of sessions.
        """
        from tfkfin.nets import heads

        adapt = heads.kind(self.card["head"]).adapt
        if adapt is None:
            raise InputError(f"a decoder with the head {self.card['head']} keeps nothing of earlier sessions to "
                             "calibrate from: train one with --set classifier.kind=gaussian")
        return adapt

    def _indices(self, labels: np.ndarray) -> np.ndarray:
        if unknown := sorted(set(np.unique(labels).tolist()) - set(self.movements.tolist())):
            raise InputError(f"movements {unknown} are none that the decoder knows: {self.movements.tolist()}")
        return np.searchsorted(self.movements, labels)

    def of_seen(self, seen: list[np.ndarray]) -> np.ndarray:
        """Probabilities (N, G) from what was `seen`: windows that two decoders see alike need be seen once."""
        return np.asarray(self.classifier([part.astype(np.float32) for part in seen] if len(seen) > 1 else seen[0]))
