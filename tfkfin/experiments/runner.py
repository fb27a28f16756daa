"""Runs experiments in one run folder, then writes down whatever is finished there."""

import sys
import time
from collections.abc import Sequence
from functools import partial

from tfkfin.base.answers import answer, paper
from tfkfin.base.console import log
from tfkfin.base.files import write_text
from tfkfin.experiments import kinds
from tfkfin.experiments.estimators import Estimators
from tfkfin.experiments.evaluation import Evaluation
from tfkfin.experiments.fits import finish
from tfkfin.experiments.paper import COLUMN, SOURCE
from tfkfin.experiments.report import Report, Result, Table
from tfkfin.fit.run import Run, environment


class Runner:
    """Experiments of one run; they share its fits and compiled models."""

    def __init__(self, run: Run, seeds: int, max_test_windows: int, rows: Sequence[str] = ()):
        self.evaluation = Evaluation(run, seeds, max_test_windows, rows)
        self.estimators, self.folder = Estimators(self.evaluation), run.folder

    def run(self, names: Sequence[str]) -> None:
        """Finishes the fits of experiments, and publishes after each, so that a long run shows what it has."""
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
        """Of every experiment whose fits are all there, or of those of them that are named."""
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
            lines = [line for block in result.blocks if isinstance(block, Table) for line in block.markdown()]
            lines = ["---", f"**{result.title}**", *lines, *result.finding, *result.warnings]
            console.print(Markdown("\n\n".join(lines)))
        console.print(f"\n{self.folder / 'report.html'}", soft_wrap=True)


def _intro(evaluation: Evaluation, papers: bool) -> list[str]:
    """`papers`: whether there are experiments of the paper's."""
    seeds, cap, machine = len(evaluation.seeds), evaluation.max_test_windows, environment()
    capped = f"; models of raw signals are tested on at most {cap} windows a subject, evenly spread" if cap else ""
    fin = evaluation.recipe.fin
    started = "from random weights" if not fin.pretrained else \
        f"from the shipped ones ({fin.family})" if fin.pretrained == "auto" else f"from {fin.pretrained}"
    ours = (f"made on {evaluation.data_name}: {evaluation.described()}. Protocol {evaluation.recipe.protocol}, {seeds} "
            f"seed{'s' * (seeds > 1)}{capped}. FINs are of the family {fin.family} and start {started}")
    lines = [f"Paper: {SOURCE}. Its figures stand in the columns \"paper\" and were made on Ninapro DB2. Ours were "
             f"{ours}; the paper's are LSTMs. Unless said otherwise ± is the standard deviation over subjects.",
             "The paper's own figures come from its code's protocol: the best test accuracy over the epochs, test "
             "windows scaled by their own statistics, BatchNorm and dropout as in training, the last incomplete batch "
             "dropped. They flatter; --protocol paper judges ours the same way, for comparison only."] if papers else [
             f"All figures were {ours}."]
    return [*lines, f"Made by tfkfin {machine['tfkfin']}, recipe {evaluation.recipe.digest} (recipe.toml), TensorFlow "
            f"{machine['tensorflow']}, Keras {machine['keras']}, {machine['cpus']} CPUs, {machine['time']}."]


def _warnings(evaluation: Evaluation, papers: bool) -> list[str]:
    found = []
    if evaluation.dataset.synthetic:
        found.append("Synthetic recordings: nobody was recorded. Our figures prove that the code runs; they say "
                     "nothing about people, about Ninapro DB2 or about the paper's claims.")
    elif papers and COLUMN.rpartition(" ")[2].lower() not in evaluation.data_name.lower():
        found.append(f"Our data ({evaluation.data_name}) are not the paper's. Compare rows with rows within a column; "
                     "the columns differ in people, electrodes, movements and repetitions.")
    if evaluation.optimistic:
        found.append("OPTIMISTIC protocol: test data choose the epoch and scale themselves in all of our figures "
                     "below. They are comparable with the paper's and too high.")
    return found


def _without_nan(value):
    """NaN as null: JSON has no other word for what there is nothing to say of."""
    if isinstance(value, dict):
        return {str(key): _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and value != value else value
