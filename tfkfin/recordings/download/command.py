"""`python -m tfkfin.data download`: shows progress, then a table, the citations and the next command."""

import os
from argparse import BooleanOptionalAction
from functools import partial
from pathlib import Path

from tfkfin.base.answers import answer, margin, paper
from tfkfin.base.console import format_numbers, parse_numbers
from tfkfin.base.errors import InputError
from tfkfin.recordings.download.download import SITE, SOURCES, Download, Outcome
from tfkfin.recordings.transfer import PartialFile


def add_options(parser) -> None:
    """Adds the options of `action` to an argparse parser."""
    parser.add_argument("database", choices=sorted(SOURCES))
    parser.add_argument("--to", type=Path, metavar="DIR", help="default: data/DB2, data/DB3, data/DB7")
    parser.add_argument("--subjects", default="", help="numbers, as in 1-3,7 (default: all)")
    parser.add_argument("--exercises", default=format_numbers(Download.exercises), help="to unpack; 1 is exercise B "
                        "(default: %(default)s)")
    parser.add_argument("--connections", type=int, default=Download.connections, help="1 to 4 (default: %(default)s)")
    parser.add_argument("--keep-zips", action=BooleanOptionalAction, default=Download.keep_zips,
                        help="archives also contain the other exercises; --no-keep-zips removes those that this "
                             "command downloads, after unpacking (default: keep)")
    parser.add_argument("--stall", type=float, default=Download.stall_s, metavar="S", help="seconds without a byte "
                        "before the next try (default: %(default)s)")
    parser.add_argument("--url", default=os.environ.get("TFKFIN_NINAPRO_URL") or SITE, metavar="URL",
                        help=f"a mirror of {SITE} (default: $TFKFIN_NINAPRO_URL, or the site itself)")
    parser.set_defaults(action=action)


def action(options) -> None:
    """Downloads with progress bars, or, without a terminal, with a line for each event."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console, tasks = margin(soft_wrap=True), {}
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        def progress(part: PartialFile) -> None:
            if part not in tasks:  # one thread per file, so no lock is needed
                tasks[part] = bars.add_task(part.target.name, total=None, completed=part.size)
            # Bars of complete files disappear.
            bars.update(tasks[part], completed=part.size, total=part.length, visible=part.size != part.length)

        download = Download(
            options.database, options.to or Path("data", options.database.upper()),
            parse_numbers(options.subjects) if options.subjects else (), parse_numbers(options.exercises),
            options.url, options.connections, options.keep_zips, options.stall,
            partial(bars.console.print, markup=False, highlight=False), progress)
        outcomes = download.run()
    _report(download, outcomes)


def _report(download: Download, outcomes: list[Outcome]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table, failed = Table(title=f"{download.database} in {download.folder}", box=SIMPLE_HEAD), {}
    for head in ("subject", "state", "MB", "s"):
        table.add_column(head, justify="left" if head == "state" else "right")
    for subject, state, failure, fetched, seconds in outcomes:
        table.add_row(str(subject), state, f"{fetched / 1e6:.1f}", f"{seconds:.0f}")
        if failure:
            failed.setdefault(failure, []).append(subject)
    console, source = paper(soft_wrap=True), SOURCES[download.database]
    answer({"folder": download.folder, "subjects": [one._asdict() for one in outcomes]})
    console.print(table)
    lines = ["Ninapro asks you to cite, in any work with these data:", *(f"- {paper}" for paper in source.cite)]
    if not failed and 1 in download.exercises:
        lines.append(f"Train on them: python -m tfkfin.train --stage finetune --data {download.folder} {source.train}")
    for line in lines:
        console.print(line, markup=False, highlight=False)
    if failed:
        reasons = [f"subject {format_numbers(subjects)}: {reason}" for reason, subjects in failed.items()]
        raise InputError(f"{sum(map(len, failed.values()))} of {len(outcomes)} subjects are missing: "
                         f"{'; '.join(reasons[:4])}{' ...' if len(reasons) > 4 else ''}. The others are complete; run "
                         "the same command again to continue")
