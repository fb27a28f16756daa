"""Commands under faults: see tests/faults.py, whose command runs each of them many times over."""

import pytest
from faults import COMMANDS, FAULTS, SIGNALS, bench, can_mount, fits, trial

LIGHT = [name for name, command in COMMANDS.items() if not command.heavy and not set(command.needs) & {"run", "model"}]
HEAVY = ("train best", "evaluate", "export", "tune", "live")


@pytest.fixture(scope="module")
def made():
    with bench() as made:
        yield made


@pytest.mark.parametrize(("name", "fault"), [
    *((name, fault) for name in ("synthesize", "download", "pull")
      for fault in FAULTS if fault not in ("disk", "SIGINT")),
    *((name, "SIGTERM") for name in ("sheet", "bids", "plot"))])
def test_a_command_bears_a_fault(name, fault, made):
    assert trial(made, name, fault, 0) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT)
def test_a_command_bears_more_faults(name, made):
    for fault in (fault for fault in FAULTS if fault != "disk" and fits(name, fault)):
        assert trial(made, name, fault, 1) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVY)
def test_a_command_that_takes_tensorflow_bears_faults(name, made):
    for fault in SIGNALS:
        assert trial(made, name, fault, 0) == ""


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="wants root, to mount a small disk")
@pytest.mark.parametrize("name", ["train best", "export"])
def test_a_command_bears_a_full_disk(name, made):
    assert trial(made, name, "disk", 0) == ""
