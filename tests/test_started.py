"""Processes that are forked are as those that are started: words, folder, environment, streams, signals, exit codes."""

import os
import signal
import subprocess
import sys

import pytest
import started

TELLS = """
import os, sys
print(os.getcwd(), sys.argv[1:], os.environ["MINE"], "HOME" in os.environ, sys.stdin.read())
print([name for name in sys.modules if name.startswith("tfkfin")], file=sys.stderr)
sys.exit(3)
"""


@pytest.mark.parametrize("words", [("-c", TELLS), ("program.py",), ("-m", "program")])
def test_a_process_is_as_one_of_its_own(words, tmp_path):
    (tmp_path / "program.py").write_text(TELLS)
    answers = []
    for door in (subprocess.Popen, started.Popen):
        with door([sys.executable, *words, "a", "b c"], cwd=tmp_path, env={"MINE": "é", "PYTHONUTF8": "1"},
                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            answers.append((*process.communicate("said", timeout=60), process.returncode))
    assert answers[0] == answers[1] and answers[0][1:] == ("[]\n", 3)


def test_signals_errors_and_patience():
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        with started.Popen([sys.executable, "-c", "import time; print('here', flush=True); time.sleep(60)"],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "here\n" and process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.1)
            process.send_signal(number)
            assert process.wait(30) == -number == process.poll()
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)
    done = started.run([sys.executable, "-c", "raise KeyError('a')"])
    assert done.returncode == 1 and done.stderr.endswith("KeyError: 'a'\n")
    done = started.run([sys.executable, "-m", "tfkfin.models", "show", "nothing"])
    assert done.returncode == 2 and done.stderr.count("\n") == 1
