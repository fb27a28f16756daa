"""What every benchmark shares: paired timing, processes of their own, recordings, the machine, a table, a JSON file.

Ours and the peer run in turn in one process, so that a change of the machine's load touches both. The claim is the
median of the pairs' ratios, with the lowest and the highest beside it. Memory and start-up are measured in processes
of their own (benchmarks/alone.py).
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
sys.modules.setdefault("triton", None)  # PyTorch's compiler, not used here: its LLVM crashes beside TensorFlow's


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


def measured(name: str, value: float, unit: str, limit: float | None = None) -> dict:
    """One figure without a peer; `limit` is the most that it may be, and `holds` says whether it is."""
    return {"name": name, "value": value, "unit": unit, "limit": limit, "holds": limit is None or value <= limit}


def alone(task: str, *arguments, repeats: int = 1) -> dict:
    """What a task of benchmarks/alone.py answers, in a process of its own; medians over `repeats` processes."""
    answers = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, HERE / "alone.py", task, *map(str, arguments)], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, cwd=HERE.parent,
                              env=os.environ | {"PYTHONPATH": str(HERE.parent), "TF_CPP_MIN_LOG_LEVEL": "3"})
        if done.returncode:
            raise RuntimeError(f"alone.py {task} failed: {done.stderr[-3000:]}")
        answers.append(json.loads(done.stdout.splitlines()[-1]))
    first = answers[0]
    return {key: statistics.median(a[key] for a in answers) if isinstance(value, int | float) else value
            for key, value in first.items()}


@contextlib.contextmanager
def recordings(count: int, kept: Path | None, real: int = 10, **session) -> Iterator[Path]:
    """A folder of `count` synthetic recordings: 17 movements, 6 repetitions of 5 s, unless `session` differs.

    Beyond `real` of them they are links to the first ones under other subjects' names. With `kept` the recordings stay
    there for the next benchmark.
    """
    from tfkfin.recordings.synthetic import synthesize

    with contextlib.ExitStack() as stack:
        made = Path(kept or stack.enter_context(tempfile.TemporaryDirectory()))
        synthesize(made, [s for s in range(1, min(count, real) + 1) if not _file(made, s).exists()], **session)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for subject in range(1, count + 1):
            link = _file(folder, subject)
            link.parent.mkdir()
            link.symlink_to(_file(made, (subject - 1) % real + 1).resolve())
        yield folder


def _file(folder: Path, subject: int) -> Path:
    return folder / f"DB2_s{subject}" / f"S{subject}_E1_A1.mat"


def machine() -> dict:
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = named[0].split(":", 1)[1].strip() if named else model
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.platform(), "load": load,
            "date": time.strftime("%Y-%m-%d %H:%M")}


def versions(*packages: str) -> dict:
    """Versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def parser(description: str) -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=description)
    p.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here, as they come")
    p.add_argument("--quick", action="store_true", help="less data and fewer pairs: a smoke test, not a claim")
    p.add_argument("--keep", type=Path, metavar="DIR", help="keep the synthetic recordings here for the next benchmark")
    return p


def arguments(description: str, argv: list[str] | None = None) -> argparse.Namespace:
    return parser(description).parse_args(argv)


class Report:
    """Comparisons and figures, written to the JSON file as each comes, and shown as tables at the end.

    `part`: what the file holds under other names stays there.
    """

    def __init__(self, title: str, packages: tuple[str, ...], file: Path | None, part: bool = False):
        self.title, self.packages, self.file = title, packages, file
        before = json.loads(file.read_text()) if part and file and file.is_file() else {}
        self.comparisons, self.figures, self.more = before.get("comparisons", []), before.get("measured", []), {}
        self.console = Console() if sys.stdout.isatty() else Console(width=140)  # 80 columns break the names in a log
        self.about = machine()  # the load at the start; the benchmark's own comes on top

    def compare(self, name: str, ours: Callable, peer: Callable, unit: str, **timing) -> dict:
        self.comparisons = _without(self.comparisons, name) + [compare(name, ours, peer, unit, **timing)]
        self.console.log(f"{name}: {self.comparisons[-1]['ratio']:.2f} times faster")
        self.write()
        return self.comparisons[-1]

    def measured(self, name: str, value: float, unit: str, limit: float | None = None) -> None:
        self.figures = _without(self.figures, name) + [measured(name, value, unit, limit)]
        self.console.log(f"{name}: {value:,.2f} {unit}")
        self.write()

    def write(self) -> None:
        if self.file:
            self.file.write_text(json.dumps({
                "comparisons": self.comparisons, "measured": self.figures, **self.more, "machine": self.about,
                "versions": versions(*self.packages)}, indent=2) + "\n")

    def show(self) -> None:
        self.write()
        if self.comparisons:
            self.console.print(_compared(self.title, self.comparisons))
        if self.figures:
            self.console.print(_figures(self.title, self.figures))
        found = ", ".join(f"{name} {version}" for name, version in versions(*self.packages).items())
        self.console.print(f"{self.about['cpu']}, {self.about['cores']} cores, load {self.about['load']:.1f} at the "
                           f"start, {self.about['date']}; {found}")


def _without(entries: list[dict], name: str) -> list[dict]:
    return [entry for entry in entries if entry["name"] != name]


def _compared(title: str, comparisons: list[dict]) -> Table:
    table = Table(title=title)
    for column in ("comparison", "ours", "peer", "unit", "times faster", "lowest .. highest"):
        table.add_column(column, justify="left" if column in ("comparison", "unit") else "right",
                         no_wrap=column != "comparison")
    for c in comparisons:
        low, high = c["spread"]
        table.add_row(c["name"], *(f"{c[k]:,.{0 if c[k] >= 100 else 1}f}" for k in ("ours", "peer")), c["unit"],
                      f"{c['ratio']:.2f}", f"{low:.2f} .. {high:.2f}")
    return table


def _figures(title: str, figures: list[dict]) -> Table:
    table = Table("figure", "value", "unit", "at most", "", title=title)
    for f in figures:
        limit = "" if f["limit"] is None else f"{f['limit']:,.4g}"
        table.add_row(f["name"], f"{f['value']:,.2f}", f["unit"], limit, "" if not limit else
                      "holds" if f["holds"] else "MISSED")
    return table
