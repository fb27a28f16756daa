"""The tf.data pipeline, against windows cut one by one from what SciPy reads."""

import numpy as np
import pytest
import scipy.io

from tfkfin import recipe as recipes
from tfkfin.pipeline import batches, dataset
from tfkfin.pipeline.batches import Spool

LENGTH, STRIDE = 200, 100  # 100 and 50 ms at 2 kHz


def opened(folder):
    return dataset.open_dataset(recipes.load(settings={
        "source.kind": "recordings", "window.length_ms": 100, "window.stride_ms": 50}), folder)


def epoch(folder, **options):
    return [[array.numpy() for array in batch]
            for batch in batches.pooled(opened(folder), ("RMS", "VAR"), 32, seed=1, **options)]


def cut_one_by_one(folder) -> list[np.ndarray]:
    """Every window of the training repetitions 1, 3, 4, 6, standardised by those repetitions' samples."""
    found = []
    for path in sorted(folder.rglob("*.mat")):
        file = scipy.io.loadmat(path)
        labels, repetitions = file["restimulus"].ravel(), file["rerepetition"].ravel()
        taught = (labels > 0) & np.isin(repetitions, (1, 3, 4, 6))
        emg = file["emg"].astype(np.float64)
        emg = (emg - emg[taught].mean(0)) / emg[taught].std(0)
        changes = np.flatnonzero(np.diff(labels * 100 + repetitions)) + 1
        for begin, end in zip([0, *changes], [*changes, len(labels)], strict=True):
            if taught[begin]:
                found += [emg[i : i + LENGTH] for i in range(begin, end - LENGTH + 1, STRIDE)]
    return found


def test_an_epoch_is_every_training_window_once_with_its_features(tiny_db2):
    got = epoch(tiny_db2)
    emg, targets = (np.concatenate(parts) for parts in zip(*got, strict=True))
    want = np.array(cut_one_by_one(tiny_db2))
    assert emg.dtype == targets.dtype == np.float32 and emg.shape == want.shape
    assert [len(batch[0]) for batch in got[:-1]] == [32] * (len(got) - 1)
    order, wanted = np.lexsort(emg[:, :2, 0].T), np.lexsort(want[:, :2, 0].T)
    np.testing.assert_allclose(emg[order], want[wanted], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(targets[..., 0], np.sqrt(np.mean(np.square(emg, dtype=float), 1)), rtol=1e-4)
    np.testing.assert_allclose(targets[..., 1], np.var(emg, axis=1, dtype=float), rtol=1e-4)
    assert np.abs(order - wanted).max() > 50  # not in the order of time


def test_seed_and_epoch_fix_the_order_and_a_spool_changes_nothing(tiny_db2, tmp_path):
    spool = Spool(tmp_path)
    once = [epoch(tiny_db2, epoch=number, max_windows=100) for number in (0, 1, 0)]
    kept = [epoch(tiny_db2, epoch=number, max_windows=100, spool=spool) for number in (0, 1, 0)]
    assert sum(len(emg) for emg, _ in once[0]) == 100
    assert not np.array_equal(once[0][0][0], once[1][0][0])
    for one, other in [(once[0], once[2]), *zip(once, kept, strict=True)]:
        for batch, same in zip(one, other, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(batch, same, strict=True))


def test_with_a_spool_recordings_are_read_once(tiny_db2, tmp_path, monkeypatch):
    read, spool, load = [], Spool(tmp_path), dataset.Dataset.load
    monkeypatch.setattr(dataset.Dataset, "load", lambda self, subject, *more: (
        read.append(subject), load(self, subject, *more))[1])
    for number in range(3):
        epoch(tiny_db2, epoch=number, spool=spool)
    assert sorted(read) == [1, 2]
    assert not list(tmp_path.iterdir())  # nothing is left behind, whatever becomes of the process


def test_a_full_disk_costs_time_only(tmp_path):
    made = []

    def make():
        made.append(1)
        return np.arange(5, dtype=np.float32), np.ones((3, 2))

    spool = Spool(tmp_path / "not there")
    for _ in range(2):
        numbers, ones = spool("a", make)
        assert numbers.tolist() == [0, 1, 2, 3, 4] and ones.sum() == 6
    assert len(made) == 2


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_a_spool_gives_back_what_was_made(tmp_path, dtype):
    spool, rng = Spool(tmp_path), np.random.default_rng(0)
    parts = tuple(rng.integers(0, 99, shape).astype(dtype) for shape in ((7, 3), (11,), (2, 3, 5)))
    spool("a", lambda: parts), spool("b", lambda: parts[::-1])
    for key, want in (("a", parts), ("b", parts[::-1])):
        got = spool(key, lambda: pytest.fail("made twice"))
        assert all(np.array_equal(a, b) and a.dtype == dtype for a, b in zip(got, want, strict=True))
        assert all(array.ctypes.data % 64 == 0 for array in got)
