"""Online adaptation without labels: a session of a decoder that adapts to the signal that it decides.

The decoder never changes. To undo what a session adapted, leave it; to let the next session begin with a part of it,
ask for the decoder `carried`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tfkfin.base import axes, samples
from tfkfin.decoder.decision import Answers, Smoothed
from tfkfin.sessions.online import OnlineAdaptation

LAG = 20  # windows until an update decides live: a second at 50 ms; it takes a tenth of one, longer than a stride
WANTED = ("inputs", "features", "quality")  # of a network, by a session


class AdaptiveSession:
    """A session in order of time: signals, or single windows. Decisions are causal.

    Decisions are those of `tfkfin.sessions`, smoothed in time. Windows without activity are decided and not adapted to,
    unless rest is one of the classes.

    Args:
        decoder: a `BaseDecoder`, calibrated for this session or not.
        stride: samples between windows; 0: the decoder's own. Where they lie closer than those, so many fewer of them
            are adapted to.
        lag: windows until an update decides, which is computed meanwhile; 0: at once.
        smooth: False leaves each window's probabilities as they are.

    Raises:
        InputError: the decoder keeps nothing of sessions.
    """

    def __init__(self, decoder: Any, stride: int = 0, lag: int = 0, smooth: bool = True):
        decoder.check_calibrates()
        self.decoder, self.stride = decoder, stride or decoder.stride
        session, self._active = decoder.head.resume()
        self._adaptation, self._count = OnlineAdaptation(session, lag), 0
        self._every = max(1, round(decoder.stride / self.stride))
        self._smoothed = Smoothed(len(session.prior.classes), self._every) if smooth else np.asarray
        self._decide = decoder.decision.start(decoder.movements)

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Head inputs (N, D) of the next windows -> probabilities (N, G)."""
        x = np.asarray(inputs, np.float64)
        counted = (self._count + np.arange(len(x))) % self._every == 0
        self._count += len(x)
        active = np.ones(len(x), bool) if 0 in self.decoder.movements else self._active(x)
        found = np.zeros((len(x), len(self.decoder.movements)), np.float32)
        found[:, self._adaptation.session.prior.classes] = self._smoothed(self._adaptation(x, active, counted))
        return found

    def stream(self, emg: np.ndarray) -> Answers:
        """As `BaseDecoder.stream`, of the next signal (T, C) of this session.

        Raises:
            InputError: other channels, shorter than one window, NaN, Inf or what no amplifier gives: nothing is
                adapted to it.
        """
        emg = np.asarray(emg, np.float32)
        axes.signal("emg", emg.shape, self.decoder.channels)
        samples.checked(emg)
        answers = self.decoder.forward.recording(*self.decoder.windows_of(emg, self.stride), WANTED)
        labels, probabilities = self._decide(self(answers["inputs"]))
        rest = {name: part for name, part in answers.items() if name != "inputs"}
        return rest | {"label": labels, "probabilities": probabilities}

    @property
    def moved(self) -> bool:
        """Whether class means have moved, not the z-score alone."""
        return self._adaptation.session.moved

    def carried(self) -> Any:
        """A decoder whose prior has moved a part of the way to this session; one that was calibrated stays as it is.

        `card["carried"]` counts such sessions; scores in the card are from before.
        """
        new = self.decoder.with_head(self.decoder.head.copy())
        self._adaptation.end()
        if new.head.carry(self._adaptation.session):
            new.card = new.card | {"carried": new.card.get("carried", 0) + 1}
        return new


class LiveSession:
    """A live network that decides as a session that adapts.

    Args:
        network: `tfkfin.nets.one_stride.Live` or alike, which answers for `WANTED`.
        decoder: as of `AdaptiveSession`.
        stride: samples between windows.
    """

    def __init__(self, network: Callable, decoder: Any, stride: int):
        self.network, self._stride = network, stride
        self.begin(decoder)

    def __call__(self, volts: np.ndarray, newest: int | None = None) -> Answers | None:
        answers = self.network(volts, newest)
        return answers and answers | {"probabilities": self.session(answers["inputs"])}

    def restart(self) -> None:
        """Forgets the signal, not the session."""
        self.network.restart()

    def next(self) -> None:
        """Begins another session, with the prior that this one carried on."""
        self.begin(self.session.carried())

    def begin(self, decoder: Any) -> None:
        """Begins a session of a decoder with the same network."""
        self.session = AdaptiveSession(decoder, self._stride, LAG)
