"""`python -m tfkfin.launch._worker`: does the tasks that it reads, one a line, and answers each with a line.

It ends with the process that started it, in the middle of a task too: another worker goes on with that.
"""

import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path

from tfkfin.launch import Task
from tfkfin.launch._task import perform


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it is interrupted too
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the pipe is for answers
    lines: queue.SimpleQueue = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)  # nobody waits for an answer

    threading.Thread(target=listen, daemon=True).start()
    while True:
        given = json.loads(lines.get())
        answers.write(json.dumps({"error": perform(Task(**given["task"]), Path(given["log"]))}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
