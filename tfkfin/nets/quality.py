"""How like training each electrode's signal is in a window, and what is wrong with it where it is not.

Five measures of an electrode's standardised samples x in a window are compared with the range that they had in
training, low to high, each with a least width, so that a short or monotonous training does not make everything unlike
it:

    offset      the mean of x
    loudness    log sd of x
    spectrum    log of the sd of first differences, less log sd: high for noise, low for drift and motion
    hum         share of a tone of 50 or 60 Hz, the larger one, in the variance; in 0.25 where the variance is less,
                since the hum of a muscle at rest is no fault
    repeats     share of samples that are the same as the one before: a constant signal, a clipped one

A measure's distance is how far it lies outside its range, in half-widths of the range; an electrode's quality is
2^-d of its largest distance d: 1 inside all ranges, 0.5 one half-width beyond.

Decisions are spared what can be spared. An electrode that is far from training is left out: what it would say is then
estimated from the others (`tfkfin.nets.imputation`). An offset is subtracted.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from keras import layers

from tfkfin.nets.sliding import cut, jitted, over_signal
from tfkfin.signal.condition import FAULTS

MEASURES = ("offset", "loudness", "spectrum", "hum", "repeats")
LEAST = np.array([0.3, 1.1, 0.4, 0.15, 0.1])  # half-widths of ranges, at least; 1.1: three times as loud
BEYOND = (1, 2, 4, 6, 7)  # the fault of a measure that is too high
BELOW = (1, 3, 5, 6, 7)  # and of one that is too low
MAINS_HZ = (50.0, 60.0)
TAILS = (0.5, 99.5)  # percentiles of training windows between which a range lies
SILENT = 0.05  # sd below which samples that repeat are a constant, and not a clipped signal
QUIET = 0.25  # variance
FAR = 2  # half-widths beyond a range from which on an electrode is left out, unless half of all would be
SLIGHT = 0.5  # half-widths beyond a range from which on an offset is subtracted
TINY = 1e-8  # added to variances
MOST_WINDOWS = 2000  # that ranges are learnt from


class Measures(layers.Layer):
    """`MEASURES` of standardised windows (B, L, C) -> (B, C, 5).

    Args:
        rate_hz: of the samples; a tone needs more than twice its frequency, or its share is 0.
    """

    def __init__(self, rate_hz: float, **kwargs):
        super().__init__(**kwargs)
        self.rate_hz = rate_hz
        self.tones = [2 * np.pi * hz / rate_hz for hz in MAINS_HZ if 2.2 * hz < rate_hz]

    def call(self, x):
        length, channels = x.shape[1], x.shape[2]
        waves = np.array([np.ones(length), *(wave(w * np.arange(length)) for w in self.tones
                                             for wave in (np.cos, np.sin))], np.float32)
        sums = tf.matmul(tf.broadcast_to(waves, (tf.shape(x)[0], *waves.shape)), x)  # (B, 1 + waves, C)
        change = x[:, 1:] - x[:, :-1]
        rest = [tf.reduce_sum(part, axis=1)[:, None] for part in (
            x * x, change * change, tf.cast(tf.equal(change, 0), x.dtype))]
        return self._of_sums(tf.ensure_shape(tf.concat([sums[:, :1], *rest, sums[:, 1:]], axis=1),
                                             (None, 4 + 2 * len(self.tones), channels)), length)

    def stream(self, x, length: int, stride: int, compiled: bool = True, slide=over_signal):
        """Of the windows of signals (B, T, C) -> (B, W, C, 5); each sample is touched once."""
        if slide is not over_signal:  # live: one window, whose tones would have to know where it lies
            found = cut(x, length, stride)
            found = self(tf.reshape(found, (-1, *found.shape[2:])))
            return tf.reshape(found, (tf.shape(x)[0], -1, *found.shape[1:]))
        found = jitted(compiled, slide)(self._sums)(x, length, stride)
        found = self._of_sums(tf.reshape(found, (-1, 4 + 2 * len(self.tones), x.shape[2])), length)
        return tf.reshape(found, (tf.shape(x)[0], -1, *found.shape[1:]))

    def _sums(self, x, length, stride):
        def tones(_, y):  # waves begin with the signal, so that they turn against those of a window, and are as large
            known = y.shape[1] is not None  # then they are constants, which XLA does not compute for each channel anew
            time = np.arange(y.shape[1], dtype=np.float32) if known else tf.range(tf.shape(y)[1], dtype=tf.float32)
            waves = [wave(w * time)[None, :, None] for w in self.tones
                     for wave in ((np.cos, np.sin) if known else (tf.cos, tf.sin))]
            return tf.concat([y * wave for wave in waves], axis=-1)

        def changes(_, y):
            change = y[:, 1:] - y[:, :-1]
            return tf.concat([change * change, tf.cast(tf.equal(change, 0), y.dtype)], axis=-1)

        parts = [over_signal(lambda _, y: tf.concat([y, y * y], axis=-1), x, length, stride),
                 over_signal(changes, x, length, stride, 1)]
        return tf.concat([*parts, over_signal(tones, x, length, stride)] if self.tones else parts, axis=-1)

    def _of_sums(self, sums, length):
        """Sums (N, 4 + 2 tones, C) of x, x^2, squared changes, changes that are 0, and x times each wave."""
        mean = sums[:, 0] / length
        variance = tf.maximum(sums[:, 1] / length - mean * mean, 0.0) + TINY
        rough, repeats, hum = sums[:, 2] / (length - 1) + TINY, sums[:, 3] / (length - 1), tf.zeros_like(mean)
        for i in range(4, 4 + 2 * len(self.tones), 2):
            power = 2 * (sums[:, i] ** 2 + sums[:, i + 1] ** 2) / length**2
            hum = tf.maximum(hum, power / tf.maximum(variance, QUIET))
        loud = tf.math.log(variance) / 2
        return tf.stack([mean, loud, tf.math.log(rough) / 2 - loud, tf.minimum(hum, 1.0), repeats], axis=-1)


def learnt(windows: Sequence[np.ndarray], mean: np.ndarray, sd: np.ndarray, rate_hz: float) -> dict:
    """The ranges of a card's `signal`: {"low", "high"}, lists (C, 5).

    Args:
        windows: arrays (N, L, C) of volts: those that are trained on, and some of rest.
        mean, sd: (C,) volts that windows are standardised by.
    """
    measures = Measures(rate_hz)
    found = np.concatenate([np.asarray(measures(((part[i : i + 64] - mean) / sd).astype(np.float32)))
                            for part in windows for i in range(0, len(part), 64)])
    low, high = np.percentile(found, TAILS, axis=0)
    return {name: np.round(part, 4).tolist() for name, part in (("low", low), ("high", high))}


def kept(measures, limits):
    """Which electrodes are used: measures (.., C, 5) -> (.., C), 1 or 0.

    Left out are those that are `FAR` too loud or too quiet, too noisy, or hum. Not those that drift or have an offset,
    which the other electrodes do not make up for; nor any where half of all are far from training: then it is no fault
    of electrodes.

    Args:
        limits: lower and upper ends of the ranges (2, C, 5).
    """
    above, below = _beyond(measures, limits)
    far = tf.cast(tf.maximum(tf.reduce_max(above[..., 1:4], axis=-1), below[..., 1]) > FAR, tf.float32)
    few = 2 * tf.reduce_sum(far, axis=-1, keepdims=True) < measures.shape[-2]
    return 1 - far * tf.cast(few, tf.float32)


def offsets(measures, limits):
    """Offsets that training did not have, (.., C): how far a mean lies from the middle of training's, where it is
    outside their range; 0 elsewhere, and where an electrode is louder or quieter too, as envelopes of more force are.
    """
    above, below = _beyond(measures, limits)
    beyond = tf.maximum(above, below)
    new = (beyond[..., 0] > SLIGHT) & (beyond[..., 1] < SLIGHT)
    return tf.where(new, measures[..., 0] - (limits[0][:, 0] + limits[1][:, 0]) / 2, 0.0)


def _beyond(measures, limits):
    """How many half-widths measures lie above their ranges, and below."""
    low, high = limits[0], limits[1]
    width = tf.maximum((high - low) / 2, np.float32(LEAST))
    return (measures - high) / width, (low - measures) / width


def judged(measures, ranges: dict) -> dict[str, tf.Tensor]:
    """Measures (B, C, 5) -> "quality" (B, C) in [0, 1], "quality_overall" (B,), that of the worst electrode, and
    "fault" (B, C), float, an index of `FAULTS`; 0 where the quality is above a half."""
    above, below = _beyond(measures, np.float32([ranges["low"], ranges["high"]]))
    distance = tf.maximum(tf.maximum(above, below), 0.0)
    farthest = tf.reduce_max(distance, axis=-1)
    worst = tf.one_hot(tf.argmax(distance, axis=-1), len(MEASURES))
    fault = tf.reduce_sum(worst * tf.where(above > below, np.float32(BEYOND), np.float32(BELOW)), axis=-1)
    constant = (measures[..., 4] > 0.9) & (measures[..., 1] < np.log(SILENT))
    fault = tf.where(constant, np.float32(FAULTS.index("flat")), fault)
    quality = 2.0 ** -farthest
    return {"quality": quality, "quality_overall": tf.reduce_min(quality, axis=-1),
            "fault": tf.where(farthest > 1, fault, 0.0)}
