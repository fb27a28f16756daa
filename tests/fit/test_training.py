"""What training rests on, by hand: the loss's scale, the order of windows, resampling that keeps sides apart."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkfin.fit import training
from tfkfin.fit.run import fingerprint
from tfkfin.nets import fins
from tfkfin.pipeline.subject import Subject, resampled
from tfkfin.pipeline.windows import Windows
from tfkfin.recordings.recording import Recording, RecordingFile
from tfkfin.signal import resampling

rng = np.random.default_rng(4)


def test_the_imitation_loss_is_on_the_scale_that_fins_work_on():
    """Of RMS and VAR their logarithm; of ENT that of what it lacks to ln L, its greatest value; of others the value."""
    names, most = ("ENT", "RMS", "MNF"), np.log(20)
    bank = fins.bank([fins.fin(name, 20, "conv", units=3) for name in names], 2)
    lacking, rms, mnf = rng.lognormal(-1, 0.5, (9, 2)), rng.lognormal(1, 0.5, (9, 2)), rng.normal(5, 2, (9, 2))
    targets = np.stack([most - lacking, rms, mnf], -1).astype(np.float32)
    training.fit_scales(bank, targets)
    off = np.stack([most - 1.1 * lacking, 1.1 * rms, 1.1 * mnf], -1).astype(np.float32)
    z = [(np.log(1.1) / np.log(lacking).std()) ** 2 * np.ones((9, 2)), (np.log(1.1) / np.log(rms).std()) ** 2 * np.ones(
        (9, 2)), (0.1 * mnf / mnf.std()) ** 2]
    np.testing.assert_allclose(training.imitation_loss(bank)(targets, off), np.mean(z, axis=(0, 2)), rtol=1e-4)


def test_fine_tuning_shuffles_every_epoch(monkeypatch):
    from tfkfin.fit import trainers

    orders = []
    monkeypatch.setattr(trainers.batches, "of_subject", lambda *a, **k: orders.append(a[5]))
    options = SimpleNamespace(windows_per_epoch=0, epochs=3, batch_size=8, schedule="constant")
    run = SimpleNamespace(recipe=SimpleNamespace(finetune=options, batches=SimpleNamespace(prefetch=1)), length=5)
    model = SimpleNamespace(fit=lambda *a, **k: SimpleNamespace(history={}))
    trainer = SimpleNamespace(run=run, model=model, rates=(), standardise=lambda part: None,
                              forward=SimpleNamespace(streams=False))
    trainer._batches = lambda *a: trainers.JointTrainer._batches(trainer, *a)
    part = SimpleNamespace(windows=np.arange(50), number=3)
    trainers.JointTrainer.fit(trainer, part, None, None, 7)
    assert len(orders) == 3 and all(sorted(order) == list(range(50)) for order in orders)
    assert all(np.corrcoef(order, np.arange(50))[0, 1] < 0.5 for order in orders)
    assert not np.array_equal(orders[0], orders[1])


@pytest.mark.parametrize(("steps", "epochs"), [(50, 1), (10, 4), (2, 1)])
def test_a_few_steps_tell_how_long_a_training_takes(steps, epochs):
    """The first of which takes long; each of the others 20 ms."""
    import time

    model, done = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), []
    model.compile("sgd", "mse")

    def fit(calls):
        slow = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: (
            done.append(1), time.sleep(0.02 if len(done) > 1 else 0.5)))
        model.fit(np.ones((2 * steps, 3)), np.ones(2 * steps), 2, epochs, verbose=0, callbacks=[slow, *calls])

    told = training.seconds_of(fit)
    if steps * epochs < 3:
        assert told == 0 and len(done) == steps  # it is done
    else:
        assert len(done) == 3 and 0.02 * steps * epochs <= told < 0.2 * steps * epochs  # on a busy machine


def stretched(family="conv"):
    """A subject of two runs and an odd window, and a decoder's network that is trained on it."""
    from tfkfin import recipe
    from tfkfin.fit.trainers import TwoRates
    from tfkfin.nets import fins, heads
    from tfkfin.nets.network import network

    starts = np.concatenate([np.arange(0, 200, 5), [207], np.arange(240, 310, 5)])
    part = Subject(3, rng.standard_normal((340, 2)).astype(np.float32),
                   Windows(starts, np.ones(len(starts), np.int16), np.ones(len(starts), np.int16)),
                   np.zeros(2), np.ones(2), np.zeros((1, 2), np.int64))
    bank = fins.bank([fins.fin(name, 30, family, units=4) for name in ("ENT", "RMS")], 2)
    head = heads.new(recipe.Classifier(kind="linear"), ("ENT", "RMS"), 30, 2, 3)
    model = network(bank, head)
    return part, TwoRates(model.input, model.output)


def test_an_epoch_of_signals_holds_every_window_once():
    part, model = stretched()
    starts, count = part.windows.starts, len(part.windows)
    pieces = training.neighbours(starts)
    assert np.concatenate(pieces).tolist() == list(range(count)) and max(map(len, pieces)) == training.NEIGHBOURS
    assert all((np.diff(starts[piece]) == 5).all() for piece in pieces)
    order = [pieces[i] for i in rng.permutation(len(pieces))]
    targets, labels = rng.standard_normal((count, 2, 2)).astype(np.float32), np.arange(count)
    seen = []
    for (emg, wanted), true in training.neighbour_batches(part, targets, labels, 30, 20, order):
        index = true["probabilities"].numpy()
        seen += index.tolist()
        np.testing.assert_array_equal(true["features"], targets[index])
        got = model.of_signals(emg, wanted)  # the answers for these very windows, in this order
        expected = model(part.volts(30, index), training=True)
        for name in expected:
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-4, atol=1e-5)
    assert sorted(seen) == list(range(count)) and seen != sorted(seen)


def test_rates_fall_along_half_a_cosine():
    optimizers = [keras.optimizers.Adam(0.4), keras.optimizers.Adam(2.0)]
    for first, steps in ((0, 5), (3, 3)):  # the second is a run that goes on at step 3
        for optimizer, rate in zip(optimizers, (0.4, 2.0), strict=True):
            optimizer.learning_rate.assign(rate)
        schedule, seen = training.Cosine([optimizers[0], None, optimizers[1]], 4, first), []
        for _ in range(steps):
            schedule.on_train_batch_begin(0)
            seen.append([float(optimizer.learning_rate) for optimizer in optimizers])
        factors = [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0, 0][first : first + steps]
        np.testing.assert_allclose(seen, np.outer(factors, [0.4, 2.0]), atol=1e-6)


def test_stretches_come_in_batches_of_about_the_size_asked_for():
    part, _ = stretched()
    count, pieces = len(part.windows), training.neighbours(part.windows.starts)
    data = training.neighbour_batches(part, np.zeros((count, 2, 2), np.float32), np.arange(count), 30, 20, pieces)
    sizes = [int(wanted.numpy().sum()) for (_, wanted), _ in data]
    assert max(sizes) == 16 and len(sizes) == len(data)  # two pieces of 8 are the most that fit 20


def test_a_step_on_stretches_is_a_step_on_their_windows():
    part, model = stretched()
    weights, targets = model.get_weights(), rng.uniform(1, 2, (8, 2, 2)).astype(np.float32)
    labels, after = np.arange(8) % 3, []
    data = next(iter(training.neighbour_batches(part, targets, labels, 30, 8, [np.arange(8)])))
    for x in (data[0], tf.constant(part.volts(30, np.arange(8)))):
        model.set_weights(weights)
        model.set_optimizers(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1))
        before = [v.numpy() for v in model.trainable_variables]
        losses = {"probabilities": keras.losses.SparseCategoricalCrossentropy(),
                  "features": training.imitation_loss(model.get_layer("fins"))}
        model.compile(model.head_optimizer, losses, jit_compile=False)
        model.fit(tf.data.Dataset.from_tensors((x, data[1])), verbose=0, shuffle=False)
        after.append([v.numpy() - old for v, old in zip(model.trainable_variables, before, strict=True)])
    assert sum(np.abs(move).max() > 1e-4 for move in after[0]) > 10
    for streamed, cut in zip(*after, strict=True):
        np.testing.assert_allclose(streamed, cut, rtol=1e-3, atol=1e-4 * np.abs(cut).max() + 1e-6)


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
    up, down = resampling._ratio(rate, 2000.0)
    assert down <= 10_000 and abs(down * 2000 / up / rate - 1) < 1e-4  # a filter has 20 taps for each of `up`


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
    from tfkfin.base.errors import InputError
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
