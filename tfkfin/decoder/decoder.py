"""The decoder: one stateless Keras model, volts in, and a plain class around it that knows labels and how to decide.

    volts (B, L, C) -> standardise -> FIN bank -> head([features, windows]) -> probabilities (B, G), features (B, C, F)

What is trained, scored, saved, exported, served and streamed is this one model. It knows no run and no recording.
"""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tfkfin.base import files
from tfkfin.base.answers import steps
from tfkfin.base.console import InputError
from tfkfin.decoder.decision import Decision
from tfkfin.decoder.of_sessions import OfSessions
from tfkfin.signal.filtering import filtered, sections
from tfkfin.store import presets

if TYPE_CHECKING:
    import keras  # where ONNX Runtime decodes there may be none

    from tfkfin.recipe import Recipe

_COUNTS = ("length", "channels", "stride")
FILE, CARD = "decoder.keras", "model_card.json"
BATCH = 64  # windows in the network at a time

Answers = dict[str, np.ndarray]


def network(bank: "keras.Model", head: "keras.Model", augment: "keras.layers.Layer | None" = None) -> "keras.Model":
    """Volts (B, L, C) -> {"probabilities": (B, G), "features": (B, C, F) own units}.

    Args:
        bank: FINs, standardised windows (B, L, C) -> (B, C, F).
        head: [features, standardised windows] -> probabilities, of `tfkfin.nets.heads`.
        augment: changes standardised windows in training.
    """
    import keras

    from tfkfin.nets import layers

    emg = keras.Input(bank.input_shape[1:], name="emg")
    windows = layers.ZScore(name="standardise", dtype="float32")(emg)
    if augment is not None:
        windows = augment(windows)
    features = bank(windows)
    return keras.Model(emg, {"probabilities": head([features, windows]), "features": features}, name="decoder")


def about(recipe: "Recipe", rate_hz: float, length: int, stride: int, movements: Sequence[int] | np.ndarray,
          mean: np.ndarray, sd: np.ndarray, names: Mapping[int, str] | None = None,
          recorded_hz: Iterable[float] = ()) -> dict:
    """What a decoder's card says of how it decodes, and which recipe made it.

    Args:
        length, stride: samples at `rate_hz`.
        movements: labels of the G classes, as in the files.
        mean, sd: (C,) volts that signals are standardised by.
        names: of movements, as far as they are known.
        recorded_hz: rates of the recordings that it was fitted on, before they were resampled to `rate_hz`.
    """
    recorded = sorted({float(rate) for rate in recorded_hz})
    return presets.made_by(recipe, length, rate_hz) | {
        "kind": "decoder", "head": recipe.classifier.kind, "stride": stride, "stride_ms": recipe.window.stride_ms,
        "channels": len(mean), "movements": [int(m) for m in movements],
        "decision": {"vote": recipe.classifier.vote, "reject": recipe.classifier.reject},
        "mean_v": [float(v) for v in mean], "sd_v": [float(v) for v in sd]
    } | named(movements, names or {}) | ({"recorded_hz": recorded} if recorded else {})


def named(movements: Sequence[int] | np.ndarray, names: Mapping[int, str]) -> dict:
    """The part of a card that says what movements are called; nothing where none has a name."""
    known = {str(m): names[m] for m in map(int, movements) if m in names}
    return {"names": known} if known else {}


class Decoder(OfSessions):
    """Windows (B, L, C) in volts -> {"probabilities": (B, G), "label": (B,) int64, "features": (B, C, F)}.

    Attributes:
        model: the network, or None where only an exported graph is there.
        card: what is said of it; `movements` (G labels as in the files), `rate_hz`, `length`, `stride`, `channels`,
            `features` and `decision` are what decoding takes.
        decision: how windows in order of time are decided; calling the decoder decides windows one by one without it.
    """

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

    def __call__(self, emg: np.ndarray) -> Answers:
        """Answers for windows (B, L, C), volts, each for itself.

        Raises:
            InputError: another shape, no window, NaN or Inf.
        """
        emg = np.ascontiguousarray(emg, np.float32)
        if emg.shape[1:] != (self.length, self.channels) or not len(emg):
            raise InputError(f"`emg` must be (B, {self.length}, {self.channels}), B > 0. Received: shape {emg.shape}")
        if not np.isfinite(emg).all():
            raise InputError("emg holds NaN or Inf, where volts are expected")
        answer = self._answer(emg)
        return answer | {"label": self.movements[answer["probabilities"].argmax(-1)]}

    def named(self, labels: np.ndarray) -> np.ndarray:
        """What movements (...) are called; their numbers where no recording named them, "rejected" for -1."""
        names = {-1: "rejected"} | {int(m): name for m, name in self.card.get("names", {}).items()}
        return np.array([names.get(m, str(m)) for m in np.ravel(labels).tolist()]).reshape(np.shape(labels))

    def stream(self, emg: np.ndarray, stride: int = 0, *, adapt: bool = False) -> Answers:
        """A stretch (T, C) in volts, decided once every `stride` samples (0: the decoder's own), causally.

        Args:
            adapt: goes on learning from it without labels, see `session`, which takes a session's next stretch too; the
                decoder stays what it is.

        Returns:
            As for windows (W, L, C), W = (T - L) // stride + 1, but `probabilities` are voted and a rejected
            decision's `label` is -1. Window w covers the samples [w stride, w stride + L). A decoder with a filter
            filters the stretch first; windows and recordings that it is called with are filtered already.

        Raises:
            InputError: shorter than one window, or what calling the decoder raises.
        """
        if adapt:
            return self.session(stride).stream(emg)
        answers = self.over(*self.stretch(emg, stride or self.stride))
        answers["label"], answers["probabilities"] = self.decision(answers["probabilities"], self.movements)
        return answers

    def stretch(self, emg: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray]:
        """A stretch (T, C), filtered if the decoder has a filter, and where its windows begin."""
        starts = np.arange(0, len(emg) - self.length + 1, stride)
        if not len(starts):
            raise InputError(f"`emg` must hold one window of {self.length} samples. Received: {len(emg)} samples")
        if "filter" in self.card:
            emg = filtered(np.asarray(emg, np.float32), sections(self.card["filter"], self.card["rate_hz"]))
        return emg, starts

    def over(self, emg: np.ndarray, starts: np.ndarray) -> Answers:
        """Answers for the windows of a recording (T, C), volts, that begin at `starts` (N,), each for itself.

        Runs of windows at one stride are streamed where the network can (see `models.streaming`).

        Raises:
            InputError: what calling the decoder raises.
        """
        emg, starts = np.asarray(emg), np.asarray(starts)
        if self._streamed is None or len(starts) <= BATCH:  # what is compiled first has to pay
            parts = [self(emg[part[:, None] + np.arange(self.length)])
                     for part in steps(np.array_split(starts, max(1, -(-len(starts) // BATCH))))]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if emg.ndim != 2 or emg.shape[1] != self.channels:
            raise InputError(f"`emg` must be (T, {self.channels}). Received: shape {emg.shape}")
        if not np.isfinite(emg[starts.min() : starts.max() + self.length]).all():
            raise InputError("emg holds NaN or Inf, where volts are expected")
        answer = self._streamed(emg, starts)
        return answer | {"label": self.movements[answer["probabilities"].argmax(-1)]}

    @cached_property
    def _streamed(self) -> "Callable[[np.ndarray, np.ndarray], Answers] | None":
        """The network over stretches, where Keras runs it in this process and its FINs stream."""
        if self._answer != self._keras:
            return None
        from tfkfin.nets import streaming
        from tfkfin.nets.over_recording import over_recording

        return over_recording(self.model) if streaming.streams(self.model.get_layer("fins")) else None

    def _keras(self, emg: np.ndarray) -> Answers:
        parts = [self.model(emg[i:i + BATCH], training=False) for i in range(0, len(emg), BATCH)]
        return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}

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

        presets.verify(folder)
        try:
            return cls(presets.card(folder), saving.load(found[0]))
        except InputError:
            raise
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise InputError(f"{found[0]} cannot be loaded: {' '.join(str(error).split())[:200]}") from None
