"""`python -m tfkfin.client`: replays a recording to a TF Serving server and prints decisions, accuracy and latency."""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfkfin.base.answers import answer, command_line, paper, parsed
from tfkfin.base.console import InputError, log, numeric, parse_numbers, run
from tfkfin.decoder.decision import Decision
from tfkfin.serving.client.base import Client, ServingError, parse_url

__all__ = ["Client", "ServingError", "connect", "replay"]

EXAMPLES = """examples:
  python -m tfkfin.client --url http://localhost:8501 --model demo_s1 --data DB2/S1_E1_A1.mat
      over REST, without TensorFlow; add --repetitions 2,5 to score those only that it was not trained on
  python -m tfkfin.client --url grpc://localhost:8500 --model demo_s1 --label canary --data DB2/S1_E1_A1.mat --realtime
      over gRPC (extra: serve), the version labelled canary, at the speed of the recording
  python -m tfkfin.client --url http://localhost:8501 --model demo_s1
      no recording: the server's status of the model, and its signatures
"""


def connect(url: str, model: str | None = None, version: int | None = None, label: str | None = None,
            timeout_s: float = 10.0, **retry: Any) -> Client:
    """A client of a model on a TF Serving server.

    Args:
        url: `http://host:8501`, `https://host`, `grpc://host:8500`, or one with /v1/models/NAME.
        model: its name on the server, if the URL does not name it.
        version, label: which version answers; neither means the newest.
        timeout_s: for a call as a whole.
        retry: `retries` and `backoff_s` of `tfkfin.serving.client.base.Client`.

    Raises:
        InputError: no such address, or gRPC without the extra `serve`.
    """
    target = parse_url(url, model, version, label)
    if target.scheme == "grpc":
        from tfkfin.serving.client.rpc import GrpcClient

        return GrpcClient(target, timeout_s, **retry)
    from tfkfin.serving.client.rest import RestClient

    return RestClient(target, timeout_s, **retry)


@dataclass(frozen=True)
class Answered:
    """A window's decision: `time_s` of its last sample; `true` is None where it has no single label to score.

    `name`: what the model calls the movement, "" where it does not say.
    """

    time_s: float
    label: int  # -1: rejected
    probability: float
    true: int | None
    latency_s: float
    name: str = ""


def replay(client: Client, emg: np.ndarray, labels: np.ndarray, rate_hz: float, stride_ms: float = 100.0,
           realtime: bool = False) -> Iterator[Answered]:
    """Sends a recording window by window, one request each, and yields decisions, voted and rejected as the model is.

    Args:
        emg: (T, C) volts.
        labels: (T,) movements, 0 is rest, below 0 what is not to be scored.
        realtime: wait until a window would have been recorded.

    Raises:
        InputError: the model expects another rate, or the recording is shorter than a window.
    """
    decide, emg = _decision(client, rate_hz), _filtered(client, emg)
    length, stride = client.window_length(), max(1, round(stride_ms * rate_hz / 1000))
    if len(emg) < length:
        raise InputError(f"the recording has {len(emg)} samples, less than one window of {length}")
    names = _names(client.about())
    began = time.monotonic()
    for first in range(0, len(emg) - length + 1, stride):
        if realtime:
            time.sleep(max(0.0, began + (first + length) / rate_hz - time.monotonic()))
        inside = labels[first : first + length]
        sent = time.perf_counter()
        answer = client.predict(emg[None, first : first + length])
        latency = time.perf_counter() - sent
        if not {"label", "probabilities"} <= answer.keys():
            raise InputError(f"{client.target.described} answers {', '.join(answer)}: it is no decoder")
        true = int(inside[0]) if inside[0] >= 0 and (inside == inside[0]).all() else None
        label, probability = decide(answer)
        yield Answered((first + length) / rate_hz, label, probability, true, latency, names.get(label, ""))


def _names(about: dict | None) -> dict[int, str]:
    """Movement -> what the model calls it."""
    if about is None or "names" not in about:
        return {}
    words = (name.decode() if isinstance(name, bytes) else str(name) for name in about["names"].tolist())
    return dict(zip(about["movements"].tolist(), words, strict=True))


def _filtered(client: Client, emg: np.ndarray) -> np.ndarray:
    """A recording through the filter that the model expects windows to have gone through."""
    from tfkfin.signal.filtering import filtered

    return filtered(emg, np.asarray((client.about() or {}).get("filter", np.empty((0, 6)))))


def _decision(client: Client, rate_hz: float) -> Callable[[dict], tuple[int, float]]:
    """A window's answer -> its label and probability, as the model says that it wants to be decided."""
    about = client.about()
    if about is None:
        log.warning("warning: %s does not say which rate it expects, nor how to decide: an older tfkfin exported it",
                    client.target.described)
        return lambda answer: (int(answer["label"][0]), float(answer["probabilities"][0].max()))
    if not math.isclose(float(about["rate_hz"]), rate_hz, rel_tol=1e-6):
        raise InputError(f"{client.target.described} expects {float(about['rate_hz']):g} Hz, the recording has "
                         f"{rate_hz:g} Hz: resample it first (--resample)")
    stretch = Decision(int(about["vote"]), float(about["reject"])).start(about["movements"])

    def decide(answer: dict) -> tuple[int, float]:
        if answer["probabilities"].shape[-1] != len(about["movements"]):
            raise ServingError("INTERNAL", f"{client.target.described}: {answer['probabilities'].shape[-1]} "
                                           f"probabilities for {len(about['movements'])} movements")
        labels, voted = stretch(answer["probabilities"])
        return int(labels[0]), float(voted[0].max())

    return decide


def parser() -> argparse.ArgumentParser:
    p = command_line("client", "--url http://HOST:8501 --model NAME --data FILE [options]", __doc__, EXAMPLES)
    p.add_argument("--url", required=True, help="http://host:8501 (REST) or grpc://host:8500")
    p.add_argument("--model", metavar="NAME", help="the model's name on the server, if the URL does not hold it")
    p.add_argument("--version", type=numeric(int, 0, 2**63 - 1), metavar="N", help="default: the newest")
    p.add_argument("--label", metavar="NAME", help="a version label, such as canary")
    p.add_argument("--data", type=Path, metavar="FILE", help="a recording to replay, such as S1_E1_A1.mat")
    p.add_argument("--stride-ms", type=numeric(float, 0.01, 1e5), default=100.0,
                   help="between decisions (default: 100)")
    p.add_argument("--seconds", type=numeric(float, 0, 1e7), help="replay only the first so many")
    p.add_argument("--realtime", action="store_true", help="at the speed of the recording; default: as fast as it goes")
    p.add_argument("--repetitions", metavar="2,5", help="score these only (default: all, so also those that the model "
                   "was trained on)")
    p.add_argument("--rest", action="store_true", help="score windows of rest too (label 0)")
    p.add_argument("--resample", action="store_true", help="resample a recording whose rate the model does not expect")
    p.add_argument("--timeout", type=numeric(float, 0.001, 1e5), default=10.0, metavar="S",
                   help="seconds for a request (default: 10)")
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
                from tfkfin.pipeline.preprocessing import resampled

                log.info("resampled from %g to %g Hz", recording.rate_hz, float(about["rate_hz"]))
                recording = resampled(recording, float(about["rate_hz"]))
            _replay(client, recording, arguments)


def _read(path: Path) -> Any:
    from tfkfin.recordings import readers
    from tfkfin.recordings.recording import RecordingFile

    if not path.is_file():
        raise InputError(f"{path} is not there")
    if path.suffix.lower() == ".mat":
        return readers.read(RecordingFile(path, 0))
    files = [file for file in readers.find(path.parent) if file.path.samefile(path)]
    if not files:
        raise InputError(f"{path} is no recording that {path.parent}/recordings.toml names")
    return readers.read(files[0])


def _replay(client: Client, recording: Any, arguments: argparse.Namespace) -> None:
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
            true = f"{'-' if d.true is None else d.true:>3}"
            called = f"{d.label:>3} {d.name}".rstrip()
            console.print(f"{d.time_s:9.3f} s   decided {called} ({d.probability:.2f})   true {true}   "
                          f"{1000 * d.latency_s:7.2f} ms")
    where = f"{client.target.described}, {which}"
    found = scored(decisions, arguments.rest)
    answer({"model": where, **found, "decided": [asdict(d) for d in decisions]})
    accuracy = "-" if found["accuracy"] is None else f"{100 * found['accuracy']:.1f} %"
    latency = ", ".join(f"{name} {ms:.2f} ms" for name, ms in found["latency_ms"].items())
    console.print(f"{where}: {found['decisions']} decisions, accuracy {accuracy} on {found['windows']} windows inside "
                  f"one movement; latency {latency}", soft_wrap=True)


def scored(decisions: list[Answered], rest: bool) -> dict:
    """`accuracy` over the `windows` inside one movement (None of none), and percentiles of `latency_ms`."""
    known = [d for d in decisions if d.true is not None and (d.true or rest)]
    latency = {f"p{q}": float(1000 * np.percentile([d.latency_s for d in decisions], q)) for q in (50, 95, 99)}
    return {"decisions": len(decisions), "windows": len(known), "latency_ms": latency,
            "accuracy": float(np.mean([d.label == d.true for d in known])) if known else None}


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
