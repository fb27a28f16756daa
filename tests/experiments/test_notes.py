"""What reports say of how figures were made is what the recipe says; tests between models, by hand."""

from types import SimpleNamespace

import pytest
from scipy.stats import wilcoxon

from tfkfin import recipe as recipes
from tfkfin.experiments.evaluation import Evaluation
from tfkfin.experiments.kinds import finetune
from tfkfin.experiments.report import paired, text


@pytest.mark.parametrize(("pretrained", "learnt_from", "wanted"), [
    ("auto", set(), "from the shipped ones (conv), trained on no recording"), ("", set(), "from random weights"),
    ("runs/mine/imitate", set(), "from runs/mine/imitate"),
    ("runs/mine/pooled", {"0" * 16}, "from runs/mine/pooled, which labels of recordings taught")])
def test_where_fins_start_from(pretrained, learnt_from, wanted):
    recipe = recipes.load(settings={"fin.pretrained": pretrained, "fin.family": "conv"})
    started = Evaluation.started.fget(SimpleNamespace(recipe=recipe, run=SimpleNamespace(learnt_from=learnt_from)))
    assert started == wanted
    trust = text("ablation.trust", count=1, batch=1, fin_rate=1, head_rate=1, schedule="", more=1, started=started)
    assert trust[-1].endswith(f"FINs start {wanted}.")


@pytest.mark.parametrize(("cost", "wanted"), [
    ({}, "none"), ({"imitate": {"epochs": 0}}, "none"), ({"imitate": {"epochs": 3}}, "all")])
def test_whether_fins_were_trained_on_these_recordings(cost, wanted):
    evaluation = SimpleNamespace(recipe=recipes.load("own"), max_test_windows=0, optimistic=False)
    assert f"were trained on {wanted} of them before" in " ".join(finetune._trust(evaluation, cost))


def test_ties_are_no_wins():
    first, second = {s: v for s, v in enumerate((0.5, 0.6, 0.7, 0.8, 0.9))}, dict(enumerate((0.5, 0.5, 0.7, 0.9, 0.6)))
    test = paired(first, second | {99: 1.0})
    assert (test["pairs"], test["wins"], test["ties"]) == (5, 2, 2)
    assert test["p"] == pytest.approx(wilcoxon([0, 0.1, 0, -0.1, 0.3]).pvalue, abs=1e-6)
    assert paired(first, first)["p"] == 1 and paired(first, first)["ties"] == 5
