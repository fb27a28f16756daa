"""Functions of stretches, run over windows that lie anywhere in a recording, in pieces of bounded memory."""

from collections.abc import Callable, Iterator
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from tfkfin.base.answers import steps
from tfkfin.nets.streaming import CUT, stream_network, streams

PIECE = 256  # windows that are worked on at a time
FEW = 4  # windows: where runs are shorter on average, all windows are cut


class OverRecording:
    """A function of stretches, over windows that lie anywhere in a recording, in pieces of bounded memory.

    Args:
        make: stride -> a function of stretches (B, T, C), whose outputs are (B, W, ...).
        length, channels: of the windows.
        streams: whether it gains from stretches, some of it compiled. Otherwise it is given single windows.
    """

    def __init__(self, make: Callable[[int], Callable], length: int, channels: int, streams: bool):
        self.make, self.length, self.channels, self.streams = make, length, channels, streams
        self._functions = {}

    def __call__(self, emg: np.ndarray, starts: np.ndarray):
        """emg (T, C) float32 and the first samples of windows (N,), in any order, N > 0 -> outputs (N, ...)."""
        starts, outputs = np.asarray(starts), None
        stride, runs = runs_of(starts)
        stretches = self.streams and len(starts) >= FEW * len(runs)
        cut, size = (self._laid_out, PIECE) if stretches else (self._cut, CUT)
        for windows, samples in steps(cut(starts, stride, runs), -(-len(starts) // size)):
            answer = self._answer(emg[np.minimum(samples, len(emg) - 1)], stride)
            if outputs is None:
                outputs = tf.nest.map_structure(lambda a: np.empty((len(starts), *a.shape[1:]), a.dtype), answer)
            there = windows >= 0
            tf.nest.map_structure(lambda out, a: out.__setitem__(windows[there], a[there]), outputs, answer)
        return outputs

    def of_windows(self, windows: np.ndarray):
        """Windows (B, L, C) float32 -> outputs (B, ...)."""
        return self._answer(windows, self.length)

    def _cut(self, starts: np.ndarray, *_) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(which windows, the samples of each (n, length)), a few at a time."""
        for i in range(0, len(starts), CUT):
            windows = np.arange(i, min(i + CUT, len(starts)))
            yield windows, starts[windows, None] + np.arange(self.length)

    def _laid_out(self, starts: np.ndarray, stride: int,
                  runs: list[tuple[int, int]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(which windows (PIECE,), -1: none; the samples that they lie in (1, T)), all runs laid end to end.

        So all pieces are of one size, which is compiled once.
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

    def _answer(self, x: np.ndarray, stride: int):
        """The function's outputs for stretches (B, T, C), with windows on the first axis."""
        samples = x.shape[1]
        if (samples, stride) not in self._functions:
            self._functions[samples, stride] = tf.function(
                self.make(stride), autograph=False,
                input_signature=[tf.TensorSpec((None, samples, self.channels), tf.float32)])
        answer = self._functions[samples, stride](tf.constant(x))
        return tf.nest.map_structure(lambda t: t.numpy().reshape(-1, *t.shape[2:]), answer)


def over_recording(network: keras.Model, function: Callable = stream_network) -> OverRecording:
    """A decoder's network over recordings: volts (T, C), starts (N,) -> its outputs for each window.

    `function`: `stream_network`, `stream_features`, or `stream_seen` for what its classifier is given.
    """
    bank = network.get_layer("fins")
    return OverRecording(partial(function, network), *bank.input_shape[1:], streams(bank))


def runs_of(starts: np.ndarray) -> tuple[int, list[tuple[int, int]]]:
    """The stride that most windows go by, and the runs [low, high) of `starts` (N,) that go by it."""
    steps = np.diff(starts)
    forward = steps[steps > 0]
    stride = int(np.bincount(forward).argmax()) if len(forward) else 1
    edges = np.concatenate([[0], np.flatnonzero(steps != stride) + 1, [len(starts)]])
    return stride, list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
