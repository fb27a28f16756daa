"""The ladder by command on sessions: every rung and model is there, scores are recomputed, poison steers nothing."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

import tfkfin
from tfkfin import recipe as recipes
from tfkfin.experiments import figures, protocols
from tfkfin.experiments.kinds import ladder
from tfkfin.experiments.runner import Runner
from tfkfin.experiments.sessions import sessions
from tfkfin.experiments.statistics import holm
from tfkfin.experiments.transfer_fins import Imitation
from tfkfin.features.describe import tangent_space
from tfkfin.fit.run import open_run

TINY = {"source.kind": "recordings", "window.length_ms": 60, "window.stride_ms": 60, "fin.units": 3, "fin.layers": 2,
        "fin.pretrained": "", "features.names": "ENT,RMS", "classify.epochs": 2, "classifier.vote": 3,
        "split.repetitions_per_session": 2, "split.train_sessions": "1-2", "split.test_sessions": 3}


def run(data: Path, folder: Path, **settings):
    opened = open_run(recipes.load("ladder", TINY | settings | {"source.data": str(data)}), folder)
    Runner(opened, 1, 0).run(["ladder"])
    return json.loads((folder / "results.json").read_text())["rungs"]


@pytest.fixture(scope="module")
def climbed(tiny_db2, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ladder") / "run"
    return run(tiny_db2, folder, **{"window.rest": True}), folder


def test_results_are_what_outsiders_rely_on(climbed):
    rungs, folder = climbed
    assert set(rungs) == {"random", "repetition-1", "session-0", "session-0u", "session-1", "person-0", "person-0u",
                          "person-1"}
    for models in rungs.values():
        assert {"paper", "best", "tdar_lda", "tdar_cov_lda", "riemann_lda", "riemann_lda_centred", "hierarchical",
                "tfkfin"} <= set(models)
        for numbers in models.values():
            assert set(numbers) == {"window", "execution", "false_per_minute"}
            for number in numbers.values():
                assert set(number) == {"mean", "low", "high", "per_subject"}
                assert number["mean"] == pytest.approx(np.mean(list(number["per_subject"].values())))
                assert number["low"] is number["high"] is None  # two people are too few for an interval
    text = (folder / "report.html").read_text()
    assert "random (leaks)" in text and "Every person" in text and (folder / "plots" / "ladder.png").stat().st_size


def test_numbers_are_of_the_decisions_that_are_kept(climbed):
    rungs, folder = climbed
    for name in ("tdar_lda", "paper"):
        kept = np.load(folder / "cells" / f"ladder-{name}" / "plain" / "S1.npz")
        true, decided, segments = kept["session-1"]
        found = rungs["session-1"][name]
        moving = true > 0
        assert found["window"]["per_subject"]["1"] == pytest.approx(np.mean(true[moving] == decided[moving]))
        assert len(np.unique(segments[moving])) == 3  # one repetition of three movements: the other was known
        assert 0 in true and found["false_per_minute"]["mean"] >= 0


def test_a_row_whose_networks_begin_at_random_is_the_same_in_another_process(climbed, tmp_path):
    """FINs and the paper's head, after a kill, with other random numbers drawn before and one person done."""
    rungs, folder = climbed
    shutil.copytree(folder, tmp_path / "run")
    for name in ("paper", "tfkfin_fins"):
        for kept in (tmp_path / "run" / "cells" / f"ladder-{name}" / "plain").glob("S2.*"):
            kept.unlink()
    (tmp_path / "run" / "results.json").unlink()
    keras.utils.set_random_seed(99)
    recipe = recipes.load(tmp_path / "run" / "recipe.toml")
    Runner(open_run(recipe, tmp_path / "run"), 1, 0).run(["ladder"])
    assert json.loads((tmp_path / "run" / "results.json").read_text())["rungs"] == rungs


def test_fins_see_covariances_of_what_is_standardised_now(tiny_db2, tmp_path):
    """They are found once, in volts: whatever is learnt from next, they are those of the definition."""
    opened = open_run(recipes.load("ladder", TINY | {"source.data": str(tiny_db2)}), tmp_path / "run")
    seen, session = Imitation(opened), next(iter(sessions(opened.dataset, 1)))
    for chosen in (session.repetitions == 1, session.repetitions == 2):
        seen.learn([(session, chosen)])
        volts = session.subject.volts(session.length)
        of = volts[chosen & (session.labels > 0)].reshape(-1, volts.shape[2]).astype(float)
        windows = (volts - of.mean(0)) / of.std(0)
        wanted = np.concatenate([tangent_space(np.diff(windows, n=n, axis=1), session.rate_hz) for n in range(3)], 1)
        np.testing.assert_allclose(seen.spatial(session)[:, -wanted.shape[1]:], wanted, rtol=1e-4, atol=1e-5)


def test_a_decoder_that_adapts_is_the_ladders_row(tiny_db2, tmp_path):
    """`tfkfin.Decoder.session` on another person's stream against `tfkfin_fins`, both taught by the first person.

    They standardise by samples and by windows, and take rest's loudness from its middles and from all of it: nearly
    the same.
    """
    tiny = {name: value for name, value in TINY.items() if name[:3] in ("win", "fea")}
    opened = open_run(recipes.load("ladder", tiny | {"source.data": str(tiny_db2)}), tmp_path / "run")
    streams = ladder.Streams(Runner(opened, 1, 0).evaluation)
    people, _ = streams.people(False)
    session, classes = people[2][0], tuple(m for m in opened.dataset.movements if m)
    every = [(one, np.ones(len(one), bool)) for one in people[1]]
    row = streams.model("tfkfin_fins").fit(every, classes)
    expected = row.decide(session, None)
    decoder = tfkfin.Decoder.from_preset("best")
    decoder.recipe = recipes.load("best", tiny)
    decoder.fit([one for one in tfkfin.read(tiny_db2) if one.subject == 1])
    assert tuple(decoder.movements) == classes
    got = decoder.session()(decoder.inputs(session.subject.emg, session.subject.windows.starts))
    assert np.mean(got.argmax(axis=1) == expected.argmax(axis=1)) > 0.98 and np.abs(got - expected).mean() < 0.01
    quiet = decoder.head.knowledge.memory.quiet
    loud = row._loudness(session)
    assert abs(quiet - row._rest) < 0.3 and 0.05 < np.mean(loud < quiet) < 0.9


def test_what_is_tested_steers_nothing(tiny_db2, noisy_tests, tmp_path):
    """Closed-form models at rungs that know nothing of the tested session: the first window's decision stays."""
    people = []
    for data in (tiny_db2, noisy_tests):
        opened = open_run(recipes.load("ladder", TINY | {"source.data": str(data)}), tmp_path / f"run-{data.name}")
        streams = ladder.Streams(Runner(opened, 1, 0).evaluation)
        people.append((streams, *streams.people(True)))
    (clean, sessions, data), (_, others, _) = people
    probe = sessions[1][0]  # a session of the training side: the same in both
    for name in ladder.CLOSED_FORM:
        for one, other in zip(protocols.groups(sessions, data.split, 7), protocols.groups(others, data.split, 7),
                              strict=True):
            if one.trials[0].rung in ("session-0", "person-0"):
                answers = [ladder.CLOSED_FORM[name]().fit(group.learnt, clean.classes).decide(probe, None)
                           for group in (one, other)]
                np.testing.assert_array_equal(*answers)


def test_rows_are_left_out_without_their_library(monkeypatch, caplog):
    with monkeypatch.context() as patch, caplog.at_level("INFO", "tfkfin"):
        patch.setattr(ladder.riemann, "installed", lambda: False)
        ladder.titles.cache_clear()
        for _ in range(2):
            assert set(ladder.TITLES) - set(ladder.titles()) == {"riemann_lda", "riemann_lda_centred"}
    ladder.titles.cache_clear()
    assert [record.message for record in caplog.records if "tfkfin[riemann]" in record.message] == [
        "ladder: pyriemann is not installed, so two rows are left out: pip install 'tfkfin[riemann]'"]
    assert ladder.titles() == ladder.TITLES


def test_no_two_models_look_alike():
    figure = figures.ladder({name: [50.0, 60.0] for name in ladder.TITLES}, ["a", "b"], "nobody")
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == len(ladder.TITLES) == len(figure.axes[0].get_legend().get_texts())
    assert len({line.get_marker() for line in figure.axes[0].lines}) == len(looks)  # in black and white too


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])  # statsmodels' multipletests says the same
    assert holm([0.9, 0.9]) == [1.0, 1.0]
