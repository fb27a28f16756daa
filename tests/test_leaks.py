"""Test repetitions steer nothing: replaced by noise that carries the label, they leave every weight as it was.

Over every recipe that ships with splits, and over the experiments.
"""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkfin import recipe as recipes
from tfkfin.experiments.runner import Runner
from tfkfin.fit.run import open_run
from tfkfin.fit.stages import run_stage
from tfkfin.fit.trainers import JointTrainer
from tfkfin.recordings import matfile

TEST = (2, 5)
RECIPES = [p.stem for p in sorted(Path("pipelines").glob("*.toml")) if not p.stem.startswith(("fin_", "tune_"))]
TINY = {"source.kind": "recordings", "window.length_ms": 30, "window.stride_ms": 25, "fin.units": 3, "fin.layers": 2,
        "fin.family": "conv", "fin.pretrained": "", "features.names": "ENT,RMS", "split.subjects": "1,2",
        "split.pretrain_subjects": "1", "split.train_repetitions": (1, 3, 4, 6), "split.test_repetitions": TEST,
        "imitate.epochs": 3,
        "imitate.windows_per_epoch": 48, "imitate.validation_windows": 24, "imitate.test_windows": 24,
        "classify.epochs": 2, "finetune.windows_per_epoch": 32, "classifier.vote": 3}


@pytest.fixture(scope="module")
def poisoned(tiny_db2, tmp_path_factory) -> Path:
    """The tiny recordings, but test repetitions hold noise with the label written into it."""
    folder = tmp_path_factory.mktemp("poisoned")
    for path in tiny_db2.rglob("*.mat"):
        names = tuple(matfile.shapes(path))
        content = matfile.load(path, names)
        repetition, label = (content[name][:, 0] for name in ("rerepetition", "restimulus"))
        tested = np.isin(repetition, TEST) & (label > 0)
        noise = np.random.default_rng(0).standard_normal(content["emg"].shape)
        mark = 5e-5 * (label[:, None] == 1 + np.arange(content["emg"].shape[1]))
        content["emg"] = np.where(tested[:, None], 3e-5 * noise + mark, content["emg"]).astype(np.float32)
        matfile.save(folder / path.relative_to(tiny_db2), content, "poisoned")
    return folder


def trained(name: str, data: Path, folder: Path) -> tuple[list[np.ndarray], float]:
    """Every weight that the three stages leave, with the standardisation and the stopping score; the accuracy."""
    solved = name in ("best", "best_fins", "closed_form")
    settings = TINY | ({"imitate.epochs": 2} if solved else {"finetune.epochs": 1})
    run = open_run(recipes.load(name, settings | {"source.data": str(data)}), folder)
    results = run_stage(run, "finetune")
    weights = [run.decoder(subject).model.get_weights() for subject in (1, 2)]
    best = tf.train.load_variable(str(folder / "imitate" / "checkpoints"), "best/.ATTRIBUTES/VARIABLE_VALUE")
    return [*weights[0], *weights[1], np.asarray(best)], results["accuracy"]["mean"]


@pytest.mark.parametrize("name", [n if n in ("own", "best", "best_fins") else pytest.param(
    n, marks=[pytest.mark.slow, pytest.mark.long]) for n in RECIPES])
def test_no_recipe_learns_from_test_repetitions(name, tiny_db2, poisoned, tmp_path):
    clean, _ = trained(name, tiny_db2, tmp_path / "clean")
    marked, accuracy = trained(name, poisoned, tmp_path / "poisoned")
    assert all(np.array_equal(a, b) for a, b in zip(clean, marked, strict=True))
    assert accuracy < 0.67  # noise: chance is 0.33, and two subjects' windows are few


@pytest.mark.long
@pytest.mark.slow
def test_no_experiment_learns_from_test_repetitions(tiny_db2, poisoned, tmp_path, monkeypatch):
    seen, fit = [], JointTrainer.fit

    def watched(trainer, *arguments, **more):
        fit(trainer, *arguments, **more)
        seen.append(trainer.network.get_weights())

    monkeypatch.setattr(JointTrainer, "fit", watched)
    found = []
    for data in (tiny_db2, poisoned):
        settings = TINY | {"source.data": str(data), "split.subjects": "1", "finetune.epochs": 1, "classifier.vote": 1}
        run = open_run(recipes.load("own", settings), tmp_path / data.name)
        keras.utils.set_random_seed(1)
        Runner(run, 1, 12).run(["downstream", "finetune", "efficiency", "forward"])
        kept = {p.relative_to(run.folder): np.concatenate([v.ravel() for v in _h5(p)])
                for p in sorted((run.folder / "cells").rglob("*.weights.h5"))}
        found.append((kept, list(seen)))
        seen.clear()
    (heads, joints), (other_heads, other_joints) = found
    assert len(heads) >= 8 and heads.keys() == other_heads.keys() and len(joints) >= 5
    assert all(np.array_equal(heads[name], other_heads[name]) for name in heads)
    assert all(np.array_equal(a, b) for one, other in zip(joints, other_joints, strict=True)
               for a, b in zip(one, other, strict=True))


def _h5(path: Path) -> list[np.ndarray]:
    import h5py

    found = []
    with h5py.File(path, "r") as file:
        file.visititems(lambda _, item: found.append(item[()]) if isinstance(item, h5py.Dataset) else None)
    return found
