"""What training rests on, by hand: the loss's scale, the order of windows, resampling that keeps sides apart."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tfkfin.fit import training
from tfkfin.fit.fingerprint import fingerprint
from tfkfin.models import fins
from tfkfin.recordings.recording import Recording, RecordingFile
from tfkfin.recordings.resampling import resampled

rng = np.random.default_rng(4)


def test_the_imitation_loss_is_on_the_scale_that_fins_work_on():
    bank = fins.bank([fins.fin(name, 20, "conv", units=3) for name in ("ENT", "RMS")], 2)
    targets = np.stack([rng.normal(5, 2, (9, 2)), rng.lognormal(1, 0.5, (9, 2))], -1).astype(np.float32)
    training.fit_scales(bank, targets)
    off = targets * np.float32(1.1)
    z = [((off[..., 0] - targets[..., 0]) / targets[..., 0].std()) ** 2,
         (np.log(off[..., 1] / targets[..., 1]) / np.log(targets[..., 1]).std()) ** 2]
    np.testing.assert_allclose(training.imitation_loss(bank)(targets, off), np.mean(z, axis=(0, 2)), rtol=1e-4)


def test_fine_tuning_shuffles_every_epoch(monkeypatch):
    from tfkfin.fit import trainers

    orders = []
    monkeypatch.setattr(trainers.batches, "of_subject", lambda *a, **k: orders.append(a[5]))
    options = SimpleNamespace(windows_per_epoch=0, epochs=3, batch_size=8, schedule="constant")
    run = SimpleNamespace(recipe=SimpleNamespace(finetune=options, batches=SimpleNamespace(prefetch=1)), length=5)
    model = SimpleNamespace(fit=lambda *a, **k: SimpleNamespace(history={}))
    trainer = SimpleNamespace(run=run, model=model, rates=(), standardise=lambda part: None)
    part = SimpleNamespace(windows=np.arange(50), number=3)
    trainers.JointTrainer.fit(trainer, part, None, None, 7)
    assert len(orders) == 3 and all(sorted(order) == list(range(50)) for order in orders)
    assert all(np.corrcoef(order, np.arange(50))[0, 1] < 0.5 for order in orders)
    assert not np.array_equal(orders[0], orders[1])


def test_the_resampling_filter_stays_on_its_side():
    emg, nothing = rng.standard_normal((900, 2)).astype(np.float32), np.ones(900, np.int16)
    cuts = [301, 602]

    def made(emg):
        return resampled(Recording(RecordingFile(Path("x"), 1), emg, nothing, nothing, 1000.0), 2000.0, cuts).emg

    other = emg.copy()
    other[301:602] = 7
    first, second = made(emg), made(other)
    assert len(first) == 1800
    np.testing.assert_array_equal(first[:602], second[:602])
    np.testing.assert_array_equal(first[1204:], second[1204:])
    whole = resampled(Recording(RecordingFile(Path("x"), 1), emg, nothing, nothing, 1000.0), 2000.0).emg
    np.testing.assert_allclose(first[700:1100], whole[700:1100], atol=1e-6)  # inside, it is SciPy's


@pytest.mark.parametrize("rate", [100, 999, 1999, 2001, 2048, 1259.259, 1111.1])
def test_rates_are_met(rate):
    ones = np.ones(4000, np.int16)
    made = resampled(Recording(RecordingFile(Path("x"), 1), np.ones((4000, 1), np.float32), ones, ones, rate), 2000.0)
    assert abs(len(made.emg) - 4000 * 2000 / rate) <= 1 + (rate != int(rate))


def test_a_fingerprint_is_of_content_wherever_it_lies(tmp_path):
    for name, text in (("a", "one"), ("b", "two"), ("c", "one")):
        (tmp_path / name).write_text(text)
    first = fingerprint([("S1", tmp_path / "a"), ("S2", tmp_path / "b")], tmp_path / "kept.json")
    assert first == fingerprint([("S2", tmp_path / "b"), ("S1", tmp_path / "c")], tmp_path / "other.json")
    assert first == fingerprint([("S1", tmp_path / "a"), ("S2", tmp_path / "b")], tmp_path / "kept.json")
    (tmp_path / "b").write_text("owt")  # as large as before
    assert first != fingerprint([("S1", tmp_path / "a"), ("S2", tmp_path / "b")], tmp_path / "kept.json")


def test_a_run_belongs_to_its_recordings(tiny_db2, tmp_path):
    from tfkfin import recipe as recipes
    from tfkfin.console import InputError
    from tfkfin.fit.run import open_run

    def opened(data):
        settings = {"source.kind": "recordings", "source.data": str(data), "split.test_repetitions": "2,5"}
        return open_run(recipes.load(None, settings), tmp_path / "run")

    first, copy = tmp_path / "csv", tmp_path / "lab2" / "csv"
    shutil.copytree(tiny_db2, first)
    shutil.copytree(tiny_db2, copy)
    opened(first)
    opened(copy)  # the same content elsewhere
    swapped = [next(first.rglob(f"S{s}_E1_A1.mat")) for s in (1, 2)]
    (one, other), (a, b) = (path.read_bytes() for path in swapped), swapped
    a.write_bytes(other), b.write_bytes(one)
    for data in (first, first):
        with pytest.raises(InputError, match=r"other recordings.*--run .*run-[0-9a-f]{6}"):
            opened(data)
    with pytest.raises(InputError, match="is not there"):
        open_run(recipes.load(None, {"source.kind": "recordings", "source.data": str(tmp_path / "no")}),
                 tmp_path / "new")
    assert not (tmp_path / "new").exists()
