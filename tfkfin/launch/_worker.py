"""`python -m tfkfin.launch._worker`: a process that performs the tasks it reads, and answers each with one line.

A task is one line of JSON on stdin. The process ends as soon as the process that started it has ended, even in the
middle of a task; another worker then continues that task.
"""

import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path

from tfkfin.launch._task import Task, perform


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the launching process too, which ends this one
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the pipe is for answers alone
    lines: queue.SimpleQueue = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)  # the launching process has ended

    threading.Thread(target=listen, daemon=True).start()
    while True:
        request = json.loads(lines.get())
        error = perform(Task(**request["task"]), Path(request["log"]))
        answers.write(json.dumps({"error": error}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
