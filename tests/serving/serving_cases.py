"""What the serving tests and benchmarks/serving.py share: golden answers, starting the stand-in, load."""

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from tfkfin.client import connect
from tfkfin.serving.client import ServingError, stubs

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
TOLERANCE = 1e-5  # a real server may run on other instructions
LIMIT = 4 << 20  # bytes of a request that the stand-in takes here


def answers() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "answers.npz") as file:
        return dict(file)


@contextlib.contextmanager
def standin(models: Path, ready: Path):
    """Runs the stand-in in a process of its own; yields {"rest", "grpc", "pid"}."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, str(HERE / "standin.py"), "--models", str(models), "--ready", str(ready), "--limit",
               str(LIMIT)]
    with ready.with_suffix(".log").open("w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=ready.parent)
        try:
            end = time.monotonic() + 120
            while not ready.is_file():
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise RuntimeError(f"the stand-in did not start: {log.read()[-2000:]}")
                time.sleep(0.05)
            yield json.loads(ready.read_text()) | {"process": process}
        finally:
            process.terminate()
            process.wait(10)


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def load(rest: str, grpc: str, pid: int | None, seconds: float, clients: int = 8) -> dict:
    """`clients` threads, half REST and half gRPC, one window a request, for some seconds.

    Returns:
        Per transport `requests`, `errors`, `wrong`, `per_second` and latency percentiles in ms; `memory_mb` of the
        server, sampled over time.
    """
    stubs()  # seconds, before the clock starts
    known, lock = answers(), threading.Lock()
    results = {kind: {"latency": [], "errors": 0, "wrong": 0} for kind in ("REST", "gRPC")}
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        kind, url = (("REST", rest), ("gRPC", grpc))[number % 2]
        rng, mine, errors, wrong = random.Random(number), [], 0, 0
        with connect(url, "decoder", version=1, timeout_s=30, retries=0) as client:
            while time.monotonic() < end:
                i = rng.randrange(len(known["emg"]))
                began = time.perf_counter()
                try:
                    got = client.predict(known["emg"][i : i + 1])
                except ServingError:
                    errors += 1
                    continue
                mine.append(time.perf_counter() - began)
                wrong += any(np.abs(value - known[f"1/serving_default/{name}"][i : i + 1]).max() > TOLERANCE
                             for name, value in got.items())
        with lock:
            results[kind]["latency"] += mine
            results[kind]["errors"] += errors
            results[kind]["wrong"] += wrong

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    memory = []
    while any(thread.is_alive() for thread in threads):
        memory += [resident_mb(pid)] if pid else []
        time.sleep(min(1.0, seconds / 10))
    return {"memory_mb": memory, **{kind: _summary(r, seconds) for kind, r in results.items()}}


def _summary(result: dict, seconds: float) -> dict:
    latency = 1000 * np.array(result.pop("latency"))
    percentiles = {f"p{q}_ms": float(np.percentile(latency, q)) for q in (50, 95, 99)} if len(latency) else {}
    return result | {"requests": len(latency), "per_second": len(latency) / seconds, **percentiles}
