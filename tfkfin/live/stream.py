"""A decoder over samples as a device gives them: repaired, resampled, filtered, cut, decided; live and offline."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfkfin.base import registry
from tfkfin.base.console import InputError
from tfkfin.decoder.decision import Answers
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.signal.filtering import Causal, sections
from tfkfin.signal.resampling import Resampler
from tfkfin.store import presets

STREAMED = "live"  # the engine of decoders whose FINs stream: each sample is filtered once


@dataclass(frozen=True)
class Decisions:
    """Decisions for W windows in order of time.

    Attributes:
        numbers: (W,) which windows of the stream, from 0.
        labels: (W,) int64, -1 where rejected.
        probabilities: (W, G), averaged over the vote.
        features: (W, C, F), imitated.
        prepared_s, inferred_s: what they took together, before and in the network.
    """

    numbers: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    features: np.ndarray
    prepared_s: float
    inferred_s: float

    def __len__(self) -> int:
        return len(self.numbers)


class Cut:
    """`tfkfin.nets.one_stride.Live` for FINs that see a window as a whole: every window is cut and answered for itself.

    `answer`: of windows (1, L, C); None: the decoder's.
    """

    def __init__(self, decoder: BaseDecoder, stride: int, answer: Callable[[np.ndarray], Answers] | None = None):
        self.stride, self.length, self.channels = stride, decoder.length, decoder.channels
        self._answer = answer or decoder
        self.restart()

    def restart(self) -> None:
        """Forgets the signal."""
        self._waiting = np.empty((0, self.channels), np.float32)

    def __call__(self, volts: np.ndarray, newest: int | None = None) -> Answers | None:
        """As `Live`: samples (n, C) that follow those before -> answers of the windows that they complete."""
        known = np.concatenate([self._waiting, np.asarray(volts, np.float32)])
        count = (len(known) - self.length) // self.stride + 1
        first = 0 if newest is None else max(0, count - newest)
        answers = [self._answer(known[None, w * self.stride : w * self.stride + self.length])
                   for w in range(first, count)]
        self._waiting = known[max(0, count) * self.stride :]
        return {name: np.concatenate([a[name] for a in answers]) for name in answers[0]} if answers else None


class Stream:
    """Decides a signal that goes on, once a stride, as its decoder votes and rejects.

    Window w covers the samples [w stride, w stride + length) at the decoder's rate, counted from the beginning.

    Args:
        decoder: a whole one, or an exported one on some engine.
        stride: samples at the decoder's rate; 0: the decoder's own.
        rate_hz: of the signal; 0: the decoder's. Another one is resampled, causally.
        streamed: whether the network filters each sample once; None: where it can.
        adapt: adapts without labels, as `tfkfin.decoder.session` does.

    Raises:
        InputError: a rate that cannot be resampled, a stride longer than a window, or a decoder that cannot adapt.
    """

    def __init__(self, decoder: BaseDecoder, stride: int = 0, rate_hz: float = 0.0, streamed: bool | None = None,
                 adapt: bool = False):
        self.stride, self.length, self.channels = stride or decoder.stride, decoder.length, decoder.channels
        if not 0 < self.stride <= self.length:
            raise InputError(f"a stride must be 1 to {self.length} samples, one window. Received: {self.stride}")
        self.rate_hz = float(decoder.card["rate_hz"])
        self.source_hz = float(rate_hz) or self.rate_hz
        self._resample = None if self.source_hz == self.rate_hz else Resampler(self.source_hz, self.rate_hz)
        self._filter = Causal(sections(decoder.card.get("filter"), self.rate_hz))
        self._next, self._adapt = 0, adapt
        self.use(decoder, self.prepared(decoder, streamed))
        self.restart()

    def prepared(self, decoder: BaseDecoder, streamed: bool | None = None) -> Callable:
        """A decoder's network, with all that has to be compiled done, for `use`."""
        network = _network(decoder, self.stride, streamed, self._adapt)
        network(np.tile(np.asarray(decoder.card["mean_v"], np.float32), (self.length + self.stride, 1)))
        network.restart()
        if not self._adapt:
            return network
        from tfkfin.decoder.session import LiveSession

        return LiveSession(network, decoder, self.stride)

    def use(self, decoder: BaseDecoder, network: Callable) -> None:
        """Goes on with another decoder of the same windows and filter, `prepared`; no window is missed."""
        if hasattr(self, "network"):
            network(self._past)
        self.decoder, self.network, self.movements = decoder, network, decoder.movements
        self._decide = decoder.decision.start(decoder.movements)

    @property
    def following(self) -> int:
        """The number of the next window that becomes whole."""
        return self._next

    @property
    def delay_s(self) -> float:
        """How far the middle of what a decision sees lies behind its last sample: window, vote and resampling."""
        seen = self.length + (self.decoder.decision.vote - 1) * self.stride
        return seen / 2 / self.rate_hz + (self._resample.delay_s if self._resample else 0.0)

    def restart(self, at: int = 0, number: int | None = None) -> None:
        """Forgets the signal; the next sample is the source's number `at`. Windows go on counting, or from `number`."""
        self._next = self._next if number is None else number
        for part in (self.network, self._filter, self._resample):
            if part:
                part.restart()
        self._decide = self.decoder.decision.start(self.movements)
        self._at, self._known, self._first, self._last = at, 0, self._next, None
        self._past = np.empty((0, self.channels), np.float32)  # from the beginning of the next window on

    def begin(self) -> None:
        """Another session: what was learnt without labels is carried on."""
        if self._adapt:
            self.network.next()

    def follow(self, rate_hz: float, at: int) -> None:
        """The source truly gives so many samples a second: from its sample number `at` on they are resampled so."""
        self.source_hz = float(rate_hz)
        self._resample = Resampler(self.source_hz, self.rate_hz)
        self.restart(at)

    def span(self, number: int) -> tuple[int, int]:
        """The source's samples [first, last] that window `number` covers, if it began after the last `restart`."""
        begin = (number - self._first) * self.stride
        ends = begin, begin + self.length - 1
        return tuple(self._at + (self._resample.newest(end) if self._resample else end) for end in ends)

    def __call__(self, volts: np.ndarray, newest: int | None = None) -> Decisions | None:
        """Samples (n, C) at the source's rate that follow those before -> decisions that they complete, None of none.

        NaN and Inf become the channel's last finite value. `newest`: at most so many decisions, the last ones.
        """
        began = time.perf_counter()
        volts = self._filter(self._at_rate(self._repaired(volts)))
        self._known += len(volts)
        self._next = self._first + max(0, (self._known - self.length) // self.stride + 1)
        ahead = (self._next - self._first) * self.stride - self._known
        self._past = np.concatenate([self._past, volts])[ahead:] if ahead < 0 else self._past[:0]
        prepared = time.perf_counter()
        answers = self.network(volts, newest)
        if answers is None:
            return None
        labels, probabilities = self._decide(answers["probabilities"])
        return Decisions(np.arange(self._next - len(labels), self._next), labels, probabilities, answers["features"],
                         prepared - began, time.perf_counter() - prepared)

    def _at_rate(self, volts: np.ndarray) -> np.ndarray:
        return self._resample(volts) if self._resample else volts

    def _repaired(self, volts: np.ndarray) -> np.ndarray:
        volts = np.asarray(volts, np.float32)
        if volts.ndim != 2 or volts.shape[1] != self.channels:
            raise InputError(f"`volts` must be (n, {self.channels}). Received: shape {volts.shape}")
        there = np.isfinite(volts)
        if not there.all():
            before = np.zeros(self.channels, np.float32) if self._last is None else self._last
            rows = np.where(there, np.arange(1, len(volts) + 1)[:, None], 0)
            volts = np.concatenate([before[None], volts])[np.maximum.accumulate(rows, axis=0), np.arange(self.channels)]
        if len(volts):
            self._last = volts[-1]
        return volts

    def held(self, count: int) -> np.ndarray:
        """So many samples as the last one was: what stands for samples that were lost."""
        last = np.zeros(self.channels, np.float32) if self._last is None else self._last
        return np.tile(last, (count, 1))


def _network(decoder: BaseDecoder, stride: int, streamed: bool | None, adapt: bool) -> Callable:
    if adapt and decoder.model is None:
        raise InputError("an exported graph alone cannot adapt: the engine must be live or keras")
    if streamed is None:
        streamed = decoder.model is not None and decoder.forward.streams
    if not adapt:
        return decoder.forward.live(stride) if streamed else Cut(decoder, stride)
    from tfkfin.decoder.session import WANTED

    decoder.check_calibrates()
    return decoder.forward.live(stride, WANTED) if streamed else Cut(
        decoder, stride, lambda emg: decoder.forward.windows(emg, WANTED))


def load(model: str | Path, engine: str = "auto") -> tuple[BaseDecoder, str]:
    """A decoder by name on the engine that is fastest for one window after another, and that engine's name.

    Args:
        model: the name of a model in ./savedmodels, a model or version folder, or one that `BaseDecoder.save` wrote.
        engine: "auto"; "live", for FINs that stream; or one of `tfkfin.serving.engines.ENGINES`.

    Raises:
        InputError: no such decoder, or an engine that it cannot have.
    """
    from tfkfin.decoder import decoder as whole
    from tfkfin.serving.engines import ENGINES, Exported

    if engine not in ("auto", STREAMED, *ENGINES):
        raise InputError(f"`engine` must be one of {('auto', STREAMED, *ENGINES)}. Received: engine={engine!r}")
    saved = (Path(model) / whole.FILE).is_file()
    version = Path(model) if saved else presets.find(model)
    card = presets.card(version)
    if card.get("kind") != "decoder":
        raise InputError(f"{version} holds {card.get('kind', 'something else')}, no decoder: "
                         "export a run of the stage finetune")
    there = saved or (version / "assets.extra" / whole.FILE).is_file()
    can = there and registry.load("nets/fins", card["family"], "FAMILY").streams
    if engine == STREAMED and not can:
        raise InputError(f"{version} has no FINs that stream here, so there is no engine {STREAMED}")
    if saved or can and engine in ("auto", STREAMED):
        return BaseDecoder.load(version), STREAMED if can else "keras"
    exported = Exported(version, engine)
    return exported, exported.engine


def whole(decoder: BaseDecoder, model: str | Path) -> BaseDecoder:
    """A decoder that `load` gave, with its network.

    Raises:
        InputError: there is none in its folder.
    """
    return decoder if decoder.model is not None else BaseDecoder.load(presets.find(model))
