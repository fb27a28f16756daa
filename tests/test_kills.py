"""Commands under faults: see tests/faults.py, whose command runs each of them many times over."""

import contextlib
import signal

import faults
import pytest
from faults import FAULTS, MOUNTED, bench, can_mount, trial

MOUNTS = pytest.mark.skipif(not can_mount(), reason="wants root, to mount a disk")


@pytest.fixture(scope="module")
def made():
    with bench() as made:
        yield made


@pytest.mark.parametrize(("name", "fault"), [
    *((name, fault) for name in ("synthesize", "download", "pull")
      for fault in FAULTS if fault not in (*MOUNTED, "SIGINT")),
    *((name, "SIGTERM") for name in ("sheet", "bids", "plot")),
    *(pytest.param(name, "readonly", marks=MOUNTS) for name in ("synthesize", "bids", "download", "pull"))])
def test_a_command_bears_a_fault(name, fault, made):
    assert trial(made, name, fault, 0) == ""


def test_stopped_it_says_what_it_has_found(monkeypatch, capsys):
    tried = iter(["", "half", KeyboardInterrupt])

    def one(*_):
        if (found := next(tried)) is KeyboardInterrupt:
            raise found
        return found

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("sys.argv", ["faults.py", "--command", "sheet", "--fault", "full"])
    monkeypatch.setattr(faults, "bench", contextlib.nullcontext)
    monkeypatch.setattr(faults, "trial", one)
    try:
        assert faults.main() == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "stopped: 2 trials of 1 commands ({'full': 2}): 1 wrong" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("name", "fault"), [
    ("train best", "SIGKILL"), ("evaluate", "SIGTERM"), ("export", "SIGKILL"), ("tune", "SIGINT"),
    *(pytest.param(name, fault, marks=MOUNTS) for name, fault in (
        ("evaluate", "disk"), ("evaluate", "readonly"), ("export", "readonly")))])
def test_a_command_that_takes_tensorflow_bears_a_fault(name, fault, made):
    assert trial(made, name, fault, 0) == ""
