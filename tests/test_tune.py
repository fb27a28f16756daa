"""The search: its trials, what they may see, resuming, and its recipe of the best."""

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io

from tfkfin import recipe as recipes
from tfkfin import tune
from tfkfin.base.errors import InputError
from tfkfin.fit import run_folder
from tfkfin.fit import search as trials
from tfkfin.pipeline import dataset

TINY = ["--set", "window.length_ms=100", "--set", "window.stride_ms=50", "--set", "window.train_stride_ms=0",
        "--set", "classify.epochs=2", "--set", "classifier.filters=[4]", "--set", "fin.units=2",
        "--set", "fin.layers=1", "--set", "fin.pretrained=", "--set", "imitate.windows_per_epoch=32",
        "--set", "finetune.windows_per_epoch=32", "--set", "finetune.epochs=1", "--set", "features.names=RMS,VAR"]
SPACE = ["--set", "tune.classify.learning_rate=[1e-2,1e-6]", "--set", "tune.classifier.filters=[[4],[8,4]]"]
RATES = ["--set", "tune.classify.learning_rate=[1e-2,1e-6]"]


pytestmark = pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning",  # in keras_tuner
                                        "ignore:getName:DeprecationWarning")


def tuned(*arguments) -> str:
    """Runs the command in this process; returns what it printed."""
    with redirect_stdout(io.StringIO()) as printed:
        tune.main([str(argument) for argument in arguments])
    return printed.getvalue()


def start(*arguments, **environment) -> subprocess.Popen:
    """Starts `python -m tfkfin.tune` as a user would."""
    return subprocess.Popen([sys.executable, "-m", "tfkfin.tune", *map(str, arguments)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=os.environ | environment)


def found(folder: Path) -> dict:
    return json.loads((folder / "tuning.json").read_text())


def accuracies(folder: Path) -> list:
    return [(row["settings"], row["accuracy"]) for row in found(folder)["trials"]]


def weights(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.weights.h5")}


@pytest.fixture(scope="module")
def searched(tiny_db2, tmp_path_factory) -> tuple[Path, str]:
    """A finished grid search of four trials, and what it printed."""
    folder = tmp_path_factory.mktemp("searched") / "run"
    return folder, tuned("--data", tiny_db2, "--run", folder, *TINY, *SPACE)


def test_a_grid_tries_everything_once_and_the_best_comes_first(searched):
    folder, printed = searched
    rows = found(folder)["trials"]
    tried = [(row["settings"]["classify.learning_rate"], row["settings"]["classifier.filters"]) for row in rows]
    assert sorted(tried) == [(1e-6, [4]), (1e-6, [8, 4]), (1e-2, [4]), (1e-2, [8, 4])]
    means = [row["accuracy"]["mean"] for row in rows]
    assert means == sorted(means, reverse=True)
    assert "held-out repetition 6 (synthetic recordings)" in printed and f"{100 * means[0]:.2f}" in printed


@pytest.mark.slow
def test_trials_by_a_launcher_are_the_same(searched, tiny_db2, tmp_path):
    folder = tmp_path / "run"
    done = start("--data", tiny_db2, "--run", folder, *TINY, *SPACE, "--launcher", "local")
    _, said = done.communicate(timeout=300)
    assert done.returncode == 0, said
    assert "trials: 4 of 4 done, 4 of them now, by local" in said
    assert accuracies(folder) == accuracies(searched[0])
    logs = {path.stem for path in (folder / "logs").iterdir()}
    assert logs == {row["folder"].replace("/", "-") for row in found(folder)["trials"]}
    wrong = start("--data", tiny_db2, "--run", folder, *TINY, *SPACE, "--launcher", "local", "--search", "bayesian")
    _, said = wrong.communicate(timeout=60)
    assert wrong.returncode == 2 and "--launcher goes with --search grid" in said


def test_a_trial_is_a_run_that_learns_without_the_held_out_repetition(searched, tiny_db2):
    folder, _ = searched
    for row in found(folder)["trials"]:
        results = json.loads((folder / row["folder"] / "results.json").read_text())
        assert results["dataset"]["train_repetitions"] == [1, 3, 4] and results["dataset"]["test_repetitions"] == [6]
        assert results["accuracy"] == row["accuracy"]
    row = found(folder)["trials"][0]
    recipe = recipes.load(folder / row["folder"] / "recipe.toml")
    assert recipe.classify.learning_rate == row["settings"]["classify.learning_rate"]
    assert recipe.classifier.filters == tuple(row["settings"]["classifier.filters"])
    assert recipe.source.data == str(tiny_db2) and recipe.tune == {}


def test_best_toml_is_the_whole_recipe_with_the_winners_settings_and_the_original_split(searched):
    folder, _ = searched
    base, best = recipes.load(folder / "recipe.toml"), recipes.load(folder / "best.toml")
    settings = found(folder)["best"]["settings"]
    assert best == recipes.replaced(base, **settings, tune={})
    assert best.split == base.split and best.split.test_repetitions == (2, 5)


def test_trials_are_hyperparameter_sessions_in_tensorboard(searched):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.plugins.hparams import plugin_data_pb2

    shown = []
    for path in searched[0].glob("trials/*/tensorboard/classify/events*"):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tag == "_hparams_/session_start_info":
                    data = plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
                    hparams = data.session_start_info.hparams
                    shown.append((hparams["classify.learning_rate"].number_value,
                                  hparams["classifier.filters"].string_value))
    assert sorted(shown) == [(1e-6, "(4,)"), (1e-6, "(8, 4)"), (1e-2, "(4,)"), (1e-2, "(8, 4)")]


def test_started_again_it_is_reused_and_what_is_missing_runs(searched, tiny_db2):
    folder, printed = searched
    before, scores, best = weights(folder), accuracies(folder), (folder / "best.toml").read_bytes()
    assert tuned("--data", tiny_db2, "--run", folder, *TINY, *SPACE) == printed
    lost = folder / found(folder)["trials"][-1]["folder"]
    (lost / "classify" / "S2.json").unlink()  # as if killed there
    (lost / "classify" / "stage.json").unlink()
    state = found(folder)
    (folder / "tuning.json").write_text(json.dumps({"complete": False, "options": state["options"]}))
    tuned("--data", tiny_db2, "--run", folder, *TINY, *SPACE)
    assert accuracies(folder) == scores and (folder / "best.toml").read_bytes() == best
    assert not (folder / "best-2.toml").exists()
    assert {path for path, age in weights(folder).items() if age != before[path]} == {
        lost / "classify" / "S2.weights.h5"}


def test_another_winner_never_overwrites_the_first(tmp_path):
    assert [trials._keep(tmp_path, text) for text in ("a", "b", "a", "c", "b")] == [
        "best.toml", "best-2.toml", "best.toml", "best-3.toml", "best-2.toml"]
    assert (tmp_path / "best.toml").read_text() == "a"


@pytest.mark.parametrize(("repetitions", "seen"), [((2, 5), False), ((6,), True)])
def test_test_repetitions_are_never_looked_at(repetitions, seen, searched, tiny_db2, tmp_path):
    spoilt = tmp_path / tiny_db2.name
    for path in tiny_db2.rglob("*.mat"):
        variables = {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}
        chosen = np.isin(variables["rerepetition"][:, 0], repetitions)
        assert chosen.mean() > 0.05
        variables["emg"][chosen] = 1e6
        copy = spoilt / path.relative_to(tiny_db2)
        copy.parent.mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(copy, variables)
    tuned("--data", spoilt, "--run", tmp_path / "run", *TINY, "--set", "tune.classify.learning_rate=[1e-2]",
          "--set", "tune.classifier.filters=[[8,4]]")
    assert (accuracies(tmp_path / "run")[0] not in accuracies(searched[0])) is seen  # settings and every accuracy


def test_other_searches_stop_at_max_trials(tiny_db2, tmp_path):
    shared = ["--data", tiny_db2, *TINY, "--subjects", 1, "--held-out", 3, "--seed", 0]
    tuned(*shared, *SPACE, "--search", "random", "--max-trials", 2, "--run", tmp_path / "random")
    tuned(*shared, "--set", "tune.classify.epochs=[1,2,3,4,5]", "--search", "bayesian", "--max-trials", 4,
          "--run", tmp_path / "bayesian")  # three random trials, then a Gaussian process's
    random, bayesian = found(tmp_path / "random"), found(tmp_path / "bayesian")
    assert random["held_out"] == 3 and random["train_repetitions"] == [1, 4, 6]
    assert len(random["trials"]) == 2 and random["options"]["seed"] == 0
    assert 3 <= len(bayesian["trials"]) <= 4


def test_the_embedded_recordings_are_made_once_and_fine_tuning_can_be_judged(tmp_path):
    small = {"subjects": 1, "movements": 2, "repetitions": 4, "channels": 2, "hold_s": 0.5, "rest_s": 0.3}
    tuned("--run", tmp_path / "run", *TINY, "--stage", "finetune", "--set", "fin.family=dense", "--set",
          "tune.finetune.head_learning_rate=[1e-2,1e-4]", "--set", "split.test_repetitions=2",
          *(part for key, value in small.items() for part in ("--set", f"source.synthetic.{key}={value}")))
    results = found(tmp_path / "run")
    assert results["stage"] == "finetune" and len(results["trials"]) == 2
    assert len(list((tmp_path / "run").rglob("*.mat"))) == 1
    assert recipes.load(tmp_path / "run" / "best.toml").source.kind == "synthetic"


def test_settings_that_do_not_fit_the_recordings_fail_alone(tiny_db2, tmp_path):
    tuned("--data", tiny_db2, "--run", tmp_path / "run", *TINY, "--subjects", 1, "--set",
          "tune.window.length_ms=[5000,100]")
    good, bad = found(tmp_path / "run")["trials"]
    assert good["settings"] == {"window.length_ms": 100} and "longer than every segment" in bad["error"]


BAD = {
    "no table": ([], r"no \[tune\] table: take --pipeline tune_head"),
    "unknown key": (["--set", "tune.classify.learning_rat=[1]"], "did you mean 'classify.learning_rate'"),
    "bad value": (["--set", "tune.classify.learning_rate=[1e-2,-1]"],
                  r"\[tune\] classify.learning_rate: .* greater than 0. Received: -1"),
    "no list": (["--set", "tune.classify.learning_rate=1e-2"], "tune.classify.learning_rate: .* list"),
    "no values": (["--set", "tune.classify.learning_rate=[]"], "has no values"),
    "a value twice": (["--set", "tune.classify.epochs=[1,2,1]"], "names 1 twice"),
    "a table": (["--set", "tune.classify=[{epochs=3}]"], "is a table: name one of its fields, such as 'classify."),
    "the split": (["--set", "tune.split.test_repetitions=[2]"], "decides what is scored"),
    "no effect": (["--set", "tune.finetune.epochs=[1,2]"], "plays no part in the stage classify"),
    "together": (["--stage", "finetune", "--set", "tune.augment.gain=[0.0,0.1]", "--set",
                  "tune.finetune.imitation_weight=[0,1]"], "cannot go with"),
    "not a training repetition": ([*RATES, "--held-out", "2"], r"--held-out .*: 2 of \[1, 3, 4, 6\]"),
    "nothing left to learn from": ([*RATES, "--set", "split.train_repetitions=1"], r"1 of \[1\]"),
    "nothing left to fine-tune on": (["--stage", "finetune", *RATES, "--set", "split.finetune_repetitions=6"],
                                     "split.finetune_repetitions is 6 alone"),
    "a removed option": (["--set", "tune.fin.shared=[false,true]"], "fin.shared was removed: "),
    "no trials": ([*RATES, "--max-trials", "0"], "--max-trials takes a number from 1"),
    "signals": ([*RATES, "--pipeline", "fin_bilstm"], "no movements to decode"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_are_refused_before_anything_runs(case, tiny_db2, tmp_path):
    arguments, message = BAD[case]
    data = [] if case == "signals" else ["--data", str(tiny_db2)]
    with pytest.raises(InputError, match=message):
        tune.main([*data, "--run", str(tmp_path / "run"), *arguments])
    assert not (tmp_path / "run" / "trials").exists()


def test_another_search_in_the_same_folder_is_refused(searched, tiny_db2):
    folder, _ = searched
    for arguments, message in ((["--held-out", "4"], "differs in held_out"), (["--set", "seed=3"], "differs in seed")):
        with pytest.raises(InputError, match=message):
            tune.main(["--data", str(tiny_db2), "--run", str(folder), *TINY, *SPACE, *arguments])


def test_workers_of_keras_tuner_are_the_launchers(monkeypatch, tiny_db2, tmp_path):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker1")
    with pytest.raises(InputError, match="searches by a chief and workers were removed: --launcher"):
        tune.main(["--data", str(tiny_db2), "--run", str(tmp_path / "run"), *RATES])


def test_the_shipped_table_can_be_searched(tiny_db2, tmp_path):
    arguments = tune.parser().parse_args(["--data", str(tiny_db2), "--pipeline", "tune_head"])
    recipe, _ = run_folder.resolve(arguments)
    trials.check(recipe, "classify")
    assert trials.combinations(recipe) == 18 and recipe.source.kind == "recordings"
    search = trials.open_search(recipe, tmp_path / "run", "classify", None)
    split = dataset.open_dataset(search.trial({"classifier.noise": 0.1}).recipe, tiny_db2).split
    assert split.train_repetitions == split.finetune_repetitions == (1, 3, 4) and split.test_repetitions == (6,)


def test_each_trial_says_how_long_the_others_will_take(monkeypatch, caplog):
    now = iter((0.0, 180.0))
    monkeypatch.setattr(tune.time, "monotonic", lambda: next(now))
    with caplog.at_level("INFO", "tfkfin"):
        assert tune.run_trial(SimpleNamespace(score=lambda settings: 0.5), 6, 1, {}) == 0.5
    assert caplog.messages[-1] == "trial 1: accuracy 50.0 %, about 15 min left"
