"""Kills workers and drivers at random, and starts the driver again until it ends well."""

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

# What the command lines of workers have in them, by launcher.
WORKERS = {"local": "tfkfin.launch.local", "ray": "ray::", "slurm": "submitit.core._submit"}


def processes() -> dict[int, tuple[int, str]]:
    """Number -> (parent's number, command line), of every process here."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            found[int(path.name)] = parent, line
        except (OSError, IndexError):  # it has ended meanwhile
            continue
    return found


def workers(launcher: str, driver: int, folder: Path) -> list[int]:
    """The workers of a driver; Slurm's are nobody's children here, but name the folder."""
    every = processes()

    def ours(number: int, line: str) -> bool:
        if launcher == "slurm":
            return str(folder) in line and "srun" not in line
        while number in every and number != driver:
            number = every[number][0]
        return number == driver

    return sorted(number for number, (_, line) in every.items() if WORKERS[launcher] in line and ours(number, line))


def end(command: list[str], launcher: str, folder: Path, kills: int, seed: int, apart: tuple[float, float],
        environment: dict[str, str] | None = None, limit: float = 900) -> tuple[int, int]:
    """Runs a command to its good end in spite of so many kills, `apart` seconds from each other.

    Returns how many workers and how many drivers were killed.
    """
    chance, killed, deadline = random.Random(seed), [0, 0], time.monotonic() + limit
    log = (folder.parent / f"{folder.name}-driver.log").open("ab")

    def start() -> subprocess.Popen:
        return subprocess.Popen(command, env=environment or os.environ, stdout=log, stderr=log)

    driver = start()
    while time.monotonic() < deadline:
        if sum(killed) < kills:
            time.sleep(chance.uniform(*apart))
            there = workers(launcher, driver.pid, folder)
            if chance.random() < 0.3 and killed[0]:
                driver.kill()
                driver.wait()
                killed[1] += 1
            elif there:  # on a busy machine they take long to start
                with suppress(ProcessLookupError):  # it has ended meanwhile
                    os.kill(chance.choice(there), signal.SIGKILL)
                    killed[0] += 1
        elif driver.wait() == 0:
            log.close()
            return killed[0], killed[1]
        if driver.poll() is not None:
            driver = start()
    raise TimeoutError(f"no good end: {(folder.parent / f'{folder.name}-driver.log').read_text()[-2000:]}")
