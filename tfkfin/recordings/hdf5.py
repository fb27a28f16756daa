"""Reads signals of MATLAB v7.3 files inside tf.data, with tensorflow-io (extra: `io`), so without Python's lock.

tensorflow-io reads local files block by block, but loads a file on `http://` into memory each time it opens it. So
remote files are first copied into the cache (`remote`).
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tfkfin.recordings import matfile


def signals(paths: Sequence[Path], channels: int):
    """A tf.data.Dataset of the signals (C, T) of v7.3 files, in order and in the type they are stored in.

    None where tensorflow-io is not installed, a file is not v7.3, types differ, or a file has another number of
    channels. HDF5 stores MATLAB's (rows, columns) as (columns, rows), so tensorflow-io sees a channel as one element.
    """
    if find_spec("tensorflow_io") is None or not all(p.suffix.lower() == ".mat" and matfile.is_v73(p) for p in paths):
        return None
    import h5py

    types = set()
    for path in paths:
        with h5py.File(path, "r") as file:
            emg = matfile.checked(path, file["emg"])
            types.add(emg.dtype.name if emg.shape[0] == channels else "")
    return stream([str(path) for path in paths], channels, *types) if len(types) == 1 and "" not in types else None


def stream(addresses: Sequence[str], channels: int, dtype: str):
    """As `signals`, for files whose `emg` is known to have this type; addresses may be `http://` URLs."""
    import tensorflow as tf
    import tensorflow_io as tfio

    spec = tf.TensorSpec((channels, None), dtype)
    return tf.data.Dataset.from_tensor_slices(list(addresses)).flat_map(
        lambda address: tfio.IODataset.from_hdf5(address, "/emg", spec=spec).batch(channels, drop_remainder=True))
