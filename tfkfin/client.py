"""`python -m tfkfin.client`: replays a recording to a TF Serving server and prints decisions, accuracy and latency."""

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tfkfin.base.answers import answer, command_line, paper, parsed
from tfkfin.base.console import log, numeric, parse_numbers, run
from tfkfin.base.errors import InputError
from tfkfin.recordings.recording import Recording
from tfkfin.serving.client import connect
from tfkfin.serving.client.base import Client, ServingError
from tfkfin.serving.client.replay import replay, scored

__all__ = ["Client", "ServingError", "connect", "replay"]  # the documented place of these names

EXAMPLES = """examples:
  python -m tfkfin.client --url http://localhost:8501 --model demo_s1 --data DB2/S1_E1_A1.mat
      over REST, without TensorFlow; --repetitions 2,5 scores only repetitions that the model was not trained on
  python -m tfkfin.client --url grpc://localhost:8500 --model demo_s1 --label canary --data DB2/S1_E1_A1.mat --realtime
      over gRPC (extra: serve), the version with the label canary, at the speed of the recording
  python -m tfkfin.client --url http://localhost:8501 --model demo_s1
      without a recording: the model's versions on the server, and its signatures
"""


def parser() -> argparse.ArgumentParser:
    p = command_line("client", "--url http://HOST:8501 --model NAME --data FILE [options]", __doc__, EXAMPLES)
    option = p.add_argument
    option("--url", required=True, help="http://host:8501 (REST) or grpc://host:8500")
    option("--model", metavar="NAME", help="name of the model on the server, if the URL does not contain it")
    option("--version", type=numeric(int, 0, 2**63 - 1), metavar="N", help="default: the newest version")
    option("--label", metavar="NAME", help="label of the version that answers, such as canary")
    option("--data", type=Path, metavar="FILE", help="a recording to replay, such as S1_E1_A1.mat")
    option("--stride-ms", type=numeric(float, 0.01, 1e5), default=100.0, help="between decisions (default: 100)")
    option("--seconds", type=numeric(float, 0, 1e7), metavar="S", help="replay only the first S seconds")
    option("--realtime", action="store_true", help="at the speed of the recording (default: as fast as possible)")
    option("--repetitions", metavar="2,5", help="score only these (default: all, also those of the training)")
    option("--rest", action="store_true", help="also score windows of rest (label 0)")
    option("--resample", action="store_true", help="resample the recording to the rate that the model expects")
    option("--timeout", type=numeric(float, 0.001, 1e5), default=10.0, metavar="S",
           help="time limit of a request in seconds (default: 10)")
    return p


def main(argv: list[str]) -> None:
    arguments = parsed(parser(), argv)
    recording = _read(arguments.data) if arguments.data else None
    with connect(arguments.url, arguments.model, arguments.version, arguments.label, arguments.timeout) as client:
        if recording is None:
            _show_model(client)
        else:
            about = client.about()
            if arguments.resample and about is not None and float(about["rate_hz"]) != recording.rate_hz:
                from tfkfin.pipeline.subject import resampled

                log.info("resampled from %g to %g Hz", recording.rate_hz, float(about["rate_hz"]))
                recording = resampled(recording, float(about["rate_hz"]))
            _replay(client, recording, arguments)


def _read(path: Path) -> Recording:
    from tfkfin.live.sources.replay import find_recording
    from tfkfin.recordings import readers
    from tfkfin.recordings.recording import RecordingFile

    if not path.is_file():
        raise InputError(f"{path} is not there")
    if path.suffix.lower() == ".mat":  # whatever its name is
        return readers.read(RecordingFile(path, 0))
    return find_recording(path)


def _replay(client: Client, recording: Recording, arguments: argparse.Namespace) -> None:
    console = paper(highlight=False)
    stop = len(recording.emg) if arguments.seconds is None else int(arguments.seconds * recording.rate_hz)
    decisions, labels, which = [], recording.labels, "all repetitions"
    if arguments.repetitions:
        kept = np.isin(recording.repetitions, parse_numbers(arguments.repetitions)) | (labels == 0)
        labels, which = np.where(kept, labels, -1), f"repetitions {arguments.repetitions}"
    for d in replay(client, recording.emg[:stop], labels[:stop], recording.rate_hz, arguments.stride_ms,
                    arguments.realtime):
        decisions.append(d)
        if not arguments.quiet:
            true, name = "-" if d.true is None else d.true, f"{d.label:>3} {d.name}".rstrip()
            console.print(f"{d.time_s:9.3f} s   decided {name} ({d.probability:.2f})   true {true:>3}   "
                          f"{1000 * d.latency_s:7.2f} ms")
    where = f"{client.target.described}, {which}"
    found = scored(decisions, arguments.rest)
    answer({"model": where, **found, "decided": [asdict(d) for d in decisions]})
    accuracy = "-" if found["accuracy"] is None else f"{100 * found['accuracy']:.1f} %"
    latency = ", ".join(f"{name} {ms:.2f} ms" for name, ms in found["latency_ms"].items())
    console.print(f"{where}: {found['decisions']} decisions, accuracy {accuracy} on {found['windows']} windows inside "
                  f"one movement; latency {latency}", soft_wrap=True)


def _show_model(client: Client) -> None:
    console, status, metadata = paper(highlight=False), client.status(), client.metadata()
    answer({"model": client.target.described, "versions": status, "signatures": metadata})
    for version in status:
        console.print(f"version {version['version']}: {version['state']} {version['error']}".rstrip())
    for name, signature in sorted(metadata.items()):
        shown = (", ".join(f"{key} {kind} {shape}" for key, (kind, shape) in signature[part].items())
                 for part in ("inputs", "outputs"))
        console.print(f"{name}: {' -> '.join(shown)}", soft_wrap=True)


if __name__ == "__main__":
    run(main)
