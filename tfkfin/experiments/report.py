"""A report: sections of text, tables and figures, written as Markdown and as one self-contained HTML file."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

DPI = 150  # of the plots
STYLE = """
body { font: 16px/1.5 Georgia, 'Times New Roman', serif; color: #1b1b1b; max-width: 62rem; margin: 2.5rem auto;
       padding: 0 1.2rem; }
h1 { font-size: 1.7rem; line-height: 1.2; } h2 { font-size: 1.3rem; margin-top: 2.6rem; border-top: 1px solid #bbb;
     padding-top: 1.1rem; }
table { border-collapse: collapse; min-width: 36rem;
        font: 0.86rem/1.35 'Helvetica Neue', Arial, sans-serif; margin: 0.6rem 0 0.3rem;
        border-top: 2px solid #333; border-bottom: 2px solid #333; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: 0.9rem 0 0.35rem; }
th { text-align: left; vertical-align: bottom; border-bottom: 1px solid #333; font-weight: 600; }
th, td { padding: 0.22rem 0.9rem 0.22rem 0.35rem; } td + td { text-align: right; white-space: nowrap; }
th + th { text-align: right; }
td.text, th.text { text-align: left; white-space: normal; }
th.paper, td.paper { color: #6a4a00; background: #faf6ea; padding-left: 0.5rem;
        padding-right: 0.5rem; }
tr.rule td { border-top: 1px solid #bbb; }
.note { font-size: 0.87rem; color: #444; margin: 0.2rem 0 1.3rem; } .warn { background: #fff1d6; padding: 0.6rem 0.9rem;
        border-left: 4px solid #d08700; } .trust { background: #f1f4f7; padding: 0.5rem 0.9rem;
        border-left: 4px solid #5b7a99; }
figure { margin: 1.2rem 0; } img { max-width: 100%; height: auto; } figcaption { font-size: 0.87rem; color: #444; }
.wide { overflow-x: auto; } @media print { body { margin: 0; max-width: none; } }
"""


@dataclass(frozen=True)
class Table:
    """Rows of text under column titles, one of which is the paper's. A row of one empty string is a rule.

    A column "subjects" that says the same in every row is left out, and said in the note.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def __post_init__(self):
        if not any(title.startswith("paper") for title in self.columns):
            raise ValueError(f"`columns` must have the paper's. Received: columns={list(self.columns)}")
        if wrong := [row for row in self.rows if len(row) not in (1, len(self.columns))]:
            raise ValueError(f"`rows` must have {len(self.columns)} entries. Received: {wrong[0]}")
        at = list(self.columns).index("subjects") if "subjects" in self.columns else -1
        if at >= 0 and len(said := {row[at] for row in self.rows if len(row) > 1}) == 1:
            def without(row):
                return [cell for i, cell in enumerate(row) if i != at or len(row) == 1]

            for name, value in (("columns", without(self.columns)), ("rows", [without(row) for row in self.rows]),
                                ("note", f"Subjects: {said.pop()}. {self.note}".strip())):
                object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Figure:
    """A PNG file and what it shows."""

    path: Path
    caption: str


@dataclass
class Section:
    """One experiment.

    Attributes:
        name, title: as on the command line, and in words.
        finding: what was seen, in sentences.
        blocks: tables and figures, in order.
        trust: how far to trust it.
        warnings: what a reader must not miss.
        data: the same numbers for results.json.
    """

    name: str
    title: str
    finding: list[str]
    blocks: list[Table | Figure]
    trust: list[str]
    data: dict
    warnings: list[str] = field(default_factory=list)


@dataclass
class Report:
    """The whole: its title, what holds for every section, and the sections."""

    title: str
    intro: list[str]
    warnings: list[str]
    sections: list[Section]

    def markdown(self, folder: Path) -> str:
        lines = [f"# {self.title}", *self.intro, *(f"> **{text}**" for text in self.warnings)]
        for s in self.sections:
            lines += [f"## {s.title}", *s.finding, *(f"> **{text}**" for text in s.warnings)]
            for block in s.blocks:
                lines += _markdown_table(block) if isinstance(block, Table) else [
                    f"![{block.path.stem}]({block.path.relative_to(folder).as_posix()})", f"*{block.caption}*"]
            lines += ["**How far to trust it**", "\n".join(f"- {text}" for text in s.trust)]
        return "\n\n".join(lines) + "\n"

    def html(self) -> str:
        """One file: the plots are inside it."""
        body = [f"<h1>{_escaped(self.title)}</h1>", *(f"<p>{_escaped(t)}</p>" for t in self.intro),
                *(f'<p class="warn">{_escaped(t)}</p>' for t in self.warnings)]
        for s in self.sections:
            body += [f'<h2 id="{s.name}">{_escaped(s.title)}</h2>', *(f"<p>{_escaped(t)}</p>" for t in s.finding),
                     *(f'<p class="warn">{_escaped(t)}</p>' for t in s.warnings)]
            body += [_html_table(b) if isinstance(b, Table) else _html_figure(b) for b in s.blocks]
            trust = "".join(f"<li>{_escaped(t)}</li>" for t in s.trust)
            body.append(f'<div class="trust"><strong>How far to trust it</strong><ul>{trust}</ul></div>')
        return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_escaped(self.title)}</title>\n'
                f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n<body>\n'
                + "\n".join(body) + "\n</body></html>\n")


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


def _markdown_table(table: Table) -> list[str]:
    def row(cells) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = ["---"] + ["---:"] * (len(table.columns) - 1)
    rows = [row(cells) for cells in table.rows if len(cells) > 1]
    made = "\n".join([row(table.columns), row(rule), *rows])
    return [f"**{table.title}**", made, *([f"*{table.note}*"] if table.note else [])]


def _html_table(table: Table) -> str:
    text = [all(len(r) == 1 or not r[i][:1].isdigit() and r[i][:1] not in "-−+<≤" for r in table.rows)
            for i in range(len(table.columns))]

    def kind(i: int) -> str:
        names = ["text"] * (text[i] or not i) + ["paper"] * table.columns[i].startswith("paper")
        return f' class="{" ".join(names)}"' if names else ""

    head = "".join(f"<th{kind(i)}>{_escaped(title)}</th>" for i, title in enumerate(table.columns))
    rows, rule = [], ""
    for cells in table.rows:
        if len(cells) == 1:
            rule = ' class="rule"'
            continue
        rows.append(f"<tr{rule}>" + "".join(f"<td{kind(i)}>{_escaped(c)}</td>" for i, c in enumerate(cells)) + "</tr>")
        rule = ""
    note = f'<p class="note">{_escaped(table.note)}</p>' if table.note else ""
    return (f'<div class="wide"><table><caption>{_escaped(table.title)}</caption><thead><tr>{head}</tr></thead>\n'
            f"<tbody>{chr(10).join(rows)}</tbody></table></div>{note}")


def _html_figure(figure: Figure) -> str:
    png = figure.path.read_bytes()
    width = round(int.from_bytes(png[16:20], "big") * 96 / DPI)  # from the PNG's header, so that all have one type size
    data, caption = base64.b64encode(png).decode("ascii"), _escaped(figure.caption)
    return (f'<figure><img width="{width}" alt="{html.escape(figure.caption)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>")


# === Numbers as text ===

def percent(spread: dict) -> str:
    """{"mean", "std"} of fractions -> "63.2 ± 4.1" in %."""
    return plus_minus(100 * spread["mean"], 100 * spread["std"], 1)


def plus_minus(mean: float, sd: float, digits: int) -> str:
    return "nothing to score" if mean != mean else f"{mean:.{digits}f} ± {sd:.{digits}f}"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
