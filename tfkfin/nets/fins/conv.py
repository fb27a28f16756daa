"""Convolutional FINs: means over the window of functions of a few neighbouring samples, then a small network."""

import numpy as np
from keras import layers

from tfkfin.nets.fins import Family
from tfkfin.nets.layers import LogScale


def body(inputs, options):
    """Nonlinearities of short filters, averaged over time, then compared on a logarithmic scale.

    What most temporal features are: the mean of some function of a few neighbouring samples, and a function of such
    means.
    """
    units = options.units
    first = layers.Conv1D(units, 3, padding="same", activation="relu", name="conv_1")
    x = first(inputs)
    first.set_weights(_scattered(units))
    for i in range(2, options.layers):
        x = layers.Conv1D(units, 1, activation="relu", name=f"conv_{i}")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    x = LogScale(("RMS",) * units, floor=1e-4, name="log")(x)
    x = layers.Dense(2 * units, activation="gelu", name="mix_1")(x)
    return layers.Dense(units, activation="gelu", name="mix_2")(x)


def _scattered(units: int) -> list[np.ndarray]:
    """Filters of scattered slopes and thresholds (in sd), as the Bi-LSTMs' units start with."""
    rng = np.random.default_rng(np.random.randint(2**31))
    slope = rng.choice([-1.0, 1.0], units) * np.exp(rng.uniform(np.log(0.2), np.log(2), units))
    taps = rng.normal(0, 0.3, (3, 1, units))
    taps[1, 0] += 1
    return [slope * taps, -np.abs(slope) * np.abs(rng.normal(0, 3, units))]


FAMILY = Family(body, layers=2, streams=True)
