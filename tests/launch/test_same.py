"""The same fits under every launcher give the same table, byte for byte, whatever was killed meanwhile."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import chaos
import pytest
from test_launch import MARKS, slurm  # noqa: F401

from tfkfin import launch, train
from tfkfin import recipe as recipes
from tfkfin.base import console
from tfkfin.fit import run_folder, units
from tfkfin.fit.ledger import Ledger
from tfkfin.fit.run import Run

TINY = ["--set", "window.length_ms=100", "--set", "window.stride_ms=50", "--set", "features.names=RMS,VAR",
        "--set", "classify.epochs=3", "--set", "launch.memory_gb=1", "--set", "launch.retries=9"]
ONE = {name: "1" for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")}
LONG = [pytest.mark.slow, pytest.mark.long]
SIX = ["--folds", "3", "--seeds", "2"]  # of each person


def trained(*arguments, **environment) -> list[str]:
    """Runs `python -m tfkfin.train --stage classify`; returns the lines of fits.csv, if it leaves one."""
    done = subprocess.run([sys.executable, "-m", "tfkfin.train", "--stage", "classify", *map(str, arguments), *TINY],
                          capture_output=True, text=True, timeout=600, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    table = Path(arguments[arguments.index("--run") + 1]) / "fits.csv"
    return table.read_text().splitlines() if table.is_file() else []


def test_a_unit_is_what_a_run_of_its_own_would_be(tiny_db2, tmp_path):
    header, *lines = trained("--data", tiny_db2, "--run", tmp_path / "fits", "--folds", "2")
    rows = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    assert [(row["subject"], row["fold"], row["seed"]) for row in rows] == [
        ("1", "1", "7"), ("1", "2", "7"), ("2", "1", "7"), ("2", "2", "7")]
    trained("--data", tiny_db2, "--run", tmp_path / "one", "--subjects", "1", "--set", "split.test_repetitions=2,4,6",
            "--set", "split.train_repetitions=1,3,5", **ONE)
    alone = json.loads((tmp_path / "one" / "results.json").read_text())
    for name in ("accuracy", "execution", "classifier", "svm"):
        assert float(rows[1][name]) == alone[name]["mean"]
    merged = json.loads((tmp_path / "fits" / "results.json").read_text())
    assert merged["folds"] == [[1, 3, 5], [2, 4, 6]] and merged["fits"] == 4 and merged["missing"] == []
    means = {s: sum(float(row["accuracy"]) for row in rows if row["subject"] == s) / 2 for s in "12"}
    assert merged["accuracy"]["per_subject"] == pytest.approx(means)
    assert merged["accuracy"]["mean"] == pytest.approx(sum(means.values()) / 2)
    unit = tmp_path / "fits" / "fits" / "fold2of2" / "seed7" / "S1"
    own = {"recipe.toml", "fingerprint.json", "recordings.json", "results.json", "classify"}
    assert own <= {path.name for path in unit.iterdir()}
    with pytest.raises(console.InputError, match="holds fits of --launcher"):
        train.main(["--stage", "classify", "--data", str(tiny_db2), "--run", str(tmp_path / "fits"), *TINY])


@pytest.fixture(scope="session")
def table(tiny_db2, tmp_path_factory) -> bytes:
    """Of twelve fits, made here, nothing killed."""
    folder = tmp_path_factory.mktemp("table") / "run"
    assert len(trained("--data", tiny_db2, "--run", folder, *SIX)) == 13
    return (folder / "fits.csv").read_bytes()


@pytest.mark.parametrize(("launcher", "kills"), [
    pytest.param("local", 5, marks=LONG), pytest.param("ray", 3, marks=LONG),
    pytest.param("slurm", 5, marks=pytest.mark.slurm)])
def test_twelve_fits_are_the_same_whoever_was_killed(launcher, kills, table, tiny_db2, request, tmp_path):
    """TFKFIN_KILLS=20 asks for more kills."""
    kills = int(os.environ.get("TFKFIN_KILLS", kills))
    environment = request.getfixturevalue("slurm") if launcher == "slurm" else dict(os.environ)
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "tfkfin.train", "--stage", "classify", "--data", str(tiny_db2), "--run",
               str(folder), *TINY, *SIX, "--launcher", launcher]
    killed = chaos.end(command, launcher, folder, kills, 3, (1, 8), environment)
    assert sum(killed) == kills and (folder / "fits.csv").read_bytes() == table
    before = (folder / "fits.csv").read_bytes()
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0  # again: nothing is to be done
    assert (folder / "fits.csv").read_bytes() == before


@pytest.mark.slow
def test_fins_of_everybody_are_trained_once_and_decoders_start_from_them(tiny_db2, tmp_path):
    fins = ["--set", "fin.units=4", "--set", "fin.layers=1", "--set", "fin.pretrained=", "--set",
            "imitate.windows_per_epoch=64", "--set", "finetune.epochs=1", "--set", "finetune.windows_per_epoch=32"]
    trained("--data", tiny_db2, "--run", tmp_path / "fits", "--stage", "finetune", "--launcher", "local", *fins)
    trained("--data", tiny_db2, "--run", tmp_path / "one", "--stage", "finetune", *fins, **ONE)
    here, there = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("fits", "one"))
    for name in ("accuracy", "execution", "classifier", "svm"):
        assert here[name] == there[name]
    weights = [(tmp_path / path / "imitate" / "fins.keras").read_bytes() for path in (
        "one", "fits/fits/fold1of1/seed7/fins")]
    assert len(weights[0]) == len(weights[1])


def plan(folder: Path, subjects: int = 3) -> units.FitPlan:
    """A plan on recordings that are only said to be there."""
    base = Run(folder, recipes.load(settings={"source.kind": "recordings", "source.data": "DB"}))
    split = recipes.Split(subjects=tuple(range(1, subjects + 1)))
    base.__dict__ |= {"dataset": SimpleNamespace(split=split, describe=dict), "fingerprint": "0123456789ab"}
    return units.FitPlan(base, "classify", tuple(units._fold([1, 2, 3, 4], k, 2) for k in range(2)), (7, 8))


def test_rows_add_up_in_any_order_and_again(tmp_path):
    tables, chance = [], random.Random(0)
    for name in "abc":
        some = plan(tmp_path / name)
        rows = [(unit, {"accuracy": unit.subject / (unit.fold + unit.seed), "execution": 0.5, "false_per_minute": None,
                        "fin": None, "seconds": 1.0}) for unit in some.units()]
        chance.shuffle(rows)
        ledger = Ledger(tmp_path / name / "fits")
        for unit, row in rows:
            ledger.put(f"{unit.key}.classify", row)
        results = some.publish()
        tables.append((tmp_path / name / "fits.csv").read_bytes())
        assert some.publish()["accuracy"] == results["accuracy"] and tables[-1] == (
            tmp_path / name / "fits.csv").read_bytes()
    assert tables[0] == tables[1] == tables[2] and tables[0].count(b"\n") == 13
    assert tables[0].splitlines()[1] == b"1,1,7,0.125,0.5,"
    (tmp_path / "a" / "fits" / "fold2of2" / "seed8" / "S2.classify.json").unlink()
    fewer = plan(tmp_path / "a").publish()
    assert fewer["missing"] == ["fold2of2/seed8/S2"] and fewer["fits"] == 11


WRONG = {
    "too many folds": (["--folds", "7"], "--folds 7 deals repetitions, and there are 6"),
    "no seeds": (["--seeds", "0"], "--folds and --seeds take numbers from 1"),
    "a stage of everybody": (["--launcher", "local", "--stage", "imitate"], "the stage imitate pools people"),
    "a profile": (["--launcher", "local", "--profile"], "--profile looks at one run"),
    "an option that is none": (["--launcher", "local", "--set", "launch.worker=2"], "did you mean 'launch.workers'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_launched_is_said(case, tiny_db2, tmp_path):
    arguments, message = WRONG[case]
    with pytest.raises(console.InputError, match=message):
        train.main(["--stage", "classify", "--data", str(tiny_db2), "--run", str(tmp_path / "run"), *TINY, *arguments])


def test_a_run_in_one_piece_is_not_mixed_with_fits(tiny_db2, tmp_path):
    (tmp_path / "run" / "classify").mkdir(parents=True)
    recipe, _ = run_folder.resolve(train.parser().parse_args(["--data", str(tiny_db2), *TINY]))
    (tmp_path / "run" / "recipe.toml").write_text(recipe.to_toml())
    opened = Run(tmp_path / "run", recipe)
    opened.claim()
    opened.finish("classify", {})
    with pytest.raises(console.InputError, match="holds a run in one piece"):
        units.open_plan(recipe, tmp_path / "run", "classify", 2, 1)


def test_where_fits_run_is_no_part_of_the_recipe():
    recipe = recipes.load()
    assert recipe.digest == recipes.replaced(recipe, **{"launch.workers": 9, "launch.partition": "gpu"}).digest
    assert set(MARKS) < set(launch.names()) == {"local", "ray", "slurm"}


def test_a_start_that_was_killed_early_is_begun_again(tiny_db2, tmp_path):
    """Between the files of the recordings and recipe.toml."""
    recipe, _ = run_folder.resolve(train.parser().parse_args(["--data", str(tiny_db2), *TINY]))
    units.open_plan(recipe, tmp_path / "run", "classify", 1, 1)
    (tmp_path / "run" / "recipe.toml").rename(tmp_path / "run" / ".12-host.partial.recipe.toml")
    units.open_plan(recipe, tmp_path / "run", "classify", 1, 1)
    assert (tmp_path / "run" / "recipe.toml").is_file()
    shutil.copy(tmp_path / "run" / "recipe.toml", tmp_path / "run" / "notes.txt")
    (tmp_path / "run" / "recipe.toml").unlink()
    with pytest.raises(console.InputError, match="is no run folder"):
        units.open_plan(recipe, tmp_path / "run", "classify", 1, 1)
