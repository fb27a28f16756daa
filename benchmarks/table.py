"""Writes the figures of benchmarks/results/*.json into benchmarks/README.md: `python benchmarks/table.py`."""

import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
MARK = "## Figures\n"


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.4g}"


def row(*cells) -> str:
    return "| " + " | ".join(map(str, cells)) + " |\n"


def head(*columns) -> str:
    return "\n" + row(*columns) + row(*("---" if i == 0 else "--:" for i in range(len(columns))))


def section(name: str, found: dict) -> str:
    about = found["machine"]
    load = f", load {about['load']:.1f} at the start" if about.get("load") is not None else ""
    named = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
    date = about.get("date", "undated")
    text = f"\n### {name}.py\n\n{about['cpu']}, {about['cores']} cores{load}, {date}; {named}.\n"
    if found.get("comparisons"):
        text += head("comparison", "ours", "peer", "unit", "times faster", "lowest .. highest")
        for c in found["comparisons"]:
            text += row(c["name"], number(c["ours"]), number(c["peer"]), c["unit"], f"**{c['ratio']:.2f}**",
                        f"{c['spread'][0]:.2f} .. {c['spread'][1]:.2f}")
    if found.get("measured"):
        text += head("figure", "value", "unit", "at most", "")
        for m in found["measured"]:
            limit = m["limit"]
            text += row(m["name"], number(m["value"]), m["unit"], "" if limit is None else number(limit),
                        "" if limit is None else "holds" if m["holds"] else "MISSED")
    if (HERE / "results" / f"{name}.png").is_file():
        text += f"\n![cost against size](results/{name}.png)\n"
    if "load" in found:
        text += head(f"{found['server']}, 8 clients, {found['seconds']} s", "requests", "errors", "wrong", "p50 ms",
                     "p95 ms", "p99 ms")
        for kind in ("REST", "gRPC"):
            r = found["load"][kind]
            text += row(f"4 x {kind}", f"{r['requests']:,}", r["errors"], r["wrong"],
                        *(f"{r[f'p{q}_ms']:.1f}" for q in (50, 95, 99)))
        memory = found["load"]["memory_mb"]
        text += (f"\nThe server's memory went from {memory[0]:.0f} to {memory[-1]:.0f} MB. {found['bad_requests']:,} "
                 f"bad requests, mixed with as many good ones in {found['bad_seconds']:.0f} s: each a clear error, "
                 "each good one its exact answer.\n")
    return text


def main() -> None:
    readme = HERE / "README.md"
    kept = readme.read_text(encoding="utf-8").partition(MARK)[0]
    files = sorted((HERE / "results").glob("*.json"))
    parts = [section(file.stem, json.loads(file.read_text(encoding="utf-8"))) for file in files]
    readme.write_text(kept + MARK + "".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
