"""Loading what was saved: whatever a saved model may hold registers itself first."""

import importlib
import io
from pathlib import Path

import keras

from tfkfin.base import registry
from tfkfin.base.errors import InputError
from tfkfin.base.files import write_bytes

_REMOVED = ("ImitatedCorrelations", "PerPair")  # layers that earlier versions had


class _Memory(io.BytesIO):
    def __str__(self) -> str:
        return "memory.weights.h5"  # Keras tells the format by the name


def save_weights(model: keras.Model, path: Path) -> None:
    """Writes a model's weights in one step. HDF5's library crashes where a disk is full, so it writes to memory."""
    held = _Memory()
    model.save_weights(held)
    write_bytes(path, held.getbuffer())


def load_weights(model: keras.Model, path: Path, remedy: str) -> None:
    """Weights that `save_weights` wrote.

    Raises:
        InputError: the file is gone, damaged, or of another network; the message ends with `remedy`.
    """
    try:
        model.load_weights(path)
    except Exception as error:  # Keras and HDF5 let anything escape on damaged bytes
        if isinstance(error, MemoryError):
            raise
        why = "is gone" if not path.is_file() else "is damaged, or of another network"
        raise InputError(f"{path} {why}: {remedy}") from error


def load(path: Path) -> keras.Model:
    """A `.keras` file of tfkfin's, in Keras's safe mode.

    Raises:
        ValueError, TypeError, KeyError, OSError: it is damaged, or no such file.
        InputError: it holds a layer that was removed.
    """
    _register()
    try:
        return keras.saving.load_model(path, compile=False)
    except (TypeError, ValueError) as error:
        if any(name in str(error) for name in _REMOVED):
            raise InputError(f"{path} holds FINs of two channels, which were removed: train it anew with "
                             "classifier.describe=correlations; its SavedModel or ONNX file still serves") from None
        raise


def _register() -> None:
    """Imports every module that registers layers with Keras, those of installed packages too."""
    for module in ("tfkfin.nets.layers", "tfkfin.nets.bilstm.layer"):
        importlib.import_module(module)
    for room, attribute in (("fins", "FAMILY"), ("heads", "HEAD"), ("descriptions", "DESCRIPTION")):
        for name in registry.names(f"nets/{room}"):
            registry.load(f"nets/{room}", name, attribute)
