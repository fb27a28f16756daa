"""`python -m tfkfin.client`: replays a recording to a TF Serving server and prints decisions, accuracy and latency.

examples:
  python -m tfkfin.client --url http://localhost:8501 --model demo_s1 --data DB2/S1_E1_A1.mat
      over REST, without TensorFlow; --repetitions 2,5 scores only repetitions that the model was not trained on
  python -m tfkfin.client --url grpc://localhost:8500 --model demo_s1 --label canary --data DB2/S1_E1_A1.mat --realtime
      over gRPC (extra: serve), the version with the label canary, at the speed of the recording
  python -m tfkfin.client --url http://localhost:8501 --model demo_s1
      without a recording: the model's versions on the server, and its signatures
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tfkfin.base.answers import answer, command_line, paper, parsed
from tfkfin.base.console import log, parse_numbers, run
from tfkfin.base.errors import InputError
from tfkfin.base.options import add_options
from tfkfin.base.quoted import line
from tfkfin.decoder.decision import Decision
from tfkfin.recordings import readers
from tfkfin.recordings.recording import Recording, RecordingFile
from tfkfin.serving.client import Client, ServingError, connect
from tfkfin.signal.filtering import filtered

__all__ = ["Client", "ServingError", "connect", "replay"]  # the documented place of these names


def parser() -> argparse.ArgumentParser:
    use = "--url http://HOST:8501 --model NAME --data FILE [options]"
    p = command_line("client", use, str(__doc__))
    add_options(p, "client")
    return p


@dataclass(frozen=True)
class Answered:
    """The decision for one window.

    Attributes:
        time_s: end of the window in the recording.
        label: -1 where the decision was rejected.
        true: label of all samples of the window; None where they differ or are not to be scored.
        latency_s: from request to answer.
        name: what the model calls the movement, "" where it has no name.
    """

    time_s: float
    label: int
    probability: float
    true: int | None
    latency_s: float
    name: str = ""


def replay(client: Client, emg: np.ndarray, labels: np.ndarray, rate_hz: float, stride_ms: float = 100.0,
           realtime: bool = False) -> Iterator[Answered]:
    """Sends a recording window by window, one request each, and yields decisions with the model's vote and rejection.

    Args:
        emg: (T, C) volts.
        labels: (T,) movements; 0 is rest, windows with a label below 0 are not scored.
        realtime: waits until a window would have been recorded.

    Raises:
        InputError: the model expects another rate, or the recording is shorter than a window.
    """
    about = client.about() or {}
    decide, emg = _decision(client, rate_hz), filtered(emg, np.asarray(about.get("filter", np.empty((0, 6)))))
    length, stride = client.window_length(), max(1, round(stride_ms * rate_hz / 1000))
    if len(emg) < length:
        raise InputError(f"the recording has {len(emg)} samples, less than one window of {length}")
    words = [word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word)
             for word in np.ravel(about.get("names", ()))]
    names = dict(zip(about["movements"].tolist(), words, strict=True)) if words else {}
    start = time.monotonic()
    for first in range(0, len(emg) - length + 1, stride):
        if realtime:
            time.sleep(max(0.0, start + (first + length) / rate_hz - time.monotonic()))
        inside = labels[first : first + length]
        sent = time.perf_counter()
        answer = client.predict(emg[None, first : first + length])
        latency = time.perf_counter() - sent
        if not {"label", "probabilities"} <= answer.keys():
            raise InputError(f"{client.target.described} answers {', '.join(answer)}: it is no decoder")
        true = int(inside[0]) if inside[0] >= 0 and (inside == inside[0]).all() else None
        label, probability = decide(answer)
        yield Answered((first + length) / rate_hz, label, probability, true, latency, names.get(label, ""))


def _decision(client: Client, rate_hz: float) -> Callable[[dict], tuple[int, float]]:
    """A function from the answer for a window to its label and probability, with the model's vote and rejection."""
    about = client.about()
    if about is None:
        log.warning("warning: %s does not report its rate, vote and rejection: an older tfkfin exported it",
                    client.target.described)
        return lambda answer: (int(answer["label"][0]), float(answer["probabilities"][0].max()))
    if not math.isclose(float(about["rate_hz"]), rate_hz, rel_tol=1e-6):
        raise InputError(f"{client.target.described} expects {float(about['rate_hz']):g} Hz, the recording has "
                         f"{rate_hz:g} Hz: resample it first (--resample)")
    decided = Decision(int(about["vote"]), float(about["reject"])).start(about["movements"])

    def decide(answer: dict) -> tuple[int, float]:
        if answer["probabilities"].shape[-1] != len(about["movements"]):
            raise ServingError("INTERNAL", f"{client.target.described}: {answer['probabilities'].shape[-1]} "
                                           f"probabilities for {len(about['movements'])} movements")
        labels, voted = decided(answer["probabilities"])
        return int(labels[0]), float(voted[0].max())

    return decide


def scored(decisions: Sequence[Answered], rest: bool) -> dict:
    """`accuracy` of the `windows` inside one label (None if there are none) and percentiles of `latency_ms`.

    Args:
        rest: whether windows of rest are scored too.
    """
    known = [d for d in decisions if d.true is not None and (d.true or rest)]
    latency = {f"p{q}": float(1000 * np.percentile([d.latency_s for d in decisions], q)) for q in (50, 95, 99)}
    return {"decisions": len(decisions), "windows": len(known), "latency_ms": latency,
            "accuracy": float(np.mean([d.label == d.true for d in known])) if known else None}


def main(argv: list[str]) -> None:
    arguments = parsed(parser(), argv)
    recording = _read(arguments.data) if arguments.data else None
    with connect(arguments.url, arguments.model, arguments.version, arguments.label, arguments.timeout) as client:
        if recording is None:
            _show_model(client)
            return
        about = client.about()
        if arguments.resample and about is not None and float(about["rate_hz"]) != recording.rate_hz:
            from tfkfin.pipeline.subject import resampled

            log.info("resampled from %g to %g Hz", recording.rate_hz, float(about["rate_hz"]))
            recording = resampled(recording, float(about["rate_hz"]))
        _replay(client, recording, arguments)


def _read(path: Path) -> Recording:
    from tfkfin.live.sources.replay import find_recording

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
            true, name = "-" if d.true is None else d.true, f"{d.label:>3} {line(d.name, 80)}".rstrip()
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
