"""Load and bad requests against TF Serving, or a stand-in for it: errors, wrong answers, memory, latency.

    python benchmarks/serving.py [--json FILE] [--quick]

Eight concurrent clients, half REST and half gRPC, one window a request, for 60 s; then 10,000 bad requests mixed with
as many good ones. The stand-in (tests/serving/standin.py) is a Python process around the official servicer classes
and serves tests/serving/golden, a tiny model: its latency is that of the transport, no claim about
tensorflow_model_server. With
TFKFIN_SERVING_URL=http://host:8501 a real server of tests/serving/golden is measured instead.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from common import arguments, machine, versions
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "serving"))

import serving_cases as cases  # noqa: E402
from bad_requests import Storm  # noqa: E402

PACKAGES = ("tensorflow", "tensorflow-serving-api", "grpcio", "requests")


@contextlib.contextmanager
def server():
    """Yields (what it is, its addresses)."""
    if url := os.environ.get("TFKFIN_SERVING_URL"):
        rpc = os.environ.get("TFKFIN_SERVING_GRPC", f"grpc://{urlsplit(url).hostname}:8500")
        yield "TF Serving", {"rest": url, "grpc": rpc, "pid": None}
        return
    with tempfile.TemporaryDirectory() as folder, cases.standin(cases.GOLDEN, Path(folder, "ready.json")) as started:
        yield "stand-in", started


def main(argv: list[str] | None = None) -> None:
    args = arguments(__doc__.splitlines()[0], argv)
    seconds, bad = (5, 300) if args.quick else (60, 10_000)
    with server() as (what, at):
        load = cases.load(at["rest"], at["grpc"], at["pid"], seconds)
        began = time.monotonic()
        counts = Storm(at["rest"], at["grpc"], cases.LIMIT if at["pid"] else None).run(bad)
        storm_s = time.monotonic() - began
        memory = load["memory_mb"] + ([cases.resident_mb(at["pid"])] if at["pid"] else [])
    result = {"server": what, "seconds": seconds, "clients": 8, "load": load, "bad_requests": bad,
              "bad_seconds": storm_s,
              "errors_by_kind": {f"{kind}: {code}": n for (kind, code), n in sorted(counts.items())},
              "machine": machine(), "versions": versions(*PACKAGES)}
    show(result, memory)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


def show(result: dict, memory: list[float]) -> None:
    console = Console()
    table = Table("clients", "requests", "a second", "errors", "wrong", "p50 ms", "p95 ms", "p99 ms",
                  title=f"{result['server']}, 8 concurrent clients, {result['seconds']} s")
    for kind in ("REST", "gRPC"):
        r = result["load"][kind]
        table.add_row(f"4 x {kind}", f"{r['requests']:,}", f"{r['per_second']:.0f}", str(r["errors"]), str(r["wrong"]),
                      *(f"{r[f'p{q}_ms']:.1f}" for q in (50, 95, 99)))
    console.print(table)
    if memory:
        third = max(1, len(memory) // 3)
        console.print(f"server's memory: {max(memory[:third]):.0f} MB in the first third of the load, "
                      f"{max(memory[-third - 1:-1]):.0f} MB in the last, {memory[-1]:.0f} MB after the bad requests")
    console.print(f"{result['bad_requests']:,} bad requests of {len(result['errors_by_kind']) - 1} kinds and outcomes, "
                  f"mixed with as many good ones, in {result['bad_seconds']:.0f} s: each a clear error, "
                  "each good one its exact answer")
    about = result["machine"]
    console.print(f"{about['cpu']}, {about['cores']} cores; " +
                  ", ".join(f"{k} {v}" for k, v in result["versions"].items()))


if __name__ == "__main__":
    main()
