"""A session from the command line: decoder, source, outputs, the page with its buttons, new versions, the summary."""

import argparse
import gc
import queue
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import jinja2
from rich.table import Column, Table

from tfkfin.base import registry
from tfkfin.base.answers import answer, paper
from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.base.extras import required
from tfkfin.base.files import PACKAGE
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.live import outputs
from tfkfin.live.calibration import Calibration, Cued, Recorder, check_folder, cues, movement_names, told
from tfkfin.live.loop import Loop
from tfkfin.live.outputs import LiveOutput
from tfkfin.live.stream import Stream, load, with_network
from tfkfin.pipeline.windows import samples
from tfkfin.serving import version
from tfkfin.store import folders, presets

SHOWN = ("rate_hz", "length", "channels", "features", "movements", "mean_v", "sd_v")  # of a card, on the page


def run(arguments: argparse.Namespace) -> None:
    """Decides a live signal until it or the user ends it, as the command line asks, and writes what was learnt."""
    decoder, engine = load(arguments.model, arguments.engine, arguments.adapt)
    if arguments.adapt and arguments.to and "input" not in decoder.card:
        raise InputError(f"{arguments.model} is part of a run: export it, and --adapt --to can make a version of that")
    source, card = registry.load("live/sources", arguments.source, "SOURCE").open(arguments, decoder.card), decoder.card
    if source.channels != decoder.channels:
        raise InputError(f"{source.described} has {source.channels} channels, the model {decoder.channels}")
    stride = samples(arguments.stride_ms, card["rate_hz"]) if arguments.stride_ms else decoder.stride
    stream = Stream(decoder, stride, source.rate_hz, adapt=arguments.adapt)
    log.info("%s", source.described)
    log.info("engine %s, a decision every %g ms%s", engine, 1e3 * stride / stream.rate_hz,
             "" if stream.source_hz == stream.rate_hz else f", resampled to {stream.rate_hz:g} Hz")
    if arguments.calibrate:
        check_folder(arguments.calibrate, source.rate_hz, movement_names(card))
        asked = cues(card["movements"], arguments.cued, arguments.hold_s, arguments.rest_s)
        source = Cued(source, asked, arguments.page is None)
    made = open_outputs(arguments, card, stream.rate_hz / stride)
    if arguments.record.suffix.lower() == ".xdf":
        made.append(outputs.XdfFile(arguments.record, source.rate_hz, source.channels, movement_names(card)))
        arguments.record = Path("recordings")
    loop, subject = Loop(stream, source, made, first=not arguments.usual_priority), arguments.subject or 1
    calibrating, between = None, []
    if arguments.calibrate:
        asks = arguments.page is not None or sys.stdin.isatty()
        calibrating = Calibration(loop, with_network(decoder, arguments.model), arguments.calibrate, subject,
                                  True if arguments.replace else None if asks else False)
        between += [calibrating.between, *([Question(calibrating).between] if asks and sys.stdin.isatty() else [])]
    if arguments.page is not None:
        between.append(open_page(loop, arguments.page, arguments.record, subject, calibrating, arguments.page_host))
    loop.between = lambda: [call() for call in between]
    signals: list[int] = []  # that asked for the end
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: (signals.append(number), loop.stop()))
    gc.collect()
    gc.freeze()  # the collector need not look through these objects between decisions
    loop.run(arguments.seconds)
    summary = {"model": str(arguments.model), "source": source.described, "engine": engine} | loop.summary()
    print_summary(summary)
    if calibrating and calibrating.wanted:
        new = calibrating.new()
        if new is None and not calibrating.failed and signals:
            log.warning("no new decoder was made: the session was ended before")
            sys.exit(128 + signals[0])
        if new is None:
            raise InputError(f"no new decoder was made: {calibrating.failed or 'the session ended before'}")
        to = Path(arguments.to or presets.find(arguments.model).parent)
        if not calibrating.report.get("replaced") and folders.versions(to):  # whose newest version servers load
            to = to.with_name(f"{to.name}_calibrated")
            log.warning("the new decoder replaces none (--replace) and is written beside it, to %s: %s", to,
                        told(calibrating.report["evidence"]))
        summary["calibration"] = {"replaced": False} | calibrating.report | publish(new, to)
    elif arguments.adapt:
        adapted = stream.network.session
        summary["adapted"] = {"moved": adapted.moved} | (
            publish(adapted.carried(), arguments.to) if arguments.to else {})
    answer(summary)


class Question:
    """Asks on the terminal whether a new decoder replaces the one before; decisions do not wait for the answer."""

    def __init__(self, calibration: Calibration):
        self._calibration, self._answers, self._open = calibration, queue.SimpleQueue(), False

    def between(self) -> None:
        """Asks where a new decoder waits, and passes the answer on."""
        if self._calibration.asked and not self._open:
            self._open = True
            log.warning("replace the decoder by the new one? y or n, then Enter")
            threading.Thread(target=lambda: self._answers.put(sys.stdin.readline()), daemon=True).start()
        with suppress(queue.Empty):
            said = self._answers.get_nowait()
            self._open = False
            self._calibration.answer(said.strip().lower() in ("y", "yes"))


def publish(decoder: BaseDecoder, model: Path) -> dict:
    """Writes a decoder as a new version of a model folder; returns {"model": its folder}."""
    written = version.publish(decoder.card, decoder.model, model)
    log.info("%s", written)
    return {"model": str(written)}


def open_outputs(arguments: argparse.Namespace, card: dict, rate_hz: float) -> list[LiveOutput]:
    """The outputs that the command line asks for.

    Args:
        card: of the decoder.
        rate_hz: decisions a second.
    """
    quiet = arguments.quiet or arguments.json == "-"
    made: list[LiveOutput] = [] if quiet else [outputs.Terminal(movement_names(card))]
    if arguments.udp:
        made.append(outputs.Udp(arguments.udp, arguments.udp_json))
    if arguments.lsl_out:
        made.append(outputs.LslMarkers(arguments.lsl_out, card["movements"], rate_hz))
    if arguments.jsonl:
        made.append(outputs.JsonLines(arguments.jsonl))
    return made


def open_page(loop: Loop, port: int, folder: Path, subject: int,
              calibration: Calibration | None = None, host: str = "127.0.0.1") -> Callable[[], None]:
    """Opens the page of a session; returns a function that obeys its buttons, to be called between decisions.

    Args:
        port: of the page; 0: any that is free.
        folder: of recordings, which the page's button adds sessions of `subject` to.
        host: the address at which it is open.
    """
    required("bokeh")
    card, rate_hz = loop.stream.decoder.card, loop.source.rate_hz
    names = {0: "rest"} | movement_names(card)
    recorder = Recorder(folder, subject, rate_hz, movement_names(card))
    feed = outputs.Feed({name: card[name] for name in SHOWN} | {
        "source_hz": rate_hz, "filter": card.get("filter"),
        "names": {str(m): names.get(m, str(m)) for m in card["movements"]}}, port, host)
    loop.outputs += [recorder, feed]
    log.warning("%s", feed.url)  # with --quiet too: nobody can guess it
    actions = {"pause": lambda: loop.pause(True), "start": lambda: loop.pause(False),
               "record": lambda: loop.note(recorder.switch(True)),
               "stop recording": lambda: loop.note(recorder.switch(False))}
    if calibration:
        actions |= {"calibrate": calibration.begin, "stop calibrating": calibration.stop,
                    "use new decoder": lambda: calibration.answer(True),
                    "keep old decoder": lambda: calibration.answer(False)}

    def obey() -> None:
        for command in feed.commands():
            if command in actions:
                actions[command]()
            else:
                feed.passed_over += 1
        if recorder.full:
            loop.note(recorder.switch(False))
        feed.session = {"paused": loop.paused, "recording": recorder.on, "recorded_s": recorder.seconds,
                        "calibration": None} | (calibration.shown() if calibration else {})

    return obey


def print_summary(summary: dict) -> None:
    """Prints the summary of a loop for people: a table of times, and the sentences of `summary.jinja`."""
    console, timing, shares = paper(highlight=False), summary["timing"], ("p50", "p95", "p99", "most")
    table = Table("ms", *(Column(name, justify="right") for name in shares),
                  title=f"{timing['decisions']} decisions, one every {summary['stride_ms']:g} ms")
    for part in ("acquisition", "wait", "preparation", "inference", "total"):
        named = f"{part} (sample received to decision sent)" if part == "total" else part
        table.add_row(named, *(_number(timing[part][f"{name}_ms"], 2) for name in shares))
    console.print(table)
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["number"] = _number
    template = environment.from_string((PACKAGE / "live" / "summary.jinja").read_text("utf-8"))
    for line in template.render(summary).splitlines():
        console.print(line)


def _number(value: float | None, digits: int, factor: float = 1.0, unit: str = "") -> str:
    return "-" if value is None else f"{factor * value:.{digits}f}{unit}"
