"""A session that asks for movements, records them, solves a new decoder while the old one decides, and goes on."""

import json
import os
import re
import shlex
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from live_cases import Kept, outlet

import tfkfin
from tfkfin import read
from tfkfin import recipe as recipes
from tfkfin.__main__ import main
from tfkfin.base.errors import InputError
from tfkfin.fit.calibration import evidence
from tfkfin.fit.scoring import windows_of
from tfkfin.live import __main__ as live
from tfkfin.live.calibration import Calibration, Cued, Recorder, check_folder, cues
from tfkfin.live.loop import Loop
from tfkfin.live.sources import Chunk, LiveSource
from tfkfin.live.sources.replay import Replay
from tfkfin.live.sources.synthetic import person
from tfkfin.live.stream import Stream
from tfkfin.pipeline.dataset import open_dataset


def test_every_movement_is_asked_for():
    asked = cues([0, 2, 5], repetitions=2, hold_s=3, rest_s=1)
    assert [(c.movement, c.repetition) for c in asked if c.movement] == [(2, 1), (5, 1), (2, 2), (5, 2)]
    assert [c.start_s for c in asked[1:]] == [c.stop_s for c in asked[:-1]] and asked[-1].stop_s == 17
    assert [c.following for c in asked[:3]] == [2, 0, 5] and asked[-1].following is None


def test_progress_says_which_movement_and_what_comes_after_it():
    """At times worked out by hand: rest from 0, 5, 10 s and from 15 s on, movements from 2, 7, 12 s."""
    cued = Cued(Silent(), cues([0, 4, 2, 7]))
    found = []
    for at_s in (0.0, 1.9, 2.5, 4.99, 5.0, 8.0, 11.0, 14.0, 16.0):
        cued._count = round(at_s * cued.rate_hz)
        found.append(tuple(cued.progress().values()))
    assert found == [(1, 3, 2)] * 4 + [(2, 3, 7)] * 2 + [(3, 3, None)] * 3


class Silent(LiveSource):
    """A device that knows nothing of what is done: blocks of numbered samples, some of them lost."""

    rate_hz, channels, speed = 100.0, 1, 0

    def __iter__(self):
        for i in range(0, 1000, 10):
            yield Chunk(np.arange(i, i + 10, dtype=np.float32)[:, None], time.perf_counter(), lost=0)


def test_samples_are_labelled_by_what_was_asked_for_then():
    cued = Cued(Silent(), cues([1, 2], hold_s=1, rest_s=0.5))
    chunks = list(cued)
    emg, labels, repetitions = cued.recorded()
    at = emg[:, 0] / 100
    assert (labels[(at >= 0.5) & (at < 1.5)] == 1).all() and (labels[(at >= 2.0) & (at < 3.0)] == 2).all()
    assert (labels == 0).sum() == 150 and len(labels) == 350 and cued.done and set(repetitions) == {1}
    assert chunks[-1].labels is None  # what comes later is not known


def test_another_person_is_calibrated_while_the_old_decoder_decides(streaming, tmp_path):
    """A synthetic person who is not the one that was learnt from; held movements as the recording has them."""
    source = Cued(Replay(person(2, 3, 4, 2000.0), 1.0, endless=True), cues([1, 2, 3]))
    kept = Kept()
    loop = Loop(Stream(streaming, 100), source, [kept])
    calibration, during = Calibration(loop, streaming, tmp_path / "sessions", 2), []

    def between():
        calibration.between()
        if calibration._thread is not None and calibration.made is None:
            during.append(len(kept.made))
        if calibration.failed or calibration.made is not None and len(kept.made) > during[-1] + 20:
            loop.stop()

    loop.between = between
    loop.run(60.0)
    assert calibration.failed is None and during[-1] > during[0]  # the old one went on
    assert calibration.report["seconds"] < 1 and loop.stream.decoder is calibration.made
    there, = read(tmp_path / "sessions")
    assert (there.subject, there.rate_hz, there.num_channels) == (2, 2000.0, 4)
    assert set(np.unique(there.labels)) == {0, 1, 2, 3} and set(np.unique(there.repetitions[there.labels > 0])) == {1}
    own = person(2, 3, 4, 2000.0)
    np.testing.assert_array_equal(there.emg, own.emg[: len(there.emg)])
    before, after = (np.mean((decoder.stream(own.emg)["label"] == _true(own, decoder))[_true(own, decoder) > 0])
                     for decoder in (streaming, calibration.made))
    assert after > before + 0.1


class Unlabelled(Replay):
    """A person who does not follow the cues."""

    def __iter__(self):
        for chunk in super().__iter__():
            yield chunk and replace(chunk, labels=None)


def test_a_calibration_that_nobody_followed_replaces_nothing_unasked(streaming, tmp_path):
    """What was recorded is at chance for the new decoder, and the old one decides on exactly as before."""
    source = Cued(Unlabelled(person(2, 3, 4, 2000.0), 1.0, endless=True), cues([1, 2, 3], 2, 0.7, 0.3))
    kept = Kept()
    loop = Loop(Stream(streaming, 100), source, [kept])
    calibration = Calibration(loop, streaming, tmp_path / "sessions", 2, replace=None)
    weights, noted = [np.copy(w) for w in calibration.decoder.model.get_weights()], []

    def between():
        calibration.between()
        if calibration.doing == "ready":
            noted.append(len(kept.made))
            if len(kept.made) > noted[0] + 5:
                calibration.answer(False)
        if calibration.failed or noted and not calibration.asked:
            loop.stop()

    loop.between = between
    loop.run(60.0)
    assert calibration.failed is None and calibration.made is None and calibration.report["replaced"] is False
    evidence = calibration.report["evidence"]
    assert not evidence["trusted"] and evidence["after"] < 0.6 and any("followed" in note for note in kept.notes)
    assert all(map(np.array_equal, weights, calibration.decoder.model.get_weights()))
    new = calibration.new()  # for a version beside the old one
    assert any(not np.array_equal(a, b) for a, b in zip(weights, new.model.get_weights(), strict=True))
    calibration.answer(True)  # too late
    assert calibration.made is None and calibration._solver._process.is_alive()


@pytest.mark.parametrize("repetitions", [(1, 2, 3), (1,)])
def test_evidence_is_of_windows_that_were_left_out(streaming, tiny_db2, repetitions):
    """Against calibrations through Python on the other repetitions, or the other halves, and counted here."""
    own = read(tiny_db2)[1].select(repetitions)
    subject = windows_of(streaming.card, [own])
    found, right, decided = evidence(streaming, subject), [], streaming(subject.volts(streaming.length))["label"]
    windows = subject.windows
    assert found["before"] == np.mean(decided == windows.movements)
    assert found["chance"] == max(np.mean(windows.movements == m) for m in np.unique(windows.movements))
    if repetitions == (1,):
        assert found["after"] > found["chance"] + 0.2
        return
    for left in repetitions:
        new = streaming.calibrate(own, repetitions=set(repetitions) - {left})
        mine = windows.repetitions == left
        right += (new(subject.volts(streaming.length)[mine])["label"] == windows.movements[mine]).tolist()
    assert found["after"] == pytest.approx(np.mean(right)) and found["trusted"] == (
        found["after"] >= max(found["before"], found["chance"] + (1 - found["chance"]) / 3))


def _true(recording, decoder):
    starts = np.arange(0, len(recording.emg) - decoder.length + 1, decoder.stride)
    inside = recording.labels[starts[:, None] + np.arange(decoder.length)]
    return np.where((inside == inside[:, :1]).all(axis=1), inside[:, 0], -1)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("device", ["board", "lsl"])
def test_a_device_is_calibrated_from_the_command_line(device, exported, recording, tmp_path):
    """Calibrated, then live. Neither BrainFlow's synthetic board nor a recording that another process sends over LSL
    does what is asked: that it goes through is all there is to see.
    """
    words = ["--model", exported, "--channels", "1-4", "--seconds", 75, "--calibrate", tmp_path / "sessions",
             "--hold-s", 0.8, "--rest-s", 0.4, "--to", tmp_path / "new", "--json", tmp_path / "said.json",
             "--jsonl", tmp_path / "made.jsonl", "--stride-ms", 20, "--quiet", "--replace"]
    rate_hz, name = {"board": 250.0, "lsl": 2000.0}[device], f"test-{time.time_ns()}"
    np.save(tmp_path / "emg.npy", recording.emg)
    sender = outlet(name, tmp_path / "emg.npy", 600) if device == "lsl" else None
    source = ["lsl", "--stream", name] if sender else ["brainflow", "--board", "synthetic"]
    live.main([str(word) for word in (*words, "--source", *source)])
    if sender:
        sender.kill()
        sender.wait()
    made = (tmp_path / "made.jsonl").read_text().splitlines()
    swapped = next(i for i, line in enumerate(made) if "calibrated on" in line)
    assert sum('"label"' in line for line in made[:swapped]) > 20 and len(made) > swapped + 20
    there, = read(tmp_path / "sessions")
    assert (there.rate_hz, there.num_channels) == (rate_hz, 4) and set(np.unique(there.labels)) == {0, 1, 2, 3}
    said = json.loads((tmp_path / "said.json").read_text())["calibration"]
    assert said["session"] == 1 and (tmp_path / "new" / "1" / "saved_model.pb").is_file()
    card = json.loads((tmp_path / "new" / "1" / "model_card.json").read_text())
    assert card["calibration"]["windows"] == said["windows"] > 50
    with pytest.raises(InputError, match="is of other recordings"):
        check_folder(tmp_path / "sessions", 1000.0, {})
    check_folder(tmp_path / "sessions", rate_hz, {})  # of the same kind: the next day's session goes there too


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_ends_a_session_before_there_is_a_new_decoder_gets_the_signals_code(number, code, exported, tmp_path,
                                                                                monkeypatch, caplog):
    """Not that of an input that is unfit."""
    monkeypatch.setattr(Loop, "run", lambda loop, seconds, run=Loop.run: (os.kill(os.getpid(), number),
                                                                          run(loop, seconds)))
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    words = ["--model", exported, "--source", "synthetic", "--seconds", 30, "--calibrate", tmp_path / "sessions",
             "--to", tmp_path / "new", "--quiet"]
    with pytest.raises(SystemExit) as end, caplog.at_level("INFO", logger="tfkfin"):
        live.main([str(word) for word in words])
    for one, handler in before.items():
        signal.signal(one, handler)
    assert end.value.code == code and "no new decoder was made" in caplog.text
    assert not (tmp_path / "new").exists()


def test_a_recording_button_keeps_what_came(recording, tmp_path):
    kept = Recorder(tmp_path / "kept", 3, 2000.0, {1: "fist"})
    kept.samples(recording.emg[:100], recording.labels[:100])  # before it was pressed
    kept.switch(True)
    kept.samples(recording.emg[100:6000], recording.labels[100:6000])
    kept.samples(recording.emg[6000:9000], np.full(3000, -1))
    kept.close()
    there, = read(tmp_path / "kept")
    np.testing.assert_array_equal(there.emg, recording.emg[100:9000])
    np.testing.assert_array_equal(there.labels, np.concatenate([recording.labels[100:6000], np.zeros(3000)]))
    assert there.names == {1: "fist"} and there.subject == 3
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    refused = Recorder(tmp_path / "other", 3, 2000.0, {})
    refused.switch(True)
    refused.samples(recording.emg[:100], recording.labels[:100])
    refused.close()
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["mine.txt"]
    with pytest.raises(InputError, match="holds something else"):
        check_folder(tmp_path / "other", 2000.0, {})


def test_what_was_recorded_without_cues_is_decided_and_adapted_to_but_not_scored(streaming, recording, tiny_db2,
                                                                                tmp_path):
    """Calibrated without labels as a recording that holds one movement nobody named; never taken for rest."""
    other = read(tiny_db2)[1]
    kept = Recorder(tmp_path / "kept", 2, 2000.0, {})
    kept.switch(True)
    kept.samples(other.emg[:20000], np.full(20000, -1))
    kept.close()
    one, = read(tmp_path / "kept")
    np.testing.assert_array_equal(one.emg, other.emg[:20000])
    assert not one.cued and not one.labels.any() and "nobody was asked" in one.notes[0]
    for command in ("verify", "info"):
        main(["data", command, str(tmp_path / "kept")])
    loop = Loop(Stream(streaming), Replay(one, 0), [out := Kept()])
    loop.run()
    np.testing.assert_array_equal(out.labels, streaming.predict(other.emg[:20000]))
    assert loop.summary()["scores"] is None
    np.testing.assert_array_equal(streaming.stream(one, adapt=True)["label"],
                                  streaming.stream(other.emg[:20000], adapt=True)["label"])
    new = streaming.calibrate(one, labelled=False)
    starts = np.arange(0, 20000 - streaming.length + 1, streaming.stride)
    wanted, _ = streaming.calibrated(streaming.inputs(one.emg, starts))
    windows_ = one.emg[starts[:, None] + np.arange(streaming.length)]
    np.testing.assert_allclose(new(windows_)["probabilities"], wanted(windows_)["probabilities"], atol=1e-4)
    for refused in (streaming.score, streaming.calibrate, tfkfin.Decoder.from_preset("best").fit):
        with pytest.raises(InputError, match="nobody was asked for movements"):
            refused(one)
    recipe = recipes.load("best", {"source.kind": "recordings"})
    with pytest.raises(InputError, match="nobody was asked for movements"):
        open_dataset(recipe, tmp_path / "kept")


@pytest.mark.slow
@pytest.mark.parametrize("device", ["board", "lsl"])
def test_day_one_as_the_documentation_says(device, recording, tmp_path, monkeypatch):
    """Its own command lines, with a device that does not do what is asked: that they go through is all there is."""
    page = Path(__file__).parents[2].joinpath("docs", "live.md").read_text("utf-8")
    begin, record = (shlex.split(line.removeprefix("$ tfkfin "), comments=True) for line in re.findall(
        r"^\$ tfkfin .*--movements .*$", page, re.MULTILINE))
    name = f"test-{time.time_ns()}"
    monkeypatch.chdir(tmp_path)
    np.save("emg.npy", recording.emg)
    sender = outlet(name, "emg.npy", 600) if device == "lsl" else None
    source = ["--stream", name] if sender else ["--source", "brainflow", "--board", "synthetic", "--channels", "1-4"]
    try:
        main([*record, *source, "--hold-s", "0.8", "--rest-s", "0.4", "--cued", "1"])
        main([*begin, *source, "--hold-s", "0.8", "--rest-s", "0.4", "--seconds", "2", "--json", "said.json"])
    finally:
        if sender:
            sender.kill()
            sender.wait()
    first, second = read("SESSIONS")
    assert first.names == {1: "fist", 2: "open hand", 3: "pinch"} and second.repetitions.max() == 3
    assert json.loads(Path("said.json").read_text())["timing"]["decisions"] > 5
    assert Path("savedmodels", "mine", "1", "saved_model.pb").is_file()


def test_day_one_needs_no_model(tmp_path, caplog):
    """A synthetic person does what the recording says; what is fitted decides that person live, by name."""
    words = ["--source", "synthetic", "--speed", "0", "--movements", "fist,open hand,pinch", "--cued", "2"]
    main(["data", "record", str(tmp_path / "kept"), *words])
    one, = read(tmp_path / "kept")
    assert one.names == {1: "fist", 2: "open hand", 3: "pinch"} and one.rate_hz == 2000
    assert {(m, r) for m, r in zip(one.labels.tolist(), one.repetitions.tolist(), strict=True) if m} >= {
        (m, r) for m in (1, 2, 3) for r in (1, 2)}
    live.main([*words, "--calibrate", str(tmp_path / "days"), "--to", str(tmp_path / "new"), "--seconds", "9",
               "--json", str(tmp_path / "said.json"), "--quiet"])
    card = json.loads((tmp_path / "new" / "1" / "model_card.json").read_text())
    assert card["movements"] == [0, 1, 2, 3] and card["names"]["2"] == "open hand" and card["channels"] == 8
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["scores"]["accuracy"] > 0.7  # of four, on the movements that it was fitted to
    with pytest.raises(InputError, match="is of other recordings"):
        main(["data", "record", str(tmp_path / "kept"), *words[:4], "--movements", "fist,open"])
    for unfit in ("fist", "fist,fist"):
        with pytest.raises(InputError, match="two movements or more"):
            main(["data", "record", str(tmp_path / "other"), *words[:2], "--movements", unfit])
    with pytest.raises(InputError, match="name the model"):
        live.main(words[:2])
