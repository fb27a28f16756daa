"""Loading what was saved: whatever a saved model may hold registers itself first."""

import importlib
from pathlib import Path

import keras

from tfkfin import registry


def load(path: Path) -> keras.Model:
    """A `.keras` file of tfkfin's, in Keras's safe mode.

    Raises:
        ValueError, TypeError, KeyError, OSError: it is damaged, or no such file.
    """
    _register()
    return keras.saving.load_model(path, compile=False)


def copied(model: keras.Model) -> keras.Model:
    """The same model once more, whose weights can change by themselves."""
    _register()
    new = type(model).from_config(model.get_config())
    new.set_weights(model.get_weights())
    return new


def _register() -> None:
    rooms = [f"tfkfin.models.{room}.{name}" for room in ("fins", "heads", "descriptions")
             for name in registry.names(f"models/{room}")]
    for module in ("tfkfin.models.layers", "tfkfin.models.bilstm.layer", *rooms):
        importlib.import_module(module)
