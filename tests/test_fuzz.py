"""Some mutated inputs of every kind; thousands: nice -n 19 python tests/fuzz.py --count 12000"""

import re
import subprocess
import sys
from pathlib import Path

import pytest


def fuzzed(*words) -> subprocess.CompletedProcess:
    command = [sys.executable, str(Path(__file__).with_name("fuzz.py")), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("count", [25, pytest.param(400, marks=[pytest.mark.slow, pytest.mark.long])])
def test_no_mutated_input_crashes_hangs_or_escapes(count):
    done = fuzzed("--count", count, "--seed", 1000000)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    shares = [int(share) for share in re.findall(r"inputs, +(\d+) % of them past", done.stdout)]
    assert len(shares) == 12 and min(shares) >= 40 and shares[-1] >= 50, done.stdout


@pytest.mark.long
@pytest.mark.slow
def test_what_is_planted_is_found():
    """Crash, hang, memory, an error that is no InputError, and one that says nothing."""
    done = fuzzed("--kind", "planted", "--count", 12, "--seed", 7)
    said = re.findall(r"^ +(\d+)  (.*) \(--kind planted", done.stdout, re.MULTILINE)
    assert done.returncode == 1 and sum(int(n) for n, _ in said) == 12, done.stdout + done.stderr[-2000:]
    kinds = {re.match(r"crash, exit code -11|hang|memory|silence|KeyError", what)[0] for _, what in said}
    assert kinds == {"crash, exit code -11", "hang", "memory", "silence", "KeyError"}, done.stdout
