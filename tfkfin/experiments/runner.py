"""Runs experiments in one run folder, here or by a launcher, and publishes the finished ones.

A task of a launcher has all fits of one subject and seed.
"""

import json
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

from tfkfin import launch
from tfkfin import recipe as recipes
from tfkfin.base.answers import answer, paper
from tfkfin.base.console import lasting, log
from tfkfin.base.files import write_text
from tfkfin.experiments import kinds
from tfkfin.experiments.evaluation import Evaluation, Fit, finish
from tfkfin.experiments.paper.estimators import Estimators
from tfkfin.experiments.paper.published import COLUMN, SOURCE
from tfkfin.experiments.report import Report, ReportTable, Result, text
from tfkfin.fit.device import set_up_worker
from tfkfin.fit.run import Run, environment, open_run
from tfkfin.fit.stages import LONG_S

WORK = "tfkfin.experiments.runner:work"


class Runner:
    """Experiments of one run; they share its fits and compiled models."""

    def __init__(self, run: Run, seeds: int, max_test_windows: int, rows: Sequence[str] = ()):
        self.evaluation = Evaluation(run, seeds, max_test_windows, rows)
        self.estimators, self.folder = Estimators(self.evaluation), run.folder

    def run(self, names: Sequence[str]) -> None:
        """Finishes the fits of experiments, and publishes after each, so that a long run shows results early."""
        self._foretell(names)
        for name in names:
            began, there = time.monotonic(), self._finished(kinds.load(name))
            self.finish(name)
            log.info("%s: %.0f s", name, time.monotonic() - began)
            if not there or name == names[-1]:
                self.publish()

    def finish(self, name: str, task: tuple[int, int] | None = None) -> None:
        """Finishes the fits of an experiment, or those of a task by subject and seed."""
        experiment = kinds.load(name)
        work = partial(experiment.work, self.estimators) if experiment.work else self.estimators.work
        fits = [fit for fit in experiment.fits(self.evaluation) if task in (None, self._task(fit))]
        finish(self.evaluation.ledger, fits, work, name)

    def _foretell(self, names: Sequence[str]) -> None:
        """Says how long the paper's models will take, before the first fit. Others say it as soon as one is done."""
        own = [experiment for experiment in map(kinds.load, names) if not experiment.work]
        todo = {fit for one in own for fit in one.fits(self.evaluation) if self.evaluation.ledger.get(fit.key) is None}
        alike = Counter((fit.model, fit.setting.horizon_ms > 0) for fit in todo)  # fits have equally many updates
        some = {(fit.model, fit.setting.horizon_ms > 0): fit for fit in sorted(todo, key=lambda fit: fit.key)}
        seconds = sum(count * self.estimators.expected(some[kind]) for kind, count in alike.items())
        if seconds > LONG_S:
            log.info("%d fits: about %s in all", len(todo), lasting(seconds))

    def _task(self, fit: Fit) -> tuple[int, int]:
        """Subject and seed of a fit's task; deterministic fits go with the first seed."""
        return fit.subject, self.evaluation.seeds[0] if fit.seed is None else fit.seed

    def run_by(self, names: Sequence[str], launcher: str, device: str) -> tuple[list[launch.Task], dict]:
        """Finishes the fits of experiments by a launcher; returns the tasks, and those that failed as `launch` does.

        The first subject goes first: its tasks make what all fits share, FINs and pooled classifiers.
        """
        own: dict[tuple[int, int], list[Fit]] = {}
        for fit in dict.fromkeys(fit for name in names for fit in kinds.load(name).fits(self.evaluation)):
            own.setdefault(self._task(fit), []).append(fit)
        evaluation, failed = self.evaluation, dict[str, str]()
        common = {"folder": str(self.folder.absolute()), "data": str(evaluation.recipe.source.data),
                  "names": list(names), "seeds": len(evaluation.seeds), "device": device,
                  "max_test_windows": evaluation.max_test_windows, "rows": list(evaluation.rows)}
        tasks = [launch.Task(f"S{subject}/seed{seed}", WORK, common | {"subject": subject, "seed": seed})
                 for subject, seed in own]

        def done(task: launch.Task) -> bool:
            return all(evaluation.ledger.get(fit.key) for fit in own[task.arguments["subject"], task.arguments["seed"]])

        first = [task for task in tasks if task.arguments["subject"] == tasks[0].arguments["subject"]]
        for wave in (first, [task for task in tasks if task not in first]):
            failed |= launch.launch(wave, done, launcher, evaluation.recipe.launch, self.folder.absolute(),
                                    "fits") if wave else {}
        return tasks, failed

    def _finished(self, experiment: kinds.Experiment) -> bool:
        return all(self.evaluation.ledger.get(fit.key) for fit in experiment.fits(self.evaluation))

    def results(self, names: Sequence[str] = ()) -> list[Result]:
        """Of the named experiments whose fits are all finished; by default of all experiments."""
        every = [kinds.load(name) for name in kinds.summaries() if not names or name in names]
        return [one.result(self.evaluation) for one in every if self._finished(one)]

    def publish(self) -> dict:
        """Writes report.md, report.html, plots and results.json; returns the content of the last."""
        evaluation, made = self.evaluation, self.results()
        papers = any(result.name in kinds.papers() for result in made)
        about = ": the paper's experiments" if papers else ""
        report = Report(f"Feature imitation networks{about} on {evaluation.data_name}", _intro(evaluation, papers),
                        _warnings(evaluation, papers), made)
        write_text(self.folder / "report.md", report.markdown())
        write_text(self.folder / "report.html", report.html())
        top: dict[str, dict] = {"rungs": {}} if any("rungs" in result.top for result in made) else {}
        for result in made:  # the ladder and its ablation have other models on the same rungs
            for rung, models in result.top.get("rungs", {}).items():
                top["rungs"][rung] = top["rungs"].get(rung, {}) | models
            top |= {name: part for name, part in result.top.items() if name != "rungs"}
        found = top | {
            "experiments": {result.name: result.data for result in made}, "data": evaluation.data_name,
            "synthetic": evaluation.dataset.synthetic, "protocol": evaluation.recipe.protocol,
            "optimistic": evaluation.optimistic, "seeds": list(evaluation.seeds),
            "max_test_windows": evaluation.max_test_windows, "recipe_digest": evaluation.recipe.digest,
            "groups": {name: list(subjects) for name, (_, subjects) in evaluation.groups.items()},
            "dataset": evaluation.dataset.describe(), "environment": environment(),
        }
        without_nan = json.loads(json.dumps(found), parse_constant=lambda name: None)  # JSON has no NaN
        return evaluation.run.ledger.put("results", without_nan)

    def show(self, names: Sequence[str]) -> None:
        """Prints the tables of the named experiments and where the report is."""
        from rich.markdown import Markdown

        answer(self.evaluation.run.ledger.of("results") | {"report": self.folder / "report.html"})
        console = paper()
        for result in self.results(names):
            console.print(Markdown(f"---\n\n**{result.title}**"))
            for table in (block for block in result.blocks if isinstance(block, ReportTable)):
                for part in table.printed(console.width):
                    console.print(part)
            console.print(Markdown("\n\n".join(["", *result.finding, *result.warnings])))
        console.print(f"\n{self.folder / 'report.html'}", soft_wrap=True)


def _intro(evaluation: Evaluation, papers: bool) -> list[str]:
    """`papers`: whether there are experiments of the paper's."""
    seeds, cap = len(evaluation.seeds), evaluation.max_test_windows
    figures = text("intro.figures", data=evaluation.data_name, described=evaluation.described(),
                   protocol=evaluation.recipe.protocol, seeds=f"{seeds} seed{'s' * (seeds > 1)}",
                   capped=text("intro.capped", cap=cap) if cap else "", 
                   family=evaluation.recipe.fin.family, started=evaluation.started)
    return [*text("intro.papers" if papers else "intro.own", source=SOURCE, figures=figures),
            text("intro.made", digest=evaluation.recipe.digest, **environment())]


def _warnings(evaluation: Evaluation, papers: bool) -> list[str]:
    synthetic, data = evaluation.dataset.synthetic, evaluation.data_name
    other = papers and not synthetic and COLUMN.rpartition(" ")[2].lower() not in data.lower()
    shown = {"synthetic": synthetic, "other": other, "optimistic": evaluation.optimistic}
    return [text(f"warnings.{name}", data=data) for name, show in shown.items() if show]


def work(folder: str, data: str, names: Sequence[str], seeds: int, max_test_windows: int, subject: int, seed: int,
         device: str, rows: Sequence[str] = ()) -> None:
    """Finishes one subject's fits of one seed. See `Runner.run_by`."""
    for name in names:
        _worker(folder, data, seeds, max_test_windows, device, tuple(rows)).finish(name, (subject, seed))


@cache
def _worker(folder: str, data: str, seeds: int, max_test_windows: int, device: str, rows: tuple[str, ...]) -> Runner:
    """A worker keeps this, and its compiled models, from task to task."""
    set_up_worker(device)
    recipe = recipes.load(Path(folder, "recipe.toml"), {"source.data": data})
    return Runner(open_run(recipe, Path(folder)), seeds, max_test_windows, rows)
