"""The experiments: every number against an independent computation, resume by fit, and what a report must say."""

import base64
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rich.console
import scipy.io
import scipy.stats
import sklearn.discriminant_analysis
import sklearn.metrics
import sklearn.preprocessing
import sklearn.svm

from tfkfin import recipe as recipes
from tfkfin.base.errors import InputError
from tfkfin.experiments import __main__ as command
from tfkfin.experiments import kinds, report
from tfkfin.experiments.evaluation import Fit, Setting, targets, usable
from tfkfin.experiments.kinds import imitation
from tfkfin.experiments.paper import estimators, published
from tfkfin.experiments.runner import Runner
from tfkfin.fit import baselines, training
from tfkfin.fit.run import open_run
from tfkfin.pipeline import dataset as datasets
from tfkfin.signal import condition

TINY = {"source.kind": "recordings", "fin.family": "dense", "fin.units": 4, "fin.layers": 1, "fin.pretrained": "",
        "features.names": "VAR,SSI", "window.length_ms": 100, "window.stride_ms": 50, "imitate.epochs": 1,
        "imitate.windows_per_epoch": 32, "classify.epochs": 3, "finetune.windows_per_epoch": 32, "finetune.epochs": 2}


def tiny(folder: Path, **settings):
    return recipes.load(None, TINY | {"source.data": str(folder)} | settings)


@pytest.fixture(scope="module", autouse=True)
def fewer():
    """Fewer fractions and horizons than the paper's, for time."""
    assert published.FRACTIONS == [20, 40, 60, 80, 100] and published.HORIZONS_MS == [0, 50, 100, 150, 200, 250, 300]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "FRACTIONS", (20, 100))
        patch.setattr(published, "HORIZONS_MS", (0, 300))
        yield


@pytest.fixture(scope="module")
def runner(tiny_db2, tmp_path_factory) -> Runner:
    """All experiments, finished, on two synthetic subjects with one seed; raw models on 20 test windows each."""
    made = Runner(open_run(tiny(tiny_db2), tmp_path_factory.mktemp("runner") / "run"), 1, 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made, "publish", lambda: None)  # plots take long, and the last experiment's report has them all
        made.run(kinds.papers()[:-1])
    made.run(kinds.papers())
    return made


@pytest.fixture(scope="module")
def results(runner) -> dict:
    return json.loads((runner.folder / "results.json").read_text("utf-8"))


# === Numbers, against independent computations ===

def test_papers_metrics_on_three_windows_by_hand():
    true, imitated = np.array([[1.0], [2.0], [6.0]]), np.array([[1.0], [3.0], [5.0]])  # mean 3
    scores = imitation.scored(true, imitated, ("RMS",))["RMS"]
    assert scores["paper_r2"] == pytest.approx((1 + 0 + 8 / 9) / 3)  # 1 - 0/4, 1 - 1/1, 1 - 1/9
    assert scores["paper_map"] == pytest.approx(100 * (1 + 0 + 2 / 3) / 3)  # 1 - 0/2, 1 - 1/1, 1 - 1/3
    assert scores["r2"] == pytest.approx(1 - 2 / 14)
    assert scores["nrmse"] == pytest.approx(np.sqrt(2 / 3) / np.sqrt(14 / 3))
    assert scores["spearman"] == 1.0


def test_papers_tables_are_its_own():
    assert published.TABLE_1["SSI"] == {"r2": [0.96, 0.14], "map": [88.62, 14.43]}
    assert published.accuracy("fin", "all") == "71.80 ± 9.89"
    assert published.accuracy("scratch", "cross") == "45.41 ± 6.33"
    assert published.accuracy("td_lda", "all") == "not in the paper"
    assert published.TABLE_3["fin"] == [4, 58.0]


def test_paired_test_is_scipys():
    rng = np.random.default_rng(0)
    one = {(s, k): float(v) for (s, k), v in zip(np.ndindex(6, 2), rng.normal(0.1, 1, 12), strict=True)}
    other = {key: 0.0 for key in one} | {(99, 0): 1.0}
    found, wanted = report.paired(one, other), scipy.stats.wilcoxon(list(one.values()))
    assert (found["pairs"], found["p"], found["statistic"]) == (12, wanted.pvalue, wanted.statistic)
    assert found["wins"] == sum(v > 0 for v in one.values())
    five = report.paired({i: i + 1.0 for i in range(5)}, dict.fromkeys(range(5), 0.0))
    assert five["p"] == five["least_p"] == 2 / 2**5
    assert report.paired({1: 0.5, 2: 0.5}, {1: 0.5, 2: 0.5})["p"] == 1.0
    spread = report.over_subjects({(1, 7): 0.0, (1, 8): 1.0, (2, 7): 1.0, (3, 7): float("nan")})
    assert spread == {"mean": 0.75, "std": 0.25, "per_subject": {"1": 0.5, "2": 1.0}}


def test_classical_models_are_scikit_learns(runner):
    evaluation = runner.evaluation
    for name, make, names in (
            ("svm", lambda: sklearn.svm.SVC(C=10), evaluation.names),
            ("td_lda", lambda: sklearn.discriminant_analysis.LinearDiscriminantAnalysis(
                solver="eigen", shrinkage="auto"), ("MAV", "WL", "ZC", "SSC", "AR1", "AR2", "AR3", "AR4"))):
        subject = evaluation.dataset.load(1)
        train, test = (subject.select(r) for r in ((1, 3, 4, 6), (2, 5)))
        x, z = (p.features(names, 200, 2000.0).reshape(len(p.windows), -1) for p in (train, test))
        scale = sklearn.preprocessing.StandardScaler().fit(x)
        predicted = make().fit(scale.transform(x), train.windows.movements).predict(scale.transform(z))
        kept, arrays = evaluation.ledger.get(Fit(1, name).key), evaluation.ledger.arrays(Fit(1, name).key)
        np.testing.assert_array_equal(arrays["predicted"], predicted)
        assert kept["accuracy"] == pytest.approx(np.mean(predicted == test.windows.movements))
        assert kept["macro_f1"] == pytest.approx(
            sklearn.metrics.f1_score(test.windows.movements, predicted, average="macro"))
    assert baselines.TIME_DOMAIN[:4] == ("MAV", "WL", "ZC", "SSC")


def test_results_follow_from_the_kept_predictions(runner, results):
    for experiment, model in (("downstream", "cnn1"), ("downstream", "cnn2"), ("finetune", "fin"),
                              ("finetune", "random_frozen")):
        arrays = [runner.evaluation.ledger.arrays(Fit(s, model, seed=7).key) for s in (1, 2)]
        accuracy = [np.mean(a["true"] == a["predicted"]) for a in arrays]
        f1 = [sklearn.metrics.f1_score(a["true"], a["predicted"], average="macro", zero_division=0) for a in arrays]
        kept = results["experiments"][experiment]["groups"]["all"][model]
        assert kept["accuracy"]["mean"] == pytest.approx(np.mean(accuracy))
        assert kept["accuracy"]["std"] == pytest.approx(np.std(accuracy))
        assert kept["macro_f1"]["per_subject"] == pytest.approx({"1": f1[0], "2": f1[1]})
    later = results["experiments"]["forward"]["groups"]["all"]["300"]["fin"]
    changed = []
    for s in (1, 2):
        a = runner.evaluation.ledger.arrays(Fit(s, "fin", Setting(horizon_ms=300), 7).key)
        at = a["own"] != a["true"]
        changed.append(np.mean(a["true"][at] == a["predicted"][at]))
    assert later["changed"]["mean"] == pytest.approx(np.mean(changed))
    cost = results["experiments"]["finetune"]["cost"]
    assert cost["fin"]["epochs"] == 2 and cost["imitate"]["epochs"] == 1 and cost["cnn2"]["seconds_an_epoch"] > 0


def test_plain_fits_are_what_train_gives(runner, tiny_db2, tmp_path):
    from tfkfin.fit.stages import run_stage

    run = open_run(tiny(tiny_db2), tmp_path / "train")
    scores = run_stage(run, "classify")
    for s in (1, 2):
        cnn2, svm = (runner.evaluation.ledger.get(fit.key) for fit in (Fit(s, "cnn2", seed=7), Fit(s, "svm")))
        assert cnn2["accuracy"] == scores["accuracy"]["per_subject"][str(s)]
        assert svm["accuracy"] == scores["svm"]["per_subject"][str(s)]


def test_ssi_is_said_to_be_variance_again(runner, results):
    tied = results["experiments"]["imitation"]["ssi_and_var"]
    subject = runner.evaluation.dataset.load(1)
    x = subject.select((2, 5)).cut(200)[:20].astype(float)
    assert tied["length"] == 200
    assert tied["median_ratio"] == pytest.approx(np.median((x**2).sum(1) / x.var(1)), rel=0.02)
    assert tied["correlation"] > 0.999 and tied["r2_of_length_times_var"] > 0.99
    assert "SSI and VAR are nearly one feature" in (runner.folder / "report.md").read_text("utf-8")


# === Who learns from what ===

@pytest.mark.parametrize("rest", [False, True])
def test_labels_ahead_by_brute_force(tiny_db2, rest):
    recipe = tiny(tiny_db2, **{"window.rest": rest})
    data = datasets.open_dataset(recipe, tiny_db2)
    subject = data.load(2)
    ahead, owner = targets(data, subject, 150)
    kept = usable(data.split, subject.windows.repetitions, owner)
    mat = scipy.io.loadmat(next(tiny_db2.rglob("S2_E1_A1.mat")))
    labels, reps = mat["restimulus"].ravel().astype(int), mat["rerepetition"].ravel().astype(int)
    wanted, seen, last = [], 0, 0
    runs = np.flatnonzero(np.diff(1000 * labels + reps)) + 1
    for begin, end in zip([0, *runs], [*runs, len(labels)], strict=True):
        last = reps[begin] if labels[begin] else last
        if not last or not (labels[begin] or rest):
            continue
        for start in range(begin, end - 200 + 1, 100):
            at = start + 199 + 300  # 150 ms after the window's last sample
            before = next(reps[t] for t in range(at, -1, -1) if labels[t] > 0) if at < len(labels) else 0
            same_side = before > 0 and (before in (2, 5)) == (last in (2, 5))
            wanted.append((labels[min(at, len(labels) - 1)], same_side))
    assert len(wanted) == len(subject.windows)
    np.testing.assert_array_equal(kept, [good for _, good in wanted])
    np.testing.assert_array_equal(ahead[kept], [label for label, good in wanted if good])
    assert 0 < np.mean(ahead[kept] != subject.windows.movements[kept]) < 1
    seen = set(zip(subject.windows.movements[kept].tolist(), ahead[kept].tolist(), strict=True))
    assert any(own and not then for own, then in seen)  # movements end
    assert rest == any(then and not own for own, then in seen)  # they begin only where rest is looked at


SETTINGS = [Setting(), Setting(fraction=20), Setting(fraction=60), Setting(repetitions=1), Setting(repetitions=3),
            Setting(horizon_ms=200)]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.slug)
def test_training_and_test_share_no_sample(runner, setting):
    fit = Fit(1, "fin", setting, 8)
    used = {}
    for side in ("train", "finetune", "test"):
        part = runner.evaluation.examples(fit, side).part
        used[side] = set((part.windows.starts[:, None] + np.arange(200)).ravel().tolist())
        assert used[side]
    assert not used["train"] & used["test"] and not used["finetune"] & used["test"]
    full = runner.evaluation.examples(Fit(1, "fin"), "test")
    if not setting.horizon_ms:
        np.testing.assert_array_equal(runner.evaluation.examples(fit, "test").labels, full.labels)


def test_less_data_is_less_time_and_repetitions_rotate_with_the_seed(runner):
    def windows(seed=7, **setting):
        return runner.evaluation.examples(Fit(1, "fin", Setting(**setting), seed), "train").part.windows

    every = windows()
    for share in (20, 60):
        part = windows(fraction=share)
        for movement in (1, 2, 3):
            for repetition in (1, 3, 4, 6):
                whole, first = (w.starts[(w.movements == movement) & (w.repetitions == repetition)]
                                for w in (every, part))
                np.testing.assert_array_equal(first, whole[: max(1, round(share / 100 * len(whole)))])
    assert [set(windows(seed, repetitions=1).repetitions) for seed in (7, 8, 11)] == [{1}, {3}, {1}]
    assert set(windows(9, repetitions=3).repetitions) == {4, 6, 1}
    counts = [len(windows(repetitions=r)) for r in (1, 2, 4)]
    assert max(counts) - min(counts) <= 3 * 4  # a window or less a held movement


# === The paper's protocol ===

@pytest.fixture(scope="module")
def flattering(tiny_db2, tmp_path_factory) -> Runner:
    recipe = tiny(tiny_db2, protocol="paper", **{"classify.batch_size": 25, "split.subjects": [2]})
    made = Runner(open_run(recipe, tmp_path_factory.mktemp("paper") / "run"), 1, 0)
    made.run(["downstream"])
    return made


def test_papers_protocol_is_marked_wherever_it_is_shown(flattering, runner):
    text, page = ((flattering.folder / f"report.{kind}").read_text("utf-8") for kind in ("md", "html"))
    assert "OPTIMISTIC protocol" in text and "OPTIMISTIC protocol" in page
    for title in re.findall(r"^\*\*(.*ours: .*)\*\*$", text, re.M):
        assert "optimistic" in title
    results = json.loads((flattering.folder / "results.json").read_text("utf-8"))
    assert results["optimistic"] is True and results["protocol"] == "paper"
    fits = kinds.load("downstream").fits(flattering.evaluation)
    assert fits and all(flattering.evaluation.ledger.get(fit.key)["optimistic"] for fit in fits)
    assert "OPTIMISTIC" not in (runner.folder / "report.md").read_text("utf-8")


def test_papers_protocol_drops_the_last_batch_and_scales_the_test_by_itself(flattering):
    evaluation = flattering.evaluation
    test = evaluation.examples(Fit(2, "cnn2", seed=7), "test")
    kept = evaluation.ledger.arrays(Fit(2, "cnn2", seed=7).key)
    assert len(kept["true"]) == len(test.labels) // 25 * 25 < len(test.labels)
    assert evaluation.ledger.get(Fit(2, "cnn2", seed=7).key)["epochs"] <= 3
    samples = np.unique(test.part.windows.starts[:, None] + np.arange(200))
    scaled = test.part.standardised()[samples]
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(0), 1, atol=1e-5)
    np.testing.assert_allclose(test.features[:, :, 0], test.part.cut(200).var(1), rtol=1e-4)


def test_the_best_epoch_on_test_is_kept_and_leaves_no_trace():
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization(), keras.layers.Softmax()])
    x = np.random.default_rng(0).normal(3, 2, (7, 2)).astype(np.float32)
    labels = (x[:, 1] - x[:, 1].mean() > x[:, 0] - x[:, 0].mean()).astype(int)
    watch = estimators.BestOnTest(lambda chosen: x[chosen], labels, 5, 0)
    watch.set_model(model)
    before = [np.copy(w) for w in model.get_weights()]
    watch.on_epoch_end(0)
    inside = x[watch.chosen]
    assert len(inside) == 5  # 2 of 7 fill no batch
    wanted = ((inside - inside.mean(0)) / np.sqrt(inside.var(0) + 1e-3)).argmax(1)  # the batch's own statistics
    epoch, accuracy, predicted = watch.best
    np.testing.assert_array_equal(predicted, wanted)
    assert (epoch, accuracy) == (1, np.mean(wanted == labels[watch.chosen]))
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


# === Resume ===

def test_a_finished_fit_is_never_run_again(runner, tiny_db2):
    lost = runner.evaluation.ledger.path(Fit(2, "cnn2", seed=7).key, ".json")
    was = json.loads(lost.read_text("utf-8"))
    lost.unlink()  # as if killed before it was finished
    before = {path: path.stat().st_mtime_ns for path in (runner.folder / "cells").rglob("S*.json")}
    again = Runner(open_run(tiny(tiny_db2), runner.folder), 1, 20)
    again.run(["downstream"])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    now = json.loads(lost.read_text("utf-8"))
    assert {k: v for k, v in now.items() if "seconds" not in k} == {k: v for k, v in was.items() if "seconds" not in k}


def test_experiments_share_fits(runner):
    shared = set(kinds.load("finetune").fits(runner.evaluation))
    assert Fit(1, "fin", seed=7) in shared & set(kinds.load("efficiency").fits(runner.evaluation))
    assert Fit(1, "fin", seed=7) in shared & set(kinds.load("forward").fits(runner.evaluation))
    assert len(list((runner.folder / "features").glob("*.npy"))) == 4  # two sets of features, two recordings


def test_other_options_do_not_touch_the_fits(runner, tiny_db2):
    with pytest.raises(InputError, match="max_test_windows was 20"):
        Runner(open_run(tiny(tiny_db2), runner.folder), 1, 30)


# === Reports ===

def test_report_names_the_data_and_the_paper_in_every_table(runner, results):
    text = (runner.folder / "report.md").read_text("utf-8")
    assert "Synthetic recordings: nobody was recorded" in text and "How far to trust it" in text
    headers = re.findall(r"^(\|.*\|)\n\| ---", text, re.M)
    titles = re.findall(r"^\*\*(.*)\*\*\n\n\|", text, re.M)
    assert len(headers) == len(titles) >= 9
    assert all("paper" in header and "ours" in header for header in headers)
    assert all("paper: Ninapro DB2; ours: synthetic recordings" in title for title in titles)
    assert "65.70" not in text  # two subjects are one group: no row of the paper's within-subject figures
    assert set(results["experiments"]) == set(kinds.papers()) and results["synthetic"] is True
    assert results["data"] == "synthetic recordings" and results["optimistic"] is False


def test_html_is_one_file_with_its_plots(runner):
    text = (runner.folder / "report.html").read_text("utf-8")
    images = re.findall(r'src="([^"]*)"', text)
    assert len(images) == len(list((runner.folder / "plots").glob("*.png"))) - 1  # one is the stage's own
    for image in images:
        assert base64.b64decode(image.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    words = re.sub(r"data:[^\"]*", "", text)  # base64 may hold any letters by chance
    assert not any(word in words for word in ("http", "<script", "<link", "@import", "url(", "NaN"))
    assert re.findall(r'<li><a href="#(\w+)"', text) == re.findall(r'<h2 id="(\w+)"', text) == [
        "imitation", "downstream", "finetune", "efficiency", "forward"]


def test_markup_in_texts_is_shown_as_it_is(tmp_path):
    plot = report.Plot(tmp_path / "a.png", 'a "quoted" <i>caption</i>')
    plot.path.write_bytes(b"\x89PNG" + bytes(12) + (300).to_bytes(4, "big"))
    rows = [["<b>", "g & h", "1.0", "x"], ["c", "other", "2.0", "y"]]
    table = report.ReportTable("<t>", ["model", "subjects", "paper <1>", "ours"], rows)
    one = report.Result("name", "A <title>", ["5 < 6"], [table, plot], ["</ul>"], {}, ["<script>"])
    text = report.Report("all <of it>", ["&amp;"], [], [one]).html()
    root = ElementTree.fromstring(re.sub(r"<(meta|img)([^>]*)>", r"<\1\2/>", text.partition("\n")[2]))
    assert root.find("head/title").text == "all <of it>" and root.find("body/p").text == "&amp;"
    assert [p.text for p in root.iter("p")] == ["&amp;", "5 < 6", "<script>"]
    assert [[cell.text for cell in row] for row in root.iter("tr")] == [list(table.columns), *rows]
    assert len(root.findall(".//tbody")) == 2  # one a group of subjects
    assert root.find(".//img").get("alt") == plot.caption and root.find(".//img").get("width") == "192"  # 300 at 96/150
    assert [cell.get("class") for cell in root.find(".//tbody/tr")] == ["text", "text", "paper", "text"]


def test_groups_are_who_pretrained_and_who_did_not(runner, tiny_db2, tmp_path):
    recipe = tiny(tiny_db2, **{"split.pretrain_subjects": [1]})
    groups = Runner(open_run(recipe, tmp_path / "run"), 1, 0).evaluation.groups
    assert {name: subjects for name, (_, subjects) in groups.items()} == {"within": (1,), "cross": (2,), "all": (1, 2)}
    assert list(runner.evaluation.groups) == ["all"]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_tables_on_a_terminal_lose_no_figure_and_no_word(runner, width):
    """Of every experiment, and of one with intervals, which a narrow terminal does without."""
    tables = [block for result in runner.results() for block in result.blocks if isinstance(block, report.ReportTable)]
    cells = [f"9{i}.5 (9{i}.1–9{i}.9)" for i in range(9)]
    wide = report.ReportTable("Wide", ["row", *(f"column number {i}" for i in range(9))],
                              [["usual features, LDA", *cells]], "Means.", False)
    for table in (*tables, wide):
        console = rich.console.Console(width=width, file=io.StringIO())
        console.print(*table.printed(width), sep="\n")
        lines = console.file.getvalue().splitlines()
        assert max(map(len, lines)) <= width and "…" not in "".join(lines)
        for text in (table.title, *table.columns, *(cell for row in table.rows for cell in row), table.note):
            said = "".join(lines).replace(" ", "")
            assert all(word in said for word in re.sub(r" \(.*\)$", "", text).split()), text
    assert ("(90.1–90.9)" in "".join(lines)) == (width == 200)


def test_a_table_without_the_papers_column_is_refused():
    with pytest.raises(ValueError, match="must have the paper's"):
        report.ReportTable("mine", ["model", "ours"], [["a", "1"]])
    table = report.ReportTable("t", ["model", "subjects", "paper", "ours"], [["a", "all", "1", "2"]])
    assert table.columns == ["model", "paper", "ours"] and table.note == "Subjects: all."


# === The command line ===

def test_command_line_resolves_as_train_does():
    def resolved(*arguments):
        return command.resolve(command.parser().parse_args(arguments))

    recipe, folder, seeds, cap = resolved("all")  # the demo is quick
    assert (recipe.finetune.windows_per_epoch, seeds, cap) == (64, 1, 96)
    assert folder == Path("runs", f"experiments-demo-{recipe.digest}")
    recipe, folder, seeds, cap = resolved("finetune", "--data", "x", "--protocol", "paper", "--set",
                                          "split.train_repetitions=1,3", "--subjects", "1-3", "--run", "here")
    assert (recipe.protocol, recipe.split.train_repetitions, recipe.split.subjects) == ("paper", (1, 3), (1, 2, 3))
    assert (recipe.finetune.windows_per_epoch, seeds, cap, folder) == (256, 3, 0, Path("here"))
    with pytest.raises(InputError, match="--seeds takes 1 or more"):
        resolved("all", "--seeds", "0")
    with pytest.raises(InputError, match="experiments need recordings"):
        resolved("all", "--pipeline", "fin_bilstm")


def test_experiments_register_themselves_and_say_what_they_are_about(monkeypatch):
    there = kinds.summaries()
    assert list(there) == ["imitation", "downstream", "finetune", "efficiency", "forward", "ablation", "faults",
                           "ladder"]
    assert list(kinds.papers()) == list(there)[:5]
    shown = command.parser().format_help()
    assert all(summary in shown for summary in there.values())
    for name in kinds.papers():
        made = kinds.load(name)
        assert made.check in (kinds.papers_models, kinds.finetuned)
    unfit = recipes.load(None, {"finetune.epochs": 0})
    kinds.load("downstream").check(unfit)
    with pytest.raises(InputError, match="finetune.epochs is 0"):
        kinds.load("finetune").check(unfit)
    with pytest.raises(InputError, match="score its conv classifier"):
        kinds.load("imitation").check(recipes.load(None, {"classifier.vote": 3}))


def test_a_recipe_of_another_head_is_refused_by_every_experiment_before_work_begins(tiny_db2):
    solved = recipes.load("best_fins", {"source.data": str(tiny_db2)})
    for name in kinds.summaries():
        with pytest.raises(InputError, match="classifier.kind=conv"):
            kinds.load(name).check(solved)


def test_a_further_experiment_is_one_module(runner, tiny_db2, tmp_path, monkeypatch):
    """Its own work, and what it puts at the top of results.json."""
    def work(estimators, fit):
        return {"double": 2 * fit.subject}, {"start": np.arange(3)}

    def result(evaluation):
        doubled = evaluation.values("imitation", Setting(fraction=7), "double")[2, None]
        return report.Result("ladder", "6. Ladder", [], [], [], {"a": 1}, top={"rungs": {"random": {"it": doubled}}})

    made = kinds.Experiment(lambda evaluation: evaluation.fits(["imitation"], [Setting(fraction=7)]), result,
                                  kinds.papers_models, work)
    monkeypatch.setattr(kinds, "load", lambda name: made)
    monkeypatch.setattr(kinds, "summaries", lambda: {"ladder": "Experiment 6"})
    other = Runner(open_run(tiny(tiny_db2), tmp_path / "run"), 1, 20)
    other.run(["ladder"])
    results = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    assert results["rungs"] == {"random": {"it": 4}} and results["experiments"] == {"ladder": {"a": 1}}


def test_how_long_it_takes_is_said_before_the_first_fit(tiny_db2, tmp_path, monkeypatch, caplog):
    """By a few steps of each model, from which no fit differs (`test_plain_fits_are_what_train_gives`)."""
    takes = {"svm": 0.0, "lda": 0.0, "td_svm": 0.0, "td_lda": 0.0, "cnn1": 60.0, "cnn2": 120.0}
    monkeypatch.setattr(estimators.Estimators, "expected", lambda self, fit: takes[fit.model])
    monkeypatch.setattr(estimators.Estimators, "work", lambda self, fit: ({"accuracy": 0.5}, {}))
    made = Runner(open_run(tiny(tiny_db2), tmp_path / "run"), 3, 20)
    monkeypatch.setattr(made, "publish", lambda: None)
    with caplog.at_level("INFO", "tfkfin"):
        made.run(["downstream"])
        said = list(caplog.messages)
        made.run(["downstream"])
    assert said[0] == f"{2 * (4 + 2 * 3)} fits: about 18 min in all" and "1/20" in said[2]  # 2 people, 3 seeds
    assert "in all" not in "".join(caplog.messages[1:])


@pytest.mark.parametrize("model", [*estimators.CLASSICAL, "cnn1", "cnn2", "random", "scratch", "fin_frozen"])
def test_a_few_steps_tell_how_long_a_model_takes(runner, model, monkeypatch):
    """Each step is taken to last a second, and tests no time; two steps are done."""
    def seconds(fit):
        with pytest.raises(training._Probed):
            fit([probe := training._Probe()])
        assert len(probe.ends) == 2
        return probe.params["epochs"] * probe.params["steps"]

    monkeypatch.setattr(training, "TIMED", 2)
    monkeypatch.setattr(training, "seconds_of", seconds)
    monkeypatch.setattr(estimators.Estimators, "_outputs", lambda *_: None)
    evaluation = runner.evaluation
    got = runner.estimators.expected(evaluation.fit(model, 1, evaluation.seeds[0]))
    head = 3 * -(-len(evaluation.examples(Fit(1, "svm"), "train").labels) // evaluation.recipe.classify.batch_size)
    whole = 2 * -(-32 // evaluation.recipe.finetune.batch_size)
    wanted = {"cnn1": head, "cnn2": head, "random": whole + head, "scratch": whole, "fin_frozen": whole}
    assert got == pytest.approx(wanted.get(model, 0), abs=0.1)


@pytest.mark.parametrize("seconds, said", [(1.0, "about 1 s left"), (600.0, "about 10 min left"),
                                           (9000.0, "about 2.5 h left")])
def test_the_time_that_is_left_is_said_in_units_that_people_read(seconds, said, monkeypatch, caplog):
    from tfkfin.experiments import evaluation

    now, kept = [0.0], {}
    monkeypatch.setattr(evaluation.time, "monotonic", lambda: now[0])

    class Kept:
        get, put = staticmethod(kept.get), staticmethod(lambda key, *_: kept.update({key: {}}))

    def work(fit):
        now[0] += seconds
        for electrode in (1, 2):
            evaluation.log.warning("warning: %s: noise (%d)", condition.UNLIKE, electrode)
            evaluation.log.warning("warning: S1_A1_E1.mat: a remark that begins as others do: %d", electrode)
        return {"accuracy": 0.5}, {}

    with caplog.at_level("INFO", "tfkfin"):
        evaluation.finish(Kept, [Fit(subject, "svm") for subject in (1, 2)], work, "downstream")
    assert said in "".join(caplog.messages[: caplog.messages.index("warning: %s: noise (1)" % condition.UNLIKE, 2)])
    assert sum(condition.UNLIKE in text for text in caplog.messages) == 2  # one for each person
    assert sum("a remark" in text for text in caplog.messages) == 4  # all others
