"""Small cases worked out by hand: each fails when a time, a sign or a source is off by one."""

from types import SimpleNamespace

import numpy as np
import pytest

from tfkfin.experiments import evaluation
from tfkfin.experiments.kinds import efficiency, forward
from tfkfin.signal import resampling


def test_the_label_ahead_is_that_of_the_last_sample_plus_the_horizon():
    labels = np.array([0, 1, 1, 2, 2, 2, 0, 3])
    owner = np.array([0, 1, 1, 4, 4, 4, 4, 5])
    ahead, whose = evaluation.label_ahead(labels, owner, np.array([0, 1, 2, 4, 5, 6]), 1)
    assert ahead.tolist() == [1, 1, 2, 2, 0, 3] and whose.tolist() == [1, 1, 4, 4, 4, 5]
    assert evaluation.label_ahead(labels, owner, np.array([7]), 1)[1].tolist() == [0]  # beyond the recording


def test_rest_belongs_to_the_movement_before_and_what_has_no_repetition_to_none():
    labels, repetitions = np.array([0, 1, 1, 0, 2, 0, 1]), np.array([5, 1, 1, 3, 2, 0, 0])
    assert evaluation.owners(labels, repetitions).tolist() == [0, 1, 1, 1, 2, 2, 0]


def test_targets_begin_at_the_windows_own_last_sample(monkeypatch):
    labels = np.repeat([1, 0, 2], 10).astype(np.int16)
    header = SimpleNamespace(rate_hz=1000.0, labels=labels, repetitions=np.where(labels > 0, 1, 0), seams=())
    monkeypatch.setattr(evaluation.readers, "header", lambda file: header)
    data = SimpleNamespace(files={1: (None,)}, rate_hz=1000.0, length=4)
    subject = SimpleNamespace(number=1, places=np.array([0, 5, 6]), files=np.zeros(3, int))  # last samples 3, 8, 9
    assert evaluation.targets(data, subject, 1)[0].tolist() == [1, 1, 0]


def test_persistence_is_what_the_model_of_now_said():
    now = {"start": np.array([0, 5, 9]), "predicted": np.array([1, 2, 3]), "true": np.array([1, 1, 1])}
    then = {"start": np.array([5, 9]), "own": np.array([1, 1]), "true": np.array([2, 1]), "predicted": np.array([1, 1])}
    scored = forward.ahead(now, then)
    assert scored["persistence"] == 0.5  # it said 2 and 3; true ahead are 2 and 1; the truth of now would be 0.5 too
    now["predicted"] = np.array([1, 2, 1])
    assert forward.ahead(now, then)["persistence"] == 1.0 and scored["changing"] == 0.5 and scored["changed"] == 0.0


@pytest.mark.parametrize(("share", "ignorant"), [(0.02, 0.97), (0.9, 0.12)])
def test_what_accuracy_ahead_says_is_counted(share, ignorant):
    last = {"fin": {"changing": {"mean": share}, "persistence": {"mean": ignorant}}}
    said = forward.changing({"300": last})
    assert f"{100 * share:.1f} %" in said and f"{100 * ignorant:.1f} %" in said and "few" not in said


def test_efficiency_is_most_less_least(monkeypatch):
    accuracies = {20: {(1, 0): 0.5, (2, 0): 0.6}, 100: {(1, 0): 0.9, (2, 0): 0.8}}
    monkeypatch.setattr(efficiency, "settings", lambda evaluation: {"fraction": [20, 100]})
    told = efficiency.ends(SimpleNamespace(values=lambda model, setting: accuracies[setting]), "fraction")
    assert told["mean"] == pytest.approx(0.3) and told["wins"] == 2


@pytest.mark.parametrize(("rate", "wanted", "expected"), [
    (2, 1, [0, 2, 4]), (1, 2, [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5]), (3, 2, [0, 2, 3, 5])])
def test_labels_are_those_of_the_nearest_sample(rate, wanted, expected):
    column, = resampling.at_rate(rate, wanted, np.arange(6))
    assert column.tolist() == expected
