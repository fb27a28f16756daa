"""One recording, one decision a window, whichever door it comes by: Python, commands, a SavedModel, a server.

Recordings are those that tests/recordings/test_formats.py writes in every format, and one of every real set.
"""

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import tfkfin
from tfkfin import client, evaluate
from tfkfin.live import __main__ as live
from tfkfin.recordings import matfile, readers
from tfkfin.recordings.recording import Recording
from tfkfin.signal import resampling

for room in ("live", "recordings", "serving"):
    sys.path.append(str(Path(__file__).with_name(room)))

import serving_cases  # noqa: E402
import test_formats as kinds  # noqa: E402
from live_cases import CASES, fitted  # noqa: E402

SURE = 1e-4  # where the two likeliest movements are closer, rounding decides


def by_recording(decoder, folder, recording, tmp):
    return [decoder.predict(part) for part in (parts(recording) if recording.seams else [recording])]


def by_samples(decoder, folder, recording, tmp):
    return [decoder.predict(part.emg.astype(float), rate_hz=part.rate_hz) for part in parts(recording)]


def by_live(decoder, folder, recording, tmp):
    words = ["--model", str(tmp / "mine"), "--source", "replay", "--data", str(folder), "--speed", "0", "--quiet",
             "--subject", str(recording.subject), "--session", str(recording.file.session), "--jsonl",
             str(tmp / "live.jsonl")]
    live.main(words)
    return [[json.loads(line)["label"] for line in (tmp / "live.jsonl").read_text().splitlines()]]


def by_evaluate(decoder, folder, recording, tmp):
    evaluate.main([str(tmp / "mine"), "--data", str(folder), "--stream", "--subjects", str(recording.subject),
                   "--decisions", str(tmp / "evaluate.jsonl")])
    lines = map(json.loads, (tmp / "evaluate.jsonl").read_text().splitlines())
    return [[line["label"] for line in lines if line["session"] == recording.file.session]]


def by_savedmodel(decoder, folder, recording, tmp):
    import tensorflow as tf

    stream = tf.saved_model.load(str(tmp / "mine" / "1")).signatures["stream"]
    return [stream(emg=tf.constant(resampling.signal_at_rate(part.emg, part.rate_hz, decoder.card["rate_hz"])[None]))[
        "label"].numpy()[0] for part in parts(recording)]


def by_client(decoder, folder, recording, tmp):
    stride_ms = 1e3 * decoder.stride / decoder.card["rate_hz"]
    with serving_cases.standin(tmp, tmp / "ready.json") as server:
        client.main(["--url", server["grpc"], "--model", "mine", "--data", str(recording.path), "--resample",
                     "--stride-ms", str(stride_ms), "--quiet", "--json", str(tmp / "client.json")])
    return [[one["label"] for one in json.loads((tmp / "client.json").read_text())["decided"]]]


DOORS = [by_recording, by_samples, by_live, by_evaluate]
SERVED = [by_savedmodel, by_client]


def parts(recording: Recording) -> list[Recording]:
    """The pieces of a recording, which no window reaches across, without those that are shorter than a window."""
    edges = [0, *recording.seams, len(recording.emg)]
    return [Recording(recording.file, recording.emg[a:b], recording.labels[a:b], recording.repetitions[a:b],
                      recording.rate_hz) for a, b in pairwise(edges) if b - a >= 0.1 * recording.rate_hz]


def check(decoder, folder, recording, tmp, doors):
    """Live, and as live, a signal at another rate is heard 10 samples of the lower rate later."""
    at_once = [door for door in doors if door not in (by_live, by_evaluate)]
    for late, through in ((False, at_once), (True, [door for door in doors if door not in at_once])):
        compare([decoder.stream(heard(part, decoder.card["rate_hz"]), rate_hz=decoder.card["rate_hz"]) if late else
                 decoder.stream(part.emg, rate_hz=part.rate_hz) for part in parts(recording)],
                [(door.__name__, np.concatenate(door(decoder, folder, recording, tmp))) for door in through],
                decoder.decision.reject)


def heard(recording, wanted):
    if recording.rate_hz == wanted:
        return recording.emg
    resample = resampling.Resampler(recording.rate_hz, wanted)
    return np.concatenate([resample(recording.emg[i : i + 4096]) for i in range(0, len(recording.emg), 4096)])


def compare(answers, doors, reject):
    true, two = (np.concatenate(of) for of in zip(*((one["label"], np.sort(one["probabilities"], axis=1)[:, -2:])
                                                    for one in answers), strict=True))
    sure = (two[:, 1] - two[:, 0] > SURE) & (np.abs(two[:, 1] - reject) > SURE)
    assert sure.mean() > 0.9 and len({*true.tolist()}) > 1
    for name, found in doors:
        assert len(found) == len(true), f"{name}: {len(found)} decisions, not {len(true)}"
        assert (found == true)[sure].all(), f"{name}: {(found != true)[sure].sum()} of {sure.sum()} differ"


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """Of recordings at 1000 Hz, which it has at 2000 Hz; it filters, votes and rejects."""
    folder = tmp_path_factory.mktemp("fitted")
    kinds.csv(folder)
    made = fitted(list(tfkfin.read(folder)), CASES["filtered"] | {"window.train_stride_ms": 5})
    made.export(folder.parent / "served" / "mine")
    return made, folder.parent / "served"


@pytest.mark.parametrize("write", kinds.FORMATS, ids=lambda write: write.__name__)
def test_every_format_by_every_door(write, decoder, tmp_path):
    if write is kinds.xdf:
        pytest.importorskip("pyxdf")
    folder = tmp_path / "own"
    folder.mkdir()
    write(folder)
    recording, = tfkfin.read(folder)
    (tmp_path / "mine").symlink_to(decoder[1] / "mine")
    (tmp_path / "models.config").write_text((decoder[1] / "models.config").read_text())
    check(decoder[0], folder, recording, tmp_path, DOORS + (SERVED if write is kinds.csv else []))


@pytest.mark.real
@pytest.mark.long
@pytest.mark.slow
def test_every_real_set_by_every_door(real_sets, tmp_path):
    """20 s of the first person of each, resampled where it was recorded slowly."""
    for folder in real_sets:
        data, models = tmp_path / folder.name / "data", tmp_path / folder.name
        data.mkdir(parents=True)
        file = readers.find(folder)[0]
        content = matfile.load(file.path, tuple(matfile.shapes(file.path)))
        rate = readers.header(file).rate_hz
        matfile.save(data / file.path.name, {name: v[: int(20 * rate)] if len(v) > 1 else v
                                             for name, v in content.items()}, "cut")
        recording, = tfkfin.read(data)
        decoder = fitted([recording], {"window.rate_hz": 0 if rate < 1000 else 2000, "window.length_ms": 200})
        decoder.export(models / "mine")
        check(decoder, data, recording, models, DOORS + SERVED)
