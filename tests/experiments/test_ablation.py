"""The ablation: equal treatment of all arms by hand, figures recomputed from what is kept, poison steers nothing."""

import json
from pathlib import Path

import numpy as np
import pytest

from tfkfin import recipe as recipes
from tfkfin.base.console import InputError
from tfkfin.experiments import protocols
from tfkfin.experiments.ablation import ARMS, Networks, arm
from tfkfin.experiments.kinds import ablation, ladder
from tfkfin.experiments.runner import Runner
from tfkfin.experiments.transfer import Known
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


def between_sessions(evaluation) -> protocols.Group:
    people, data = ladder.streams(evaluation).people(False)
    return next(g for g in protocols.groups(people, data.split, 7, (1,)) if g.trials[0].rung == "session-0")


@pytest.fixture(scope="module")
def networks(runner):
    """Compiled networks, and a group: two sessions that are learnt from, and one to be tested."""
    return ablation.networks(runner.evaluation), between_sessions(runner.evaluation)


def test_figures_are_of_the_decisions_that_are_kept(run):
    results, folder = run
    rungs = results["rungs"]
    assert set(rungs) == {"random", "repetition-1", "session-0", "session-0u", "session-1", "person-0", "person-0u",
                          "person-1"}
    for rung, arms in rungs.items():
        assert set(arms) == set(ARMS) == set(ablation.TITLES)
        for name, numbers in arms.items():
            right = {}
            for person in (1, 2):
                for seed in (7, 8):
                    true, decided, _ = np.load(folder / "cells" / f"ablation-{name}" / "plain" /
                                               f"S{person}-seed{seed}.npz")[rung]
                    right[person, seed] = np.mean(true[true > 0] == decided[true > 0])
            found = numbers["window"]
            assert found["mean"] == pytest.approx(np.mean(list(right.values())))
            assert found["per_subject"]["2"] == pytest.approx(np.mean([right[2, 7], right[2, 8]]))
            assert found["per_seed"]["8"] == pytest.approx(np.mean([right[1, 8], right[2, 8]]))
    for name in ARMS:  # without labels there is nothing to learn: the network of rung 0 on what is left
        kept = np.load(folder / "cells" / f"ablation-{name}" / "plain" / "S1-seed7.npz")
        left = np.isin(kept["session-0"][2], kept["session-0u"][2])  # by segment
        np.testing.assert_array_equal(kept["session-0u"], kept["session-0"][:, left])
    tests = results["experiments"]["ablation"]["tests"]
    assert len(tests) == 3 * len(rungs) and all(t["holm"] >= t["p"] and t["pairs"] == 2 for t in tests.values())
    text = (folder / "report.html").read_text()
    assert "random (leaks)" in text and "equal updates" in text and (folder / "plots" / "ablation.png").stat().st_size


def test_all_arms_learn_from_the_same_windows(networks):
    """Windows that stretches hold are those of the recording, in the order of their labels and features."""
    made, group = networks
    arms = {name: arm(made, name, 7) for name in ARMS}
    for one in arms.values():
        one.fit(group.learnt, made.classes)
    drawn = arms["fin"]._drawn(group.learnt, STEPS)
    assert all(len(pieces) == 4 for pieces in drawn) and len(drawn) == STEPS
    assert len({(id(p.session), p.windows[0]) for pieces in drawn for p in pieces}) == 4 * STEPS  # none comes twice
    length = made.run.length
    batches = {name: list(one.batches(drawn).as_numpy_iterator()) for name, one in arms.items()}
    for step, pieces in enumerate(drawn):
        wanted = np.concatenate([p.session.subject.volts(length, p.learnt) for p in pieces])
        labels = np.concatenate([p.session.labels[p.learnt] for p in pieces])
        for p in pieces:
            (chosen,) = (chosen for session, chosen in group.learnt if session is p.session)
            assert chosen[p.learnt].all() and (p.session.labels[p.learnt] > 0).all()
        for name in ("fin", "random"):
            (emg, there), targets = batches[name][step]
            cut = np.stack([emg[row, at * 100 : at * 100 + length] for row, at in np.argwhere(there)])  # 50 ms, 2 kHz
            np.testing.assert_array_equal(cut, wanted)
            np.testing.assert_array_equal(np.array(made.classes)[targets["probabilities"]], labels)
            np.testing.assert_array_equal(targets["features"], batches["true"][step][0])
        for name in ("frozen", "true"):
            np.testing.assert_array_equal(np.array(made.classes)[batches[name][step][1]], labels)
        mean, sd = arms["true"].mean, arms["true"].sd
        np.testing.assert_allclose(batches["true"][step][0][..., 1], np.sqrt(np.mean(((wanted - mean) / sd) ** 2, 1)),
                                   rtol=1e-4)  # RMS by its formula


@pytest.mark.parametrize("name", ARMS)
def test_arms_differ_in_their_start_alone(networks, name):
    made, group = networks
    one, starts = arm(made, name, 8), {}
    train = one._train

    def watched(drawn):
        starts["head"] = [w for w in head().get_weights()]
        starts["fins"] = made.joint.fins.get_weights()
        train(drawn)
        starts["steps"] = {int(rate.iterations.numpy()) for rate in one.rates}

    def head():
        return made.head if name in ("frozen", "true") else made.joint.head.classifier

    one._train = watched
    one.fit(group.learnt, made.classes)
    fins, weights = made.fresh(8)
    assert starts["steps"] == {STEPS}
    for mine, its in zip(starts["head"][2:], weights[2:], strict=True):  # the first two are its z-score
        np.testing.assert_array_equal(mine, its)
    if name in ("fin", "random"):
        for mine, its in zip(starts["fins"], made.shipped if name == "fin" else fins, strict=True):
            assert np.array_equal(mine, its) or (name == "random" and mine.ndim == 0)  # its output scale is set
        assert not np.array_equal(made.joint.fins.get_weights()[0], starts["fins"][0])  # and then they are trained
    session = group.trials[0].session
    one.decide(session, Known(session.repetitions == session.order[0], True))
    assert starts["steps"] == {1}  # a quarter as many, one at the least


@pytest.mark.parametrize("name", ARMS)
def test_labels_that_are_not_known_steer_nothing(networks, name):
    made, group = networks
    one, session = arm(made, name, 7).fit(group.learnt, made.classes), group.trials[0].session
    first = session.repetitions == session.order[0]
    windows = session.subject.windows
    other = type(session)(session.person, session.number, type(session.subject)(**vars(session.subject) | {
        "windows": type(windows)(**vars(windows) | {"movements": np.where(first, windows.movements, 1)})}),
        session.length, session.rate_hz)
    for known in (None, Known(first, False), Known(first, True)):
        np.testing.assert_array_equal(one.decide(session, known), one.decide(other, known))
    assert not np.array_equal(one.decide(session, None), one.decide(session, Known(first, True)))


def test_what_is_tested_steers_nothing(networks, noisy_tests, tmp_path):
    evaluation = Runner(opened(noisy_tests, tmp_path / "run"), 1, 0).evaluation
    others = Networks(evaluation.run, networks[0].classes), between_sessions(evaluation)
    for name in ARMS:
        answers = [arm(made, name, 7).fit(group.learnt, made.classes).decide(group.learnt[0][0], None)
                   for made, group in (networks, others)]  # of a session of the training side
        np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize("settings", [{"finetune.epochs": 0}, {"augment.gain": 0.1}, {"fin.pretrained": ""},
                                      {"classifier.vote": 3}, {"finetune.fin_learning_rate": 0}])
def test_recipes_that_it_cannot_obey_are_refused(settings):
    with pytest.raises(InputError):
        ablation.check(recipes.load("ablation", TINY | settings))
    ablation.check(recipes.load("ablation", TINY))
