"""Commands under faults: see tests/faults.py, whose command runs each of them many times over."""

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


@pytest.mark.slow
@pytest.mark.parametrize(("name", "fault"), [
    ("train best", "SIGKILL"), ("evaluate", "SIGTERM"), ("export", "SIGKILL"), ("tune", "SIGINT"),
    *(pytest.param(name, fault, marks=MOUNTS) for name, fault in (
        ("evaluate", "disk"), ("evaluate", "readonly"), ("export", "readonly")))])
def test_a_command_that_takes_tensorflow_bears_a_fault(name, fault, made):
    assert trial(made, name, fault, 0) == ""
