"""What every benchmark shares: paired timing, the machine, a table and a JSON file.

Ours and the peer run in turn in one process, so that a change of the machine's load touches both. The claim is the
median of the pairs' ratios, with the lowest and the highest beside it.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def paired(ours: Callable, peer: Callable, repeats: int = 7, work: tuple[float, float] = (1, 1)) -> dict:
    """Times `ours` and `peer` in turn, once unmeasured, then `repeats` pairs.

    `work`: the units (windows, say) that one call of each gets through.
    Gives units a second of each (medians), `ratio` = times faster ours is (median of pairs), `spread` =
    [lowest, highest] ratio.
    """
    ours(), peer()
    pairs = [(work[0] / seconds(ours), work[1] / seconds(peer)) for _ in range(repeats)]
    ratios = [a / b for a, b in pairs]
    return {
        "ours": statistics.median(a for a, _ in pairs),
        "peer": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
    }


def compare(name: str, ours: Callable, peer: Callable, unit: str, **timing) -> dict:
    """One comparison as the JSON holds it."""
    return {"name": name, "unit": unit, **paired(ours, peer, **timing)}


def machine() -> dict:
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = named[0].split(":", 1)[1].strip() if named else model
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.platform(), "load": load}


def versions(*packages: str) -> dict:
    """Versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def arguments(description: str, argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--quick", action="store_true", help="less data and fewer pairs: a smoke test, not a claim")
    return parser.parse_args(argv)


def report(title: str, comparisons: list[dict], packages: tuple[str, ...], file: Path | None) -> None:
    """Prints the table and writes {"comparisons", "machine", "versions"} where asked."""
    table = Table(title=title)
    for column in ("comparison", "ours", "peer", "unit", "times faster", "lowest .. highest"):
        table.add_column(column, justify="left" if column in ("comparison", "unit") else "right",
                         no_wrap=column != "comparison")
    for c in comparisons:
        low, high = c["spread"]
        table.add_row(c["name"], f"{c['ours']:,.0f}", f"{c['peer']:,.0f}", c["unit"], f"{c['ratio']:.1f}",
                      f"{low:.1f} .. {high:.1f}")
    about, found = machine(), versions(*packages)
    console = Console() if sys.stdout.isatty() else Console(width=140)  # 80 columns would break the names in a log
    console.print(table)
    console.print(f"{about['cpu']}, {about['cores']} cores; " + ", ".join(f"{k} {v}" for k, v in found.items()))
    if file:
        file.write_text(json.dumps({"comparisons": comparisons, "machine": about, "versions": found}, indent=2) + "\n")
