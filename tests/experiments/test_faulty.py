"""Faults of signals: each as it is described, and the experiment that scores decoders with them."""

import json

import numpy as np
import pytest

from tfkfin import recipe as recipes
from tfkfin.experiments.runner import Runner
from tfkfin.fit.run import open_run
from tfkfin.signal.faults import EACH, FAULTS, places, spoilt

RATE, SIZE = 1000.0, 20_000
rng = np.random.default_rng(3)
MEAN, SD = np.array([0.0, 1e-5, -2e-5]), np.array([1e-5, 2e-5, 5e-6])
EMG = (MEAN + SD * rng.standard_normal((SIZE, 3))).astype(np.float32)
ADDED = {"offset": 2.0, "offset_one": 2.0, "hum": 2.0, "hum_one": 2.0,  # root mean square, in sd
         "harmonics": np.sqrt((0.5**2 + 0.7**2 + 0.5**2 + 0.3**2) / 2), "motion": 1.5 * np.sqrt(0.4)}
OF_OTHERS = {"gain_up": 3.0, "gain_up_one": 3.0, "gain_down": 0.3, "gain_down_one": 0.3}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_befall_their_electrodes_alone_and_the_same_seed_gives_the_same(name):
    found = list(spoilt(name, EMG, MEAN, SD, RATE, 5))
    assert len(found) == len(places(name, 3)) == (1 if FAULTS[name][1].startswith("all") else 3)
    for emg, columns in zip(found, places(name, 3), strict=True):
        others = np.setdiff1d(np.arange(3), columns)
        np.testing.assert_array_equal(emg[:, others], EMG[:, others])
        assert emg.shape == EMG.shape and emg.dtype == np.float32
        assert name == "clean" or (emg[:, columns] != EMG[:, columns]).any(axis=0).all()
    np.testing.assert_array_equal(found, list(spoilt(name, EMG, MEAN, SD, RATE, 5)))


@pytest.mark.parametrize("name", ADDED)
def test_what_is_added_has_its_size(name):
    emg, columns = next(spoilt(name, EMG, MEAN, SD, RATE)), places(name, 3)[0]
    added = (emg.astype(float) - EMG)[:, columns] / SD[columns]
    np.testing.assert_allclose(np.sqrt(np.mean(added**2, axis=0)), ADDED[name], rtol=0.3 if name == "motion" else 1e-3)


def test_the_others_do_what_they_say():
    for name, gain in OF_OTHERS.items():
        np.testing.assert_allclose(next(spoilt(name, EMG, MEAN, SD, RATE))[:, 0], gain * EMG[:, 0], rtol=1e-6)
    assert (next(spoilt("dead", EMG, MEAN, SD, RATE))[:, 0] == 0).all()
    np.testing.assert_allclose(next(spoilt("inverted", EMG, MEAN, SD, RATE))[:, 0], 2 * MEAN[0] - EMG[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(next(spoilt("swapped", EMG, MEAN, SD, RATE)), EMG[:, [1, 0, 2]])
    clipped = (next(spoilt("clipped", EMG, MEAN, SD, RATE)) - MEAN) / SD
    assert np.abs(clipped).max() < 0.801 and np.mean(np.abs(clipped) > 0.799) > 0.4
    coarse = (next(spoilt("coarse", EMG, MEAN, SD, RATE)) - MEAN) / SD / 0.7
    np.testing.assert_allclose(coarse, np.round(coarse), atol=1e-4)
    lost = np.mean(np.diff(next(spoilt("held", EMG, MEAN, SD, RATE))[:, 0]) == 0)
    assert 0.1 < lost < 0.3
    hits = np.abs((next(spoilt("spikes", EMG, MEAN, SD, RATE)) - MEAN) / SD) > 5
    assert 5 < hits.any(axis=1).sum() / (SIZE / RATE) < 50
    hanging = (next(spoilt("electrode_lost", EMG, MEAN, SD, RATE))[:, 0] - MEAN[0]) / SD[0]
    assert abs(hanging.std() - 5) < 0.05


def test_an_electrode_in_turn_is_every_electrode_once():
    for name, (_, where) in FAULTS.items():
        if where == EACH:
            assert np.concatenate(places(name, 5)).tolist() == [0, 1, 2, 3, 4]
    assert [p.tolist() for p in places("swapped", 2)] == [[0, 1]] and not places("swapped", 1)


def test_the_experiment_scores_every_fault(tiny_db2, tmp_path):
    """A clean stream is scored as the ladder scores the same repetitions; all zeros are worse than a clean stream."""
    settings = {"source.kind": "recordings", "source.data": str(tiny_db2), "window.length_ms": 60,
                "window.stride_ms": 60, "split.subjects": 1, "split.train_repetitions": "1,3",
                "split.test_repetitions": "2,5"}
    run = open_run(recipes.load("ladder", settings), tmp_path / "run")
    Runner(run, 1, 0, ("best", "tdar_lda")).run(["faults", "ladder"])
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(found["faults"]) == list(FAULTS)
    for fault, models in found["faults"].items():
        assert set(models) == {"best", "tdar_lda"}, fault
    clean = found["faults"]["clean"]
    for name in clean:
        assert clean[name]["window"] == found["rungs"]["repetition-2"][name]["window"]
        assert found["faults"]["spikes"][name]["window"]["mean"] < clean[name]["window"]["mean"]
    assert found["faults"]["offset"]["best"]["window"]["mean"] > clean["best"]["window"]["mean"] - 0.02
    assert "What faults of the signal cost" in (tmp_path / "run" / "report.md").read_text()
