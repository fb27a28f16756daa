"""Fixtures that every room shares."""

import os
import random
import zlib
from pathlib import Path

import numpy as np
import pytest

from tfkfin.recordings import matfile, synthetic


def pytest_sessionstart(session):
    """Tests trace many small graphs and run each a few times: rewriting a graph costs more than it saves.

    Commands in processes of their own, as users start them, rewrite theirs.
    """
    if hasattr(session.config, "workerinput") or not session.config.getoption("numprocesses", None):
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(autouse=True)
def drawn_alike(request):
    """What a test draws is the same alone, after others and on any worker.

    Keras takes the seeds of first weights from Python's generator; a module's own is `rng`.
    """
    seed = zlib.crc32(request.node.nodeid.encode())
    random.seed(seed)
    if isinstance(generator := getattr(request.module, "rng", None), np.random.Generator):
        generator.bit_generator.state = np.random.default_rng(seed).bit_generator.state


HEAVY = (  # every file that takes 20 s or more
    "test_ladder", "test_engines", "test_commands", "test_calibrate", "test_train", "test_leaks", "test_export",
    "test_streaming", "test_tune", "test_pooled", "test_imitation", "test_ablation", "test_same", "test_stream",
    "test_calibration", "test_experiments", "test_estimators", "test_absurd", "test_page", "test_imputation",
    "test_hub", "test_adapting", "test_doors", "test_quality", "test_golden", "test_features", "test_filtered")


def pytest_collection_modifyitems(items):
    """Files that take longest come first, so that no worker is left with one of them at the end."""
    items.sort(key=lambda item: HEAVY.index(item.path.stem) if item.path.stem in HEAVY else len(HEAVY))


@pytest.fixture(scope="session")
def tiny_db2(tmp_path_factory) -> Path:
    """A folder of two synthetic subjects: 3 movements, 6 repetitions, 4 channels, holds of 0.8 s at 2 kHz."""
    folder = tmp_path_factory.mktemp("tiny_db2")
    synthetic.synthesize(folder, (1, 2), movements=3, channels=4, hold_s=0.8, rest_s=0.5)
    return folder


@pytest.fixture(scope="session")
def noisy_tests(tiny_db2, tmp_path_factory) -> Path:
    """The same with noise where repetitions 5 and 6 were."""
    folder = tmp_path_factory.mktemp("noisy_tests")
    for path in tiny_db2.rglob("*.mat"):
        content = matfile.load(path, tuple(matfile.shapes(path)))
        tested = np.isin(content["rerepetition"][:, 0], (5, 6))
        noise = np.random.default_rng(0).standard_normal(content["emg"].shape) * 3e-5
        content["emg"] = np.where(tested[:, None], noise, content["emg"]).astype(np.float32)
        matfile.save(folder / path.relative_to(tiny_db2), content, "poisoned")
    return folder


@pytest.fixture(scope="session")
def real_sets() -> list[Path]:
    """Folders of recorded signals, one a set: those in the folder TFKFIN_REAL_DATA, or that folder itself."""
    if "TFKFIN_REAL_DATA" not in os.environ:
        pytest.skip("TFKFIN_REAL_DATA names no folder of recorded signals")
    root = Path(os.environ["TFKFIN_REAL_DATA"])
    return sorted(folder for folder in root.iterdir() if folder.is_dir()) or [root]


@pytest.fixture(scope="session")
def real_data(real_sets) -> Path:
    """The first set: one session of several people, in volts."""
    return real_sets[0]
