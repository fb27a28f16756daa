"""Sets two results of one benchmark side by side: `python benchmarks/compare.py before.json after.json`.

A comparison's ratio has changed where the two spreads do not overlap; a figure without a peer has no spread, so both
machines' loads stand above the table.
"""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table


def rows(before: dict, after: dict) -> list[tuple[str, ...]]:
    """(name, before, after, what changed) of every comparison and figure that both results have."""
    found = []
    old = {c["name"]: c for c in before.get("comparisons", [])}
    for new in after.get("comparisons", []):
        if (was := old.get(new["name"])) is None:
            continue
        apart = new["spread"][0] > was["spread"][1] or new["spread"][1] < was["spread"][0]
        said = "within the spread" if not apart else "faster" if new["ratio"] > was["ratio"] else "slower"
        found.append((new["name"], *(f"{c['ratio']:.2f} ({c['spread'][0]:.2f} .. {c['spread'][1]:.2f})"
                                     for c in (was, new)), said))
    old = {m["name"]: m for m in before.get("measured", [])}
    for new in after.get("measured", []):
        if (was := old.get(new["name"])) is not None:
            change = f"x {new['value'] / was['value']:.2f}" if was["value"] else ""
            found.append((new["name"], *(f"{m['value']:,.4g} {m['unit']}" for m in (was, new)), change))
    return found


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("before", type=Path)
    p.add_argument("after", type=Path)
    args = p.parse_args(argv)
    results = [json.loads(path.read_text(encoding="utf-8")) for path in (args.before, args.after)]
    console = Console()
    for path, result in zip((args.before, args.after), results, strict=True):
        about = result["machine"]
        console.print(f"{path}: {about['cpu']}, load {about['load']:.1f}, {about['date']}")
    table = Table("times faster, or value", "before", "after", "change")
    for row in rows(*results):
        table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    main()
