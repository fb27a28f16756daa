"""Files appear whole and synced, or not at all."""

import os
import subprocess
import sys

import pytest

from tfkfin.base import files


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path, events = tmp_path / "new" / "a.npz", []
    path.parent.mkdir()
    path.write_bytes(b"old")

    def fsync(descriptor):
        events.append((os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size, path.read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    with files.replacing(path) as partial:
        partial.write_bytes(b"fresh")
        assert partial.suffix == ".npz" and path.read_bytes() == b"old"
    assert events == [(path.stat().st_ino, 5, b"old")]
    assert path.read_bytes() == b"fresh" and [*path.parent.iterdir()] == [path]


def test_a_block_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as partial:
        partial.write_bytes(b"half")
        raise KeyboardInterrupt
    assert files.read_json(path) == {"a": 1} and [*tmp_path.iterdir()] == [path]


def test_sweep_removes_what_a_killed_run_left_of_this_file_only(tmp_path):
    code = ("import os, sys; from pathlib import Path; from tfkfin.base import files\n"
            "with files.replacing(Path(sys.argv[1])) as partial:\n"
            "    partial.write_bytes(b'half'); os._exit(3)")
    for name in ("a.mat", "b.mat"):
        assert subprocess.run([sys.executable, "-c", code, tmp_path / name]).returncode == 3
    for name in ("a.mat", ".notes.partial.a.mat"):
        (tmp_path / name).write_bytes(b"mine")
    files.sweep(tmp_path / "a.mat")
    left = {path.name for path in tmp_path.iterdir()}
    assert {"a.mat", ".notes.partial.a.mat"} < left and len(left) == 3 and any(name.endswith("b.mat") for name in left)


def test_what_a_process_left_that_is_dead_goes_with_the_next_writing(tmp_path):
    node = os.uname().nodename
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, other = f".{ended.pid}-{node}.partial.a[1].json", f".{ended.pid}-elsewhere.partial.a[1].json"
    alive, of_b = f".{os.getppid()}-{node}.partial.a[1].json", f".{ended.pid}-{node}.partial.b.json"
    for name in (dead, other, alive, of_b):
        (tmp_path / name).write_bytes(b"half")
    files.write_json(tmp_path / "a[1].json", {})
    assert {path.name for path in tmp_path.iterdir()} == {other, alive, of_b, "a[1].json"}
