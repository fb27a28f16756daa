"""`python -m tfkfin.live`: a decoder on a live signal, from a device, over LSL, or on a recording as if it were one."""

import argparse
import gc
import signal
import sys
from pathlib import Path

from tfkfin.base import registry
from tfkfin.base.answers import answer, command_line, parsed
from tfkfin.base.console import log, numeric, quiet_start, run
from tfkfin.base.errors import InputError

EXAMPLES = """examples:
  python -m tfkfin.live --model demo_s1 --source replay --data DB2/S1_E1_A1.mat
      a recording in real time: decisions when they change; at the end accuracy, delays and computing times
  python -m tfkfin.live --model demo_s1 --source replay --data DB2 --subject 1 --speed 0 --jsonl decisions.jsonl
      as fast as possible, every decision a line of JSON; the same as python -m tfkfin.evaluate --stream
  python -m tfkfin.live --model demo_s1 --source synthetic --udp 127.0.0.1:12346 --seconds 60
      a synthetic person, no device: "label speed" as a datagram every stride
  python -m tfkfin.live --model mine --source lsl --stream Quattrocento --channels 1-8 --lsl-out tfkfin
      any stream of the lab streaming layer; decisions go back as one
  python -m tfkfin.live --model mine --source brainflow --board cyton --board-param serial_port=/dev/ttyUSB0
      any board of BrainFlow
  python -m tfkfin.live --model mine --source lsl --page --calibrate SESSIONS --cued 2
      asks for every movement twice, solves a new decoder while the old one decides, and goes on with the new one
  python -m tfkfin.live --model mine --source lsl --adapt --to savedmodels/mine
      online adaptation without labels; it moves the prior of the version that is written for the next day
"""


def parser() -> argparse.ArgumentParser:
    from tfkfin.live.sources import source_class

    p = command_line("live", "--model NAME --source replay --data FILE [options]", __doc__, EXAMPLES)
    kinds, option = registry.names("live/sources"), p.add_argument
    option("--model", metavar="NAME", required=True, help="a model in ./savedmodels, or its folder")
    option("--source", choices=kinds, required=True, help="where the signal comes from")
    option("--subject", type=int, metavar="N", help="number of the person, in a replayed folder and in recorded "
           "sessions (default: the only one there, or 1)")
    option("--channels", metavar="1-8", help="channels of the device (default: all that are for EMG)")
    option("--speed", type=numeric(float, 0, 1e4), default=1.0, metavar="N", help="replay, synthetic: seconds of "
           "signal in a second; 0: as fast as possible, every window decided (default: 1)")
    option("--stride-ms", type=numeric(float, 0.01, 1e5), metavar="MS", help="between decisions (default: the model's)")
    option("--engine", default="auto", help="live (FINs that stream), native, xla, onnx, savedmodel (default: fastest)")
    option("--adapt", action="store_true", help="online adaptation without labels, with a decoder that keeps session "
           "statistics; the model does not change (see --to)")
    option("--seconds", type=numeric(float, 0, 1e9), default=0.0, help="of signal, then stop (default: until it ends)")
    option("--usual-priority", action="store_true", help="decisions in real time do not go before other programs")
    group = p.add_argument_group("sources")
    for kind in kinds:
        try:
            source_class(kind).options(group)
        except argparse.ArgumentError as error:
            raise InputError(f"the live source {kind} defines an option that exists already: {error}") from None
    option = p.add_argument_group("outputs").add_argument
    option("--jsonl", type=Path, metavar="FILE", help="a new file: every decision and its computing times")
    option("--udp", metavar="HOST:PORT", help='a datagram for every decision: "label speed"')
    option("--udp-json", action="store_true", help="datagrams hold the line of JSON instead")
    option("--lsl-out", metavar="NAME", help="LSL streams NAME, of markers, and NAME-decisions, of numbers")
    option("--page", type=numeric(int, 0, 65535), nargs="?", const=0, metavar="PORT", help="a page in the browser: "
           "signals, features, decisions, times (default port: any that is free)")
    option("--record", type=Path, metavar="DIR", default=Path("recordings"), help="folder that the page's button adds "
           "recorded sessions to (default: recordings)")
    option = p.add_argument_group("calibration").add_argument
    option("--calibrate", type=Path, metavar="DIR", help="ask for every movement, at once or when the page's button is "
           "pressed, record a new session in DIR, solve a new decoder, and go on with it")
    option("--cued", type=numeric(int, 1, 1000), default=1, metavar="N", help="repetitions of movements (default: 1)")
    option("--hold-s", type=numeric(float, 0.1, 3600), default=3.0, help="duration of each movement (default: 3)")
    option("--rest-s", type=numeric(float, 0.1, 3600), default=2.0, help="duration of rest before each (default: 2)")
    option("--to", type=Path, metavar="DIR", help="model folder that gets the new version (default: the model's own; "
           "with --adapt alone: none is written)")
    return p


def main(argv: list[str]) -> None:
    arguments = parsed(parser(), argv)
    _check(arguments)
    with quiet_start():
        import tensorflow as tf

        tf.zeros(1)
    from tfkfin.live import calibration, recorder, session, sources
    from tfkfin.live.loop import Loop
    from tfkfin.live.stream import Stream, load, with_network
    from tfkfin.pipeline.windows import samples

    decoder, engine = load(arguments.model, arguments.engine)
    if arguments.adapt and decoder.model is None:
        decoder, engine = with_network(decoder, arguments.model), "keras"
    if arguments.adapt and arguments.to and "input" not in decoder.card:
        raise InputError(f"{arguments.model} is part of a run: export it, and --adapt --to can make a version of that")
    source, card = sources.source_class(arguments.source).open(arguments, decoder.card), decoder.card
    if source.channels != decoder.channels:
        raise InputError(f"{source.described} has {source.channels} channels, the model {decoder.channels}")
    stride = samples(arguments.stride_ms, card["rate_hz"]) if arguments.stride_ms else decoder.stride
    stream = Stream(decoder, stride, source.rate_hz, adapt=arguments.adapt)
    log.info("%s", source.described)
    log.info("engine %s, a decision every %g ms%s", engine, 1e3 * stride / stream.rate_hz,
             "" if stream.source_hz == stream.rate_hz else f", resampled to {stream.rate_hz:g} Hz")
    if arguments.calibrate:
        recorder.check_folder(arguments.calibrate, source.rate_hz, calibration.movement_names(card))
        source = calibration.Cued(source, calibration.cues(card["movements"], arguments.cued, arguments.hold_s,
                                                           arguments.rest_s), arguments.page is None)
    outputs = session.open_outputs(arguments, card, stream.rate_hz / stride)
    loop, subject = Loop(stream, source, outputs, first=not arguments.usual_priority), arguments.subject or 1
    calibrating = calibration.Calibration(loop, with_network(decoder, arguments.model), arguments.calibrate,
                                          subject) if arguments.calibrate else None
    between = [calibrating.between] if calibrating else []
    if arguments.page is not None:
        between.append(session.open_page(loop, arguments.page, arguments.record, subject, calibrating))
    loop.between = lambda: [call() for call in between]
    signals = _run(loop, arguments.seconds)
    summary = {"model": str(arguments.model), "source": source.described, "engine": engine} | loop.summary()
    session.print_summary(summary)
    if calibrating and calibrating.wanted:
        summary["calibration"] = _publish(calibrating, arguments, signals)
    elif arguments.adapt:
        adapted = stream.network.session
        summary["adapted"] = {"moved": adapted.moved} | (
            session.publish(adapted.carried(), arguments.to) if arguments.to else {})
    answer(summary)


def _run(loop, seconds: float) -> list[int]:
    """Runs a loop until it or the user ends it; returns the signals that asked for its end."""
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: (signals.append(number), loop.stop()))
    gc.collect()
    gc.freeze()  # the collector need not look through these objects between decisions
    loop.run(seconds)
    return signals


def _publish(calibrating, arguments: argparse.Namespace, signals: list[int]) -> dict:
    """Writes the calibrated decoder as a new version and reports it."""
    from tfkfin.live import session
    from tfkfin.store import presets

    if calibrating.made is None and not calibrating.failed and signals:
        log.warning("no new decoder was made: the session was ended before")
        sys.exit(128 + signals[0])
    if calibrating.made is None:
        raise InputError(f"no new decoder was made: {calibrating.failed or 'the session ended before'}")
    return calibrating.report | session.publish(calibrating.made,
                                                arguments.to or presets.find(arguments.model).parent)


def _check(arguments: argparse.Namespace) -> None:
    """Finds errors that do not need TensorFlow, before it loads."""
    from tfkfin.decoder.decoder import FILE
    from tfkfin.store import presets

    if not (Path(arguments.model) / FILE).is_file():
        presets.find(arguments.model)
    if arguments.jsonl and arguments.jsonl.exists():
        raise InputError(f"{arguments.jsonl} is there already and is never overwritten: give another file")


if __name__ == "__main__":
    run(main)
