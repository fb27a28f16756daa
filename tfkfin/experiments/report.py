"""A report: text, tables, plots and tests of each experiment, as Markdown and as one self-contained HTML file."""

import base64
import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from tfkfin.base.files import read_toml

DPI = 150  # of the plots


@dataclass
class ReportTable:
    """Rows of text under column titles, one of which is the paper's unless `papers=False`.

    Where the column "subjects" or "rung" changes, a new group of rows begins. If "subjects" is the same in every row,
    the note has it in place of the column.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    papers: bool = True

    def __post_init__(self):
        if self.papers and not any(title.startswith("paper") for title in self.columns):
            raise ValueError(f"`columns` must have the paper's. Received: columns={list(self.columns)}")
        if wrong := [row for row in self.rows if len(row) != len(self.columns)]:
            raise ValueError(f"`rows` must have {len(self.columns)} entries. Received: {wrong[0]}")
        subjects = {row[at] for row in self.rows for at in self._at}
        if len(subjects) == 1:
            (at,) = self._at
            self.columns, *self.rows = ([*row[:at], *row[at + 1 :]] for row in (self.columns, *self.rows))
            self.note = f"Subjects: {subjects.pop()}. {self.note}".strip()

    @property
    def _at(self) -> list[int]:
        """Where the column "subjects" is, if it is."""
        return [i for i, title in enumerate(self.columns) if title == "subjects"]

    @property
    def groups(self) -> list[list[Sequence[str]]]:
        """The rows, split where the column "subjects" or "rung" changes; a group shows its rung in its first row."""
        by = [i for i, title in enumerate(self.columns) if title in ("subjects", "rung")]
        parted = [list(rows) for _, rows in itertools.groupby(self.rows, lambda row: [row[at] for at in by])]
        return [[row if not i or self.columns[0] != "rung" else ["", *row[1:]] for i, row in enumerate(rows)]
                for rows in parted]

    @property
    def many(self) -> bool:
        """Whether text in brackets goes below the figure, so that all columns fit on a page."""
        return len(self.columns) > 7

    @property
    def classes(self) -> list[str]:
        """CSS classes of each column: "text" where no entry is a number, "paper" where the figures are the paper's."""
        numbers = [any(row[i][:1].isdigit() or row[i][:1] in "-−+<≤" for row in self.rows)
                   for i in range(len(self.columns))]
        return [" ".join(["text"] * (not numbers[i] or not i) + ["paper"] * title.startswith("paper"))
                for i, title in enumerate(self.columns)]

    def markdown(self) -> list[str]:
        lines = [self.columns, ["---"] + ["---:"] * (len(self.columns) - 1), *self.rows]
        made = "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)
        return [f"**{self.title}**", made, *([f"*{self.note}*"] if self.note else [])]

    def printed(self, width: int) -> Iterator[Any]:
        """For a terminal of `width` columns. A table that is too wide loses its brackets, and is parted by columns."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        def least(at: int) -> int:  # of a column: words stay whole, and so do figures
            words = [*self.columns[at].split(), *(row[at] for row in rows)]
            return 2 + max(len(word) for text in words for word in (text.split() if at in texts else [text]) or [""])

        rows, texts = self.rows, [i for i, kind in enumerate(self.classes) if "text" in kind]
        if sum(map(least, range(len(self.columns)))) > width:
            rows = [[cell if at in texts else re.sub(r" \(.*\)$", "", cell) for at, cell in enumerate(row)]
                    for row in rows]
        left = list(range(1, len(self.columns)))
        yield Text(f"\n{self.title}", "bold")
        while left:
            yield ""
            room, part = width - max(least(0), min(width // 3, 2 + max(len(row[0]) for row in rows))), []
            while left and (not part or least(left[0]) <= room):
                room -= least(left[0])
                part.append(left.pop(0))
            table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
            room = width - sum(map(least, (0, *part)))
            for at in (0, *part):
                more = min(room, 2 + max(len(row[at]) for row in (self.columns, *rows)) - least(at))
                room -= more
                side = "left" if at in texts else "right"
                table.add_column(self.columns[at], justify=side, width=least(at) + more - 2)
            for row in rows:
                table.add_row(*(Text(row[at]) for at in (0, *part)))
            yield table
        if self.note:
            yield Text(self.note, "italic")


@dataclass(frozen=True)
class Plot:
    """A PNG file of `DPI` and what it shows."""

    path: Path
    caption: str

    @property
    def data_uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.path.read_bytes()).decode("ascii")

    @property
    def width(self) -> int:
        """In pixels of a page, so that all plots have one type size."""
        return round(int.from_bytes(self.path.read_bytes()[16:20], "big") * 96 / DPI)  # of the PNG's header

    def markdown(self) -> list[str]:
        return [f"![{self.path.stem}](plots/{self.path.name})", f"*{self.caption}*"]


@dataclass
class Result:
    """The result of one experiment.

    Attributes:
        name, title: as on the command line, and in words.
        finding: the main results, in sentences.
        blocks: tables and plots, in order.
        trust: how far to trust it.
        data: the same numbers for results.json, below "experiments".
        warnings: shown at the top.
        top: more for results.json, at its top.
    """

    name: str
    title: str
    finding: list[str]
    blocks: list[ReportTable | Plot]
    trust: list[str]
    data: dict
    warnings: list[str] = field(default_factory=list)
    top: dict = field(default_factory=dict)


@dataclass
class Report:
    """The report: its title, an introduction and warnings for all experiments, and the results."""

    title: str
    intro: list[str]
    warnings: list[str]
    results: list[Result]

    def markdown(self) -> str:
        """Beside the folder `plots`."""
        lines = [f"# {self.title}", *self.intro, *(f"> **{text}**" for text in self.warnings)]
        for one in self.results:
            lines += [f"## {one.title}", *one.finding, *(f"> **{text}**" for text in one.warnings)]
            lines += [line for block in one.blocks for line in block.markdown()]
            lines += ["**How far to trust it**", "\n".join(f"- {text}" for text in one.trust)]
        return "\n\n".join(lines) + "\n"

    def html(self) -> str:
        """One file: the plots are inside it."""
        environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
                                         trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
        return environment.get_template("report.html.jinja").render(report=self)


# === Numbers as text ===

def percent(spread: dict) -> str:
    """{"mean", "std"} of fractions -> "63.2 ± 4.1" in %."""
    return plus_minus(100 * spread["mean"], 100 * spread["std"], 1)


def plus_minus(mean: float, sd: float, digits: int) -> str:
    return "nothing to score" if mean != mean else f"{mean:.{digits}f} ± {sd:.{digits}f}"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


# === Sentences, from texts.toml ===

@cache
def _tables() -> dict[str, dict[str, Any]]:
    return read_toml(Path(__file__).with_name("texts.toml"), "the sentences of reports")


def text(key: str, /, **values: Any) -> Any:
    """What texts.toml has as "table.name": a sentence, or a list or table of them, with their {names} filled in."""
    found: Any = _tables()
    for name in key.split("."):
        found = found[name]
    return _filled(found, values)


def _filled(found: Any, values: dict[str, Any]) -> Any:
    if isinstance(found, dict):
        return {name: _filled(one, values) for name, one in found.items()}
    if isinstance(found, list):
        return [_filled(one, values) for one in found]
    return found.replace("\n", " ").format(**values)


# === Means over subjects, and tests between models ===

def over_subjects(values: Mapping[tuple[int, int | None], float], subjects: Collection[int] = ()) -> dict:
    """(subject, seed) -> value becomes {"mean", "std", "per_subject"}: seeds averaged first, sd (ddof 0) over subjects.

    Values that are NaN (nothing to score) are left out; if all are, so are mean and std. `subjects`: only of these.
    """
    known = {key: v for key, v in values.items() if np.isfinite(v) and (not subjects or key[0] in subjects)}
    per_subject = {s: float(np.mean([v for (one, _), v in known.items() if one == s])) for s, _ in known}
    rows = list(per_subject.values()) or [float("nan")]
    return {"mean": float(np.mean(rows)), "std": float(np.std(rows)),
            "per_subject": {str(s): v for s, v in sorted(per_subject.items())}}


def paired(first: Mapping, second: Mapping) -> dict[str, float]:
    """Wilcoxon's signed-rank test, two-sided, of `first` against `second` over the keys they share.

    Returns:
        {"pairs", "mean", "median" of first - second, "wins", "ties", "statistic", "p", "least_p": the least p that so
        many pairs can give}. Without any difference p is 1.
    """
    from scipy.stats import wilcoxon

    keys = sorted(first.keys() & second.keys())
    differences = np.array([first[key] - second[key] for key in keys])
    statistic, p = 0.0, 1.0
    if np.any(differences):
        statistic, p = (float(value) for value in wilcoxon(differences))
    return {"pairs": len(keys), "mean": float(np.mean(differences)), "median": float(np.median(differences)),
            "wins": int(np.sum(differences > 0)), "ties": int(np.sum(differences == 0)), "statistic": statistic,
            "p": p, "least_p": least_p(len(keys))}


def holm(p: Collection[float]) -> list[float]:
    """p-values with Holm's correction (1979), in the order given: max over j <= i of (n - j) p_j, sorted."""
    order, corrected, least = np.argsort(list(p)), [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        least = corrected[i] = max(least, min(1.0, (len(p) - rank) * float(p[i])))
    return corrected


def by_subject(values: Mapping[tuple[int, int | None], float]) -> dict[int, float]:
    """Seeds averaged, since seeds of one subject are not independent."""
    return {int(s): v for s, v in over_subjects(values)["per_subject"].items()}


def least_p(pairs: int) -> float:
    """The least two-sided p that a signed-rank test of so many pairs can give: 2 / 2^pairs."""
    return min(1.0, 2.0 ** (1 - pairs))
