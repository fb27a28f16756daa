"""Functions of stretches, run over windows that lie anywhere in a recording, in pieces of bounded memory."""

from collections.abc import Callable
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from tfkfin.models.streaming import CUT, stream_network, streams

PIECE = 256  # windows that are worked on at a time
SHORT = 32  # windows of a piece where a run is shorter
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
        for windows, pieces in self._pieces(runs, len(starts)).items():
            rows = max(1, (PIECE if self.streams else CUT) // windows)
            for i in range(0, len(pieces), rows):
                chosen = pieces[i : i + rows]
                begins = [starts[first] for first, _ in chosen]
                answer = self._answer(emg, begins, rows if self.streams else len(chosen), windows, stride)
                if outputs is None:
                    outputs = tf.nest.map_structure(lambda a: np.empty((len(starts), *a.shape[2:]), a.dtype), answer)
                for row, (first, count) in enumerate(chosen):
                    tf.nest.map_structure(lambda out, a: np.copyto(out[first : first + count], a[row, :count]),
                                          outputs, answer)
        return outputs

    def _pieces(self, runs: list[tuple[int, int]], count: int) -> dict[int, list[tuple[int, int]]]:
        """Windows of a piece -> [(first window, how many it has of them)]. Each of three sizes is compiled."""
        found = {}
        for low, high in runs:
            whole = low + (high - low) // PIECE * PIECE
            if not self.streams or count < FEW * len(runs):
                found.setdefault(1, []).extend((i, 1) for i in range(low, high))
                continue
            if whole > low:
                found.setdefault(PIECE, []).extend((i, PIECE) for i in range(low, whole, PIECE))
            if high > whole:
                found.setdefault(SHORT, []).extend((i, min(SHORT, high - i)) for i in range(whole, high, SHORT))
        return found

    def _answer(self, emg: np.ndarray, begins: list[int], rows: int, windows: int, stride: int):
        samples = (windows - 1) * stride + self.length
        x = np.zeros((rows, samples, self.channels), np.float32)  # always as many rows: a shape is a compilation
        for row, begin in enumerate(begins):
            part = emg[begin : begin + samples]
            x[row, : len(part)] = part
        if (windows, stride) not in self._functions:
            self._functions[windows, stride] = tf.function(
                self.make(stride), autograph=False,
                input_signature=[tf.TensorSpec((None, samples, self.channels), tf.float32)])
        return tf.nest.map_structure(lambda t: t.numpy(), self._functions[windows, stride](tf.constant(x)))


def over_recording(network: keras.Model, function: Callable = stream_network) -> OverRecording:
    """A decoder's network over recordings: volts (T, C), starts (N,) -> its outputs for each window.

    `function`: `stream_network`, or `stream_seen` for what its classifier is given.
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
