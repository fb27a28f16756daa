"""A decoder over samples as a device gives them: repaired, resampled, filtered, cut into windows and decided."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfkfin.base import axes, registry, samples
from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.decoder.decision import Answers
from tfkfin.decoder.decoder import FILE, BaseDecoder
from tfkfin.signal.condition import OUTPUTS
from tfkfin.signal.filtering import Causal, sections
from tfkfin.signal.resampling import Resampler
from tfkfin.store import folders, presets

STREAMED = "live"  # the engine of decoders whose FINs stream: each sample goes through them once


@dataclass(frozen=True)
class Decisions:
    """Decisions for W windows in order of time.

    Attributes:
        numbers: (W,) of the windows in the stream, from 0.
        labels: (W,) int64, -1 where rejected.
        probabilities: (W, G), averaged by the vote.
        features: (W, C, F), imitated.
        quality: of `tfkfin.signal.condition.OUTPUTS`, where the decoder knows training's signals.
        prepared_s, inferred_s: time that all of them together took before the network, and in it.
    """

    numbers: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    features: np.ndarray
    quality: Answers
    prepared_s: float
    inferred_s: float

    def __len__(self) -> int:
        return len(self.numbers)


class CutWindows:
    """Stands in for `tfkfin.nets.one_stride.Live` where FINs need whole windows: cuts out and answers each window.

    Args:
        answer: of windows (1, L, C); None: the decoder itself.
    """

    def __init__(self, decoder: BaseDecoder, stride: int, answer: Callable[[np.ndarray], Answers] | None = None):
        self.stride, self.length, self.channels = stride, decoder.length, decoder.channels
        self._answer = answer or decoder
        self.restart()

    def restart(self) -> None:
        """Forgets the signal."""
        self._waiting = np.empty((0, self.channels), np.float32)

    def __call__(self, volts: np.ndarray, newest: int | None = None) -> Answers | None:
        """As `Live`: the next samples (n, C) -> answers for the windows that they complete."""
        known = np.concatenate([self._waiting, np.asarray(volts, np.float32)])
        count = (len(known) - self.length) // self.stride + 1
        first = 0 if newest is None else max(0, count - newest)
        answers = [self._answer(known[None, w * self.stride : w * self.stride + self.length])
                   for w in range(first, count)]
        self._waiting = known[max(0, count) * self.stride :]
        return {name: np.concatenate([a[name] for a in answers]) for name in answers[0]} if answers else None


class HeadApart:
    """A live network whose head decides apart from it: given new weights, it goes on at once, with nothing compiled.

    Args:
        network: answers for `WANTED`.
    """

    def __init__(self, network: Callable, head: Any):
        import tensorflow as tf

        inputs = tf.TensorSpec((None, head.z_score.input.shape[-1]), tf.float32)
        self.network, self.restart = network, network.restart
        self._decide = tf.function(head.decide, input_signature=[inputs], autograph=False).get_concrete_function()

    def __call__(self, volts: np.ndarray, newest: int | None = None) -> Answers | None:
        import tensorflow as tf

        answers = self.network(volts, newest)
        return answers and answers | {"probabilities": self._decide(tf.constant(answers["inputs"], tf.float32)).numpy()}


class Stream:
    """Decides a live signal once a stride, with the vote and the rejection of the decoder.

    Window w covers the samples [w stride, w stride + length) at the decoder's rate, counted from the first sample.

    Args:
        decoder: one with its network, or an exported one on some engine.
        stride: samples at the decoder's rate; 0: the decoder's own.
        rate_hz: of the signal, which is resampled causally if the decoder's rate differs; 0: the decoder's.
        adapt: adapts to the signal without labels, as `tfkfin.decoder.session` does.

    Raises:
        InputError: a rate that cannot be resampled, a stride longer than a window, or a decoder that cannot adapt.

    Attributes:
        following: number of the next window.
    """

    def __init__(self, decoder: BaseDecoder, stride: int = 0, rate_hz: float = 0.0, adapt: bool = False):
        self.stride, self.length, self.channels = stride or decoder.stride, decoder.length, decoder.channels
        if not 0 < self.stride <= self.length:
            raise InputError(f"a stride must be 1 to {self.length} samples, one window. Received: {self.stride}")
        self.rate_hz = float(decoder.card["rate_hz"])
        self.source_hz = samples.rate("the signal", float(rate_hz) or self.rate_hz)
        self._resample = None if self.source_hz == self.rate_hz else Resampler(self.source_hz, self.rate_hz)
        self._filter = Causal(sections(decoder.card.get("filter"), self.rate_hz))
        self.following, self._adapt = 0, adapt
        self.use(decoder, self.prepared(decoder))
        self.restart()

    def prepared(self, decoder: BaseDecoder, apart: bool = False) -> Callable:
        """A decoder's network for `use`. All of it is compiled here, which takes a while.

        Args:
            apart: the head may get other weights later.
        """
        from tfkfin.decoder.session import WANTED, LiveSession

        if self._adapt and decoder.model is None:
            raise InputError("an exported graph alone cannot adapt: the engine must be live or keras")
        if self._adapt:
            decoder.check_calibrates()
        wanted = WANTED if self._adapt or apart else decoder.wanted
        if decoder.model is None:
            network = CutWindows(decoder, self.stride)
        elif decoder.forward.streams:
            network = decoder.forward.live(self.stride, wanted)
        else:
            network = CutWindows(decoder, self.stride, lambda emg: decoder.forward.windows(emg, wanted))
        network(np.tile(np.asarray(decoder.card["mean_v"], np.float32), (self.length + self.stride, 1)))
        network.restart()
        if self._adapt:
            return LiveSession(network, decoder, self.stride)
        return HeadApart(network, decoder.head) if apart else network

    def use(self, decoder: BaseDecoder, network: Callable) -> None:
        """Continues with another decoder of the same windows and filter, and its `prepared` network, without a gap."""
        if hasattr(self, "network"):
            network(self._past)
        self.decoder, self.network, self.movements = decoder, network, decoder.movements
        self._decide = decoder.decision.start(decoder.movements)

    def renewed(self) -> None:
        """The decoder's head has other weights: online adaptation begins anew with them."""
        if self._adapt:
            self.network.begin(self.decoder)

    @property
    def delay_s(self) -> float:
        """How old the middle of the signal is that a decision depends on: half of window and vote, and resampling."""
        covered = self.length + (self.decoder.decision.vote - 1) * self.stride
        return covered / 2 / self.rate_hz + (self._resample.delay_s if self._resample else 0.0)

    def restart(self, at: int = 0, number: int | None = None) -> None:
        """Forgets the signal.

        Args:
            at: number of the next sample in the source.
            number: of the next window; None: windows go on counting.
        """
        self.following = self.following if number is None else number
        for part in (self.network, self._filter, self._resample):
            if part:
                part.restart()
        self._decide = self.decoder.decision.start(self.movements)
        self._at, self._known, self._first, self._last = at, 0, self.following, np.zeros(self.channels, np.float32)
        self._past = np.empty((0, self.channels), np.float32)  # samples from the start of the next window on

    def next_session(self) -> None:
        """Another session starts, with the prior that online adaptation has moved."""
        if self._adapt:
            self.network.next()

    def set_source_rate(self, rate_hz: float, at: int) -> None:
        """The true rate of the source, which its samples are resampled from; sample `at` is the first one."""
        self.source_hz = float(rate_hz)
        self._resample = Resampler(self.source_hz, self.rate_hz)
        self.restart(at)

    def span(self, number: int) -> tuple[int, int]:
        """The source's samples [first, last] that window `number` covers, if it began after the last `restart`."""
        start = (number - self._first) * self.stride
        ends = start, start + self.length - 1
        return tuple(self._at + (self._resample.newest(end) if self._resample else end) for end in ends)

    def __call__(self, volts: np.ndarray, newest: int | None = None) -> Decisions | None:
        """The next samples (n, C), at the source's rate -> decisions for the windows that they complete, if any.

        NaN, Inf and what no amplifier gives become the last value of the channel that was none of these.

        Args:
            newest: decides for so many windows at most, the last ones.
        """
        start = time.perf_counter()
        volts = self._repaired(volts)
        volts = self._filter(self._resample(volts) if self._resample else volts)
        self._known += len(volts)
        self.following = self._first + max(0, (self._known - self.length) // self.stride + 1)
        ahead = (self.following - self._first) * self.stride - self._known
        self._past = np.concatenate([self._past, volts])[ahead:] if ahead < 0 else self._past[:0]
        prepared = time.perf_counter()
        answers = self.network(volts, newest)
        if answers is None:
            return None
        labels, probabilities = self._decide(answers["probabilities"])
        numbers, spent = np.arange(self.following - len(labels), self.following), time.perf_counter() - prepared
        quality = {name: answers[name] for name in OUTPUTS if name in answers}
        return Decisions(numbers, labels, probabilities, answers["features"], quality, prepared - start, spent)

    def _repaired(self, volts: np.ndarray) -> np.ndarray:
        volts = np.asarray(volts, np.float32)
        axes.signal("volts", volts.shape, self.channels)
        fit = samples.fit(volts)
        if not fit.all():
            rows = np.where(fit, np.arange(1, len(volts) + 1)[:, None], 0)  # of the last fit value; 0: before
            known = np.concatenate([self._last[None], volts])
            volts = known[np.maximum.accumulate(rows, axis=0), np.arange(self.channels)]
        if len(volts):
            self._last = volts[-1]
        return volts

    def repeated(self, count: int) -> np.ndarray:
        """The last sample, `count` times: it stands in for samples that were lost."""
        return np.tile(self._last, (count, 1))


def load(model: str | Path, engine: str = "auto", adapt: bool = False) -> tuple[BaseDecoder, str]:
    """A decoder on the engine that is the fastest for single windows, and the name of that engine.

    Args:
        model: the name of a model in ./savedmodels, a model or version folder, or one that `BaseDecoder.save` wrote.
        engine: "auto"; "live", for FINs that stream; or one of `tfkfin.serving.engines.ENGINES`.
        adapt: takes the network itself where the engine cannot adapt.

    Raises:
        InputError: no such decoder, or an engine that it does not have.
    """
    from tfkfin.serving.engines import ENGINES, Exported

    if engine not in ("auto", STREAMED, *ENGINES):
        raise InputError(f"`engine` must be one of {('auto', STREAMED, *ENGINES)}. Received: engine={engine!r}")
    saved = (Path(model) / FILE).is_file()
    version = Path(model) if saved else presets.find(model)
    card = folders.decoder_card(version)
    if poor := card.get("imitates_badly"):
        log.warning("warning: the decoder's FINs did not hold on the recordings that it was made of (R² of %s %.2f)",
                    poor["feature"], poor["r2"])
    has_network = saved or (version / "assets.extra" / FILE).is_file()
    streams = has_network and registry.load("nets/fins", card["family"], "FAMILY").streams
    if engine == STREAMED and not streams:
        raise InputError(f"{version} has no FINs that stream here, so there is no engine {STREAMED}")
    if saved or streams and engine in ("auto", STREAMED):
        return BaseDecoder.load(version), STREAMED if streams else "keras"
    exported = Exported(version, engine)
    return (with_network(exported, model), "keras") if adapt else (exported, exported.engine)


def with_network(decoder: BaseDecoder, model: str | Path) -> BaseDecoder:
    """A decoder that `load` returned for `model`, with its network.

    Raises:
        InputError: its folder has no network.
    """
    return decoder if decoder.model is not None else BaseDecoder.load(presets.find(model))
