"""Dense FINs, for comparison: every sample has a weight of its own."""

from keras import layers

from tfkfin.nets.fins import Family


def body(inputs, options):
    x = layers.Flatten()(inputs)
    for i in range(options.layers):
        x = layers.Dense(4 * options.units, activation="relu", name=f"dense_{i + 1}")(x)
    return x


FAMILY = Family(body, layers=3)
