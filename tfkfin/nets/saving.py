"""Loading what was saved: whatever a saved model may hold registers itself first.

Keras reads no HDF5 that came from elsewhere: it gets a copy, written here, of what a process without rights has read.
"""

import importlib
import io
import os
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import IO

import keras

from tfkfin.base import hdf5, machine, registry
from tfkfin.base.errors import InputError
from tfkfin.base.files import write_bytes

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"  # inside a `.keras` file
_REMOVED = ("ImitatedCorrelations", "PerPair")  # layers that earlier versions had


class _Memory(io.BytesIO):
    def __init__(self, name: str = "memory.weights.h5"):
        super().__init__()
        self._name = name

    def __str__(self) -> str:
        return self._name  # Keras tells the format by the name


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
        with open(path, "rb") as file:
            model.load_weights(_copy(file))
    except (MemoryError, InputError):
        raise
    except Exception as error:  # Keras lets anything escape on damaged bytes
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
        return keras.saving.load_model(_copied(path), compile=False)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(str(error)) from error
    except (TypeError, ValueError) as error:
        if any(name in str(error) for name in _REMOVED):
            raise InputError(f"{path} holds FINs of two channels, which were removed: train it anew with "
                             "classifier.describe=correlations; its SavedModel or ONNX file still serves") from None
        raise


def _copied(path: Path) -> _Memory:
    """A `.keras` file of the configuration and the weights of another one, of which nothing else is taken."""
    held, most = _Memory("memory.keras"), max(hdf5.ALWAYS, hdf5.RATIO * path.stat().st_size)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(held, "w") as new, hdf5.unnamed() as weights:
        if sum(old.getinfo(name).file_size for name in (_CONFIG, _WEIGHTS)) > most:
            raise ValueError(f"it would unpack to more than {most / 1e9:.3g} GB")
        new.writestr(_CONFIG, old.read(_CONFIG))
        with old.open(_WEIGHTS) as packed:
            shutil.copyfileobj(packed, weights)
        weights.flush()
        new.writestr(_WEIGHTS, _copy(weights).getbuffer())
    return held


def _copy(source: IO[bytes]) -> _Memory:
    """The arrays of an HDF5 file of weights, in one that is written here."""
    import h5py

    held, most = _Memory(), max(hdf5.ALWAYS, hdf5.RATIO * os.fstat(source.fileno()).st_size)
    with hdf5.opened(source, deep=True) as file, h5py.File(held, "w") as copy:
        arrays = {name: entry for name, entry in file.entries.items() if entry}
        if wrong := [name for name, entry in arrays.items() if entry.elsewhere or not entry.numeric]:
            raise ValueError(f"{wrong[0]} is not an array of real numbers")
        if (size := sum(entry.size for entry in arrays.values())) > most:
            raise ValueError(f"its weights would unpack to {size / 1e9:.3g} GB")
        machine.afford(2 * size, "these weights", "close other programs")
        for name in file.entries.keys() - arrays:
            copy.require_group(name)
        for name, value in file.read(arrays).items():
            copy[name] = value
    return held


def _register() -> None:
    """Imports every module that registers layers with Keras, those of installed packages too."""
    for module in ("tfkfin.nets.layers", "tfkfin.nets.bilstm.layer"):
        importlib.import_module(module)
    for room, attribute in (("fins", "FAMILY"), ("heads", "HEAD"), ("descriptions", "DESCRIPTION")):
        for name in registry.names(f"nets/{room}"):
            registry.load(f"nets/{room}", name, attribute)
