"""Signals of v7.3 files read by tf.data itself, with tensorflow-io, so that no recording passes through Python's lock.

tensorflow-io reads a local file piece by piece, but takes the whole of one on `http://` into memory each time it is
opened; so remote files are fetched once (see `remote`) and streamed from there.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tfkfin.recordings import matfile


def signals(paths: Sequence[Path], channels: int):
    """A tf.data.Dataset of the signals (C, T) of v7.3 files, one after another, in the type they are stored in.

    None where that cannot be: tensorflow-io is not installed, a file is not v7.3, the types differ, or not
    every row is a channel. Files hold
    (rows, columns) as (columns, rows), so a channel is one element to tensorflow-io.
    """
    if find_spec("tensorflow_io") is None or not all(p.suffix.lower() == ".mat" and matfile.is_v73(p) for p in paths):
        return None
    import h5py

    types = set()
    for path in paths:
        with h5py.File(path, "r") as file:
            emg = matfile.whole(path, file["emg"])
            types.add(emg.dtype.name if emg.shape[0] == channels else "")
    return stream([str(path) for path in paths], channels, *types) if len(types) == 1 and "" not in types else None


def stream(addresses: Sequence[str], channels: int, dtype: str):
    """As `signals`, of files known to hold `emg` in `dtype`; an address may also be an `http://` one."""
    import tensorflow as tf
    import tensorflow_io as tfio

    spec = tf.TensorSpec((channels, None), dtype)
    return tf.data.Dataset.from_tensor_slices(list(addresses)).flat_map(
        lambda address: tfio.IODataset.from_hdf5(address, "/emg", spec=spec).batch(channels, drop_remainder=True))
