"""The ledger: an entry with scores is whole, whatever was killed; what is damaged is said; one process an entry."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tfkfin.base.errors import InputError
from tfkfin.fit.ledger import Ledger
from tfkfin.fit.run import fingerprint


def test_an_entry_is_two_files_under_its_key(tmp_path):
    ledger, scores = Ledger(tmp_path), {"accuracy": 0.25, "rest": None}
    assert ledger.get("a/b.c/S1") is None and not (tmp_path / "a").exists()  # asking makes nothing
    assert ledger.put("a/b.c/S1", scores, {"true": np.arange(3)}) == scores
    assert json.loads((tmp_path / "a" / "b.c" / "S1.json").read_text()) == scores == ledger.get("a/b.c/S1")
    with np.load(tmp_path / "a" / "b.c" / "S1.npz") as kept:
        assert kept["true"].tolist() == [0, 1, 2] == ledger.arrays("a/b.c/S1")["true"].tolist()
    assert ledger.path("a/b.c/S1", ".weights.h5") == tmp_path / "a" / "b.c" / "S1.weights.h5"
    assert sorted(path.name for path in (tmp_path / "a" / "b.c").iterdir()) == ["S1.json", "S1.npz"]


@pytest.mark.parametrize("step", ["os.replace", "json.dumps"])
def test_killed_between_arrays_and_scores_it_is_not_finished(step, tmp_path):
    """The process ends for good, as by `kill -9`, before the arrays are moved into place, or after them."""
    module = step.partition(".")[0]
    code = f"""
import os, sys, json, pathlib, numpy as np
from tfkfin.fit.ledger import Ledger
import {module}
{step} = lambda *_, **__: os.kill(os.getpid(), 9)
Ledger(pathlib.Path(sys.argv[1])).put("m/S1", {{"accuracy": 1.0}}, {{"x": np.ones(4)}})
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    ledger = Ledger(tmp_path)
    assert (tmp_path / "m" / "S1.npz").exists() == (step == "json.dumps")
    assert ledger.get("m/S1") is None
    ledger.put("m/S1", {"accuracy": 0.5}, {"x": np.zeros(2)})
    assert ledger.get("m/S1") == {"accuracy": 0.5} and ledger.arrays("m/S1")["x"].tolist() == [0, 0]


def test_a_failed_write_leaves_what_was_there(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.put("m/S1", {"accuracy": 0.5})
    with pytest.raises(TypeError):
        ledger.put("m/S1", {"accuracy": object()})
    assert ledger.get("m/S1") == {"accuracy": 0.5}
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["S1.json"]


@pytest.mark.parametrize("content", [b'{"accuracy": 0.', b"", b"\xff\xfe\x00", b"[1, 2]", b"3"])
def test_damaged_scores_are_said_with_what_to_do(content, tmp_path):
    ledger = Ledger(tmp_path)
    ledger.put("m/S1", {"accuracy": 0.5})
    path = tmp_path / "m" / "S1.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as told:
        ledger.get("m/S1")
    assert str(told.value) == f"{path} is damaged: remove it, and the same command makes it anew"
    with pytest.raises(InputError, match="damaged: do this$"):
        ledger.get("m/S1", "do this")
    path.unlink()
    assert ledger.get("m/S1") is None


RESULTS = {"stage": "classify", "protocol": "honest", "seconds": {"classify": 1.5}, "fin": {"RMS": {"r2": 0.5}},
           "accuracy": {"mean": 0.5, "std": 0.0, "per_subject": {"1": 0.5}}}
LIES = {
    "results": [{"stage": 1}, {"seconds": [1]}, {"seconds": {"a": "b"}}, {"fin": [1]}, {"fin": {"RMS": {}}},
                {"fin": {"RMS": {"r2": "0.5"}}}, {"accuracy": 0.5}, {"accuracy": {"mean": 0.5}}, {"dataset": 3}],
    "classify/stage": [{"accuracy": 0.5}, {"accuracy": None, "fin": None}], "classify/S1": [{"accuracy": RESULTS}],
    "fingerprint": [{"recordings": None}, {"recordings": 7}], "tuning": [{"complete": 1}, {"options": None}]}
GOOD = {"results": RESULTS, "classify/stage": RESULTS, "classify/S1": {"accuracy": 0.5},
        "fingerprint": {"recordings": "0" * 12}, "tuning": {"complete": True, "options": {}}}


@pytest.mark.parametrize(("key", "lie"), [(key, lie) for key, lies in LIES.items() for lie in (*lies, None)])
def test_what_is_whole_and_lies_is_said_like_damage(key, lie, tmp_path):
    from tfkfin import recipe as recipes
    from tfkfin.fit import search
    from tfkfin.fit.run import Run

    run = Run(tmp_path, recipes.load("demo", {}))
    run.__dict__["fingerprint"] = "0" * 12
    read = {"results": run.results, "classify/stage": lambda: run.done("classify"), "fingerprint": run.claim,
            "classify/S1": lambda: run.done("classify", "S1"), "tuning": lambda: search.state_of(tmp_path)}[key]
    Ledger(tmp_path).put(key, GOOD[key])
    read()
    if lie is None:
        lie = dict.fromkeys(GOOD[key])
    Ledger(tmp_path).put(key, GOOD[key] | lie)
    with pytest.raises(InputError, match=f"{key}.json is damaged: "):
        read()


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_damaged_arrays_are_said_with_what_to_do(damage, tmp_path):
    ledger = Ledger(tmp_path)
    ledger.put("m/S1", {}, {"x": np.arange(999)})
    path = tmp_path / "m" / "S1.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    with pytest.raises(InputError, match=f"S1.npz is damaged or gone: remove {tmp_path / 'm' / 'S1.json'}, and"):
        ledger.arrays("m/S1")


def _work(folder, started, ran) -> None:
    """What a worker of a search does with a trial: only if nobody has, or is at it."""
    ledger = Ledger(folder)
    started.wait(60)
    with ledger.lock("trials/abc"):
        if ledger.get("trials/abc/stage") is None:
            ran.put(os.getpid())
            time.sleep(0.3)  # long enough for the other one to come by
            ledger.put("trials/abc/stage", {"by": os.getpid()})


def test_equal_trials_in_two_processes_run_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    started, ran = context.Event(), context.Queue()
    processes = [context.Process(target=_work, args=(tmp_path, started, ran)) for _ in range(2)]
    for process in processes:
        process.start()
    started.set()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert ran.get(timeout=5) == Ledger(tmp_path).get("trials/abc/stage")["by"] and ran.empty()


def test_a_run_with_a_damaged_stage_is_an_input_error(tmp_path):
    from tfkfin import recipe as recipes
    from tfkfin.fit.run import Run

    run = Run(tmp_path, recipes.load("demo", {}))
    run.finish("classify", {"accuracy": 1.0}, "S1")
    (tmp_path / "classify" / "S1.json").write_text("{")
    with pytest.raises(InputError, match="classify/S1.json is damaged: remove it"):
        run.done("classify", "S1")
    (tmp_path / "fingerprint.json").write_text("{")
    with pytest.raises(InputError, match="fingerprint.json is damaged: give another folder with --run"):
        run.claim()


@pytest.mark.parametrize("kept", ["", "no json", "[1]", '{"files": [3]}', '{"files": {"PATH": 7}}',
                                  '{"files": {"PATH": [1]}}'])
def test_a_fingerprint_is_of_content_whatever_was_kept_of_it(kept, tmp_path):
    path, memory = tmp_path / "a.mat", tmp_path / "recordings.json"
    path.write_bytes(b"volts")
    own = fingerprint([("a.mat", path)], memory)
    assert own == fingerprint([("a.mat", path)], memory)
    memory.write_text(kept.replace("PATH", str(path)))
    assert fingerprint([("a.mat", path)], memory) == own
    path.write_bytes(b"other")
    assert fingerprint([("a.mat", path)], memory) != own
