"""Experiments by a launcher give what they give one after another."""

import json
import os
import subprocess
import sys

import pytest
from test_same import ONE

TINY = ["--set", "window.length_ms=100", "--set", "window.stride_ms=50", "--set", "features.names=RMS,VAR",
        "--set", "classify.epochs=2", "--set", "launch.memory_gb=1"]


@pytest.mark.slow
def test_tables_are_the_same(tiny_db2, tmp_path):
    tables, fits = [], []
    for name, more in (("one", []), ("many", ["--launcher", "local"])):
        done = subprocess.run([sys.executable, "-m", "tfkfin.experiments", "downstream", "--data", str(tiny_db2),
                               "--run", str(tmp_path / name), "--seeds", "2", *TINY, *more], capture_output=True,
                              text=True, timeout=600, env=os.environ | ONE)
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / name / "report.md").read_text().splitlines()
        tables.append([line for line in lines if line.startswith("|")])
        fits.append({str(path.relative_to(tmp_path / name)): json.loads(path.read_text()).get("accuracy")
                     for path in (tmp_path / name / "cells").rglob("S*.json")})
    assert tables[0] == tables[1] and len(tables[0]) > 5
    assert fits[0] == fits[1] and len(fits[0]) == 2 * (2 * 2 + 4)  # cnn1, cnn2; without chance: four
    logs = {path.stem for path in (tmp_path / "many" / "logs").glob("*.log")}
    assert logs == {f"S{subject}-seed{seed}" for subject in (1, 2) for seed in (7, 8)}
