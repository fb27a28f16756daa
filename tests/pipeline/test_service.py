"""Batches by number, and from other processes through tf.data service: the same as those made in one go."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkfin import recipe as recipes
from tfkfin import train
from tfkfin.base import console
from tfkfin.pipeline import batches, dataset, numbered, service

SETTINGS = {"window.length_ms": 100, "window.stride_ms": 50, "features.names": "RMS,VAR", "imitate.batch_size": 32}


def here(folder, **more) -> tuple:
    recipe = recipes.load(settings={"source.kind": "recordings", **SETTINGS, **more})
    return recipe, dataset.open_dataset(recipe, folder)


def in_one_go(recipe, data, epoch: int) -> list:
    found = batches.pooled(data, recipe.features.names, recipe.imitate.batch_size, recipe.seed, epoch,
                           recipe.imitate.windows_per_epoch, recipe.batches.recordings_in_flight)
    return list(found.as_numpy_iterator())


def same(got, wanted) -> None:
    for one, other in zip_longest(got, wanted):
        for mine, its in zip(one, other, strict=True):
            assert np.array_equal(mine, its) and mine.dtype == its.dtype


@pytest.mark.parametrize(("counts", "in_flight"), [
    ((3,), 1), ((3, 2), 2), ((1, 5, 2), 2), ((4, 1, 1, 6, 2), 2), ((2, 2, 2), 3), ((1, 1, 7, 3), 3), ((5, 9, 4), 1)])
def test_the_order_is_that_of_interleaved_datasets(counts, in_flight):
    data = tf.data.Dataset.range(len(counts)).interleave(
        lambda k: tf.data.Dataset.range(tf.gather(tf.constant(counts, tf.int64), k)).map(lambda n: (k, n)),
        cycle_length=in_flight, block_length=1)
    assert [list(map(int, one)) for one in data] == np.transpose(numbered.mixed(counts, in_flight)).tolist()


@pytest.mark.parametrize("windows", [0, 100])
def test_each_batch_alone_is_the_one_of_the_epoch(windows, tiny_db2):
    recipe, data = here(tiny_db2, **{"imitate.windows_per_epoch": windows})
    alone = numbered.Numbered(recipe, data, data.length)
    again = numbered.opened(alone.request(str(tiny_db2)))
    for epoch in (0, 1):
        wanted = in_one_go(recipe, data, epoch)
        assert alone.steps == len(wanted)
        same([alone.batch(epoch, i) for i in reversed(range(alone.steps))], wanted[::-1])
        same([again.batch(epoch, i) for i in range(alone.steps)], wanted)
    other = replace(data, split=data.split.model_copy(update={"pretrain_subjects": (1,)}))
    few = numbered.opened(numbered.Numbered(recipe, other, data.length).request(str(tiny_db2)))
    assert few.dataset.split.pretrain_subjects == (1,)


class Other(numbered.Numbered):
    """Of files of another size."""

    def request(self, data):
        return re.sub(r'(\.mat", )\d+', r"\g<1>77", super().request(data))


def test_other_recordings_are_not_taken_for_these(tiny_db2, tmp_path):
    recipe, data = here(tiny_db2)
    with pytest.raises(console.InputError, match="holds other recordings here"):
        numbered.opened(Other(recipe, data, data.length).request(str(tiny_db2)))


def test_synthetic_signals_have_the_same_batches():
    recipe = recipes.load(settings={"source.kind": "signals", **SETTINGS, "imitate.windows_per_epoch": 96})
    alone = numbered.Numbered(recipe, None, 200)
    again = numbered.opened(alone.request(""))
    wanted = batches.of_signals(("RMS", "VAR"), 200, recipe.window.rate_hz, 32, recipe.seed, 4, 96).as_numpy_iterator()
    same([again.batch(4, i) for i in range(alone.steps)], wanted)


class Made:
    """In place of a `Numbered`: batch i is made of i."""

    steps = 200

    @staticmethod
    def batch(epoch, number):
        return f"{number} made here"


def delivered(events, monkeypatch, room: int = 80) -> list:
    """What `_Order` gives for (number, seconds since the last) in turn."""
    now = [0.0]
    monkeypatch.setattr(service.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(service, "ROOM", room)
    order, got = service._Order(Made, 0, "somewhere"), []
    order.given(service._BEGIN)
    for number, passed in events:
        now[0] += passed
        got += [order.due() for _ in range(order.given(number, np.array(number)))]  # 8 bytes each
    return [one if isinstance(one, str) else int(one[0]) for one in got]


def test_lost_late_and_repeated_batches(monkeypatch):
    order = np.random.default_rng(0).permutation(8).tolist()
    assert delivered([(i, 0) for i in order], monkeypatch) == list(range(8))
    got = delivered([(i, 0) for i in range(200) if i != 3] + [(service._END, 0)], monkeypatch)
    assert got == [0, 1, 2, "3 made here", *range(4, 200)]
    assert delivered([(0, 0), (2, 0), (1, 0), (1, 0), (2, 0), (3, 0)], monkeypatch) == [0, 1, 2, 3]  # none twice
    assert delivered([(i, 0) for i in range(1, 12)], monkeypatch) == ["0 made here", *range(1, 12)]  # no room
    assert delivered([(i, 0) for i in range(1, 11)], monkeypatch) == []
    alive = [(0, 0), *[(i, 10) for i in range(2, 7)]]
    assert delivered(alive, monkeypatch) == [0, "1 made here", 2, 3, 4, 5, 6][:len(alive) + 1]
    gone = [(0, 0), (2, 0), *[(service._TICK, 1)] * (service.PATIENCE + 3), (1, 0), (4, 0), (10, 0)]
    assert delivered(gone, monkeypatch) == [0, "1 made here", 2, *(f"{i} made here" for i in range(3, 9))]
    assert delivered([(service._TICK, 1)] * 60, monkeypatch) == [f"{i} made here" for i in range(200)]


@contextmanager
def served(folder: Path, workers: int = 2, port: str = "0"):
    """The service, and its address."""
    log = folder / "service.log"
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "tfkfin.data", "serve-input", "--port", port, "--workers",
                                    str(workers), "--host", "localhost"], stderr=file)
    try:
        deadline = time.monotonic() + 240
        while not (found := re.search(r"workers at (\d+(?:, \d+)*), ", log.read_text())):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield process, re.search(r"input_service=(\S+)", log.read_text())[1], found[1].split(", ")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def workers_of(process: subprocess.Popen) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text().split()]


@pytest.mark.slow
def test_two_workers_give_every_window_once_also_when_one_is_killed(tiny_db2, tmp_path, monkeypatch):
    recipe, data = here(tiny_db2, **{"imitate.batch_size": 4, "imitate.windows_per_epoch": 0})
    source = numbered.Numbered(recipe, data, data.length)
    with served(tmp_path) as (process, address, ports):
        assert len(ports) == len(workers_of(process)) == 2
        for epoch in range(2):
            same(service.batches(address, source, str(tiny_db2), epoch).as_numpy_iterator(),
                 in_one_go(recipe, data, epoch))
        got = []
        for i, batch in enumerate(service.batches(address, source, str(tiny_db2), 2).as_numpy_iterator()):
            got.append(batch)
            if i == source.steps // 4:
                os.kill(workers_of(process)[0], signal.SIGKILL)
        same(got, in_one_go(recipe, data, 2))
        monkeypatch.setattr(service, "PATIENCE", 600)  # nothing is made here, however busy the machine
        with pytest.raises(console.InputError, match="holds other recordings here"), service.failures_told(address):
            list(service.batches(address, Other(recipe, data, data.length), str(tiny_db2), 3))
        for name, more in (("one", ()), ("two", ("--set", f"launch.input_service={address}"))):
            train.main(["--stage", "imitate", "--data", str(tiny_db2), "--run", str(tmp_path / name), "--set",
                        "fin.units=4", "--set", "fin.layers=1", "--set", "fin.pretrained=", "--set", "imitate.epochs=2",
                        *(word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")), *more])
        mine, its = (keras.models.load_model(tmp_path / name / "imitate" / "fins.keras").get_weights()
                     for name in ("one", "two"))
        assert len(mine) > 10
        for one, two in zip(mine, its, strict=True):
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)
    assert "was killed" in (tmp_path / "service.log").read_text()
    with pytest.raises(console.InputError, match="nobody listens at"):
        service.batches(address, source, str(tiny_db2), 0)


@pytest.mark.slow
def test_a_dispatcher_started_again_in_mid_epoch_gives_nothing_wrong(tiny_db2, tmp_path):
    """It does not know the epoch: that ends with a line that says so, or goes on to the same end; the next is whole."""
    recipe, data = here(tiny_db2, **{"imitate.batch_size": 4, "imitate.windows_per_epoch": 0})
    source, said = numbered.Numbered(recipe, data, data.length), ""
    with served(tmp_path) as (process, address, _):
        coming = service.batches(address, source, str(tiny_db2), 0).as_numpy_iterator()
        got = [next(coming) for _ in range(source.steps // 4)]
        process.kill()
    with served(tmp_path, port=address.rpartition(":")[2]):
        try:
            with service.failures_told(address):
                got.extend(coming)
        except console.InputError as error:
            said = str(error)
        sys.stdout.write(f"{len(got)} of {source.steps} batches; {said}\n")
        assert len(got) == source.steps or f"the input service at {address} failed" in said and "goes on after" in said
        assert "{{" not in said and "\n" not in said
        same(got, in_one_go(recipe, data, 0)[:len(got)])
        same(service.batches(address, source, str(tiny_db2), 1).as_numpy_iterator(), in_one_go(recipe, data, 1))
