"""FINs that ship with the package or lie in a folder: found by name, loaded, and fitted to a recipe's features."""

from pathlib import Path

import keras

from tfkfin.console import InputError, log
from tfkfin.models import fins, saving
from tfkfin.models.shelf import card, find
from tfkfin.recipe import Fin

KERAS_FILE = Path("assets.extra", "fins.keras")  # in a SavedModel's version folder; servers pass it by


def load(name: str | Path) -> keras.Model:
    """A trained bank of FINs on one channel, (B, L, 1) -> (B, 1, F).

    Raises:
        InputError: no such model, or it holds no FINs to start from.
    """
    path = find(name) / KERAS_FILE
    if not path.is_file():
        raise InputError(f"{path.parents[1]} holds no FINs to start from ({KERAS_FILE} is missing)")
    return saving.load(path)


def features(bank: keras.Model) -> tuple[str, ...]:
    """The names of the features that a bank imitates, in order."""
    return tuple(model.name.removeprefix("fin_").upper() for model in fins.fins_of(bank))


def rate_hz(name: str | Path) -> float:
    """The rate that a shipped or exported FIN expects."""
    return float(card(find(name))["rate_hz"])


def new_bank(options: Fin, features: tuple[str, ...], length: int, channels: int) -> keras.Model:
    """A bank for a recipe: the pretrained FINs where there are some of its features, others with random weights."""
    built = [fins.fin(name, length, options.family, options.units, options.layers, options.readout, options.start)
             for name in features]
    bank = fins.bank(built, channels)
    if options.pretrained:
        source = options.family if options.pretrained == "auto" else options.pretrained
        trained = {model.name: model for model in fins.fins_of(load(source))}
        for model in built:
            _start_from(trained.get(model.name), model, source)
    return bank


def _start_from(trained: keras.Model | None, model: keras.Model, source: str) -> None:
    shapes = [tuple(w.shape) for w in model.weights]
    if trained is None:
        log.info("%s has no %s: it starts from random weights", source, model.name)
    elif [tuple(w.shape) for w in trained.weights] != shapes:
        raise InputError(f"the pretrained {model.name} of {source!r} has another shape than [fin] asks for: "
                         "set fin.pretrained to \"\" or family, units, layers, readout to the pretrained model's")
    else:
        model.set_weights(trained.get_weights())
