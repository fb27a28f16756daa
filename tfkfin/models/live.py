"""A decoder's network over a live signal, stride by stride."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tfkfin.models.sliding import Carried
from tfkfin.models.streaming import stream_network, streams


class Live:
    """A decoder's network over a live signal: a window's answer costs what its newest `stride` samples cost.

    Call it with the next samples, however many. It is compiled for the second window, with the weights that the network
    has then: give it `length + stride` samples of silence and `restart` it before it matters. As exact after hours as
    at the start: block sums are kept, and added up anew for each window.

    Raises:
        ValueError: its FINs see a window as a whole.
    """

    def __init__(self, network: keras.Model, stride: int):
        bank = network.get_layer("fins")
        self.network, self.stride, (self.length, self.channels) = network, stride, bank.input_shape[1:]
        if not streams(bank):
            raise ValueError("`network` must have FINs that stream. Received: one whose FINs see a window as a whole")
        self._step = None
        self.restart()

    def restart(self) -> None:
        """Forgets the signal."""
        self._waiting, self._kept = np.empty((0, self.channels), np.float32), None

    def __call__(self, volts: np.ndarray) -> dict[str, np.ndarray] | None:
        """Samples (n, C) that follow those before -> outputs of the windows that they complete (W, ...); None of none.

        Windows begin every `stride` samples from the first sample on.
        """
        self._waiting, answers = np.concatenate([self._waiting, np.asarray(volts, np.float32)]), []
        while len(self._waiting) >= (needed := self.stride if self._kept else self.length):
            answer, *self._kept = self._answer(tf.constant(self._waiting[None, :needed]))
            self._waiting = self._waiting[needed:]
            answers.append(answer)
        if not answers:
            return None
        return {name: np.concatenate([answer[name].numpy()[0] for answer in answers]) for name in answers[0]}

    def _answer(self, volts: tf.Tensor) -> tuple:
        if not self._kept:
            return tf.function(self._newest, autograph=False)(volts)
        if self._step is None:
            self._step = self._compiled(volts, *self._kept)
        return self._step(volts, *self._kept)

    def _newest(self, volts: tf.Tensor, window: tf.Tensor | None = None, sums: list | None = None) -> tuple:
        """The answer for the window that ends with `volts` (1, n, C); that window, standardised; sums kept."""
        x = self.network.get_layer("standardise")(volts)
        if window is not None:
            x = tf.concat([window, x], axis=1)[:, -self.length :]
        slide = Carried(sums)
        answer = stream_network(self.network, self.stride, True, slide, standardised=True)(x)
        return answer, x, slide.kept

    def _compiled(self, *arguments) -> Callable:
        """`_newest` for arguments of these shapes. Weights become constants: looking them up took a third of a call."""
        traced = tf.function(self._newest, autograph=False).get_concrete_function(
            *tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), arguments))
        constant = convert_variables_to_constants_v2(traced)

        @tf.function(jit_compile=True, autograph=False)
        def step(*tensors):
            return constant(*tensors)

        return lambda *new: tf.nest.pack_sequence_as(traced.structured_outputs, step(*tf.nest.flatten(new)))
