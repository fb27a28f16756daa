"""Convolutional FINs: means over the window of functions of a few neighbouring samples, then a small network."""

import numpy as np
from keras import layers

from tfkfin.nets.fins import Family
from tfkfin.nets.layers import LogMoments, LogScale, Moments


def body(inputs, options):
    """Nonlinearities of short filters, their mean and deviation over time, compared on a logarithmic scale.

    What most temporal features are: moments of some function of a few neighbouring samples, and a function of such
    moments. Logarithms of variances over time: Schirrmeister et al. 2017, doi:10.1002/hbm.23730.
    """
    x = _filtered(inputs, [options.units] * (options.layers - 2) + [3 * options.units // 4])
    return _mixed(LogMoments(name="log")(Moments(name="mean")(x)), options.units)


def first_body(inputs, options):
    """What it was in version 1, for runs that began with that: the mean alone."""
    x = layers.GlobalAveragePooling1D(name="mean")(_filtered(inputs, [options.units] * max(1, options.layers - 1)))
    return _mixed(LogScale(("RMS",) * options.units, floor=1e-4, name="log")(x), options.units)


def _filtered(inputs, widths: list[int]):
    first = layers.Conv1D(widths[0], 3, padding="same", activation="relu", name="conv_1")
    x = first(inputs)
    first.set_weights(_scattered(widths[0]))
    for i, width in enumerate(widths[1:], 2):
        x = layers.Conv1D(width, 1, activation="relu", name=f"conv_{i}")(x)
    return x


def _mixed(x, units: int):
    x = layers.Dense(2 * units, activation="gelu", name="mix_1")(x)
    return layers.Dense(units, activation="gelu", name="mix_2")(x)


def _scattered(units: int) -> list[np.ndarray]:
    """Filters of scattered slopes and thresholds (in sd), as the Bi-LSTMs' units start with."""
    rng = np.random.default_rng(np.random.randint(2**31))
    slope = rng.choice([-1.0, 1.0], units) * np.exp(rng.uniform(np.log(0.2), np.log(2), units))
    taps = rng.normal(0, 0.3, (3, 1, units))
    taps[1, 0] += 1
    return [slope * taps, -np.abs(slope) * np.abs(rng.normal(0, 3, units))]


FAMILY = Family(body, layers=2, streams=True, first_body=first_body)
