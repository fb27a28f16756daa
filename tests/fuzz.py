"""Mutated inputs by the thousand: whatever comes in, the answer is right or an `InputError`, soon and in little memory.

    nice -n 19 python tests/fuzz.py --count 12000            of every kind, on all cores; seeded
    nice -n 19 python tests/fuzz.py --count 12000 --seed 12000      goes on where that ended
    python tests/fuzz.py --kind mat5 --count 1 --seed 3 --show      one input, with the traceback

Counted are crashes (a process that dies), hangs (> 5 s of CPU, or > 30 s), memory (> 1 GiB above the start) and errors
that are no InputError. Past the first parser are those whose container is whole and whose content lies: see
`fuzz_kinds.py`, and `fuzz_bombs.py`.
"""

import argparse
import functools
import gc
import multiprocessing
import os
import queue
import random
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

KINDS = ("mat5", "hdf5", "recipe", "sheet", "bids", "run_file", "card", "zipped", "reply", "bomb",
         "special")
HANG_S, MOST_BYTES, NO_ROOM = 5, 1 << 30, "memory: MemoryError"
TIMERS = ((signal.SIGPROF, signal.ITIMER_PROF, HANG_S),  # of CPU: other programs may keep the machine busy
          (signal.SIGALRM, signal.ITIMER_REAL, 6 * HANG_S))
BATCH = 1000  # inputs of one process
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # files that no disk has to keep


class Hang(BaseException):
    """It takes too long."""


def _hang(*_):
    raise Hang


def outcome(kind: str, seed: int, show: bool = False) -> tuple[str, bool]:
    """What one input came to: "answered", "refused", or what went wrong; and whether its container is whole."""
    import fuzz_kinds

    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        made = fuzz_kinds.KINDS[kind](random.Random(f"{kind} {seed}"), Path(folder))
        return _soon(lambda: _said(made.act, show)), _soon(lambda: _said(made.parse, False)) == "answered"


def _soon(call):
    try:
        for which, timer, seconds in TIMERS:
            signal.signal(which, _hang)
            signal.setitimer(timer, seconds)
        try:
            return call()
        finally:
            for _, timer, _ in TIMERS:
                signal.setitimer(timer, 0)
    except Hang:
        return "hang"


def _said(act, show: bool) -> str:
    from tfkfin.base.errors import InputError

    try:
        act()
        return "answered"
    except Exception as error:
        if show:
            traceback.print_exc()
        every, one = [], error
        while one is not None and one not in every:
            every, one = [*every, one], one.__cause__ or one.__context__
        if any(isinstance(one, MemoryError) for one in every):  # even one that was made a refusal of
            return NO_ROOM
        if isinstance(error, InputError):
            return "refused" if str(error) else "silence"
        ours = [f for f in traceback.extract_tb(error.__traceback__) if "/tfkfin/" in f.filename]
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "fuzz"
        return f"{type(error).__name__} at {where}: {str(error)[:60]}"


def _work(kind: str, seeds: range, told) -> None:
    """A process of its own, so that a crash ends it and nothing else; it says each seed before it tries it."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.getLogger("tfkfin").addHandler(logging.NullHandler())
    logging.getLogger("tfkfin").propagate = False
    import fuzz_kinds

    from tfkfin.base import machine, registry

    machine.memory = functools.cache(machine.memory)  # half of an input's time would be to ask what is free
    registry.names = functools.cache(registry.names)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:  # what is made once counts for no input
        fuzz_kinds.KINDS[kind](random.Random(0), Path(folder))
    gc.freeze()
    start = _peak()
    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + MOST_BYTES + (1 << 30), resource.RLIM_INFINITY))
    began = time.process_time()
    for seed in seeds:
        told.send((seed, None, False))
        try:
            said, whole = outcome(kind, seed)
            if said == "hang":  # once more: a busy machine may have slept
                said, whole = outcome(kind, seed)
        except MemoryError:  # of the input's making
            said, whole = NO_ROOM, False
        if said == NO_ROOM and seed != seeds[0]:  # libraries keep addresses of inputs before: once more without them
            os._exit(0)
        if _peak() - start > MOST_BYTES:
            told.send((seed, "memory", whole))
            os._exit(0)  # the peak stays; another process goes on
        told.send((seed, said, whole))
    told.send((seeds[-1], "cpu_s", time.process_time() - began))
    told.close()


def _peak() -> int:
    """Bytes that this process ever held at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(kind: str, seeds: range) -> Counter:
    """(what was said, an example's seed) of these seeds; a process that dies is a crash, and the next goes on."""
    found, left = Counter(), seeds
    context = multiprocessing.get_context("forkserver")
    while len(left):
        ours, theirs = context.Pipe(False)
        process = context.Process(target=_work, args=(kind, left, theirs), daemon=True)
        process.start()
        theirs.close()
        last, said, done = left.start - 1, None, False
        try:
            while ours.poll(60 if last < left.start else 15 * HANG_S):
                last, said, whole = ours.recv()
                done = said == "cpu_s"
                if done:
                    found["cpu_s", ""] += whole
                elif said is not None:
                    found[said, "" if said in ("answered", "refused") else last] += 1
                    found["whole", ""] += whole
            process.kill()
            found["hang in a library", last] += 1
        except EOFError:
            process.join()
            if not done and said is None and process.exitcode == 0:
                left = range(last, seeds.stop)
                continue
            if not done and said != "memory":
                found[f"crash, exit code {process.exitcode}", last] += 1
        process.join()
        left = range(max(last, left.start) + 1, seeds.stop)
    return found


def every(kinds: list[str], seeds: range, cores: int, seconds: float) -> dict[str, Counter]:
    """Kind -> what `fuzz` found, by so many processes at once."""
    jobs, found, lock = queue.SimpleQueue(), {kind: Counter() for kind in kinds}, threading.Lock()
    deadline = time.monotonic() + seconds
    batch = min(BATCH, max(1, -(-len(seeds) * len(kinds) // cores)))
    for first in range(seeds.start, seeds.stop, batch):
        for kind in kinds:
            jobs.put((kind, range(first, min(first + batch, seeds.stop))))

    def work():
        while time.monotonic() < deadline:
            try:
                kind, part = jobs.get_nowait()
            except queue.Empty:
                return
            made = fuzz(kind, part)
            with lock:
                found[kind] += made

    threads = [threading.Thread(target=work) for _ in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="inputs of each kind (default: 1000)")
    parser.add_argument("--kind", choices=(*KINDS, "planted"), action="append", help="default: every one")
    parser.add_argument("--seed", type=int, default=0, help="the first (default: 0)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin nothing after so many")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), help="default: all")
    parser.add_argument("--show", action="store_true", help="run in this process, and show what is raised")
    options = parser.parse_args()
    began, kinds = time.monotonic(), options.kind or list(KINDS)
    seeds = range(options.seed, options.seed + options.count)
    if options.show:
        print(*((kind, seed, *outcome(kind, seed, True)) for kind in kinds for seed in seeds), sep="\n")
        return 0
    multiprocessing.set_forkserver_preload(["fuzz_kinds"])
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    sums = Counter()
    for kind, found in every(kinds, seeds, options.cores, options.seconds).items():
        whole, good, refused, cpu_s = (found.pop((name, ""), 0) for name in ("whole", "answered", "refused", "cpu_s"))
        wrong = sum(found.values())
        inputs = good + refused + wrong
        print(f"{kind:9} {inputs:7} inputs, {100 * whole / max(inputs, 1):3.0f} % of them past the first parser: "
              f"{good} answered, {refused} refused, {wrong} wrong ({1000 * cpu_s / max(inputs, 1):.1f} ms of CPU each)")
        by_said: dict[str, list[int]] = {}
        for (said, seed), n in found.items():
            by_said.setdefault(said, []).extend([seed] * n)
        for said, own in sorted(by_said.items(), key=lambda one: -len(one[1]))[:20]:
            print(f"    {len(own):5}  {said} (--kind {kind} --seed {min(own)})")
        sums += Counter(inputs=inputs, whole=whole, wrong=wrong, cpu_s=cpu_s)
    seconds = time.monotonic() - began
    print(f"{sums['inputs']} inputs, {100 * sums['whole'] / max(sums['inputs'], 1):.0f} % of them past the first "
          f"parser: {sums['wrong']} wrong, in {seconds:.0f} s ({sums['cpu_s']:.0f} s of CPU)")
    return 1 if sums["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
