"""Runs under faults: locked, damaged, read-only, unfit for the recipe, losses that are no numbers."""

import errno
import os
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tfkfin import recipe as recipes
from tfkfin.base import console
from tfkfin.base.errors import InputError
from tfkfin.fit import run as runs
from tfkfin.fit import stages, training
from tfkfin.fit.run import Run
from tfkfin.fit.training import EarlyStopping
from tfkfin.pipeline import splits
from tfkfin.pipeline.windows import Windows

SIGNALS = {"source.kind": "signals", "fin.pretrained": ""}


def run_in(folder, **settings) -> Run:
    return Run(folder, recipes.replaced(recipes.Recipe(), **SIGNALS | settings))


def test_one_process_works_on_a_run_and_sweeps_what_others_left(tmp_path):
    old, new = tmp_path / "imitate" / ".77-host.partial.a.json", tmp_path / ".78-host.partial.b.json"
    old.parent.mkdir()
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (1e9, 1e9))
    run_in(tmp_path).note()
    with run_in(tmp_path).alone():
        assert not old.exists() and new.exists()  # a task of another machine may write it now
        with pytest.raises(InputError, match="another process works on this run"):
            with run_in(tmp_path).alone():
                pass
    with run_in(tmp_path).alone():
        pass


def test_a_run_whose_folder_was_removed_meanwhile_does_not_end_well(tmp_path):
    """What comes after makes the folder anew: the next start would find half a run there."""
    folder = tmp_path / "run"
    run_in(folder).note()
    with pytest.raises(InputError, match="was removed while this run wrote there"), run_in(folder).alone():
        shutil.rmtree(folder)
        run_in(folder).finish("imitate", {"seconds": 1.0})
    shutil.rmtree(folder)
    run_in(folder).note()
    with pytest.raises(InputError, match="was removed while this run wrote there"), run_in(folder).alone():
        shutil.rmtree(folder)
        run_in(folder).finish("imitate", {})["seconds"]  # what is missed for it
    with pytest.raises(InputError, match="is there and is no run folder"):
        runs.open_run(run_in(folder).recipe, folder)


def test_who_comes_second_takes_nothing_away_from_who_came_first(tmp_path):
    """Both found no folder; the second one fails, for the first one is at work there."""
    folder = tmp_path / "runs" / "one"
    with pytest.raises(InputError, match="another process"), runs.cleared(folder):
        folder.mkdir(parents=True)
        (folder / "recipe.toml").write_text("first")
        held = run_in(folder).ledger.lock("run")
        held.acquire()
        with run_in(folder).alone():
            pass
    assert (folder / "recipe.toml").read_text() == "first"
    held.release()
    with pytest.raises(InputError, match="unfit"), runs.cleared(tmp_path / "runs" / "two"):
        (tmp_path / "runs" / "two").mkdir()
        raise InputError("unfit")
    assert [*(tmp_path / "runs").iterdir()] == [folder]


def test_a_disk_that_cannot_be_written_still_shows_what_is_finished(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path))

    first = run_in(tmp_path)
    first.note()
    first.seconds["imitate"] = 1.5
    shown = first.publish("imitate", {"fin": {"RMS": {"r2": 0.5}}})
    monkeypatch.setattr(runs.Ledger, "put", full)
    monkeypatch.setattr("filelock.FileLock.acquire", full)
    with run_in(tmp_path).alone():
        assert run_in(tmp_path).publish("imitate", {"fin": {"RMS": {"r2": 0.5}}}) == shown
    with pytest.raises(OSError, match="Read-only"):
        run_in(tmp_path).publish("imitate", {"fin": {"RMS": {"r2": 0.6}}})


@pytest.mark.parametrize("content", ["{}", '{"a": 1}', "[", "7", '{"a":' * 9000])
def test_a_finished_stage_that_says_nothing_is_damaged(content, tmp_path):
    (tmp_path / "classify").mkdir()
    (tmp_path / "classify" / "stage.json").write_text(content)
    with pytest.raises(InputError, match="classify/stage.json is damaged: remove it"):
        run_in(tmp_path).done("classify")


def test_scores_that_are_gone_before_they_are_summed_up_are_named(tmp_path):
    run = run_in(tmp_path)
    run.dataset = SimpleNamespace(split=SimpleNamespace(subjects=(1, 2)))
    run.finish("classify", {"accuracy": 1.0}, "S1")
    with pytest.raises(FileNotFoundError, match="classify/S2.json"):
        stages._over_subjects(run, "classify")


def test_damaged_checkpoints_are_named_with_what_to_do(tmp_path):
    def stopping():
        return EarlyStopping(tmp_path, keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), "epoch")

    stopping().save(3)
    half, index = tmp_path / "checkpoints" / "ckpt-3_temp", tmp_path / "checkpoints" / "ckpt-1.index"
    half.mkdir()
    assert stopping().restored() and not half.exists()
    index.write_bytes(index.read_bytes()[:20])
    with pytest.raises(InputError, match=f"{tmp_path / 'checkpoints'} is damaged: remove it"):
        stopping().restored()


def test_a_loss_that_is_no_number_ends_the_training():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e30), "mse")
    x = np.full((64, 2), 1e15, np.float32)
    with training.Progress("finetune S1", 4) as bar, pytest.raises(
            InputError, match="finetune S1: the loss is (nan|inf)"):
        model.fit(x, x[:, :1], batch_size=8, epochs=4, verbose=0, callbacks=[bar])


@pytest.mark.parametrize("name, value", [("imitate.batch_size", 10**6), ("finetune.batch_size", 10**6),
                                         ("imitate.test_windows", 10**7), ("imitate.validation_windows", 10**7)])
def test_sizes_are_compared_with_memory_before_work(name, value, monkeypatch, tmp_path):
    monkeypatch.setattr("tfkfin.base.machine.memory", lambda: 2**30)
    runs._afford(run_in(tmp_path))
    with pytest.raises(InputError, match=f"{name}.* GB are free: lower {name}"):
        runs._afford(run_in(tmp_path, **{name: value}))


def test_one_movement_alone_is_no_task():
    one = SimpleNamespace(recipe=recipes.Recipe(), dataset=SimpleNamespace(movements=(4,)))
    with pytest.raises(InputError, match="one movement alone, 4"):
        stages.run_stage(one, "classify")


def windows(*pairs) -> Windows:
    movements, repetitions = (np.array(column, np.int16) for column in zip(*pairs, strict=True))
    return Windows(np.arange(len(pairs)), movements, repetitions)


def test_a_test_repetition_that_is_missing_is_said(caplog):
    whole = windows(*((m, r) for m in (1, 2) for r in (1, 2, 3)))
    split = recipes.Split(test_repetitions=(2, 6))
    with pytest.raises(InputError, match=r"test_repetitions \[6\]: there are repetitions \[1, 2, 3\]"):
        splits.resolved(split, {1: whole})
    splits.check({1: whole, 2: windows((1, 1), (2, 1), (1, 2), (2, 2))}, (1,), (2, 3))
    assert "subject 2 has no window in test repetition 3" in caplog.text and "subject 1 has no" not in caplog.text


@pytest.mark.parametrize("key, value", [
    ("seed", -1), ("seed", 2**32), ("source.synthetic.seed", -5), ("window.length_ms", float("nan")),
    ("imitate.learning_rate", float("inf")), ("classifier.noise", float("inf")), ("fin.units", 10**5),
    ("fin.layers", 1000), ("classifier.filters", [10**6]), ("classifier.copies", 10**6), ("window.length_ms", 1e9),
    ("window.rate_hz", 1e300), ("imitate.batch_size", 10**9), ("split.subjects", [10**10]), ("fin." * 50 + "x", 1)])
def test_options_have_bounds(key, value):
    with pytest.raises(InputError):
        recipes.load("demo", {key: value})


@pytest.mark.parametrize("text", ["a = " + "[" * 20_000, "a" + ".a" * 5000 + " = 1", "a = " + "{a=" * 20_000,
                                  "[a" + ".a" * 5000 + "]"])
def test_recipes_nested_thousands_deep_are_refused(text, tmp_path):
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(InputError):
        recipes.load(str(tmp_path / "own.toml"))
    with pytest.raises(InputError):
        recipes.load("demo", dict([recipes.parse_setting("fin=" + text.partition(" = ")[2])]))


def test_scores_that_vanished_are_one_line(tmp_path):
    with pytest.raises(FileNotFoundError) as gone:
        run_in(tmp_path).scores("classify")
    assert "something removed it meanwhile" in console.explained(gone.value)


def test_what_a_start_without_open_files_could_not_take_away_again_is_in_nobodys_way(tmp_path):
    for name in ("run.lock", "recordings.json"):
        (tmp_path / name).write_text("{}")
    runs.open_run(recipes.replaced(recipes.Recipe(), **SIGNALS), tmp_path)
    assert (tmp_path / "recipe.toml").is_file()
