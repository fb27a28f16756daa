"""A decoder that goes on learning, without labels, from the signal that it decides.

Nothing of the decoder changes by that: a session is taken back by leaving it. What it learnt moves what the next
session begins with where `carried` is asked for.
"""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from tfkfin.base.console import InputError
from tfkfin.decoder.decision import Smoothed
from tfkfin.nets import heads, saving
from tfkfin.nets.one_stride import Live
from tfkfin.nets.over_recording import OverRecording, over_recording
from tfkfin.nets.sliding import over_stretch
from tfkfin.nets.streaming import stream_seen
from tfkfin.sessions.onwards import Onwards

if TYPE_CHECKING:
    from tfkfin.decoder.decoder import Answers, Decoder


LAG = 20  # windows that are learnt from: a second at 50 ms; looking back takes a tenth of one, longer than a stride


class Adapting:
    """A session of a decoder that remembers sessions: stretches, or single windows, in order of time.

    Decisions are those of `tfkfin.sessions.hierarchical`, which goes on to learn from windows before, smoothed in time.
    Windows less loud than movements are not learnt from, unless rest is one of what is decided.

    Args:
        decoder: calibrated for this session, or as earlier ones left it.
        stride: samples between windows; 0: the decoder's own. Where they lie closer than those, so many fewer of them
            are learnt from.

    Raises:
        InputError: the decoder keeps nothing of sessions.
    """

    def __init__(self, decoder: "Decoder", stride: int = 0, lag: int = 0, smooth: bool = True):
        """`lag`: as of `models.onwards.Onwards`; `smooth`: False leaves each window's probabilities as they are."""
        decoder.adapting()
        self.decoder, self.stride = decoder, stride or decoder.stride
        session, self._loud = heads.kind(decoder.card["head"]).onwards(decoder.classifier)
        self._onwards, self._count = Onwards(session, lag), 0
        self._every = max(1, round(decoder.stride / self.stride))
        self._smoothed = Smoothed(len(session.classes), self._every) if smooth else np.asarray
        self._decide = decoder.decision.start(decoder.movements)

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """What the z-score is given (N, D) for the next windows -> probabilities (N, G)."""
        x = np.asarray(inputs, np.float64)
        learnt = (self._count + np.arange(len(x))) % self._every == 0
        self._count += len(x)
        active = np.ones(len(x), bool) if 0 in self.decoder.movements else self._loud(x)
        found = np.zeros((len(x), len(self.decoder.movements)), np.float32)
        found[:, self._onwards.session.classes] = self._smoothed(self._onwards(x, active, learnt))
        return found

    def stream(self, emg: np.ndarray) -> "Answers":
        """As `Decoder.stream`, of the next stretch (T, C) of this session.

        Raises:
            InputError: other channels, shorter than one window, NaN or Inf: nothing is learnt of it.
        """
        emg = np.asarray(emg, np.float32)
        if emg.ndim != 2 or emg.shape[1] != self.decoder.channels or not np.isfinite(emg).all():
            raise InputError(f"`emg` must be finite, (T, {self.decoder.channels}). Received: shape {emg.shape}")
        seen = self._inputs(*self.decoder.stretch(emg, self.stride))
        labels, probabilities = self._decide(self(seen["inputs"]))
        return {"label": labels, "probabilities": probabilities, "features": seen["features"]}

    @property
    def moved(self) -> bool:
        """Whether it has moved what movements look like, not only where features are centred."""
        return self._onwards.session.moved

    def carried(self) -> "Decoder":
        """The decoder that the next session begins with, moved a part of the way. One that was calibrated stays.

        `card["carried"]` counts such sessions; scores in the card are from before.
        """
        model = saving.copied(self.decoder.model)
        new = type(self.decoder)(self.decoder.card, model)
        self._onwards.end()
        if heads.kind(new.card["head"]).carry(new.classifier, self._onwards.session):
            new.card = new.card | {"carried": new.card.get("carried", 0) + 1}
        return new

    @cached_property
    def _inputs(self) -> OverRecording:
        return over_recording(self.decoder.model, stream_inputs)


class Ahead:
    """`models.live.Live`, or another network of inputs over a live signal, deciding as a session that adapts."""

    def __init__(self, network: Callable, decoder: "Decoder", stride: int):
        self.network, self.session, self._stride = network, Adapting(decoder, stride, LAG), stride

    def __call__(self, volts: np.ndarray, newest: int | None = None) -> "Answers | None":
        answers = self.network(volts, newest)
        return answers and {"probabilities": self.session(answers["inputs"]), "features": answers["features"]}

    def restart(self) -> None:
        """Forgets the signal, not the session."""
        self.network.restart()

    def next(self) -> None:
        """Another session begins, with what this one carried on."""
        self.session = Adapting(self.session.carried(), self._stride, LAG)


def stream_inputs(network: keras.Model, stride: int, compiled: bool = True, slide: Callable = over_stretch,
                  standardised: bool = False) -> Callable[[tf.Tensor], dict]:
    """As `streaming.stream_network`: (B, T, C) -> {"inputs": of the z-score (B, W, D), "features": (B, W, C, F)}."""
    classifier = network.get_layer("head").get_layer("classifier")
    before = keras.Model(classifier.inputs, classifier.get_layer("z_score").input)
    seen_in = stream_seen(network, stride, compiled, slide, standardised)

    def answer(x):
        seen = seen_in(x)
        inputs = before([tf.reshape(part, (-1, *part.shape[2:])) for part in seen])
        return {"inputs": tf.reshape(inputs, (tf.shape(x)[0], -1, inputs.shape[-1])), "features": seen[0]}

    return answer


def live(decoder: "Decoder", stride: int) -> Live:
    """The network that `Ahead` takes, for FINs that stream."""
    return Live(decoder.model, stride, stream_inputs)


def windows(decoder: "Decoder") -> Callable[[np.ndarray], dict]:
    """Windows (B, L, C) in volts -> what `stream_inputs` gives, for each; for FINs that do not stream."""
    over = over_recording(decoder.model, stream_inputs)
    return lambda emg: over.of_windows(np.asarray(emg, np.float32))
