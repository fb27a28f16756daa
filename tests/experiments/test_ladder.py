"""The ladder by command on sessions: its decisions are remade by public methods, and what is tested steers nothing."""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tfkfin import recipe as recipes
from tfkfin.base.errors import InputError
from tfkfin.decoder.decision import Smoothed
from tfkfin.experiments import figures
from tfkfin.experiments.__main__ import parser, rows_of
from tfkfin.experiments.evaluation import Evaluation
from tfkfin.experiments.kinds import ladder
from tfkfin.experiments.ladder import rows
from tfkfin.experiments.report import holm
from tfkfin.experiments.runner import Runner
from tfkfin.fit.run import open_run

TINY = {"source.kind": "recordings", "window.length_ms": 60, "window.stride_ms": 60, "features.names": "ENT,RMS",
        "split.repetitions_per_session": 2, "split.train_sessions": "1-2", "split.test_sessions": 3,
        "source.note": "Nobody."}
ALONE = {"split.subjects": 1, "fin.units": 3, "fin.layers": 2, "fin.pretrained": "", "classify.epochs": 2,
         "finetune.windows_per_epoch": 32}
QUICK = ("best", "best_adapt", "tdar_lda", "tdar_lda_centred", "tdar_cov_lda", "riemann_lda", "riemann_lda_centred",
         "hierarchical")
REMAKE = Path(__file__).parents[2] / "benchmarks" / "remake.py"


def opened(data: Path, folder: Path, **settings):
    return open_run(recipes.load("ladder", TINY | settings | {"source.data": str(data)}), folder)


def run(data: Path, folder: Path, names=QUICK, **settings):
    Runner(opened(data, folder, **settings), 1, 0, names).run(["ladder"])
    return json.loads((folder / "results.json").read_text())


def remade(folder: Path, data: Path, *more: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(REMAKE), str(folder), "--data", str(data), *more], text=True,
                          capture_output=True, check=False)


@pytest.fixture(scope="module")
def climbed(tiny_db2, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ladder") / "run"
    return run(tiny_db2, folder, **{"window.rest": True}), folder


@pytest.fixture(scope="module")
def trained(tiny_db2, tmp_path_factory):
    """One person, FINs that begin at random, and the paper's head."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    return run(tiny_db2, folder, ("paper", "best_adapt"), **ALONE), folder


def test_results_are_what_outsiders_rely_on(climbed):
    results, folder = climbed
    assert results["recommended"] in results["rows"] and results["note"] == "Nobody."
    assert set(results["rungs"]) == set(results["smoothed"]) == {
        "random", "repetition-1", "session-0", "session-0u", "session-1", "person-0", "person-0u", "person-1"}
    for models in (*results["rungs"].values(), *results["smoothed"].values()):
        assert set(models) == set(QUICK)
        for numbers in models.values():
            assert set(numbers) == {"window", "execution", "false_per_minute"}
            for number in numbers.values():
                assert set(number) == {"mean", "low", "high", "per_subject"}
                assert number["mean"] == pytest.approx(np.mean(list(number["per_subject"].values())))
                assert number["low"] is number["high"] is None  # two people are too few for an interval
    assert results["rows"]["best_adapt"]["adapts"] and "preset" not in results["rows"]["tdar_lda"]
    text = (folder / "report.html").read_text()
    assert all(said in text for said in ("random windows (leaks)", "Every person", "smoothed alike", "Nobody."))
    assert (folder / "plots" / "ladder.png").stat().st_size


def test_numbers_are_of_the_decisions_that_are_kept(climbed):
    results, folder = climbed
    for name in ("tdar_lda", "best"):
        kept = np.load(folder / "cells" / f"ladder-{name}" / "plain" / "S1.npz")
        true, decided, segments, smoothed = kept["session-1"]
        moving = true > 0
        for way, labels in (("rungs", decided), ("smoothed", smoothed)):
            found = results[way]["session-1"][name]
            assert found["window"]["per_subject"]["1"] == pytest.approx(np.mean((true == labels)[moving]))
            assert 0 in true and found["false_per_minute"]["mean"] >= 0
        assert len(np.unique(segments[moving])) == 3  # one repetition of three movements: the other was known


def test_a_fresh_process_remakes_every_decision_by_public_methods(climbed, tiny_db2):
    """Rows that adapt and that do not, two people, every rung."""
    answer = remade(climbed[1], tiny_db2)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.count("same") == 2 * 2 * 8 and "DIFFERS" not in answer.stdout


def test_a_fresh_process_remakes_the_decisions_of_rows_that_are_trained(trained, tiny_db2):
    results, folder = trained
    assert results["rows"]["paper"]["updates"] == 2
    answer = remade(folder, tiny_db2)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.count("same") == 2 * 5


def test_another_adapter_is_found_out(tiny_db2, tmp_path, monkeypatch):
    """One that calibrates on a repetition that is decided too."""
    decide = rows.DecoderModel.decide

    def swapped(model, group):
        other = {id(t): type(t)(t.rung, t.stream, t.tested, t.known and t.stream.select(t.stream.repetitions[:1]),
                                t.labelled, t.drawn) for t in group.trials}
        for trial, answers in decide(model, type(group)(group.person, group.parts, tuple(other.values()))):
            yield trial, answers

    monkeypatch.setattr(rows.DecoderModel, "decide", swapped)
    settings = {"split.train_sessions": "1", "split.test_sessions": "2", "split.repetitions_per_session": 3,
                "split.subjects": 1}
    run(tiny_db2, tmp_path / "run", ("best", "best_adapt"), **settings)
    answer = remade(tmp_path / "run", tiny_db2)
    assert answer.returncode == 1
    differs = {line.split(", ")[2] for line in answer.stdout.splitlines() if line.startswith("DIFFERS")}
    assert differs and all(rung.endswith(("0u", "-1")) and "repetition" not in rung for rung in differs)


@pytest.mark.real
@pytest.mark.slow  # minutes
@pytest.mark.parametrize(("name", "settings"), [
    ("biopatrec10mov4ch", {"split.subjects": "1-2", "split.train_repetitions": "1,3", "split.test_repetitions": "2"}),
    ("wear30", {"split.subjects": "1", "split.repetitions_per_session": 4, "split.train_sessions": "1-5",
                "split.test_sessions": "6-8"})])
def test_decisions_on_recorded_people_are_remade(name, settings, real_sets, tmp_path):
    folder = next((folder for folder in real_sets if folder.name == name), None)
    if folder is None:
        pytest.skip(f"{name} is not there")
    recipe = recipes.load("ladder", settings | {"source.data": str(folder)})
    Runner(open_run(recipe, tmp_path / "run"), 1, 0, ("best", "best_adapt")).run(["ladder"])
    answer = remade(tmp_path / "run", folder)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_common_smoothing_by_its_formula():
    rng = np.random.default_rng(0)
    seen, smooth, now = rng.dirichlet(np.ones(3), 20), Smoothed(3), np.full(3, 1 / 3)
    for window, found in zip(seen, smooth(seen), strict=True):
        before = [sum(now[j] * (0.95 if i == j else 0.05 / 2) for j in range(3)) for i in range(3)]
        now = np.array(before) * window**0.5
        now /= now.sum()
        np.testing.assert_allclose(found, now)


def test_a_row_whose_networks_begin_at_random_is_the_same_in_another_process(trained, tmp_path):
    """FINs and the paper's head, after a kill, with other random numbers drawn before and one row done."""
    results, folder = trained
    shutil.copytree(folder, tmp_path / "run")
    for kept in (tmp_path / "run" / "cells" / "ladder-best_adapt" / "plain").glob("S1.*"):
        kept.unlink()
    (tmp_path / "run" / "results.json").unlink()
    keras.utils.set_random_seed(99)
    recipe = recipes.load(tmp_path / "run" / "recipe.toml")
    Runner(open_run(recipe, tmp_path / "run"), 1, 0, ("paper", "best_adapt")).run(["ladder"])
    again = json.loads((tmp_path / "run" / "results.json").read_text())
    assert again["rungs"] == results["rungs"] and again["smoothed"] == results["smoothed"]


def test_rows_stand_beside_those_that_are_there(climbed, tmp_path):
    results, folder = climbed
    shutil.copytree(folder, tmp_path / "run")
    recipe = recipes.load(tmp_path / "run" / "recipe.toml")
    Runner(open_run(recipe, tmp_path / "run"), 1, 0, ("cov_lda",)).run(["ladder"])
    again = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(again["rows"]) == {*QUICK, "cov_lda"}
    assert again["rungs"]["session-0"]["best"] == results["rungs"]["session-0"]["best"]


@pytest.mark.parametrize("name", ["best", "best_adapt", "tdar_lda", "tdar_cov_lda_centred", "riemann_lda",
                                  "riemann_lda_centred", "hierarchical"])
def test_what_is_tested_steers_nothing(name, tiny_db2, noisy_tests, tmp_path):
    """Fitted where the tested session is noise, a row decides a session of the training side bit for bit the same."""
    answers = []
    for data in (tiny_db2, noisy_tests):
        people = ladder.People(Runner(opened(data, tmp_path / f"run-{data.name}"), 1, 0).evaluation)
        probe = people.sessions[1][0]
        model, found = rows.model(rows.ROWS[name], people.recipe), {}
        for group in people.groups(1):
            kind = group.trials[-1].rung
            if kind in ("session-0", "person-0"):
                trial = type(group.trials[-1])(kind, probe, probe.repetitions)
                ((_, (one,)),) = model.decide(type(group)(group.person, group.parts, (trial,)))
                found[kind] = one.probabilities
        answers.append(found)
    assert answers[0].keys() == {"session-0", "person-0"}
    for kind, found in answers[0].items():
        np.testing.assert_array_equal(found, answers[1][kind])


def test_what_a_recipe_changes_goes_to_every_decoder():
    recipe = recipes.load("ladder", {"window.length_ms": 200, "fin.units": 5, "finetune.batch_size": 8, "seed": 3})
    for name in ("best", "paper"):
        made = rows.settings(rows.ROWS[name], recipe)
        assert made["window.length_ms"] == 200 and made["fin.units"] == 5 and made["seed"] == 3
        own = recipes.load(rows.ROWS[name].preset, made)
        assert own.window.length_ms == 200 and own.fin.units == 5 and own.window.stride_ms == 50
        assert own.classifier.kind == ("conv" if name == "paper" else "gaussian")
    assert recipes.load("own", rows.settings(rows.ROWS["paper_frozen"], recipe)).finetune.fin_learning_rate == 0
    assert rows.settings(rows.ROWS["no_fins"], recipe)["features.names"] == []
    assert "seed" in rows.settings(rows.ROWS["best"], recipes.load("ladder"))
    assert rows.updates(recipe) == recipe.finetune.epochs * recipe.finetune.windows_per_epoch / 8


def test_recipes_that_it_cannot_obey_are_refused():
    for settings, said in (({"classifier.vote": 3}, "window by window"), ({"classifier.kind": "gaussian"}, "own"),
                           ({"classifier.describe": "log_covariance"}, "own")):
        with pytest.raises(InputError, match=said):
            ladder.check(recipes.load("ladder", settings))
    ladder.check(recipes.load("ladder", TINY))


def test_rows_are_chosen_by_name():
    line = parser().parse_args(["ladder", "--rows", "tdar_lda, best"])
    assert rows_of(line) == ("best", "tdar_lda")  # in the table's order
    assert rows_of(parser().parse_args(["ladder"])) == ()
    for words, said in ((["ladder", "--rows", "worst"], "no row worst; there are"),
                        (["imitation", "--rows", "best"], "of the experiments ladder and faults")):
        with pytest.raises(InputError, match=said):
            rows_of(parser().parse_args(words))


def test_rows_are_left_out_without_their_library(monkeypatch, caplog):
    with monkeypatch.context() as patch, caplog.at_level("INFO", "tfkfin"):
        rows.available.cache_clear()
        patch.setattr(rows.baselines, "riemann_installed", lambda: False)
        without = rows.available()
        assert rows.available() is without
    rows.available.cache_clear()
    assert set(rows.available()) - set(without) == {"riemann_lda", "riemann_lda_centred"}
    assert [record.message for record in caplog.records if "tfkfin[riemann]" in record.message] == [
        "ladder: pyriemann is not installed, so two rows are left out: pip install 'tfkfin[riemann]'"]


def test_no_two_rows_look_alike():
    titles = [row.title for row in rows.ROWS.values()]
    figure = figures.ladder({name: [50.0, 60.0] for name in titles}, ["a", "b"], "nobody")
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == len(titles) == len(set(titles)) == len(figure.axes[0].get_legend().get_texts())
    assert len({(line.get_marker(), line.get_linestyle()) for line in figure.axes[0].lines}) == len(looks)  # no colour


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])  # statsmodels' multipletests says the same
    assert holm([0.9, 0.9]) == [1.0, 1.0]


def test_the_recommended_row_is_tested_against_the_others_over_people():
    better, worse = ({"window": {"per_subject": {str(s): value + s / 100 * steep for s in range(1, 8)}}}
                     for value, steep in ((0.5, 1), (0.4, 2)))
    nobody = SimpleNamespace(on="nobody", subjects=range(7))
    nobody.table = partial(Evaluation.table, nobody)
    tests = ladder.tested({"session-0": {"best": better, "tdar_lda": worse, "cov_lda": better}}, "best")
    made = ladder.tests_table(nobody, "ladder", tests, {name: row.title for name, row in rows.ROWS.items()}, "best")
    (_, title, difference, people, p), (*_, same) = made.rows
    assert (title, difference, people, same) == ("TD+AR, LDA", "+6.0", "7 of 7", "1.000") and "2 tests" in made.note
    assert float(p) == pytest.approx(2 * 2 / 2**7, abs=1e-3)  # the least that seven pairs can give, for two tests
