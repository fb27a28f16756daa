"""The score tables that commands print."""

from tfkfin.base.answers import paper


def show_scores(fin: dict | None, imitation: str, columns: list[tuple[str, dict]], accuracy: str) -> None:
    """Prints tables titled `imitation`, of R² by feature, and `accuracy`, by subject; an empty one is left out.

    `columns`: titles with what `scoring.mean_and_sd` gives.
    """
    from rich.table import Table

    if fin:
        table = Table("feature", "R²", title=imitation)
        for name, scores in fin.items():
            table.add_row(name, f"{scores['r2']:.4f}")
        paper().print(table)
    if columns:
        table = Table("subject", *(title for title, _ in columns), title=accuracy)
        for subject in columns[0][1]["per_subject"]:
            table.add_row(f"S{subject}", *(_percent(c["per_subject"].get(subject)) for _, c in columns))
        table.add_section()
        table.add_row("mean ± sd", *(f"{_percent(c['mean'])} ± {_percent(c['std'])}" for _, c in columns))
        paper().print(table)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
