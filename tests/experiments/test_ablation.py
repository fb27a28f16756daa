"""The ablation: equal treatment of all arms by hand, figures recomputed from what is kept, test data change nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tfkfin import recipe as recipes
from tfkfin.base.errors import InputError
from tfkfin.experiments.arms import Networks, arm
from tfkfin.experiments.kinds import ablation, ladder
from tfkfin.experiments.ladder.rungs import Group
from tfkfin.experiments.runner import Runner
from tfkfin.fit.run import open_run

TINY = {"source.kind": "recordings", "window.length_ms": 100, "window.stride_ms": 50, "features.names": "ENT,RMS",
        "finetune.batch_size": 32, "finetune.windows_per_epoch": 64, "split.repetitions_per_session": 2,
        "split.train_sessions": "1-2", "split.test_sessions": 3}
STEPS = 2


def opened(data: Path, folder: Path):
    return open_run(recipes.load("ablation", TINY | {"source.data": str(data)}), folder)


@pytest.fixture(scope="module")
def runner(tiny_db2, tmp_path_factory):
    """Two people, two seeds."""
    return Runner(opened(tiny_db2, tmp_path_factory.mktemp("ablation") / "run"), 2, 0)


@pytest.fixture(scope="module")
def run(runner):
    """The finished experiment."""
    runner.run(["ablation"])
    return json.loads((runner.folder / "results.json").read_text()), runner.folder


def between_sessions(evaluation) -> Group:
    return next(g for g in ladder.people(evaluation).groups(1) if g.trials[-1].rung == "session-0")


@pytest.fixture(scope="module")
def networks(runner):
    """Compiled networks, and a group: two sessions to train on, and one to test."""
    return ablation.networks(runner.evaluation), between_sessions(runner.evaluation)


def test_figures_are_of_the_decisions_that_are_kept(run):
    results, folder = run
    rungs = results["rungs"]
    assert set(rungs) == {"random", "repetition-1", "session-0", "session-0u", "session-1", "person-0", "person-0u",
                          "person-1"}
    for rung, arms in rungs.items():
        assert set(arms) == set(ablation.TITLES)
        for name, numbers in arms.items():
            right = {}
            for person in (1, 2):
                for seed in (7, 8):
                    true, decided, *_ = np.load(folder / "cells" / f"ablation-{name}" / "plain" /
                                                f"S{person}-seed{seed}.npz")[rung]
                    right[person, seed] = np.mean(true[true > 0] == decided[true > 0])
            found = numbers["window"]
            assert found["mean"] == pytest.approx(np.mean(list(right.values())))
            assert found["per_subject"]["2"] == pytest.approx(np.mean([right[2, 7], right[2, 8]]))
            assert found["per_seed"]["8"] == pytest.approx(np.mean([right[1, 8], right[2, 8]]))
    tests = results["experiments"]["ablation"]["tests"]
    assert len(tests) == 3 * len(rungs) and all(t["holm"] >= t["p"] and t["pairs"] == 2 for t in tests.values())
    text = (folder / "report.html").read_text()
    assert "random windows (leaks)" in text and "equal updates" in text
    assert (folder / "plots" / "ablation.png").stat().st_size


def test_all_arms_are_trained_on_the_same_windows(networks):
    """Windows inside of segments are those of the recording, in the order of their labels and features."""
    made, group = networks
    subject = made.subject(group.parts)
    arms = {name: arm(made, name, 7) for name in ablation.TITLES}
    pieces = arms["fin"]._drawn(subject, STEPS)
    assert len(pieces) == 4 * STEPS and len({piece[0] for piece in pieces}) == 4 * STEPS  # none comes twice
    assert all((subject.windows.movements[piece] > 0).all() for piece in pieces)
    for one in arms.values():
        assert all(np.array_equal(*pair) for pair in zip(one._drawn(subject, STEPS), pieces, strict=True))
    batches = {name: list(one.batches(subject, pieces).as_numpy_iterator()) for name, one in arms.items()}
    names, length = ("ENT", "RMS"), made.run.length
    for step in range(STEPS):
        chosen = np.concatenate(pieces[4 * step : 4 * step + 4])
        wanted, labels = subject.volts(length, chosen), subject.windows.movements[chosen]
        for name in ("fin", "random"):
            (emg, there), targets = batches[name][step]
            cut = np.stack([emg[row, at * 100 : at * 100 + length] for row, at in np.argwhere(there)])  # 50 ms, 2 kHz
            np.testing.assert_array_equal(cut, wanted)
            np.testing.assert_array_equal(made.classes[targets["probabilities"]], labels)
            np.testing.assert_array_equal(targets["features"], batches["true"][step][0])
        for name in ("frozen", "true"):
            np.testing.assert_array_equal(made.classes[batches[name][step][1]], labels)
        rms = np.sqrt(np.mean(((wanted - subject.mean) / subject.sd) ** 2, axis=1))
        np.testing.assert_allclose(batches["true"][step][0][..., names.index("RMS")], rms, rtol=1e-4)


@pytest.mark.parametrize("name", ablation.TITLES)
def test_arms_differ_in_their_start_alone(networks, name):
    made, group = networks
    one, starts = arm(made, name, 8), {}
    train = one._train

    def watched(subject, pieces):
        starts["head"] = [w for w in head().get_weights()]
        starts["fins"] = made.joint.fins.get_weights()
        train(subject, pieces)
        starts["steps"] = {int(rate.iterations.numpy()) for rate in one.rates}

    def head():
        return made.head if name in ("frozen", "true") else made.joint.head.classifier

    one._train = watched
    one.fit(made.subject(group.parts))
    fins, weights = made.fresh(8)
    assert starts["steps"] == {STEPS}
    for mine, its in zip(starts["head"][2:], weights[2:], strict=True):  # the first two are its z-score
        np.testing.assert_array_equal(mine, its)
    if name in ("fin", "random"):
        for mine, its in zip(starts["fins"], made.shipped if name == "fin" else fins, strict=True):
            assert np.array_equal(mine, its) or (name == "random" and mine.ndim == 0)  # its output scale is set
        assert not np.array_equal(made.joint.fins.get_weights()[0], starts["fins"][0])  # and then they are trained
    fitted = one.model.get_weights()
    known = next(trial.known for trial in group.trials if trial.labelled)
    one.calibrate(made.subject([known]))
    assert starts["steps"] == {1}  # a quarter as many, one at the least
    assert not all(np.array_equal(*pair) for pair in zip(one.model.get_weights(), fitted, strict=True))
    one.calibrate(None)  # without labels nothing is trained
    for mine, its in zip(one.model.get_weights(), fitted, strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("name", ablation.TITLES)
def test_labels_of_tested_windows_change_nothing(networks, name):
    made, group = networks

    def relabelled(trial):
        stream = replace(trial.stream, _kept={}, recordings=tuple(
            replace(one, labels=np.where(one.labels > 0, 1, 0).astype(np.int16)) for one in trial.stream.recordings))
        return replace(trial, stream=stream)

    other = Group(group.person, group.parts, tuple(map(relabelled, group.trials)))
    found = [{trial.rung: answers[0].probabilities for trial, answers in arm(made, name, 7).decide(one)}
             for one in (group, other)]
    assert set(found[0]) == {"session-0", "session-0u", "session-1"}
    for rung, probabilities in found[0].items():
        np.testing.assert_array_equal(probabilities, found[1][rung])
    assert not np.array_equal(found[0]["session-0u"], found[0]["session-1"])


def test_test_recordings_change_nothing(networks, noisy_tests, tmp_path):
    evaluation = Runner(opened(noisy_tests, tmp_path / "run"), 1, 0).evaluation
    others = Networks(evaluation.run, tuple(networks[0].classes.tolist())), between_sessions(evaluation)
    for name in ablation.TITLES:
        answers = []
        for made, group in (networks, others):
            one, subject = arm(made, name, 7), made.subject(group.parts)
            one.fit(subject)
            answers.append(one.answers(subject))  # of sessions that train
        np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize("settings", [{"finetune.epochs": 0}, {"augment.gain": 0.1}, {"fin.pretrained": ""},
                                      {"classifier.vote": 3}, {"finetune.fin_learning_rate": 0}])
def test_recipes_that_it_cannot_obey_are_refused(settings):
    with pytest.raises(InputError):
        ablation.check(recipes.load("ablation", TINY | settings))
    ablation.check(recipes.load("ablation", TINY))
