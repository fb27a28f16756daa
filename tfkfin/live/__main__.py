"""`python -m tfkfin.live`: a decoder on a live signal, from a device, over LSL, or on a recording as if it were one.

examples:
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
  python -m tfkfin.live --source lsl --calibrate SESSIONS --movements fist,open,pinch --cued 3 --to savedmodels/mine
      day one, without a model: asks for every movement, fits the recipe best to what was recorded, and goes on with it
  python -m tfkfin.live --model mine --source lsl --adapt --to savedmodels/mine
      online adaptation without labels; it moves the prior of the version that is written for the next day
"""

import argparse
from pathlib import Path

from tfkfin.base import registry
from tfkfin.base.answers import command_line, parsed
from tfkfin.base.console import run
from tfkfin.base.errors import InputError, refused_as
from tfkfin.base.extras import load_tensorflow
from tfkfin.base.options import add_options


def parser() -> argparse.ArgumentParser:
    use = "--model NAME --source replay --data FILE [options]"
    p = command_line("live", use, str(__doc__))
    kinds = registry.names("live/sources")
    add_options(p, "live", source=kinds)
    group = p.add_argument_group("sources")
    for kind in kinds:
        with refused_as(f"the live source {kind} defines an option that exists already", argparse.ArgumentError):
            registry.load("live/sources", kind, "SOURCE").options(group)
    for title in ("outputs", "calibration"):
        add_options(p.add_argument_group(title), f"live-{title}")
    return p


def main(argv: list[str]) -> None:
    arguments = parsed(parser(), argv)
    from tfkfin.decoder.decoder import FILE
    from tfkfin.store import presets

    if arguments.model is None and not arguments.calibrate:
        raise InputError("name the model with --model, or make one: --calibrate DIR --movements fist,open")
    if arguments.model and not (Path(arguments.model) / FILE).is_file():  # errors come before TensorFlow loads
        presets.find(arguments.model)
    if arguments.jsonl and arguments.jsonl.exists():
        raise InputError(f"{arguments.jsonl} is there already and is never overwritten: give another file")
    load_tensorflow()
    from tfkfin.live import first, session

    if arguments.model is None:
        arguments.model, arguments.calibrate = str(first.fitted(arguments)), None
    session.run(arguments)


if __name__ == "__main__":
    run(main)
