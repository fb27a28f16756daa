"""A decoder's network over a live signal, stride by stride."""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


class Live:
    """A decoder's network over a live signal: a window's answer costs what its newest `stride` samples cost.

    Call it with the next samples, however many. It is compiled for the first window, with the weights that the network
    has then: give it `length` samples of silence and `restart` it before it matters. As exact after hours as at the
    start: block sums are kept, in NumPy, and added up anew for each window; what follows them is one graph.

    `tfkfin.nets.forward.Forward.live` makes it.
    """

    def __init__(self, make: Callable, length: int, channels: int, stride: int, statistics: Callable):
        """
        Args:
            make: of how sums over windows are taken (as `sliding.over_signal`), a function of standardised signals
                (B, T, C) -> outputs (B, W, ...).
            length, channels: of the windows.
            stride: samples between windows.
            statistics: gives mean and sd (C,) that volts are standardised by.
        """
        self.make, self.length, self.channels, self.stride, self.statistics = make, length, channels, stride, statistics
        self._sums, self._step = [], None
        self.restart()

    def restart(self) -> None:
        """Forgets the signal."""
        self._waiting, self._window = np.empty((0, self.channels), np.float32), None

    def __call__(self, volts: np.ndarray, newest: int | None = None) -> dict[str, np.ndarray] | None:
        """Samples (n, C) that follow those before -> outputs of the windows that they complete (W, ...); None of none.

        Windows begin every `stride` samples from the first sample on.

        Args:
            newest: answers for so many windows at most, the last ones; None: for all. Later answers stay the same.
        """
        volts, answers = np.asarray(volts, np.float32), []
        if len(self._waiting):
            volts = np.concatenate([self._waiting, volts])
        count = (len(volts) - (self.length if self._window is None else self.stride)) // self.stride + 1
        skipped = 0 if newest is None else max(0, count - newest)
        for i in range(count):
            needed = self.length if self._window is None else self.stride
            answer = self._answer(volts[:needed], i >= skipped)
            answers += [answer] if i >= skipped else []
            volts = volts[needed:]
        self._waiting = volts.copy()
        if not answers:
            return None
        parts = [{name: output.numpy()[0] for name, output in answer.items()} for answer in answers]
        return parts[0] if len(parts) == 1 else {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def _answer(self, volts: np.ndarray, wanted: bool = True) -> dict[str, tf.Tensor] | None:
        if self._step is None:
            mean, sd = self.statistics()
            self._standardise = lambda x: (x - mean) / sd
        x = self._standardise(volts)[None]
        if self._window is None:
            self._window = x
            if self._step is None:
                self._step = self._made()
            totals = [sums.begin(self._window) for sums in self._sums]
        else:
            self._window = np.concatenate([self._window[:, self.stride :], x], axis=1)[:, -self.length :]
            totals = [sums.go_on(self._window) for sums in self._sums]
        return self._step(self._window, *totals) if wanted else None

    def _made(self) -> Callable:
        """(window (1, length, C), its sums) -> outputs; fills `_sums` with what the sums are of.

        Weights become constants: looking them up took a third of a call.
        """
        def noted(terms, x, length, stride, reach=0, of=None):
            self._sums.append(RunningSums(terms, length, stride, reach, of, x.dtype.as_numpy_dtype))
            return tf.constant(self._sums[-1].begin(self._window))

        self.make(noted)(tf.constant(self._window))

        def given(window, *totals):
            left: Iterator = iter(totals)
            return self.make(lambda *_: next(left))(window)

        like = [self._window, *(sums.begin(self._window) for sums in self._sums)]
        traced = tf.function(given, autograph=False).get_concrete_function(
            *(tf.TensorSpec(array.shape, array.dtype) for array in like))
        constant, names = convert_variables_to_constants_v2(traced), sorted(traced.structured_outputs)
        eigenvalues = any(op.type == "SelfAdjointEigV2" for op in constant.graph.get_operations())

        @tf.function(jit_compile=not eigenvalues, autograph=False)  # XLA has none of them on a CPU
        def step(*tensors):
            return constant(*tensors)

        compiled = step.get_concrete_function(*constant.inputs)
        return lambda *arrays: dict(zip(names, compiled(*map(tf.constant, arrays)), strict=True))


class RunningSums:
    """`over_signal` of the newest window of a live signal, in NumPy: what its last stride adds, and sums of the past.

    Args:
        terms, length, stride, reach, of: as of `over_signal`.
        dtype: of the samples.
    """

    def __init__(self, terms: Callable, length: int, stride: int, reach: int, of: Callable | None, dtype: type):
        self.terms, self.reach, self.stride, self.of, self.dtype = terms, reach, stride, of, dtype
        self.blocks, self.rest = divmod(length - reach, stride)

    def begin(self, window: np.ndarray) -> np.ndarray:
        """The sum over a first window (1, length, C): (1, 1, *rest)."""
        every = self.terms(np, window.astype(self.dtype, copy=False))
        whole = every[:, : self.blocks * self.stride]
        self._past = self._added(whole.reshape(1, self.blocks, self.stride, *every.shape[2:]))
        self._head, self._oldest = self._added(every[:, None, self.blocks * self.stride :]), 0
        return self._total()

    def go_on(self, window: np.ndarray) -> np.ndarray:
        """The sum over the next window, one stride later."""
        if not self.blocks:
            return self.begin(window)
        new = window[:, -(self.stride + self.reach) :].astype(self.dtype, copy=False)
        rows, ends = self.terms(np, new)[:, None], self.stride - self.rest  # of a block; then the next one's head
        self._past[:, self._oldest] = (self._head + self._added(rows[:, :, :ends]))[:, 0]
        self._oldest = (self._oldest + 1) % self.blocks
        self._head = self._added(rows[:, :, ends:])
        return self._total()

    def _added(self, rows: np.ndarray) -> np.ndarray:
        return rows.sum(axis=2) if self.of is None else self.of(np, rows)

    def _total(self) -> np.ndarray:
        return self._past.sum(axis=1, keepdims=True) + self._head
