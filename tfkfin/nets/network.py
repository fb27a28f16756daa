"""The decoder's network: one Keras model of stock layers around FINs and a head, and its parts.

    volts (B, L, C) -> standardise -> FIN bank -> features (B, C, F) -+-> classifier -> probabilities (B, G)
                                  \\-> describe -> described (B, S) ---+
                                       (the classifier and `describe` lie inside the model `head`)
"""

from dataclasses import dataclass

import keras

from tfkfin.nets.layers import ZScore, found


def network(bank: keras.Model, head: keras.Model, augment: keras.layers.Layer | None = None) -> keras.Model:
    """Volts (B, L, C) -> {"probabilities": (B, G), "features": (B, C, F) in their own units}.

    Args:
        bank: FINs, standardised windows (B, L, C) -> (B, C, F).
        head: [features, standardised windows] -> probabilities, as `joined_head` makes it.
        augment: changes standardised windows in training.
    """
    return _network(ZScore(name="standardise", dtype="float32"), bank, head, augment)


def joined_head(classifier: keras.Model, describe: keras.layers.Layer | None, length: int, channels: int,
                count: int) -> keras.Model:
    """The model `head`: [features (B, C, F), standardised windows (B, L, C)] -> probabilities (B, G).

    Args:
        classifier: a model whose inputs are called "features", "described", or both.
        describe: windows (B, L, C) -> "described" (B, S); None: the classifier takes features alone.
        length, channels: of the windows.
        count: F.
    """
    features, windows = keras.Input((channels, count), name="features"), keras.Input((length, channels), name="windows")
    given = {"features": features} | ({} if describe is None else {"described": describe(windows)})
    return keras.Model([features, windows], classifier(picked(classifier, given)), name="head")


def picked(classifier: keras.Model, given: dict):
    """Those of "features" and "described" that a classifier takes, laid out as it takes them."""
    chosen = [given[tensor.name] for tensor in classifier.inputs]
    return chosen if len(chosen) > 1 else chosen[0]


@dataclass(frozen=True)
class Parts:
    """The parts of a network: layers and models that it shares.

    Attributes:
        standardise: volts -> samples of mean 0 and sd 1.
        bank: the FINs, windows (B, L, C) -> features (B, C, F).
        head: the model of the two that follow.
        describe: windows (B, L, C) -> descriptions (B, S); None: the head takes features alone.
        classifier: features and descriptions -> probabilities (B, G).
    """

    standardise: ZScore
    bank: keras.Model
    head: keras.Model
    describe: keras.layers.Layer | None
    classifier: keras.Model

    @classmethod
    def of(cls, model: keras.Model) -> "Parts":
        """The parts of a network that `network` made, or that was loaded from a file."""
        head = model.get_layer("head")
        return cls(model.get_layer("standardise"), model.get_layer("fins"), head, *head_parts(head))

    def with_classifier(self, classifier: keras.Model) -> keras.Model:
        """A network that differs from this one in its classifier alone; all other layers are shared."""
        length, channels = self.bank.input_shape[1:]
        head = joined_head(classifier, self.describe, length, channels, self.bank.output_shape[-1])
        return _network(self.standardise, self.bank, head)


def head_parts(head: keras.Model) -> tuple[keras.layers.Layer | None, keras.Model]:
    """The layer `describe` of a model `head`, or None, and its classifier."""
    return found(head, "describe"), head.get_layer("classifier")


def _network(standardise: ZScore, bank: keras.Model, head: keras.Model,
             augment: keras.layers.Layer | None = None) -> keras.Model:
    emg = keras.Input(bank.input_shape[1:], name="emg")
    windows = standardise(emg)
    if augment is not None:
        windows = augment(windows)
    features = bank(windows)
    return keras.Model(emg, {"probabilities": head([features, windows]), "features": features}, name="decoder")
