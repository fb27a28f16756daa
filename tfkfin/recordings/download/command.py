"""`python -m tfkfin.data download`: progress while it runs, then a table, the citations and what to do next."""

import os
import threading
from argparse import BooleanOptionalAction
from pathlib import Path

from tfkfin.console import InputError, parse_numbers

_NEXT = {"db2": "--pipeline db2_within", "db3": "--pipeline db3_amputee",
         "db7": "--pipeline own --set split.train_repetitions=1,3,4,6 --set split.test_repetitions=2,5"}


def add_options(parser) -> None:
    """Adds what `action` needs to an argparse parser."""
    parser.add_argument("database", choices=sorted(_NEXT))
    parser.add_argument("--to", type=Path, metavar="DIR", help="default: data/DB2, data/DB3, data/DB7")
    parser.add_argument("--subjects", default="", help="numbers, as in 1-3,7 (default: all)")
    parser.add_argument("--exercises", default="1", help="to unpack; 1 is exercise B (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=2, help="1 to 4 (default: %(default)s)")
    parser.add_argument("--keep-zips", action=BooleanOptionalAction, default=True,
                        help="archives hold the other exercises too; --no-keep-zips removes those fetched by this "
                             "command once they are unpacked (default: keep)")
    parser.add_argument("--stall", type=float, default=30, metavar="S", help="seconds without a byte before the next "
                        "try (default: %(default)s)")
    parser.add_argument("--url", metavar="URL", help="a mirror of https://ninapro.hevs.ch/files (default: "
                        "$TFKFIN_NINAPRO_URL, or the site itself)")
    parser.set_defaults(action=action)


def action(options) -> None:
    from tfkfin.recordings.download import order as orders
    from tfkfin.recordings.download.transfer import Patience

    if not 0.1 <= options.stall <= 3600:
        raise InputError(f"--stall is {options.stall:g}, but 0.1 to 3600 seconds are possible")
    order = orders.Order(
        options.database, options.to or Path("data", options.database.upper()),
        parse_numbers(options.subjects) if options.subjects else (), parse_numbers(options.exercises),
        options.url or os.environ.get("TFKFIN_NINAPRO_URL") or orders.SITE, options.connections, options.keep_zips)
    outcomes = _watched(order, Patience(stall_s=options.stall))
    _report(order, outcomes)


def _watched(order, patience):
    """Runs the download under progress bars on stderr; where stderr is no terminal, there is a line for each event."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from tfkfin.recordings.download.download import Download

    console, tasks, lock = Console(stderr=True, soft_wrap=True), {}, threading.Lock()
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), \
        TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        def progress(name: str, new: int, size: int, length: int | None) -> None:
            with lock:
                if name not in tasks:
                    tasks[name] = bars.add_task(name, completed=size - new)
            # Bars of other files that are whole give way.
            bars.update(tasks[name], completed=size, total=length, visible=size != length)

        def tell(line: str) -> None:
            bars.console.print(line, markup=False, highlight=False)

        return Download(order, patience, tell, progress).run()


def _report(order, outcomes) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from tfkfin.console import format_numbers
    from tfkfin.recordings.download.order import SOURCES

    table = Table(title=f"{order.database} in {order.folder}", box=SIMPLE_HEAD)
    for head in ("subject", "state", "MB", "s"):
        table.add_column(head, justify="left" if head == "state" else "right")
    for outcome in outcomes:
        table.add_row(str(outcome.subject), outcome.state, f"{outcome.fetched / 1e6:.1f}", f"{outcome.seconds:.0f}")
    console = Console(soft_wrap=True)
    console.print(table)
    papers = SOURCES[order.database].cite
    lines = ["Ninapro asks you to cite, in any work with these data:", *(f"- {paper}" for paper in papers)]
    failed: dict[str, list[int]] = {}
    for outcome in outcomes:
        if outcome.failure:
            failed.setdefault(outcome.failure, []).append(outcome.subject)
    if not failed and 1 in order.exercises:
        lines.append(f"Train on them: python -m tfkfin.train --stage finetune --data {order.folder} "
                     f"{_NEXT[order.database]}")
    for line in lines:
        console.print(line, markup=False, highlight=False)
    if failed:
        reasons = [f"subject {format_numbers(subjects)}: {reason}" for reason, subjects in failed.items()]
        raise InputError(f"{sum(map(len, failed.values()))} of {len(outcomes)} subjects are not there: "
                         f"{'; '.join(reasons[:4])}{' ...' if len(reasons) > 4 else ''}. The rest is, and the same "
                         "command goes on from here")
