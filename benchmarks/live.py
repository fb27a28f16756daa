"""A live session in real time, from sample received to decision sent: 12 channels at 2 kHz, a decision every 10 ms.

    python benchmarks/live.py --seconds 300 --browser [--json FILE] [--quick]

`tfkfin live` in a process of its own replays a synthetic person through the recipe `best` (the shipped conv FINs). With
--browser its page is open in headless Chromium (playwright's own, or the system's), which takes its share of the cores,
as it does on a laptop.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common import HERE, Report, parser

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
COUNT = """() => {
    window.updates = 0
    Bokeh.documents[0].get_model_by_name('electrode 1').data_source.streaming.connect(() => { window.updates += 1 })
}"""


def decoder(folder: Path) -> Path:
    """The recipe `best`, fitted to the synthetic person, every 10 ms."""
    made = subprocess.run([sys.executable, "-c", """
import sys
import tfkfin
from tfkfin import recipe
from tfkfin.live.sources.synthetic import person
decoder = tfkfin.Decoder.from_preset("best")
decoder.recipe = recipe.load("best", {"window.stride_ms": 10, "window.rest": True})
decoder.fit(person(1, 5, 12, 2000.0)).save(sys.argv[1])
"""[1:], str(folder)], env=_environment(), capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(made.stderr[-3000:])
    return folder


@contextlib.contextmanager
def session(model: Path, seconds: float, paged: bool, answers: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """A running session, and its page's address; ends with it."""
    words = ["--model", model, "--source", "synthetic", "--seconds", seconds, "--stride-ms", 10,
             "--json", answers]
    running = subprocess.Popen([sys.executable, "-m", "tfkfin.live", *map(str, words), *(["--page"] if paged else [])],
                               env=_environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    said = []
    for line in running.stderr:
        said.append(line)
        if found := re.search("http://\\S+", line) if paged else "engine" in line:
            yield running, found.group() if paged else ""
            break
    else:
        running.wait()
        raise RuntimeError("".join(said)[-3000:])
    said += running.stderr
    if running.wait():
        raise RuntimeError("".join(said)[-3000:])


def busy_s(pid: int) -> float:
    """Seconds that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stolen_s() -> float:
    """Seconds that the machine's host gave to others while this one had something to do; of all cores together."""
    return int(Path("/proc/stat").read_text().split("\n")[0].split()[8]) / os.sysconf("SC_CLK_TCK")


def page_of(pid: int) -> int:
    """The page's process, of those that a session has begun."""
    children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir()
                for child in (task / "children").read_text().split()]
    return next(child for child in children if b"tfkfin.live.page" in Path(f"/proc/{child}/cmdline").read_bytes())


def looked_at(report: Report, running: subprocess.Popen, url: str, seconds: float) -> None:
    """Keeps the page open until shortly before the session ends; what it costs and how often it moves."""
    from playwright.sync_api import sync_playwright

    end = time.monotonic() + seconds - 10
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        path = own if Path(own).is_file() else next(filter(None, map(shutil.which, CHROMIUM)), None)
        if path is None:
            running.send_signal(signal.SIGINT)
            raise RuntimeError("there is no Chromium: playwright install chromium, or apt-get install chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page, process, began = browser.new_page(viewport={"width": 1400, "height": 1000}), page_of(running.pid), None
        page.goto(url, timeout=60_000)
        page.wait_for_function("Bokeh.documents[0]?.get_model_by_name('electrode 1')?.data_source.data.t.length > 0",
                               timeout=60_000)
        page.wait_for_timeout(5000)  # what came while it was made is shown
        began, before = time.monotonic(), busy_s(process)
        page.evaluate(COUNT)
        while time.monotonic() < end:
            page.wait_for_timeout(1000)
        lasted = time.monotonic() - began
        frames, share = page.evaluate("window.updates") / lasted, (busy_s(process) - before) / lasted
        report.measured("updates of the plots in the browser", frames, "1/s")
        report.measured("the page's process", 100 * share, "% of a core", 20)
        browser.close()


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__.splitlines()[0])
    p.add_argument("--seconds", type=float, default=300.0, help="of signal (default: 300)")
    p.add_argument("--browser", action="store_true", help="with its page, open in headless Chromium")
    args = p.parse_args(argv)
    seconds = min(args.seconds, 30.0) if args.quick else args.seconds
    report = Report("A live session", ("tensorflow", "keras", "numpy", "bokeh", "playwright"), args.json)
    with tempfile.TemporaryDirectory() as folder:
        model, answers = decoder(Path(folder, "model")), Path(folder, "answers.json")
        with session(model, seconds, args.browser, answers) as (running, url):
            before, began = stolen_s(), time.monotonic()
            if args.browser:
                looked_at(report, running, url, seconds)
        lost = (stolen_s() - before) / (time.monotonic() - began)
        found = json.loads(answers.read_text())
    limits = {("total", "p99"): 5.0}
    for part in ("total", "wait", "preparation", "inference"):
        for q in ("p50", "p95", "p99", "most"):
            name = "sample received to decision sent" if part == "total" else part
            report.measured(f"{name}, {q}", found["timing"][part][f"{q}_ms"], "ms", limits.get((part, q)))
    for name in ("decisions", "missed", "dropped"):
        report.measured(name, found["timing"][name], "", None if name == "decisions" else 0)
    report.measured("load at the end", os.getloadavg()[0], "")
    report.measured("taken by other virtual machines", 100 * lost, "% of a core")
    report.more = {"seconds": seconds, "browser": args.browser, "stride_ms": found["stride_ms"],
                   "priority": found["priority"]}
    report.show()


def _environment() -> dict:
    return os.environ | {"PYTHONPATH": str(HERE.parent), "TF_CPP_MIN_LOG_LEVEL": "3"}


if __name__ == "__main__":
    main()
