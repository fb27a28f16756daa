"""The main job itself, tiny: every stage, results, resume after a kill, bad input, TensorBoard."""

import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from tfkfin.base import console

TINY = ["--set", "fin.units=4", "--set", "fin.layers=1", "--set", "fin.pretrained=", "--set", "window.length_ms=100",
        "--set", "window.stride_ms=50", "--set", "window.train_stride_ms=0", "--set", "imitate.epochs=2",
        "--set", "imitate.windows_per_epoch=64", "--set", "classify.epochs=3", "--set", "finetune.windows_per_epoch=32",
        "--set", "finetune.epochs=2", "--set", "features.names=RMS,VAR"]


def command(*arguments, **options):
    """Runs `python -m tfkfin.<first> <others>` as a user would."""
    return subprocess.run([sys.executable, "-m", f"tfkfin.{arguments[0]}", *map(str, arguments[1:])],
                          capture_output=True, text=True, timeout=300, **options)


def inside(name, *arguments):
    """The same in this process, which has TensorFlow already: importing it takes longer than most of these runs."""
    with redirect_stdout(io.StringIO()) as stdout, redirect_stderr(io.StringIO()) as stderr, \
            pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        for changed in ("handlers", "propagate", "level"):
            patch.setattr(console.log, changed, getattr(console.log, changed))
        console.run(import_module(f"tfkfin.{name}").main, [str(argument) for argument in arguments])
    return subprocess.CompletedProcess(arguments, ended.value.code, stdout.getvalue(), stderr.getvalue())


def scores(run: Path) -> dict:
    results = json.loads((run / "results.json").read_text())
    return {key: results[key] for key in ("accuracy", "fin", "svm", "classifier", "fin_finetuned", "confusion")}


@pytest.fixture(scope="module")
def finished(tiny_db2, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    done = command("train", "--stage", "finetune", "--data", tiny_db2, "--run", folder, *TINY)
    assert done.returncode == 0, done.stderr
    assert "Accuracy %" in done.stdout and "synthetic recordings" in done.stdout
    return folder


def test_results_are_what_outsiders_rely_on(finished):
    results = json.loads((finished / "results.json").read_text())
    assert (results["stage"], results["protocol"]) == ("finetune", "honest")
    dataset = results["dataset"]
    assert dataset["subjects"] == [1, 2] and dataset["channels"] == 4 and dataset["rate_hz"] == 2000
    assert dataset["movements"] == [1, 2, 3] and dataset["test_repetitions"] == [2, 5]
    assert dataset["train_repetitions"] == [1, 3, 4, 6] and dataset["synthetic"] is True
    per_subject = results["accuracy"]["per_subject"]
    assert set(per_subject) == {"1", "2"}
    assert results["accuracy"]["mean"] == pytest.approx(np.mean(list(per_subject.values())))
    assert results["accuracy"]["std"] == pytest.approx(np.std(list(per_subject.values())))
    counts = np.array(results["confusion"]["counts"])
    assert np.trace(counts) / counts.sum() == pytest.approx(results["accuracy"]["mean"], abs=0.05)
    assert set(results["fin"]) == {"RMS", "VAR"}
    assert set(results["fin"]["RMS"]) == {"r2", "paper_r2", "paper_map"}
    assert set(results["seconds"]) == {"imitate", "classify", "finetune"}
    assert results["environment"]["tensorflow"] and len(results["recipe_digest"]) == 12


def test_batch_norms_stay_as_the_classifier_left_them(finished):
    from tfkfin import recipe as recipes
    from tfkfin.fit.run import open_run
    from tfkfin.fit.trainers import new_head

    run = open_run(recipes.load(finished / "recipe.toml"), finished)
    head, tuned = new_head(run), run.decoder(1).model.get_layer("head").get_layer("classifier")
    head.load_weights(finished / "classify" / "S1.weights.h5")
    before = head.get_layer("classifier")
    for name, stays in (("norm_1", True), ("norm_3", True), ("conv_1", False)):
        pairs = zip(before.get_layer(name).get_weights(), tuned.get_layer(name).get_weights(), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs) is stays


def test_a_finished_run_is_reused(finished, tiny_db2):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.weights.h5")}
    again = inside("train", "--stage", "finetune", "--data", tiny_db2, "--run", finished, *TINY)
    assert again.returncode == 0
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*.weights.h5")}


def test_killed_and_started_again_it_ends_the_same(finished, tiny_db2, tmp_path):
    arguments = [sys.executable, "-m", "tfkfin.train", "--stage", "finetune", "--data", str(tiny_db2), "--run",
                 str(tmp_path / "run"), *TINY]
    for done in ("imitate/checkpoints/checkpoint", "classify/S1.json", "finetune/S1.json"):
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / done).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert last.returncode == 0, last.stderr
    assert scores(tmp_path / "run") == scores(finished)


def test_what_was_finished_and_not_yet_published_is_published(finished, tiny_db2, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    results = json.loads((finished / "results.json").read_text())
    left = {key: value for key, value in results.items() if key not in ("svm", "classifier", "accuracy")}
    (tmp_path / "run" / "results.json").write_text(json.dumps(left))
    again = inside("train", "--stage", "finetune", "--data", tiny_db2, "--run", tmp_path / "run", *TINY)
    assert again.returncode == 0 and scores(tmp_path / "run") == scores(finished)


def test_another_recipe_does_not_touch_the_run(finished, tiny_db2):
    before = (finished / "recipe.toml").read_bytes()
    other = command("train", "--data", tiny_db2, "--run", finished, *TINY, "--set", "seed=8")
    assert other.returncode == 2
    assert other.stderr.count("\n") == 1 and "another recipe (it differs in seed)" in other.stderr
    assert (finished / "recipe.toml").read_bytes() == before


def test_evaluate_a_run_gives_its_scores_again(finished, tmp_path):
    done = inside("evaluate", finished, "--json", tmp_path / "scores.json")
    assert done.returncode == 0, done.stderr
    again, results = json.loads((tmp_path / "scores.json").read_text()), scores(finished)
    assert again["accuracy"] == results["accuracy"]
    assert again["confusion"] == results["confusion"]
    assert again["fin"]["VAR"]["r2"] == pytest.approx(results["fin_finetuned"]["VAR"]["r2"], abs=1e-6)
    assert (tmp_path / "scores_confusion.png").stat().st_size > 1000


def test_tensorboard_shows_scalars_images_and_hparams(finished):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "tensorboard.main", "--logdir", str(finished), "--port", str(port),
                               "--host", "127.0.0.1", "--load_fast", "false"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)

    def get(path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/data/plugin/{path}", body,
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return json.loads(answer.read())

    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                tags, images = get("scalars/tags"), get("images/tags")
                session = get("hparams/session_groups", json.dumps({
                    "experimentName": "", "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_RUNNING"],
                    "colParams": [], "startIndex": 0, "sliceSize": 10}).encode())
                if len(tags) >= 5 and len(images) >= 3 and session["sessionGroups"]:
                    break
            except (OSError, ValueError):
                pass
            assert time.monotonic() < deadline, "TensorBoard did not show the run"
            time.sleep(0.5)
        assert "r2/RMS" in tags["tensorboard/imitate"]
        assert {"test/accuracy", "test/macro F1"} <= set(tags["tensorboard/finetune/S1"])
        for stage, side in (("imitate", "validation"), ("classify/S1", "test"), ("finetune/S1", "test")):
            for run in (f"tensorboard/{stage}/train", f"tensorboard/{stage}/{side}"):  # the same tags: they overlay
                assert set(tags[run]) >= ({"loss"} if stage == "imitate" else {"loss", "accuracy"})
                points = get(f"scalars/scalars?tag=loss&run={urllib.parse.quote(run, safe='')}")
                assert len(points) >= 2 and all(np.isfinite(value) for *_, value in points)
        assert "confusion matrix" in images["tensorboard/finetune"] and "confusion matrix" in images[
            "tensorboard/finetune/S1"]
        assert "imitated against true" in images["tensorboard/imitate"]
        assert "finetune.head_learning_rate" in session["sessionGroups"][0]["hparams"]
        about = get("hparams/experiment", json.dumps({"experimentName": "", "hparamsLimit": 0}).encode())
        shown = {one["name"] for one in about["hparamInfos"]}  # without these its page says "No hparams data was found"
        assert "finetune.head_learning_rate" in shown and about["metricInfos"]
    finally:
        server.terminate()
        server.wait()


def write(folder: Path, name: str, change=None, **replaced) -> Path:
    """A small good recording, with some variables replaced (None leaves one out)."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 0, 2, 0, 1, 0, 2, 0], 400)[:, None].astype(np.uint8)
    reps = np.repeat([0, 1, 0, 1, 0, 2, 0, 2, 0], 400)[:, None].astype(np.uint8)
    variables = {"emg": (1e-5 * rng.normal(size=(len(labels), 4))).astype(np.float32), "restimulus": labels,
                 "rerepetition": reps, "stimulus": labels, "repetition": reps, "frequency": 2000.0}
    variables |= replaced
    path = folder / name
    scipy.io.savemat(path, {key: value for key, value in variables.items() if value is not None})
    if change:
        path.write_bytes(change(path.read_bytes()))
    return path


NAN = np.full((3600, 4), np.nan, np.float32)
CASES = {
    "missing folder": (lambda d: d.rmdir(), "is not there"),
    "empty folder": (lambda d: None, "is empty"),
    "not a mat": (lambda d: (d / "S1_E1_A1.mat").write_text("hello"), "is not a MATLAB file"),
    "truncated": (lambda d: write(d, "S1_E1_A1.mat", lambda b: b[: len(b) // 2]), "is cut short"),
    "missing variable": (lambda d: write(d, "S1_E1_A1.mat", emg=None), "has no variable emg"),
    "wrong shape": (lambda d: write(d, "S1_E1_A1.mat", emg=np.zeros((3600, 4, 2), np.float32)), "emg has shape"),
    "nan": (lambda d: write(d, "S1_E1_A1.mat", emg=NAN), "emg has NaN or Inf in channel 1, 2, 3, 4"),
    "rates differ": (lambda d: (write(d, "S1_E1_A1.mat"), write(d, "S2_E1_A1.mat", frequency=1000.0)),
                     "subject 1 has 2000 Hz, subject 2 has 1000"),
    "channels differ": (lambda d: (write(d, "S1_E1_A1.mat"),
                                   write(d, "S2_E1_A1.mat", emg=np.ones((3600, 3), np.float32))),
                        "subject 1 has 4 channels, subject 2 has 3"),
    "no such subject": (lambda d: write(d, "S1_E1_A1.mat"), "has no subject 9", "--subjects", "9"),
    "no training repetition": (lambda d: write(d, "S1_E1_A1.mat"), "train_repetitions [4]",
                               "--set", "split.train_repetitions=4"),
    "movement missing from training": (
        lambda d: write(d, "S1_E1_A1.mat", rerepetition=np.repeat([0, 1, 0, 2, 0, 2, 0, 2, 0], 400)[:, None]),
        "no window of movement 2 in the train"),
    "window too long": (lambda d: write(d, "S1_E1_A1.mat"), "longer than every segment",
                        "--set", "window.length_ms=900"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_clear_line_and_exit_code_2(case, tmp_path):
    prepare, message, *arguments = CASES[case]
    folder = tmp_path / "data"
    folder.mkdir()
    prepare(folder)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = inside("train", "--stage", "classify", "--data", folder, "--run", tmp_path / "run", *TINY,
                  "--set", "split.test_repetitions=2", *arguments)
    assert done.returncode == 2, done.stderr + done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0] and "Traceback" not in done.stderr, done.stderr
    assert {path: path.read_bytes() for path in before} == before


def test_flat_channels_and_lengths_that_differ_are_warned_of_once(tmp_path):
    flat = write(tmp_path, "S1_E1_A1.mat")
    emg = scipy.io.loadmat(flat)["emg"]
    emg[:, 2] = 0
    write(tmp_path, "S1_E1_A1.mat", emg=emg[:-7])
    done = inside("train", "--stage", "classify", "--data", tmp_path, "--run", tmp_path / "run", *TINY,
                  "--set", "split.test_repetitions=2")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: S1_E1_A1.mat: channel 3 is flat") == 1
    assert done.stderr.count("warning: S1_E1_A1.mat: emg, restimulus, rerepetition have") == 1


def test_a_folder_of_something_else_is_not_used_as_a_run(tiny_db2, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    done = command("train", "--data", tiny_db2, "--run", tmp_path, *TINY)
    assert done.returncode == 2 and "is no run folder" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["train", "evaluate", "data", "export", "tune", "client", "models", "experiments"])
def test_help_answers_quickly_without_tensorflow(name):
    code = f"import sys, runpy; sys.argv = ['x', '--help']; sys.modules['tensorflow'] = None; " \
           f"runpy.run_module('tfkfin.{name}', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "example" in done.stdout.lower()


def test_rest_votes_rejection_and_augmentation_are_options(tiny_db2, tmp_path):
    done = inside("train", "--stage", "finetune", "--data", tiny_db2, "--subjects", "1", "--run", tmp_path / "run",
                  *TINY, "--set", "window.rest=true", "--set", "classifier.vote=3", "--set", "classifier.reject=0.5",
                  "--set", "augment.gain=0.2", "--set", "augment.warp=0.05", "--set", "classify.schedule=cosine")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["dataset"]["movements"] == [0, 1, 2, 3]
    rejection = results["rejection"]["1"]
    assert rejection["threshold"] == 0.5 and 0 <= rejection["decided"] <= 1


def test_from_intact_to_amputated_arms(tiny_db2, tmp_path):
    """FINs of "DB2" start decoders of "DB3": one person lacks two electrodes, the other never makes movement 3."""
    for subject, path in enumerate(sorted(tiny_db2.rglob("*.mat")), 1):
        variables = {name: value for name, value in scipy.io.loadmat(path).items() if not name.startswith("__")}
        if subject == 1:
            variables["emg"][:, 2:] = 0
        else:
            for name in ("restimulus", "rerepetition"):
                variables[name][scipy.io.loadmat(path)["restimulus"] == 3] = 0
        amputee = tmp_path / "DB3" / f"DB3_s{subject}" / f"S{subject}_E1_A1.mat"
        amputee.parent.mkdir(parents=True)
        scipy.io.savemat(amputee, variables)
    for arguments in (("train", "--stage", "imitate", "--data", tiny_db2, "--run", tmp_path / "intact", *TINY),
                      ("export", tmp_path / "intact", "--to", tmp_path / "fin_intact"),
                      ("train", "--stage", "finetune", "--pipeline", "db3_amputee", "--data", tmp_path / "DB3", "--run",
                       tmp_path / "run", *TINY, "--set", f"fin.pretrained={tmp_path / 'fin_intact'}",
                       "--set", "imitate.epochs=0")):
        done = inside(*arguments)
        assert done.returncode == 0, done.stderr
    assert "channel 3, 4 is flat" in done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["dataset"]["movements"] == [1, 2, 3]
    assert np.sum(results["confusion"]["counts"], axis=1)[2] > 0  # of the first person alone
    per_subject = results["classifier"]["per_subject"]
    assert min(per_subject.values()) > 0.4  # by chance 0.33 and 0.5; 0.6 and more was seen


def test_the_linear_recipe_needs_no_training(tiny_db2, tmp_path, monkeypatch):
    """And a subject is read and described once for classify and finetune together."""
    from tfkfin.nets.forward import Trunk
    from tfkfin.pipeline.dataset import Dataset

    read, described = [], []
    monkeypatch.setattr(Dataset, "load", lambda *a, real=Dataset.load, **k: (read.append(1), real(*a, **k))[1])

    def recording(self, emg, starts, mean, sd, wanted, *limits, real=Trunk.recording):
        described.extend([len(starts)] * ("described" in wanted))
        return real(self, emg, starts, mean, sd, wanted, *limits)

    monkeypatch.setattr(Trunk, "recording", recording)
    done = inside("train", "--stage", "finetune", "--data", tiny_db2, "--subjects", "1", "--run", tmp_path / "run",
                  *TINY, "--pipeline", "best_fins")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["classifier"]["mean"] > 0.5  # three movements; 0.8 was seen
    training, test, *rest = described
    assert training > test and rest == [rest[0]] * 2 and rest[0] < test  # some of rest, before and after training
    assert len(read) == 4  # once for each part of imitate's, once for the two others


@pytest.mark.real
def test_real_recordings_are_decoded_far_above_chance(real_data, tmp_path):
    done = inside("train", "--stage", "classify", "--data", real_data, "--subjects", "1", "--run", tmp_path / "run",
                  "--set", "split.train_repetitions=1,3", "--set", "split.test_repetitions=2",
                  "--set", "window.stride_ms=50")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["dataset"]["movements"] == list(range(1, 11)) and results["dataset"]["synthetic"] is False
    assert results["accuracy"]["mean"] > 0.7  # ten movements; 0.93 ± 0.02 was seen over seeds


def accuracies(mean: float) -> dict:
    return {"per_subject": {1: mean - 0.01, 2: mean + 0.01}, "mean": mean, "std": 0.01}


@pytest.mark.parametrize("fins, joined, synthetic, said, why", [
    (True, 0.74, True, ["network on exact features", "FINs + network, raw signal", "the same, a repetition"], True),
    (True, 0.80, True, ["FINs + network, raw signal"], False), (True, 0.74, False, ["every test window"], False),
    (False, 0.74, True, ["decoder, raw signal"], False)])
def test_the_table_says_what_is_compared_on_80_columns(fins, joined, synthetic, said, why, capsys, tmp_path):
    """When piped. Without FINs nothing is said of them, and no column is there twice."""
    from tfkfin import train

    train.show({"stage": "finetune", "fin": {"RMS": {"r2": 0.99}} if fins else None,
                "dataset": {"synthetic": synthetic}, "classifier": accuracies(0.78),
                "svm": accuracies(0.64), "accuracy": accuracies(joined),
                "execution": accuracies(0.83), "protocol": "honest", "seconds": {"imitate": 3.0}}, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if not line.startswith(str(tmp_path)) and "tensorboard" not in line]
    assert max(map(len, table)) <= 80
    words = " ".join(" ".join(lines).replace("┃", " ").split())
    cells = [" ".join(part) for part in zip(*([cell.strip() for cell in line.strip("┃").split("┃")]
                                             for line in lines if "┃" in line and "R²" not in line), strict=True)]
    found = [" ".join(cell.split()) for cell in cells] + [words]
    assert all(any(text in one for one in found) for text in said), found
    assert ("imitate these closely" in words) is why
    assert fins or not any(text in words for text in ("FINs", "exact"))
