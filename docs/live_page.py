"""The live page on the site: `python docs/live_page.py` writes docs/images/live_*.png.

A replayed synthetic person, of whom nobody was recorded, is decided by the recipe `best`; the page is the one of
`tfkfin live --page`. It needs Chromium and the extras [live] and [test].
"""

import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import first_screen

IMAGES = Path(__file__).resolve().parent / "images"
MOVEMENTS = {1: "fist", 2: "open hand", 3: "pinch", 4: "pointing index", 5: "wrist flexion", 6: "wrist extension"}
AT_S = 13.5  # of the recording, in the middle of a movement
SCREENS = {"page": (1280, 720), "tablet": (820, 1180)}
SEEN = ("status", "buttons", "cards", "signals", "course", "bars", "latency")  # without scrolling


@contextmanager
def session(folder: Path) -> Iterator[tuple[str, threading.Thread, threading.Event]]:
    """The page's address, a thread to start, and an event that is set once it has come to `AT_S`, where it waits."""
    from dataclasses import replace

    import tfkfin
    from tfkfin.live.loop import Loop
    from tfkfin.live.outputs import Feed
    from tfkfin.live.session import open_page
    from tfkfin.live.sources.replay import Replay
    from tfkfin.live.stream import Stream
    from tfkfin.recipe import load
    from tfkfin.recordings.synthetic import synthesize

    synthesize(folder / "people", (1,), movements=len(MOVEMENTS), channels=8)
    person, = (replace(one, names=MOVEMENTS) for one in tfkfin.read(folder / "people"))
    decoder = tfkfin.Decoder.from_preset("best")
    decoder.recipe = load("best", {"window.rest": True})
    decoder = decoder.fit(person)
    played = person.repetitions == 2  # one of each movement, in order
    parts = {name: getattr(person, name)[played] for name in ("emg", "labels", "repetitions")}
    loop = Loop(Stream(decoder), Replay(replace(person, **parts), 1.0), [], first=True)
    obey = open_page(loop, 0, folder / "kept", 1)
    there, over = threading.Event(), threading.Event()

    def between() -> None:
        obey()
        if loop.signal.received >= AT_S * person.rate_hz:
            there.set()
            over.wait()

    loop.between = between
    running = threading.Thread(target=loop.run)
    try:
        yield next(output.url for output in loop.outputs if isinstance(output, Feed)), running, there
    finally:
        over.set()
        loop.stop()
        running.join()


def screenshots(to: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Writes the page on each screen, light and dark. Returns where each part of it is."""
    from playwright.sync_api import sync_playwright

    boxes = {}
    with (tempfile.TemporaryDirectory() as folder, session(Path(folder)) as (url, running, there),
          sync_playwright() as playwright):
        browser = playwright.chromium.launch(executable_path=first_screen.chromium(),
                                             args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page(viewport=dict(zip(("width", "height"), SCREENS["page"], strict=True)))
        page.set_default_timeout(120_000)  # for busy machines
        page.goto(url)
        page.get_by_text("waiting for the signal").wait_for()
        running.start()
        while not there.is_set():
            page.wait_for_timeout(500)
        page.wait_for_timeout(3000)
        for name, (width, height) in SCREENS.items():
            page.set_viewport_size({"width": width, "height": height})
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                page.wait_for_timeout(3000)
                first_screen.save(page.screenshot(), to / f"live_{name}{'_dark' * (scheme == 'dark')}.png")
            boxes[name] = {part: page.locator(f".{part}").bounding_box() for part in SEEN}
        browser.close()
    return boxes


if __name__ == "__main__":
    for screen, parts in screenshots(Path(sys.argv[1]) if sys.argv[1:] else IMAGES).items():
        print(screen, {name: tuple(map(round, box.values())) for name, box in parts.items()})
