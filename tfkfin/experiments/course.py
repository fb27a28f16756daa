"""A course of experiments in one run folder: runs them, then writes down whatever is finished there."""

import sys
import time
from collections.abc import Sequence

from tfkfin.console import log
from tfkfin.experiments import downstream, efficiency, finetune, forward, imitation
from tfkfin.experiments.decoders import Decoders
from tfkfin.experiments.lab import Lab
from tfkfin.experiments.paper import COLUMN, SOURCE
from tfkfin.experiments.report import Report, Section
from tfkfin.files import write_json
from tfkfin.fit.run import Run, environment

EXPERIMENTS = {"imitation": imitation, "downstream": downstream, "finetune": finetune, "efficiency": efficiency,
               "forward": forward}


class Course:
    """Experiments of one run; they share its cells and compiled models."""

    def __init__(self, run: Run, seeds: int, max_test_windows: int):
        self.lab = Lab(run, seeds, max_test_windows)
        self.decoders, self.folder = Decoders(self.lab), run.folder

    def run(self, names: Sequence[str]) -> None:
        """Finishes the cells of experiments, and publishes after each, so that a long course shows what it has."""
        for name in names:
            experiment, began = EXPERIMENTS[name], time.monotonic()
            cells = experiment.cells(self.lab)
            there = all(self.lab.book.get(cell) for cell in cells)
            self.lab.book.finish(cells, experiment.worker(self.lab, self.decoders), name)
            log.info("%s: %.0f s", name, time.monotonic() - began)
            if not there or name == names[-1]:
                self.publish()

    def sections(self) -> list[Section]:
        """Of every experiment whose cells are all there."""
        return [e.section(self.lab, self.folder) for e in EXPERIMENTS.values()
                if all(self.lab.book.get(cell) for cell in e.cells(self.lab))]

    def publish(self) -> dict:
        """Writes report.md, report.html, plots and results.json; returns the content of the last."""
        lab, made = self.lab, self.sections()
        title = f"Feature imitation networks: the paper's experiments on {lab.data_name}"
        report = Report(title, _intro(lab), _warnings(lab), made)
        (self.folder / "report.md").write_text(report.markdown(self.folder), encoding="utf-8")
        (self.folder / "report.html").write_text(report.html(), encoding="utf-8")
        results = {
            "experiments": {section.name: section.data for section in made}, "data": lab.data_name,
            "synthetic": lab.dataset.synthetic, "protocol": lab.recipe.protocol, "optimistic": lab.optimistic,
            "seeds": list(lab.seeds), "max_test_windows": lab.max_test_windows, "recipe_digest": lab.recipe.digest,
            "groups": {name: list(subjects) for name, (_, subjects) in lab.groups.items()},
            "dataset": lab.dataset.describe(), "environment": environment(),
        }
        write_json(self.folder / "results.json", _without_nan(results))
        return results

    def show(self, names) -> None:
        """Prints the tables of the named experiments and where the report is."""
        from rich.console import Console
        from rich.table import Table

        console = Console(width=None if sys.stdout.isatty() else 160)
        for section in self.sections():
            if section.name not in names:
                continue
            console.print(f"\n{section.title}", style="bold")
            for block in section.blocks:
                if hasattr(block, "rows"):
                    table = Table(*block.columns, title=block.title, title_justify="left")
                    for row in block.rows:
                        table.add_section() if len(row) == 1 else table.add_row(*row)
                    console.print(table)
            for text in (*section.finding, *section.warnings):
                console.print(text)
        console.print(f"\n{self.folder / 'report.html'}", soft_wrap=True)


def _intro(lab: Lab) -> list[str]:
    seeds = f"{len(lab.seeds)} seed" + "s" * (len(lab.seeds) > 1)
    cap = lab.max_test_windows
    capped = f"; models of raw signals are tested on at most {cap} windows a subject, evenly spread" if cap else ""
    machine = environment()
    return [f"Paper: {SOURCE}. Its figures stand in the columns \"paper\" and were made on Ninapro DB2. Ours were made "
            f"on {lab.data_name}: {lab.described()}. Protocol {lab.recipe.protocol}, {seeds}{capped}. Unless said "
            "otherwise ± is the standard deviation over subjects.",
            "The paper's own figures come from its code's protocol: the best test accuracy over the epochs, test "
            "windows scaled by their own statistics, BatchNorm and dropout as in training, the last incomplete batch "
            "dropped. They flatter; --protocol paper judges ours the same way, for comparison only.",
            f"Made by tfkfin {machine['tfkfin']}, recipe {lab.recipe.digest} (recipe.toml), TensorFlow "
            f"{machine['tensorflow']}, Keras {machine['keras']}, {machine['cpus']} CPUs, {machine['time']}."]


def _warnings(lab: Lab) -> list[str]:
    found = []
    if lab.dataset.synthetic:
        found.append("Synthetic recordings: nobody was recorded. Our figures prove that the code runs; they say "
                     "nothing about people, about Ninapro DB2 or about the paper's claims.")
    elif COLUMN.rpartition(" ")[2].lower() not in lab.data_name.lower():
        found.append(f"Our data ({lab.data_name}) are not the paper's. Compare rows with rows within a column; the "
                     "columns differ in people, electrodes, movements and repetitions.")
    if lab.optimistic:
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
