"""`python -m tfkfin.live`: a decoder on a live signal, from a device, over LSL, or on a recording as if it were one."""

import argparse
import gc
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tfkfin.base import registry
from tfkfin.base.answers import answer, command_line, paper, parsed
from tfkfin.base.console import InputError, log, numeric, quiet_start, run

if TYPE_CHECKING:
    from tfkfin.decoder.session import AdaptiveSession
    from tfkfin.live.calibration import Calibration
    from tfkfin.live.loop import Loop

EXAMPLES = """examples:
  python -m tfkfin.live --model demo_s1 --source replay --data DB2/S1_E1_A1.mat
      a recording in real time: decisions as they change, at the end accuracy, delays and where the time went
  python -m tfkfin.live --model demo_s1 --source replay --data DB2 --subject 1 --speed 0 --jsonl decisions.jsonl
      as fast as it goes, every decision a line of JSON; the same as python -m tfkfin.evaluate --stream
  python -m tfkfin.live --model demo_s1 --source synthetic --udp 127.0.0.1:12346 --seconds 60
      nobody recorded, no device: "label speed" as a datagram every stride
  python -m tfkfin.live --model mine --source lsl --stream Quattrocento --channels 1-8 --lsl-out tfkfin
      any stream of the lab streaming layer; decisions go back as one
  python -m tfkfin.live --model mine --source brainflow --board cyton --board-param serial_port=/dev/ttyUSB0
      any board of BrainFlow
  python -m tfkfin.live --model mine --source lsl --page --calibrate SESSIONS --cued 2
      asks for every movement twice, solves a new decoder while the old one decides, and goes on with it
  python -m tfkfin.live --model mine --source lsl --adapt --to savedmodels/mine
      goes on learning from the stream without labels; what it learnt moves what the next day's version begins with
"""


def parser() -> argparse.ArgumentParser:
    from tfkfin.live import sources

    p = command_line("live", "--model NAME --source replay --data FILE [options]", __doc__, EXAMPLES)
    kinds = registry.names("live/sources")
    p.add_argument("--model", metavar="NAME", required=True, help="a model in ./savedmodels, or its folder")
    p.add_argument("--source", choices=kinds, required=True, help="where the signal comes from")
    p.add_argument("--stride-ms", type=numeric(float, 0.01, 1e5), metavar="MS",
                   help="between decisions (default: the model's own)")
    p.add_argument("--engine", default="auto", help="live (FINs that stream), native, xla, onnx, savedmodel (default: "
                   "the fastest)")
    p.add_argument("--adapt", action="store_true", help="go on learning from the signal without labels, with a decoder "
                   "that remembers sessions; the model stays what it is (see --to)")
    p.add_argument("--seconds", type=numeric(float, 0, 1e9), default=0.0,
                   help="of signal, then stop (default: until it ends)")
    p.add_argument("--usual-priority", action="store_true", help="in real time too, decisions come not before other "
                   "programs (default: they do, where the system permits it)")
    group = p.add_argument_group("sources")
    for kind in kinds:
        sources.kind(kind).options(group)
    out = p.add_argument_group("outputs")
    out.add_argument("--jsonl", type=Path, metavar="FILE", help="a new file: every decision, with where its time went")
    out.add_argument("--udp", metavar="HOST:PORT", help='a datagram a decision: "label speed"')
    out.add_argument("--udp-json", action="store_true", help="datagrams hold the line of JSON instead")
    out.add_argument("--lsl-out", metavar="NAME", help="LSL streams NAME, of markers, and NAME-decisions, of numbers")
    out.add_argument("--page", type=numeric(int, 0, 65535), nargs="?", const=0, metavar="PORT", help="a page in the "
                     "browser: signals, features, decisions, times (default port: any that is free)")
    out.add_argument("--record", type=Path, metavar="DIR", help="a folder of recordings that the page's button adds "
                     "sessions to")
    new = p.add_argument_group("calibration")
    new.add_argument("--calibrate", type=Path, metavar="DIR", help="ask for every movement, at once or when "
                     "the page's button is pressed, record a new session in DIR, solve a new decoder, go on with it")
    new.add_argument("--cued", type=numeric(int, 1, 1000), default=1, metavar="N", help="how often each movement "
                     "(default: 1)")
    new.add_argument("--hold-s", type=numeric(float, 0.1, 3600), default=3.0, help="a movement is held so long "
                     "(default: 3)")
    new.add_argument("--rest-s", type=numeric(float, 0.1, 3600), default=2.0, help="rest before each (default: 2)")
    new.add_argument("--to", type=Path, metavar="DIR", help="model folder, which gets the new version (default: the "
                     "model's own; with --adapt alone: none is written)")
    return p


def outputs(arguments: argparse.Namespace, movements: list[int], rate_hz: float, names: dict[int, str]) -> list:
    """What the command line asks for; `rate_hz`: decisions a second."""
    from tfkfin.live import outputs as there

    made = [] if arguments.quiet or arguments.json == "-" else [there.Terminal(names)]
    if arguments.udp:
        made.append(there.Udp(arguments.udp, arguments.udp_json))
    if arguments.lsl_out:
        made.append(there.Markers(arguments.lsl_out, movements, rate_hz))
    if arguments.jsonl:
        made.append(there.JsonLines(arguments.jsonl))
    return made


def main(argv: list[str]) -> None:
    arguments = parsed(parser(), argv)
    _check(arguments)
    with quiet_start():
        import tensorflow as tf

        tf.zeros(1)
    from tfkfin.live import calibration, recorder, sources
    from tfkfin.live.loop import Loop
    from tfkfin.live.stream import Stream, load, whole
    from tfkfin.pipeline.windows import samples

    decoder, engine = load(arguments.model, arguments.engine)
    if arguments.adapt and decoder.model is None:
        decoder, engine = whole(decoder, arguments.model), "keras"
    if arguments.adapt and arguments.to and "input" not in decoder.card:
        raise InputError(f"{arguments.model} is part of a run: export it, and --adapt --to can make a version of that")
    source = sources.kind(arguments.source).open(arguments, decoder.card)
    if source.channels != decoder.channels:
        raise InputError(f"{source.described} has {source.channels} channels, the model {decoder.channels}")
    stride = samples(arguments.stride_ms, decoder.card["rate_hz"]) if arguments.stride_ms else decoder.stride
    stream = Stream(decoder, stride, source.rate_hz, adapt=arguments.adapt)
    log.info("%s", source.described)
    log.info("engine %s, a decision every %g ms%s", engine, 1e3 * stride / stream.rate_hz,
             "" if stream.source_hz == stream.rate_hz else f", resampled to {stream.rate_hz:g} Hz")
    names = calibration.names(decoder.card)
    if arguments.calibrate:
        recorder.fits(arguments.calibrate, source.rate_hz, names)
        asked = calibration.cues(decoder.movements.tolist(), arguments.cued, arguments.hold_s, arguments.rest_s)
        source = calibration.Cued(source, asked, arguments.page is None)
    loop = Loop(stream, source, outputs(arguments, decoder.movements.tolist(), stream.rate_hz / stride, names),
                first=not arguments.usual_priority)
    calibrating = calibration.Calibration(loop, whole(decoder, arguments.model), arguments.calibrate,
                                          arguments.subject or 1) if arguments.calibrate else None
    _paged(arguments, loop, calibrating)
    heard: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: (heard.append(number), loop.stop()))
    gc.collect()
    gc.freeze()  # what is there stays: the collector need not look through it between decisions
    loop.run(arguments.seconds)
    summary = {"model": str(arguments.model), "source": source.described, "engine": engine} | loop.summary()
    show(summary)
    if calibrating and calibrating.wanted:
        if heard and calibrating.made is None and not calibrating.failed:
            log.warning("no new decoder was made: the session was ended before")
            sys.exit(128 + heard[0])
        summary |= {"calibration": _kept(calibrating, arguments)}
    elif arguments.adapt:
        summary |= {"adapted": _carried(stream.network.session, arguments)}
    answer(summary)


def _paged(arguments: argparse.Namespace, loop: "Loop", calibrating: "Calibration | None") -> None:
    """Gives a loop what is done between decisions: calibration, the page and its buttons."""
    from tfkfin.live.calibration import names
    from tfkfin.live.recorder import Recorder

    doing = [calibrating.between] if calibrating else []
    if arguments.page is not None:
        from tfkfin.live.feed import Feed
        from tfkfin.live.outputs import needed

        needed("bokeh")
        about = loop.stream.decoder.card
        told = {name: about[name] for name in ("rate_hz", "length", "channels", "features", "movements", "mean_v",
                                               "sd_v")}
        known = {0: "rest"} | names(about)
        called = {str(m): known.get(m, str(m)) for m in about["movements"]}
        folder, rate_hz = arguments.record or Path("recordings"), loop.source.rate_hz
        kept = Recorder(folder, arguments.subject or 1, rate_hz, names(about))
        feed = Feed(told | {"source_hz": rate_hz, "filter": about.get("filter"), "names": called},
                    arguments.page)
        loop.outputs += [kept, feed]
        log.info("%s", feed.url)
        does = {"pause": lambda: loop.pause(True), "start": lambda: loop.pause(False),
                "record": lambda: loop.note(kept.switch(True)), "stop recording": lambda: loop.note(kept.switch(False))}
        if calibrating:
            does |= {"calibrate": calibrating.begin, "stop calibrating": calibrating.stop}

        def page() -> None:
            for command in feed.commands():
                does.get(command, str)()
            feed.session = {"paused": loop.paused, "recording": kept.on,
                            "calibration": calibrating.doing if calibrating else None}

        doing.append(page)
    loop.between = lambda: [do() for do in doing]


def _kept(calibrating: "Calibration", arguments: argparse.Namespace) -> dict:
    """Writes the new decoder as a new version; what there is to say of it."""
    from tfkfin.serving import version
    from tfkfin.store import presets

    if calibrating.made is None:
        raise InputError(f"no new decoder was made: {calibrating.failed or 'the session ended before'}")
    model = arguments.to or presets.find(arguments.model).parent
    made = calibrating.made
    written = version.publish(made.card, made.model, model, made.card.get("format", "savedmodel"))
    log.info("%s", written)
    return calibrating.report | {"model": str(written)}


def _carried(session: "AdaptiveSession", arguments: argparse.Namespace) -> dict:
    """What a session learnt without labels; `--to` gets what the next one begins with, as a new version."""
    from tfkfin.serving import version

    said = {"moved": session.moved}
    if arguments.to:
        carried = session.carried()
        written = version.publish(carried.card, carried.model, arguments.to, carried.card.get("format", "savedmodel"))
        log.info("%s", written)
        said |= {"model": str(written)}
    return said


def _check(arguments: argparse.Namespace) -> None:
    """What is unfit is said before TensorFlow loads."""
    from tfkfin.decoder import decoder
    from tfkfin.store import presets

    if not (Path(arguments.model) / decoder.FILE).is_file():
        presets.find(arguments.model)
    if arguments.jsonl and arguments.jsonl.exists():
        raise InputError(f"{arguments.jsonl} is there already and is never overwritten: give another file")


def show(summary: dict) -> None:
    """The summary for people."""
    from rich.table import Table

    console, timing = paper(highlight=False), summary["timing"]
    table = Table(title=f"{timing['decisions']} decisions, one every {summary['stride_ms']:g} ms")
    for name in ("ms", "p50", "p95", "p99", "most"):
        table.add_column(name, justify="left" if name == "ms" else "right")
    for part in ("acquisition", "wait", "preparation", "inference", "total"):
        row = [timing[part][f"{q}_ms"] for q in ("p50", "p95", "p99", "most")]
        named = f"{part} (sample received to decision sent)" if part == "total" else part
        table.add_row(named, *("-" if value is None else f"{value:.2f}" for value in row))
    console.print(table)
    if summary["smallest_stride_ms"] is not None:
        jitter = "-" if timing["jitter_ms"] is None else f"{timing['jitter_ms']:.2f} ms"
        console.print(f"missed deadlines {timing['missed']}, dropped strides {timing['dropped']}, jitter {jitter}; "
                      f"smallest stride sustained here: {summary['smallest_stride_ms']:g} ms; "
                      f"priority: {summary['priority'] or 'the usual'}")
    console.print(f"Besides, the middle of what a decision sees is {summary['delay']['middle_ms']:.0f} ms old on any "
                  f"machine: windows of {summary['delay']['window_ms']:g} ms, their vote, resampling.")
    told = summary["signal"]
    if told["lost"] or told["filled"] or told["stalls"]:
        console.print(f"{told['lost']} samples lost in {told['gaps']} gaps, {told['filled']} not finite, "
                      f"{told['stalls']} stalls")
    if told["rate_measured_hz"]:
        console.print(f"{told['rate_measured_hz']:.2f} samples a second came")
    if scores := summary["scores"]:
        console.print(_scored(scores), soft_wrap=True)


def _scored(scores: dict) -> str:
    def said(value: float | None, factor: float = 1.0, unit: str = "") -> str:
        return "-" if value is None else f"{factor * value:.1f}{unit}"

    transition = scores["transition"]
    return (f"accuracy {said(scores['accuracy'], 100, ' %')} of {scores['windows']} windows inside one label, "
            f"{said(scores['execution'], 100, ' %')} of {scores['executions']} executions; "
            f"{said(scores['false_per_minute'])} false activations a minute of rest; transitions followed "
            f"{transition['followed']} of {transition['count']}, after {said(transition['p50_ms'], 1, ' ms')} "
            f"(p95 {said(transition['p95_ms'], 1, ' ms')})")


if __name__ == "__main__":
    run(main)
