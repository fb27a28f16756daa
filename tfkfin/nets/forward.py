"""The one way from volts to what a network answers: over windows, recordings, exported graphs and live signals.

    volts -> standardise -> FINs and descriptions (`Trunk`) -> head inputs -> classifier

Every answer is a dict with, as far as they are asked for,

    "inputs"         head inputs (.., D), the rows that the head's z-score gets; (.., C, F) of the paper's head
    "features"       what the FINs imitate, in their own units (.., C, F)
    "probabilities"  (.., G)
    "quality"        `tfkfin.signal.condition.OUTPUTS`, where the decoder knows what training's signals were like

What is compiled belongs to the trunk, which a decoder shares with those that are calibrated from it, and with others
that are fitted on the same FINs.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial

import keras
import numpy as np
import tensorflow as tf

from tfkfin.base import machine
from tfkfin.base.answers import steps
from tfkfin.nets.heads import CHUNK, Head
from tfkfin.nets.layers import found as layer_called
from tfkfin.nets.network import Parts
from tfkfin.nets.one_stride import Live
from tfkfin.nets.quality import MEASURES, Measures, judged, kept, offsets
from tfkfin.nets.sliding import over_signal, size, windows_in
from tfkfin.nets.streaming import stream_bank, stream_layer, streams

ALL = ("inputs", "features", "probabilities")
BATCH = 64  # windows at a time where they are cut one by one
PIECE = 256  # windows of a recording at a time where it is streamed
ALL_THERE_IS = 1e9  # a measure's range that nothing lies outside of
FEW = 4  # windows: where runs at one stride are shorter on average, all windows are cut


class Trunk:
    """FINs and descriptions, which see standardised samples, as functions that are compiled once.

    Each gives {"features": (.., C, F), "described": (.., S)}, the parts that are `wanted` and there.

    Args:
        length, channels: of the windows.
        bank: windows (B, L, C) -> features (B, C, F), or None.
        describe: windows (B, L, C) -> (B, S), or None.
        measures: windows (B, L, C) -> (B, C, 5), or None: those of `tfkfin.nets.quality`.
    """

    def __init__(self, length: int, channels: int, bank: keras.Model | None = None,
                 describe: keras.layers.Layer | None = None, measures: Measures | None = None):
        self.length, self.channels = length, channels
        parts = {"features": bank, "described": describe, "measures": measures}
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.streams = bank is None or streams(bank)
        self._functions = {}

    @classmethod
    def of(cls, bank: keras.Model, describe: keras.layers.Layer | None = None,
           measures: Measures | None = None) -> "Trunk":
        """The trunk of a bank and a description; the same object whenever they are the same."""
        what = keras.saving.serialize_keras_object(describe) if describe is not None else None
        key = (id(describe) if what and describe.weights else json.dumps(what, sort_keys=True, default=str),
               measures and measures.rate_hz)
        known = bank.__dict__.setdefault("_trunks", {})
        if key not in known:
            known[key] = cls(*bank.input_shape[1:], bank, describe, measures)
        return known[key]

    def windows(self, x: tf.Tensor, wanted: Sequence[str] = ("features", "described"),
                limits: np.ndarray | None = None) -> dict[str, tf.Tensor]:
        """Windows (B, L, C). `limits`: ranges of `tfkfin.nets.quality`, by which descriptions are spared faults."""
        return self._found({name: part for name, part in self.parts.items() if name in wanted}, x, limits)

    def signal(self, stride: int, wanted: Sequence[str] = ("features", "described"), compiled: bool = True,
               slide: Callable = over_signal) -> Callable[..., dict[str, tf.Tensor]]:
        """A function of signals (B, T, C), and of `limits`, -> (B, W, ..), for the windows [w stride, w stride + L)."""
        layer = partial(stream_layer, length=self.length)
        make = {"features": stream_bank, "described": layer, "measures": layer}
        parts = {name: make[name](part, stride=stride, compiled=compiled, slide=slide)
                 for name, part in self.parts.items() if name in wanted}
        return partial(self._found, parts)

    def recording(self, emg: np.ndarray, starts: np.ndarray, mean: np.ndarray, sd: np.ndarray,
                  wanted: Sequence[str] = ("features", "described"),
                  limits: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Windows that lie anywhere in a recording, in pieces of bounded memory.

        Args:
            emg: (T, C) float32 volts.
            starts: first samples of the windows (N,), in any order, N > 0.
            mean, sd: (C,) that samples are standardised by.
        """
        machine.one_process()
        emg, starts, outputs = np.asarray(emg, np.float32), np.asarray(starts), {}
        mean, sd = (np.asarray(value, np.float32) for value in (mean, sd))
        stride, runs = runs_of(starts)
        streamed = self.streams and len(starts) > BATCH and len(starts) >= FEW * len(runs)
        pieces, size = (self._laid_out(starts, stride, runs), PIECE) if streamed else (self._cut(starts), BATCH)
        for windows, samples in steps(pieces, -(-len(starts) // size)):
            x = emg[np.minimum(samples, len(emg) - 1)]
            answer = self._compiled(stride, x.shape[1], wanted, limits is not None)(
                x, mean, sd, *(() if limits is None else (limits,))) if streamed else self.windows(
                (tf.constant(x) - mean) / sd, wanted, limits)
            there = windows >= 0
            for name, value in answer.items():
                value = value.numpy().reshape(len(windows), *value.shape[2 if streamed else 1 :])
                if name not in outputs:
                    outputs[name] = np.empty((len(starts), *value.shape[1:]), value.dtype)
                outputs[name][windows[there]] = value[there]
        return outputs

    def _found(self, parts: dict[str, Callable], x: tf.Tensor, limits=None) -> dict[str, tf.Tensor]:
        found = {name: part(x) for name, part in parts.items() if name != "described"}
        if "described" in parts:
            names = () if limits is None else getattr(self.parts["described"], "takes", ())
            found["described"] = parts["described"](x, **{
                name: {"kept": kept, "offset": offsets}[name](found["measures"], limits) for name in names})
        return found

    def _compiled(self, stride: int, samples: int, wanted: Sequence[str], limited: bool) -> Callable:
        key = stride, samples, tuple(sorted(wanted)), limited
        if key not in self._functions:
            answer, shapes = self.signal(stride, wanted), [(None, samples, self.channels), (self.channels,),
                                                           (self.channels,), (2, self.channels, len(MEASURES))]
            self._functions[key] = tf.function(
                lambda emg, mean, sd, *limits: answer((emg - mean) / sd, *limits), autograph=False,
                input_signature=[tf.TensorSpec(shape, tf.float32) for shape in shapes[: 4 if limited else 3]])
        return self._functions[key]

    def _cut(self, starts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(which windows, the samples of each (n, length)), a few at a time."""
        for i in range(0, len(starts), BATCH):
            windows = np.arange(i, min(i + BATCH, len(starts)))
            yield windows, starts[windows, None] + np.arange(self.length)

    def _laid_out(self, starts: np.ndarray, stride: int,
                  runs: list[tuple[int, int]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(which windows (PIECE,), -1: none; the samples that they lie in (1, T)), all runs laid end to end.

        So all pieces have one size, for which one function is compiled.
        """
        between = -(-self.length // stride)  # windows that begin in one run and end in the next, and one
        slots = [np.concatenate([np.arange(low, high), np.full(between - 1, -1)]) for low, high in runs]
        samples = [starts[low] + np.arange((high - low - 1 + between) * stride) for low, high in runs]
        slots, samples = np.concatenate(slots), np.concatenate(samples)
        span = (PIECE - 1) * stride + self.length
        for i in range(0, len(slots), PIECE):
            windows, inside = slots[i : i + PIECE], samples[i * stride : i * stride + span]
            yield (np.pad(windows, (0, PIECE - len(windows)), constant_values=-1),
                   np.pad(inside, (0, span - len(inside)), mode="edge")[None])


class Forward:
    """A decoder's network, run over whatever there is.

    Attributes:
        parts: the network's layers.
        trunk: its FINs and descriptions.
        head: its classifier, with what every kind of head can do.

    Args:
        ranges: of the measures of training's signals, as `tfkfin.nets.quality.learnt` gives them; None: not known.
        rate_hz: of the windows.
        without: electrodes, counted from 0, that are left out of descriptions always.
    """

    def __init__(self, network: keras.Model, ranges: dict | None = None, rate_hz: float = 0.0,
                 without: Sequence[int] = ()):
        self.parts, self.ranges, self.without = Parts.of(network), ranges, list(without)
        measures = Measures(rate_hz) if ranges else None
        self.trunk, self.head = Trunk.of(self.parts.bank, self.parts.describe, measures), Head.of(self.parts)

    @property
    def streams(self) -> bool:
        """Whether each sample of a signal goes through the FINs once."""
        return self.trunk.streams

    @cached_property
    def limits(self) -> np.ndarray | None:
        """Training's ranges (2, C, 5), by which descriptions are spared faults; None: they are not.

        An electrode that is never left out, since it was flat in training as envelopes are, is never corrected either.
        """
        if not self.ranges or layer_called(self.parts.classifier, "imputation") is None:
            return None
        first, ends = self.ranges.get("first") or self.ranges, np.float32([[[-ALL_THERE_IS]], [[ALL_THERE_IS]]])
        limits = np.where(self.spared[:, None], np.float32([first["low"], first["high"]]), ends)
        limits[:, self.without, 1:] = -ALL_THERE_IS
        return limits

    @property
    def spared(self) -> np.ndarray:
        """Which electrodes (C,) can be left out: what they would say can be estimated from the others."""
        imputation = layer_called(self.parts.classifier, "imputation")
        if not self.ranges or imputation is None:
            return np.zeros(self.trunk.channels, bool)
        with tf.init_scope():  # numbers also where a graph is being made
            return imputation.known

    def after_fins(self, inputs: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """The answers "features" and "probabilities" and, where ranges are known, those of "quality", of standardised
        windows whose features are known already: [features (B, C, F), windows (B, L, C)].
        """
        features, windows = inputs
        wanted = ("features", "probabilities", *(("quality",) if self.ranges else ()))
        with tf.name_scope("head"):  # by which `tfkfin.serving.version` knows these operations
            return self._answers({"features": features} | self.trunk.windows(
                windows, [name for name in self._needed(wanted) if name != "features"], self.limits), wanted)

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and sd of each channel (C,) that volts are standardised by."""
        return tuple(keras.ops.convert_to_numpy(part) for part in (self.parts.standardise.mean,
                                                                   self.parts.standardise.sd))

    def windows(self, emg: np.ndarray, wanted: Sequence[str] = ALL) -> dict[str, np.ndarray]:
        """Windows (B, L, C) in volts, each for itself."""
        machine.one_process()

        def found(rows: slice) -> dict[str, tf.Tensor]:
            x = self.parts.standardise(tf.convert_to_tensor(emg[rows], tf.float32))
            return self.trunk.windows(x, self._needed(wanted), self.limits)

        return self._in_chunks(len(emg), BATCH, found, wanted)

    def recording(self, emg: np.ndarray, starts: np.ndarray, wanted: Sequence[str] = ALL) -> dict[str, np.ndarray]:
        """Windows that lie anywhere in a recording: volts (T, C) and first samples (N,), N > 0.

        Where the FINs stream and windows follow each other at one stride, each sample goes through them once.
        """
        found = self.trunk.recording(emg, starts, *self.statistics(), self._needed(wanted), self.limits)
        return self._in_chunks(len(starts), CHUNK, lambda rows: {name: part[rows] for name, part in found.items()},
                               wanted)

    def _in_chunks(self, count: int, size: int, found: Callable[[slice], dict], wanted: Sequence[str]):
        answers = [self._answers(found(slice(i, i + size)), wanted) for i in range(0, count, size)]
        return {name: np.concatenate([np.asarray(answer[name]) for answer in answers]) for name in answers[0]}

    def signal(self, stride: int, wanted: Sequence[str] = ALL, compiled: bool = False, slide: Callable = over_signal,
               standardised: bool = False) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        """A TensorFlow function of signals (B, T, C) in volts -> (B, W, ..), W = (T - L) // stride + 1.

        Args:
            compiled: whether XLA compiles the FINs; an exported graph holds stock operations.
            slide: how sums over windows are taken.
            standardised: the signals are standardised already.
        """
        machine.one_process()
        trunk, limits = self.trunk.signal(stride, self._needed(wanted), compiled, slide), self.limits

        def answer(emg):
            count = size(emg, 0), windows_in(size(emg, 1), self.trunk.length, stride)
            found = {name: tf.reshape(part, (count[0] * count[1], *part.shape[2:]))
                     for name, part in trunk(emg if standardised else self.parts.standardise(emg), limits).items()}
            return {name: tf.reshape(value, (*count, *value.shape[1:]))
                    for name, value in self._answers(found, wanted).items()}

        return answer

    def live(self, stride: int, wanted: Sequence[str] = ("features", "probabilities")) -> Live:
        """The network over a live signal, stride by stride.

        Raises:
            ValueError: its FINs see a window as a whole.
        """
        if not self.streams:
            raise ValueError("`network` must have FINs that stream. Received: one whose FINs see a window as a whole")
        return Live(lambda slide: self.signal(stride, wanted, True, slide, standardised=True), self.trunk.length,
                    self.trunk.channels, stride, self.statistics)

    def _needed(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """The parts of a trunk that answers are made of."""
        if set(wanted) == {"features"}:
            return ("features",)
        return ("features", "described", *(("measures",) if "quality" in wanted or self.limits is not None else ()))

    def _answers(self, found: dict[str, tf.Tensor], wanted: Sequence[str]) -> dict[str, tf.Tensor]:
        answers = {"features": found["features"]} if "features" in wanted else {}
        if "quality" in wanted and self.ranges:
            answers |= judged(found["measures"], self.ranges)
        if set(wanted) - {"features"}:
            inputs = self.head.inputs(**{name: found[name] for name in ("features", "described") if name in found})
            answers |= {"inputs": inputs} if "inputs" in wanted else {}
            answers |= {"probabilities": self.head.decide(inputs)} if "probabilities" in wanted else {}
        return answers


def runs_of(starts: np.ndarray) -> tuple[int, list[tuple[int, int]]]:
    """The stride that most windows go by, and the runs [low, high) of `starts` (N,) that go by it."""
    steps = np.diff(starts)
    forward = steps[steps > 0]
    stride = int(np.bincount(forward).argmax()) if len(forward) else 1
    edges = np.concatenate([[0], np.flatnonzero(steps != stride) + 1, [len(starts)]])
    return stride, list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
