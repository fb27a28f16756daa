"""The decoder: one stateless Keras model, volts in, and a plain class around it that knows labels and how to decide.

    volts (B, L, C) -> `tfkfin.nets.forward` -> probabilities (B, G), features (B, C, F) -> `Decision` -> labels

What is trained, scored, saved, exported, served and streamed is this one model. It knows no run and no recording.
"""

import operator
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tfkfin.base import axes, files, machine, samples
from tfkfin.base.answers import steps
from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.decoder.decision import Answers, Decision
from tfkfin.signal import condition
from tfkfin.signal.filtering import filtered, sections
from tfkfin.store import folders

if TYPE_CHECKING:
    import keras  # where ONNX Runtime decodes there may be none

    from tfkfin.decoder.session import AdaptiveSession
    from tfkfin.nets.forward import Forward
    from tfkfin.nets.heads import Head

_COUNTS = ("length", "channels", "stride")
FILE, CARD = "decoder.keras", "model_card.json"
BATCH = 64  # windows of a recording at a time where an engine answers for windows one by one


class BaseDecoder:
    """Windows (B, L, C) in volts -> {"probabilities": (B, G), "label": (B,) int64, "features": (B, C, F)}; and, where
    the card has the ranges of training's signals, {"quality": (B, C), "quality_overall": (B,), "fault": (B, C) int64}
    of `tfkfin.nets.quality`.

    Attributes:
        model: the network, or None where only an exported graph is there.
        card: how it decodes and how it was made; `movements` (G labels as in the files), `rate_hz`, `length`, `stride`,
            `channels`, `features` and `decision` are what decoding takes.
        decision: how windows in order of time are decided; calling the decoder decides windows one by one without it.
    """

    _warned_of_electrodes = False
    _before_updates: tuple | None = None  # what `revert` restores: the head's snapshot and the card

    def __init__(self, card: dict, model: "keras.Model | None" = None,
                 answer: Callable[[np.ndarray], Answers] | None = None):
        """`answer`: volts (B, L, C) -> {"probabilities", "features"}, another engine for the same network."""
        self.card = card
        self.model: Any = model
        try:
            self.length, self.channels, self.stride = (operator.index(card[key]) for key in _COUNTS)
            self.movements = np.array([operator.index(movement) for movement in card["movements"]], np.int64)
            self.decision = Decision(**card.get("decision", {}))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"the card of the decoder is unfit: {type(error).__name__} {str(error)[:100]}") from None
        if min(self.length, self.channels, self.stride) < 1 or len(set(self.movements.tolist())) < len(self.movements):
            raise InputError(f"the card of the decoder is unfit: {', '.join(_COUNTS)} count, movements all differ")
        self._answer = answer or self._keras

    # === The network ===

    @cached_property
    def forward(self) -> "Forward":
        """The network over windows, recordings and live signals."""
        from tfkfin.nets.forward import Forward

        left_out = [electrode - 1 for electrode in self.card.get("without", ())]
        return Forward(self.model, self.card.get("signal"), self.card.get("rate_hz", 0.0), left_out)

    @property
    def wanted(self) -> tuple[str, ...]:
        """What the network is asked for, window by window."""
        return ("features", "probabilities", *(("quality",) if "signal" in self.card else ()))

    @cached_property
    def head(self) -> "Head":
        """The network's head, as its kind is calibrated and updated."""
        from tfkfin.nets import heads

        return heads.kind(self.card["head"]).of(self.forward.parts)

    def _keras(self, emg: np.ndarray) -> Answers:
        return self.forward.windows(emg, self.wanted)

    # === Decisions ===

    def __call__(self, emg: np.ndarray) -> Answers:
        """Answers for windows (B, L, C), volts, each for itself.

        Raises:
            InputError: another shape, no window, NaN, Inf or what no amplifier gives.
        """
        machine.one_process()
        emg = np.ascontiguousarray(emg, np.float32)
        axes.windows("emg", emg.shape, self.length, self.channels)
        return self._labelled(self._answer(samples.checked(emg)))

    def warned(self, answers: Answers) -> Answers:
        """The answers, after a warning of electrodes whose signals are unlike training's; one for each decoder."""
        if "fault" in answers and not self._warned_of_electrodes and (what := condition.summary(answers["fault"])):
            self._warned_of_electrodes = True
            log.warning("warning: %s", what)
        return answers

    def _labelled(self, answer: Answers) -> Answers:
        faults = {"fault": answer["fault"].astype(np.int64)} if "fault" in answer else {}
        return answer | faults | {"label": self.movements[answer["probabilities"].argmax(-1)]}

    def named(self, labels: np.ndarray) -> np.ndarray:
        """What movements (...) are called; their numbers where no recording named them, "rejected" for -1."""
        names = {-1: "rejected"} | {int(m): name for m, name in self.card.get("names", {}).items()}
        return np.array([names.get(m, str(m)) for m in np.ravel(labels).tolist()]).reshape(np.shape(labels))

    def stream(self, emg: np.ndarray, stride: int = 0, *, adapt: bool = False) -> Answers:
        """A signal (T, C) in volts, decided once every `stride` samples (0: the decoder's own), causally.

        Args:
            adapt: adapts to the signal without labels, see `session`, which takes a session's next signal too; the
                decoder does not change.

        Returns:
            As for windows (W, L, C), W = (T - L) // stride + 1, but `probabilities` are voted and a rejected
            decision's `label` is -1. Window w covers the samples [w stride, w stride + L). A decoder with a filter
            filters the signal first; windows and recordings that it is called with are filtered already.

        Raises:
            InputError: shorter than one window, or what calling the decoder raises.
        """
        if adapt:
            return self.session(stride).stream(emg)
        answers = self.over(*self.windows_of(emg, stride or self.stride))
        answers["label"], answers["probabilities"] = self.decision(answers["probabilities"], self.movements)
        return answers

    def windows_of(self, emg: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray]:
        """A signal (T, C), filtered if the decoder has a filter, and the first samples of its windows."""
        axes.signal("emg", np.shape(emg), self.channels)
        starts = np.arange(0, len(emg) - self.length + 1, stride)
        if not len(starts):
            raise InputError(f"`emg` must hold one window of {self.length} samples. Received: {len(emg)} samples")
        if "filter" in self.card:
            emg = samples.checked(np.asarray(emg, np.float32))
            emg = filtered(emg, sections(self.card["filter"], self.card["rate_hz"]))
        return emg, starts

    def over(self, emg: np.ndarray, starts: np.ndarray) -> Answers:
        """Answers for the windows of a recording (T, C), volts, that begin at `starts` (N,), each for itself.

        Raises:
            InputError: what calling the decoder raises.
        """
        emg, starts = np.asarray(emg), np.asarray(starts)
        if self._answer != self._keras:  # another engine takes windows
            parts = [self(emg[part[:, None] + np.arange(self.length)])
                     for part in steps(np.array_split(starts, max(1, -(-len(starts) // BATCH))))]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        axes.signal("emg", emg.shape, self.channels)
        samples.checked(emg[starts.min() : starts.max() + self.length])
        return self._labelled(self.forward.recording(emg, starts, self.wanted))

    def without(self, *electrodes: int) -> Self:
        """A decoder that decides without electrodes, counted from 1: what they would say is estimated from the others.

        So does the decoder by itself, window by window, where an electrode hums, is flat or far too loud. `without()`
        takes all of them in again. This decoder does not change; saved and exported, the new one keeps what it leaves
        out.

        Raises:
            InputError: no electrode of its, half of all or more, or one that this decoder cannot do without.
        """
        if self.model is None:
            raise InputError("an exported model cannot be changed: leave electrodes out of the decoder that it is made "
                             "of")
        chosen = sorted({operator.index(electrode) for electrode in electrodes})
        if chosen and not (1 <= chosen[0] and chosen[-1] <= self.channels and 2 * len(chosen) < self.channels):
            raise InputError(f"`electrodes` must be some of 1 to {self.channels}, fewer than half. Received: {chosen}")
        if needed := [electrode for electrode in chosen if not self.forward.spared[electrode - 1]]:
            raise InputError(f"this decoder cannot do without electrode {needed[0]}: classifier.lost_electrode, as in "
                             "the recipe best, is for up to 16 electrodes of which none is flat in training")
        new = self.with_head(self.head.copy())
        new.card = self.card | {"without": chosen}
        return new

    # === Sessions ===

    def session(self, stride: int = 0, smooth: bool = True) -> "AdaptiveSession":
        """Begins online adaptation without labels, in a new session or in the one that it was calibrated for.

        Args:
            stride: samples between windows; 0: the decoder's own.
            smooth: False decides each window by itself; adaptation is the same.

        Raises:
            InputError: this decoder keeps nothing of sessions.
        """
        from tfkfin.decoder.session import AdaptiveSession

        return AdaptiveSession(self, stride, smooth=smooth)

    def inputs(self, emg: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Head inputs (N, D) for windows of a recording (T, C): what the head is calibrated on and decides from."""
        return self.forward.recording(emg, starts, ("inputs",))["inputs"]

    def probabilities(self, inputs: np.ndarray) -> np.ndarray:
        """Head inputs (N, D) -> (N, G). Decoders with one trunk have the same head inputs for the same windows."""
        return self.head.probabilities(inputs)

    def calibrated(self, inputs: np.ndarray, labels: np.ndarray | None = None,
                   repetitions: np.ndarray | None = None) -> tuple[Self, dict]:
        """A new decoder, calibrated on windows of one session or person; this one does not change.

        The prior of earlier sessions lies in this decoder and in the new one. When that is calibrated for another
        session, this session becomes part of the prior, if it showed all movements; no old recording is needed.
        Calibrating for the same session again replaces its last calibration. FINs and descriptions are shared with this
        decoder, compiled functions too.

        Args:
            inputs: head inputs (N, D) of the windows, in order of time, as `inputs` gives them.
            labels: their movements (N,), as in the files; None: they are not known.
            repetitions: which of its executions each window is of (N,); None: all are of one.

        Returns:
            The new decoder, and a report: `known_sessions`, number of sessions in the prior before; `unseen`, movements
            without windows here; and without labels `moved`, whether class means moved, or the z-score alone because
            sessions differ too much.

        Raises:
            InputError: this decoder keeps nothing of sessions, or a movement that it does not know.
        """
        self.check_calibrates()
        indices = None if labels is None else self._indices(labels)
        new = self.with_head(self.head.copy())
        report = new.head.calibrate(inputs, indices, repetitions)
        return new, report | {"unseen": self.movements[report["unseen"]].tolist()}

    def update(self, emg: np.ndarray, labels: np.ndarray | int) -> Self:
        """Adds labelled windows to the session, in place: exactly as if calibrated on all windows so far.

        In closed form, with the prior of earlier sessions. Windows of the last calibration count too.
        `card["updated"]` counts windows; scores in the card are from before.

        Args:
            emg: windows (B, L, C), or a signal (T, C), whose windows at the decoder's stride are meant; volts.
            labels: movements of the windows (B,), as in the files, or one of them all.

        Raises:
            InputError: as `calibrated`, or as calling the decoder or `stream` raises.
        """
        self.check_calibrates()
        emg = np.asarray(emg, np.float32)
        if emg.ndim == 2:
            emg, starts = self.windows_of(emg, self.stride)
            emg = emg[starts[:, None] + np.arange(self.length)]
        axes.windows("emg", emg.shape, self.length, self.channels)
        samples.checked(emg)
        if np.ndim(labels) and np.shape(labels) != (len(emg),):
            raise InputError(f"`labels` must be one, or ({len(emg)},). Received: shape {np.shape(labels)}")
        indices = self._indices(np.broadcast_to(labels, len(emg)))
        if self._before_updates is None:
            self._before_updates = self.head.snapshot(), self.card
        self.head.update(self.forward.windows(emg, ("inputs",))["inputs"], indices)
        self.card = self.card | {"updated": self.card.get("updated", 0) + len(emg)}
        return self

    def revert(self) -> Self:
        """Takes back every `update` since this decoder was made, calibrated or loaded."""
        if self._before_updates is not None:
            (snapshot, self.card), self._before_updates = self._before_updates, None
            self.head.restore(snapshot)
        return self

    def check_calibrates(self) -> None:
        """
        Raises:
            InputError: its head keeps nothing of sessions, so that it can be neither calibrated nor adapt.
        """
        from tfkfin.nets import heads

        if heads.kind(self.card["head"]).calibrate is None:
            raise InputError(f"a decoder with the head {self.card['head']} keeps nothing of earlier sessions to "
                             "calibrate from: train one with --set classifier.kind=gaussian")

    def with_head(self, head: "Head") -> Self:
        """A decoder like this one with another head, on the same FINs and descriptions."""
        new = type(self)(self.card, self.forward.parts.with_classifier(head.classifier))
        new.head = head
        return new

    def _indices(self, labels: np.ndarray) -> np.ndarray:
        if unknown := sorted(set(np.unique(labels).tolist()) - set(self.movements.tolist())):
            raise InputError(f"movements {unknown} are none that the decoder knows: {self.movements.tolist()}")
        return np.searchsorted(self.movements, labels)

    # === Files ===

    def save(self, folder: Path | str) -> None:
        """Writes the whole decoder, network and card, into a folder."""
        folder = Path(folder)
        with files.replacing(folder / FILE) as partial:
            self.model.save(partial)
        files.write_json(folder / CARD, self.card)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """A decoder that `save` wrote, or the one inside an exported version folder.

        Raises:
            InputError: there is none, or it is damaged.
        """
        found = [path for path in (folder / FILE, folder / "assets.extra" / FILE) if path.is_file()]
        if not found or not (folder / CARD).is_file():
            raise InputError(f"{folder} holds no whole decoder ({FILE} with {CARD}); one of an older tfkfin has to be "
                             "trained or exported anew")
        from tfkfin.nets import saving

        folders.verify(folder)
        try:
            return cls(folders.card(folder), saving.load(found[0]))
        except InputError:
            raise
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise InputError(f"{found[0]} cannot be loaded: {' '.join(str(error).split())[:200]}") from None


def __getattr__(name: str) -> Any:
    """Old names, which other modules or names took the place of."""
    if name not in ("Decoder", "network"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tfkfin.nets import network

    home = "tfkfin.decoder.decoder.BaseDecoder" if name == "Decoder" else "tfkfin.nets.network.network"
    warnings.warn(f"{__name__}.{name} is {home} now", DeprecationWarning, stacklevel=2)
    return BaseDecoder if name == "Decoder" else network.network
