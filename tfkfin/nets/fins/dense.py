"""Dense FINs, for comparison: every sample has a weight of its own."""

from keras import layers, ops

from tfkfin.nets.fins import Family

LINEAR = 0.25  # sd of a channel: samples beyond count by their logarithm


def body(inputs, options):
    x = ops.sign(inputs) * ops.log1p(ops.absolute(inputs) / LINEAR)  # amplitudes of four decades in one layer
    x = layers.Flatten()(x)
    for i in range(options.layers):
        x = layers.Dense(4 * options.units, activation="relu", name=f"dense_{i + 1}")(x)
    return x


FAMILY = Family(body, layers=3)
