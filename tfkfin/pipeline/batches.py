"""The one tf.data graph: recordings are read lazily and ahead, windows exist only inside a batch.

Order of operations, and why: files are shuffled, read ahead, and a few at a time are mixed (so a batch spans
recordings); inside a recording the window *indices* are shuffled before any window is cut (an index is 8 bytes, a
window 29 kB); targets come from the streamed features of the recording. Everything is seeded by (seed, epoch): the
same epoch gives the same batches whether or not a run was killed before it.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfkfin.features import catalogue as features
from tfkfin.pipeline import signals
from tfkfin.pipeline.dataset import Dataset
from tfkfin.pipeline.memory import Spool, aligned, give_back
from tfkfin.pipeline.subject import Subject
from tfkfin.recordings import matfile


def pooled(dataset: Dataset, names: Sequence[str], batch_size: int, seed: int, epoch: int = 0,
           max_windows: int = 0, in_flight: int = 2, prefetch: int = 2,
           spool: Spool | None = None) -> tf.data.Dataset:
    """One epoch over the pre-training windows of all pre-training subjects.

    Args:
        dataset: the recordings.
        names: features to compute.
        batch_size: windows a batch; the last batch may be smaller.
        seed, epoch: fix the order.
        max_windows: at most that many windows, an equal share of each recording; 0 takes all.
        in_flight: recordings mixed at a time; memory grows with it, not with the number of recordings.
        prefetch: batches made ahead.
        spool: keeps decoded recordings and their features for later epochs, of one dataset and set of names.

    Yields:
        (emg (B, L, C) float32 standardised, targets (B, C, F) float32 in own units).
    """
    rng = np.random.default_rng([seed, epoch])
    subjects = rng.permutation(dataset.split.pretrain_subjects)
    keys = rng.integers(0, 2**31, len(subjects))  # seeds of the windows' order in each recording
    share = shares(dataset, max_windows)
    read = _reading(dataset, tuple(names), share, spool)

    def windows(emg, starts, targets):
        rows = tf.range(dataset.length, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((starts, targets)).map(
            lambda start, target: (tf.gather(emg, start + rows), target))

    in_flight = min(in_flight, len(subjects))

    def recordings(part: slice, side_by_side: int) -> tf.data.Dataset:
        data = tf.data.Dataset.from_tensor_slices((subjects[part], keys[part]))
        files = [dataset.files[s] for s in subjects[part]]
        # Streaming from HDF5 is for subjects of one file; formats other than Ninapro's may not be in volts.
        alone = all(len(one) == 1 and one[0].reader == "ninapro" for one in files)
        if alone and (streamed := matfile.signals([one[0].path for one in files], dataset.channels)) is not None:
            data = tf.data.Dataset.zip(data, streamed).map(lambda who, emg: (*who, emg))
        return data.map(read, num_parallel_calls=side_by_side, deterministic=True)

    # The first batch spans the first recordings, so these are read together; later ones are read one ahead.
    data = recordings(slice(in_flight), in_flight).concatenate(recordings(slice(in_flight, None), 1)).prefetch(1)
    data = data.interleave(windows, cycle_length=in_flight, block_length=1)
    steps = -(-sum(share.values()) // batch_size)
    return data.batch(batch_size).apply(tf.data.experimental.assert_cardinality(steps)).prefetch(prefetch)


def _reading(dataset: Dataset, names: tuple[str, ...], share: dict[int, int], spool: Spool | None):
    """In a graph: (subject, seed of its windows' order, maybe its signal) -> (emg (T, C), starts, targets)."""

    def decoded(subject: int, emg: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        give_back()  # of recordings that are no longer needed
        loaded = dataset.load(subject, dataset.part("pretrain"), emg)
        return loaded.standardised(), loaded.windows.starts, loaded.features(names, dataset.length, dataset.rate_hz)

    def load(subject: np.ndarray, key: np.ndarray, *signal: np.ndarray):
        subject = int(subject)
        if spool is None or signal:
            emg, starts, every = decoded(subject, *(s.T for s in signal))
        else:
            emg, starts, every = spool(subject, lambda: decoded(subject))
        order = np.random.default_rng(key).permutation(len(starts))[: share[subject]]
        targets = aligned(len(order), dataset.channels, len(names))
        np.take(every, order, axis=0, out=targets)
        del every
        give_back()
        return emg, starts[order], targets

    def read(*parts):
        emg, starts, targets = tf.numpy_function(load, parts, (tf.float32, tf.int64, tf.float32))
        emg.set_shape((None, dataset.channels))
        starts.set_shape((None,))
        targets.set_shape((None, dataset.channels, len(names)))
        return emg, starts, targets

    return read


def shares(dataset: Dataset, max_windows: int) -> dict[int, int]:
    """Windows an epoch takes of each pre-training subject: all, or an even share of `max_windows`."""
    there = {s: dataset.count(s, "pretrain") for s in dataset.split.pretrain_subjects}
    share = -(-max_windows // len(there)) if max_windows else max(there.values())
    return {s: min(share, count) for s, count in there.items()}


def of_subject(subject: Subject, targets: np.ndarray, labels: np.ndarray, length: int, batch_size: int,
               order: np.ndarray | None = None, prefetch: int = 2) -> tf.data.Dataset:
    """Batches of one subject's windows in the given order of indices (default: as they come in time).

    Yields:
        (emg (B, L, C) volts, {"probabilities": labels (B,), "features": targets (B, C, F)}).
    """
    order = np.arange(len(subject.windows)) if order is None else order
    starts, rows = subject.windows.starts, tf.range(length, dtype=tf.int64)
    emg = tf.constant(subject.emg)
    data = tf.data.Dataset.from_tensor_slices((starts[order], labels[order], targets[order])).batch(batch_size)
    return data.map(
        lambda s, label, target: (tf.gather(emg, s[:, None] + rows), {"probabilities": label, "features": target}),
        num_parallel_calls=tf.data.AUTOTUNE).prefetch(prefetch)


def of_features(values: np.ndarray, labels: np.ndarray, batch_size: int, seed: int | None = None) -> tf.data.Dataset:
    """Batches (features (B, C, F), labels (B,)); with a seed, reshuffled every epoch."""
    values, labels = tf.constant(values), tf.constant(labels)
    order = tf.data.Dataset.range(len(labels))
    if seed is not None:
        order = order.shuffle(len(labels), seed=seed)
    return order.batch(batch_size).map(lambda rows: (tf.gather(values, rows), tf.gather(labels, rows))).prefetch(2)


def of_signals(names: Sequence[str], length: int, rate_hz: float, batch_size: int, seed: int, epoch: int,
               num_windows: int) -> tf.data.Dataset:
    """Batches of synthetic one-channel windows of wide range (see `signals`): (emg (B, L, 1), targets (B, 1, F))."""

    def make(step: np.ndarray):
        x = signals.windows(np.random.default_rng([seed, epoch, int(step)]), batch_size, length, rate_hz)[..., None]
        return x, features.direct(x, tuple(names), rate_hz)

    def batch(step):
        x, y = tf.numpy_function(make, (step,), (tf.float32, tf.float32))
        return tf.ensure_shape(x, (batch_size, length, 1)), tf.ensure_shape(y, (batch_size, 1, len(names)))

    steps = max(1, num_windows // batch_size)
    return tf.data.Dataset.range(steps).map(batch, num_parallel_calls=2).prefetch(4)
