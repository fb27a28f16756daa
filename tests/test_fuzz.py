"""Some mutated inputs of every kind; thousands: nice -n 19 python tests/fuzz.py --count 10000"""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("count", [25, pytest.param(400, marks=pytest.mark.slow)])
def test_no_mutated_input_crashes_hangs_or_escapes(count):
    command = [sys.executable, str(Path(__file__).with_name("fuzz.py")), "--count", str(count), "--seed", "1000000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
