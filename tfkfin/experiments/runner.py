"""Runs experiments in one run folder and publishes the finished ones."""

import sys
import time
from collections.abc import Sequence
from functools import partial

from tfkfin.base.answers import answer, paper
from tfkfin.base.console import log
from tfkfin.base.files import write_text
from tfkfin.experiments import kinds
from tfkfin.experiments.evaluation import Evaluation
from tfkfin.experiments.fits import finish
from tfkfin.experiments.paper.estimators import Estimators
from tfkfin.experiments.paper.published import COLUMN, SOURCE
from tfkfin.experiments.report import Report, ReportTable, Result
from tfkfin.experiments.texts import text, texts
from tfkfin.fit.run import Run, environment


class Runner:
    """Experiments of one run; they share its fits and compiled models."""

    def __init__(self, run: Run, seeds: int, max_test_windows: int, rows: Sequence[str] = ()):
        self.evaluation = Evaluation(run, seeds, max_test_windows, rows)
        self.estimators, self.folder = Estimators(self.evaluation), run.folder

    def run(self, names: Sequence[str]) -> None:
        """Finishes the fits of experiments, and publishes after each, so that a long run shows results early."""
        for name in names:
            experiment, began = kinds.load(name), time.monotonic()
            work = partial(experiment.work, self.estimators) if experiment.work else self.estimators.work
            there = self._finished(experiment)
            finish(self.evaluation.ledger, experiment.fits(self.evaluation), work, name)
            log.info("%s: %.0f s", name, time.monotonic() - began)
            if not there or name == names[-1]:
                self.publish()

    def _finished(self, experiment: kinds.Experiment) -> bool:
        return all(self.evaluation.ledger.get(fit.key) for fit in experiment.fits(self.evaluation))

    def results(self, names: Sequence[str] = ()) -> list[Result]:
        """Of the named experiments whose fits are all finished; by default of all experiments."""
        every = [kinds.load(name) for name in kinds.summaries() if not names or name in names]
        return [one.result(self.evaluation, self.folder) for one in every if self._finished(one)]

    def publish(self) -> dict:
        """Writes report.md, report.html, plots and results.json; returns the content of the last."""
        evaluation, made = self.evaluation, self.results()
        papers = any(result.name in kinds.papers() for result in made)
        about = ": the paper's experiments" if papers else ""
        report = Report(f"Feature imitation networks{about} on {evaluation.data_name}", _intro(evaluation, papers),
                        _warnings(evaluation, papers), made)
        write_text(self.folder / "report.md", report.markdown())
        write_text(self.folder / "report.html", report.html())
        top: dict[str, dict] = {"rungs": {}} if any(result.top for result in made) else {}
        for result in made:  # the ladder and its ablation have other models on the same rungs
            for rung, models in result.top.get("rungs", {}).items():
                top["rungs"][rung] = top["rungs"].get(rung, {}) | models
            top |= {name: part for name, part in result.top.items() if name != "rungs"}
        return evaluation.run.ledger.put("results", _without_nan(top | {
            "experiments": {result.name: result.data for result in made}, "data": evaluation.data_name,
            "synthetic": evaluation.dataset.synthetic, "protocol": evaluation.recipe.protocol,
            "optimistic": evaluation.optimistic, "seeds": list(evaluation.seeds),
            "max_test_windows": evaluation.max_test_windows, "recipe_digest": evaluation.recipe.digest,
            "groups": {name: list(subjects) for name, (_, subjects) in evaluation.groups.items()},
            "dataset": evaluation.dataset.describe(), "environment": environment(),
        }))

    def show(self, names: Sequence[str]) -> None:
        """Prints the tables of the named experiments and where the report is."""
        from rich.markdown import Markdown

        answer(self.evaluation.run.ledger.of("results") | {"report": self.folder / "report.html"})
        console = paper(width=None if sys.stdout.isatty() else 160)
        for result in self.results(names):
            lines = [line for block in result.blocks if isinstance(block, ReportTable) for line in block.markdown()]
            lines = ["---", f"**{result.title}**", *lines, *result.finding, *result.warnings]
            console.print(Markdown("\n\n".join(lines)))
        console.print(f"\n{self.folder / 'report.html'}", soft_wrap=True)


def _intro(evaluation: Evaluation, papers: bool) -> list[str]:
    """`papers`: whether there are experiments of the paper's."""
    seeds, cap, fin = len(evaluation.seeds), evaluation.max_test_windows, evaluation.recipe.fin
    figures = text("intro.figures", data=evaluation.data_name, described=evaluation.described(),
                   protocol=evaluation.recipe.protocol, seeds=f"{seeds} seed{'s' * (seeds > 1)}",
                   capped=text("intro.capped", cap=cap) if cap else "", family=fin.family,
                   started={"": "from random weights", "auto": f"from the shipped ones ({fin.family})"}.get(
                       fin.pretrained, f"from {fin.pretrained}"))
    return [*texts("intro.papers" if papers else "intro.own", source=SOURCE, figures=figures),
            text("intro.made", digest=evaluation.recipe.digest, **environment())]


def _warnings(evaluation: Evaluation, papers: bool) -> list[str]:
    synthetic, data = evaluation.dataset.synthetic, evaluation.data_name
    other = papers and not synthetic and COLUMN.rpartition(" ")[2].lower() not in data.lower()
    shown = {"synthetic": synthetic, "other": other, "optimistic": evaluation.optimistic}
    return [text(f"warnings.{name}", data=data) for name, show in shown.items() if show]


def _without_nan(value):
    """NaN as null, since JSON has no NaN."""
    if isinstance(value, dict):
        return {str(key): _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and value != value else value
