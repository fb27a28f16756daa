"""The paper's metrics are checked on three elements worked by hand, true R² and confusion against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, r2_score

from tfkfin import recipe as recipes
from tfkfin.fit import board, metrics

rng = np.random.default_rng(3)


def test_r2_is_scikit_learns():
    true, predicted = rng.normal(size=(2, 200, 3))
    assert metrics.r2(true, predicted) == pytest.approx(r2_score(true.ravel(), predicted.ravel()))
    assert np.isnan(metrics.r2(np.ones(4), np.zeros(4)))


def test_macro_f1_is_scikit_learns():
    true, decided = rng.integers(0, 4, (2, 300))
    counts = confusion_matrix(true, decided)
    assert metrics.macro_f1(counts) == pytest.approx(f1_score(true, decided, average="macro"))
    assert metrics.macro_f1(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])) == pytest.approx((6 / 7 + 8 / 9) / 2)


def test_nrmse_of_a_known_case():
    assert metrics.nrmse([0.0, 2.0], [1.0, 3.0]) == pytest.approx(1.0)  # error 1, sd 1


def test_paper_metrics_by_hand():
    # z-scores of (1, 2, 3): mean 2, sd sqrt(2/3); the predictions are scaled alike.
    true, predicted = np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.0, 6.0])
    # elementwise (ŷ-y)²/(y-ȳ)²: 0.25/1, 0/0 counts as right, 9/1 clipped to 0 -> (0.75 + 1 + 0) / 3
    assert metrics.paper_r2(true, predicted) == pytest.approx((0.75 + 1 + 0) / 3)
    # |ŷ-y|/|y| in z: 0.5/1, 0/0 counts as right, 3/1 -> (50 + 100 + 0) / 3
    assert metrics.paper_map(true, predicted) == pytest.approx((50 + 100 + 0) / 3)


def test_perfect_imitation():
    true = rng.normal(size=(50, 2, 2))
    scores = metrics.imitation(true, true, ("A", "B"))["B"]
    assert scores["r2"] == 1 and scores["paper_r2"] == 1 and scores["paper_map"] == 100


def test_confusion_is_scikit_learns():
    labels = [1, 2, 4, 9]
    true, predicted = rng.choice(labels, (2, 300))
    np.testing.assert_array_equal(metrics.confusion(true, predicted, labels), confusion_matrix(true, predicted))


TRUE = np.array([0, 0, 0, 0, 1, 1, 1, 0, 0, 2, 2, 2, 2])
DECIDED = np.array([0, 1, 1, 2, 2, 1, 1, 1, 0, 2, -1, -1, 2])
SEGMENTS = np.repeat([0, 1, 2, 3], [4, 3, 2, 4])


def test_three_numbers_by_hand():
    assert metrics.window_accuracy(TRUE, DECIDED) == pytest.approx(4 / 7)  # rest does not count, rejections are wrong
    assert metrics.execution_accuracy(TRUE, DECIDED, SEGMENTS) == 0.5  # 1 is decided for most; 2 is a tie with -1
    # runs that begin in rest: 1 at the second window, 2 at the fourth; the 1 that goes on into rest began before it
    assert metrics.false_activations(TRUE, DECIDED, 0.05) == pytest.approx(2 / (6 * 0.05 / 60))
    assert metrics.false_activations(np.array([1, 2]), np.array([1, 1]), 0.05) is None
    assert metrics.execution_accuracy(np.array([1, 1]), np.array([-1, 1]), np.zeros(2)) == 0.0


def test_intervals_are_over_people_and_need_six():
    few = metrics.over_people({s: 0.1 * s for s in range(5)})
    assert (few["low"], few["high"]) == (None, None) and few["mean"] == pytest.approx(0.2)
    values = {s: float(v) for s, v in enumerate(rng.normal(0.8, 0.1, 40))}
    many = metrics.over_people(values | {99: None})
    normal = 1.96 * np.std(list(values.values())) / np.sqrt(40)
    assert many["mean"] - many["low"] == pytest.approx(normal, rel=0.2)
    assert many["high"] - many["mean"] == pytest.approx(normal, rel=0.2) and many["per_subject"]["99"] is None
    assert many == metrics.over_people(values | {99: None})


def test_every_key_in_which_runs_differ_is_a_column(tmp_path):
    """As TensorBoard's own plugin reads two runs of unlike recipes, two stages each."""
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import backend_context, metadata

    for name, settings in (("one", {}), ("two", {"seed": 11, "classifier.kind": "linear"})):
        for stage, accuracy in (("classify", 0.5), ("finetune", 0.75)):
            with board.Summaries(str(tmp_path / name / stage)) as shown:
                shown.hparams(recipes.load("best", settings), stage, {"accuracy": accuracy})
    multiplexer = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    context = backend_context.Context(base_plugin.TBContext(
        data_provider=data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))))
    asked = RequestContext()
    tags = context.hparams_metadata(asked, "")
    found = context.experiment_from_metadata(asked, "", True, tags, context.hparams_from_data_provider(asked, "", 0), 0)
    differing = {info.name for info in found.hparam_infos if info.differs}
    assert differing == {"seed", "classifier.kind", "stage"}
    assert {metric.name.tag for metric in found.metric_infos} == {"accuracy"}
    groups = {run: metadata.parse_session_start_info_plugin_data(of[metadata.SESSION_START_INFO_TAG]).group_name
              for run, of in tags.items()}
    assert len(set(groups.values())) == 4  # no accuracy is the mean of two stages


def test_fewer_right_is_a_sign_test_over_executions():
    """By hand: 5 of 5 worse have p = 1 / 32, 4 of 4 have 1 / 16, 6 of 7 have 8 / 128."""
    def found(*changes):
        segments = np.repeat(np.arange(len(changes)), 4)
        before = np.tile([True, True, False, False], len(changes))
        after = np.concatenate([np.arange(4) < 2 + change for change in changes])
        return metrics.fewer_right(before, after, segments)

    assert found(*[-1] * 5) and found(*[-1] * 5, 0, 0) and found(*[-2] * 8, 1)
    assert not found(*[-1] * 4) and not found(*[-1] * 6, 1) and not found(1, 1, 1, 1, 1, 1) and not found(0, 0)
