"""`tfkfin live` and `tfkfin evaluate --stream` from the command line, on synthetic and on real recordings."""

import json
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from live_cases import CASES, fitted

from tfkfin import evaluate
from tfkfin.base import registry
from tfkfin.base.errors import InputError
from tfkfin.live import __main__ as live
from tfkfin.live.sources import Chunk, LiveSource
from tfkfin.recordings import matfile, readers


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def agree(model, data, subject, tmp_path, *more) -> list[dict]:
    """Replays a recording by one command, scores it by the other; all decisions, which are the same."""
    own, every = (tmp_path / f"{name}{subject}.jsonl" for name in ("live", "stream"))
    words = ("--model", model, "--source", "replay", "--data", data, "--subject", subject, "--speed", 0, "--quiet",
             "--jsonl", own, "--json", tmp_path / "live.json", *more)
    live.main([str(word) for word in words])
    words = (model, "--data", data, "--subjects", subject, "--stream", "--decisions", every,
             "--json", tmp_path / "stream.json", *more)
    evaluate.main([str(word) for word in words])
    one, other = lines(own), lines(every)
    keys = ("window", "time_s", "label", "probabilities", "true", "speed")
    assert [[line[key] for key in keys] for line in one] == [[line[key] for key in keys] for line in other]
    scores = json.loads((tmp_path / "live.json").read_text())["scores"]
    told = json.loads((tmp_path / "stream.json").read_text())
    for key in ("accuracy", "execution", "false_per_minute"):
        assert told[key]["per_subject"][str(subject)] == scores[key]
    return one


def test_a_replay_decides_as_evaluate_stream(exported, tiny_db2, tmp_path, recording):
    made = agree(exported, tiny_db2, 1, tmp_path, "--repetitions", "2,5", "--stride-ms", 10)
    assert len(made) == (len(recording.emg) - 200) // 20 + 1
    true = np.array([-1 if line["true"] is None else line["true"] for line in made])
    assert set(true[true > 0]) == set(recording.labels[np.isin(recording.repetitions, (2, 5))]) - {0}
    assert 0.2 < np.mean(true >= 0) < 0.5
    accuracy = np.mean([line["label"] == line["true"] for line in made if line["true"] is not None])
    assert json.loads((tmp_path / "stream.json").read_text())["accuracy"]["mean"] == pytest.approx(accuracy)


def test_windows_are_decided_alike_on_an_engine(recording, tiny_db2, tmp_path):
    """FINs that see a window as a whole; the engine is pinned, for they differ in the last digits."""
    model = fitted([recording], CASES["windows"]).export(tmp_path / "whole").parent
    made = agree(model, tiny_db2, 2, tmp_path, "--engine", "native", "--stride-ms", 40)
    assert len({line["label"] for line in made}) > 2


@pytest.mark.real
def test_every_real_set_is_replayed_as_evaluate_stream_scores_it(real_sets, tmp_path):
    """A short cut of the first person of each set, in 100 % of windows."""
    for folder in real_sets:
        data, whole = tmp_path / folder.name, []
        data.mkdir()
        for file in readers.find(folder)[:1]:
            content = matfile.load(file.path, tuple(matfile.shapes(file.path)))
            rate = readers.header(file).rate_hz
            kept = slice(0, int(20 * rate))
            content = {name: v[kept] if len(v) > 1 else v for name, v in content.items()}
            matfile.save(data / file.path.name, content, "cut")
            whole.append(file.subject)
        recording = readers.read(readers.find(data)[0])
        rate = 0 if recording.rate_hz < 1000 else 2000  # the armband as it is, others resampled to 2 kHz
        decoder = fitted([recording], {"window.rate_hz": rate, "window.length_ms": 200})
        model = decoder.export(tmp_path / f"model_{folder.name}").parent
        for subject in whole:
            made = agree(model, data, subject, tmp_path / folder.name, "--stride-ms", 10)
            assert len(made) > 1900 and len({line["label"] for line in made}) > 1


def test_no_device_is_needed(exported, tmp_path, capsys):
    words = ["--model", str(exported), "--source", "synthetic", "--seconds", "1.5", "--speed", "3"]
    live.main([*words, "--json", str(tmp_path / "s.json")])
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["timing"]["decisions"] + found["timing"]["dropped"] >= 70 and found["engine"] == "live"
    assert found["scores"]["windows"] > 0 and "decided" in capsys.readouterr().out


@pytest.mark.parametrize("words, said", [
    (("--source", "replay"), "--data DIR"), (("--source", "replay", "--data", "nowhere"), "nowhere"),
    (("--source", "replay", "--data", "DATA"), "choose one with --subject"),
    (("--source", "replay", "--data", "DATA", "--subject", "9"), "has no recording of subject 9"),
    (("--source", "replay", "--data", "DATA", "--engine", "fast"), "must be one of"),
    (("--source", "synthetic", "--stride-ms", "500"), "a stride must be")])
def test_what_is_unfit_is_said(exported, tiny_db2, words, said):
    with pytest.raises(InputError, match=said):
        live.main(["--model", str(exported), *(str(tiny_db2) if word == "DATA" else word for word in words)])


def test_engines_of_the_stream_are_named(exported):
    with pytest.raises(InputError, match="no model"):
        live.main(["--model", "nothing", "--source", "synthetic"])
    for words, said in (((str(exported), "--data", "x", "--engine", "native"), "--stream is missing"),
                        (("--fin", "conv", "--data", "x", "--stream"), "--stream is for decoders")):
        with pytest.raises(InputError, match=said):
            evaluate.main(list(words))


class Ramp(LiveSource):
    """A source of another package, with an option of its own."""

    channels = 4

    @classmethod
    def options(cls, group):
        group.add_argument("--ramp-hz", type=float)

    @classmethod
    def open(cls, arguments, card):
        source = cls()
        source.rate_hz, source.speed = arguments.ramp_hz, 0
        return source

    @classmethod
    def emg(cls):
        return np.random.default_rng(3).normal(0, 1e-5, (1000, 4)).astype("f4")

    def __iter__(self):
        yield from (Chunk(part, 0.0) for part in np.array_split(self.emg(), 7))


def test_a_source_of_another_package_needs_its_own_options_alone(exported, streaming, tmp_path, monkeypatch):
    """Registered as an entry point is; decided as the decoder decides the same signal."""
    point = EntryPoint("ramp", f"{__name__}:Ramp", "tfkfin.sources")
    monkeypatch.setattr(registry, "_installed", lambda room: {"ramp": point} if room == "live/sources" else {})
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Ramp.__module__])
    live.main(["--model", str(exported), "--source", "ramp", "--ramp-hz", "2000", "--quiet", "--jsonl",
               str(tmp_path / "made.jsonl")])
    expected = streaming.stream(Ramp.emg())
    found = [line["probability"] for line in lines(tmp_path / "made.jsonl") if "note" not in line]
    np.testing.assert_allclose(found, expected["probabilities"].max(axis=1), atol=1e-4)
    monkeypatch.setattr(Ramp, "options", classmethod(lambda cls, group: group.add_argument("--seconds")))
    with pytest.raises(InputError, match="live source ramp .* exists already"):
        live.main(["--model", str(exported), "--source", "ramp"])


def test_a_session_is_recorded_as_xdf(exported, tiny_db2, tmp_path, recording):
    """What is read of it is the recording that was replayed, to the last sample and label."""
    pytest.importorskip("pyxdf")
    words = ["--model", str(exported), "--source", "replay", "--data", str(tiny_db2), "--subject", "1", "--speed", "0",
             "--quiet", "--record", str(tmp_path / "p1.xdf")]
    live.main(words)
    (tmp_path / "recordings.toml").write_text('files = "p{subject}.xdf"\nhold = true\n')
    again = readers.read(readers.find(tmp_path)[0])
    assert again.rate_hz == recording.rate_hz
    np.testing.assert_array_equal(again.emg, recording.emg)
    np.testing.assert_array_equal(again.labels, recording.labels)
    with pytest.raises(InputError, match="p1.xdf cannot be written: File exists"):
        live.main(words)
