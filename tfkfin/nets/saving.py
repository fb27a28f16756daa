"""Loading what was saved: whatever a saved model may hold registers itself first.

Keras reads no HDF5 that came from elsewhere: it gets a copy, written here, of what a process without rights has read.
"""

import importlib
import io
import os
import zipfile
import zlib
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

import keras

from tfkfin.base import hdf5, machine, reading, registry
from tfkfin.base.errors import InputError
from tfkfin.base.files import write_bytes

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"  # inside a `.keras` file
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
        with NamedTemporaryFile(suffix=".keras") as copied:
            _copy_model(path, copied)
            return keras.saving.load_model(copied.name, compile=False)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(str(error)) from error
    except (TypeError, ValueError) as error:
        if any(name in str(error) for name in _REMOVED):
            raise InputError(f"{path} holds FINs of two channels, which were removed: train it anew with "
                             "classifier.describe=correlations; its SavedModel or ONNX file still serves") from None
        raise


def _copy_model(path: Path, to: IO[bytes]) -> None:
    """Writes a `.keras` file of the configuration and the weights of another one, of which nothing else is taken."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new, hdf5.unnamed() as weights:
        _afford(path.stat().st_size, sum(old.getinfo(name).file_size for name in (_CONFIG, _WEIGHTS)))
        new.writestr(_CONFIG, old.read(_CONFIG))
        weights.write(old.read(_WEIGHTS))
        weights.flush()
        new.writestr(_WEIGHTS, _copy(weights).getbuffer())
    to.flush()


def _copy(source: IO[bytes]) -> _Memory:
    """The arrays of an HDF5 file of weights, in one that is written here."""
    import h5py

    held = _Memory()
    with hdf5.opened(source, deep=True) as file, h5py.File(held, "w") as copy:
        arrays = {name: item for name, item in file.entries.items() if item}
        if any(item.elsewhere or not item.numeric for item in arrays.values()):
            raise ValueError("its weights are not arrays of real numbers alone")
        _afford(os.fstat(source.fileno()).st_size, sum(item.size for item in arrays.values()))
        for name in file.entries.keys() - arrays:
            copy.require_group(name)
        for name, value in file.read(arrays).items():
            copy[name] = value
    return held


def _afford(packed: int, size: int) -> None:
    if size > max(reading.ALWAYS, reading.RATIO * packed):
        raise ValueError(f"its weights would unpack to {size / 1e9:.3g} GB out of {packed / 1e6:.3g} MB")
    machine.afford(2 * size, "reading these weights", "close other programs")


def _register() -> None:
    """Imports every module that registers layers with Keras, those of installed packages too."""
    for module in ("tfkfin.nets.layers", "tfkfin.nets.augment", "tfkfin.nets.bilstm.layer"):
        importlib.import_module(module)
    for room, attribute in (("fins", "FAMILY"), ("heads", "HEAD"), ("descriptions", "DESCRIPTION")):
        for name in registry.names(f"nets/{room}"):
            registry.load(f"nets/{room}", name, attribute)
