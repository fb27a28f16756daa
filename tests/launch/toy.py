"""What tests let launchers do: it needs no TensorFlow. Each piece of work leaves a file; some ends badly."""

import os
import signal
import sys
import time
from pathlib import Path

from tfkfin.base.errors import InputError
from tfkfin.base.files import write_text


def work(folder: str, name: str, seconds: float = 0.0, how: str = "well") -> None:
    """Leaves <folder>/<name> with its square. `how`: what happens on the way; "killed once" is only the first time."""
    sys.stdout.write(f"{name} begins\n")
    time.sleep(seconds)
    mark = Path(folder, f"{name}.killed")
    if how == "killed" or how == "killed once" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "unfit":
        raise InputError(f"{name} is\nunfit")
    if how == "broken":
        raise ZeroDivisionError(f"{name} is broken")
    if how != "nothing":
        write_text(Path(folder, name), str(int(name) ** 2))


def main() -> None:
    """`python toy.py LAUNCHER FOLDER COUNT SECONDS [ADDRESS]`: launches so many, makes a table; 1 if some failed."""
    from tfkfin.base.console import log_to_stderr
    from tfkfin.launch import Task, launch
    from tfkfin.recipe import Launch

    launcher, folder, count, seconds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    log_to_stderr()
    tasks = [Task(f"toys/{i}", "toy:work", {"folder": str(folder), "name": str(i), "seconds": seconds})
             for i in range(count)]
    failed = launch(tasks, lambda task: (folder / task.arguments["name"]).is_file(), launcher,
                    Launch(workers=2, retries=9, memory_gb=0.2, address="".join(sys.argv[5:])), folder, "toys")
    if failed:
        sys.exit(1)
    write_text(folder / "table", "".join(f"{i},{(folder / str(i)).read_text()}\n" for i in range(count)))


if __name__ == "__main__":
    main()
