"""Samples that no amplifier gives, whoever sends them: held and counted live, refused in Python, adapted to nowhere."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from live_cases import Kept

import tfkfin
from tfkfin.base import samples
from tfkfin.base.errors import InputError
from tfkfin.live import calibration
from tfkfin.live.loop import Loop
from tfkfin.live.sources import lsl
from tfkfin.live.sources.replay import Replay
from tfkfin.live.stream import Stream
from tfkfin.recordings.recording import Recording, RecordingFile
from tfkfin.serving.client import Client, Target

ABSURD = [np.nan, np.inf, -np.inf, 1e20, -1e20, 3e38, 1.01e10]


def spoiled(recording, value, at=slice(3000, 3005)):
    emg = recording.emg[:8000].copy()
    emg[at, 1] = value
    return replace(recording, emg=emg, labels=recording.labels[:8000], repetitions=recording.repetitions[:8000])


@pytest.mark.parametrize("value", ABSURD)
def test_live_they_are_held_counted_and_not_adapted_to(streaming, recording, value):
    made = {}
    for name, one in (("spoiled", spoiled(recording, value)), ("held", spoiled(recording, recording.emg[2999, 1]))):
        kept, stream = Kept(), Stream(streaming, adapt=True)
        loop = Loop(stream, Replay(one, 0), [kept])
        loop.run()
        made[name] = kept, loop.summary()["signal"], stream.network.session.carried().head.knowledge.state
    (kept, signal, state), (wanted, _, held) = made["spoiled"], made["held"]
    np.testing.assert_array_equal(kept.labels, wanted.labels)
    np.testing.assert_array_equal([d.probabilities for d in kept.made], [d.probabilities for d in wanted.made])
    assert signal["filled"] == 5 and max(d.filled for d in kept.made) == 5
    assert any("no amplifier" in note for note in kept.notes)
    for part, values in held.items():
        assert np.isfinite(state[part]).all(), part
        np.testing.assert_array_equal(state[part], values, err_msg=part)


@pytest.mark.parametrize("value", [9.9e9, 1e6, 1e3])
def test_what_is_only_absurdly_loud_gives_finite_decisions(decoder, recording, value):
    kept, stream = Kept(), Stream(decoder, adapt=True)
    Loop(stream, Replay(spoiled(recording, value), 0), [kept]).run()
    assert np.isfinite([d.probabilities for d in kept.made]).all()
    state = stream.network.session.carried().head.knowledge.state
    assert all(np.isfinite(values).all() for values in state.values())


@pytest.mark.parametrize("value", ABSURD)
def test_from_python_they_are_refused(streaming, recording, value):
    """At each door for samples; the decoder and a session are then as they were."""
    decoder, emg = streaming, recording.emg[:4000].copy()
    session, windows = decoder.session(), np.stack([emg[:200], emg[200:400]])
    wanted = decoder.session().stream(emg)["probabilities"]
    emg_bad, windows_bad = emg.copy(), windows.copy()
    emg_bad[2500, 2] = windows_bad[1, 100, 2] = value
    recorded = Recording(RecordingFile(Path("a"), 1), emg_bad, recording.labels[:4000], recording.repetitions[:4000],
                         2000.0)
    doors = {"predict": lambda: decoder.predict(emg_bad), "windows": lambda: decoder(windows_bad),
             "predict windows": lambda: decoder.predict(windows_bad), "stream": lambda: decoder.stream(emg_bad),
             "adapt": lambda: decoder.stream(emg_bad, adapt=True), "session": lambda: session.stream(emg_bad),
             "update": lambda: decoder.update(windows_bad, 1), "recording": lambda: decoder.predict(recorded),
             "resampled": lambda: decoder.predict(emg_bad, rate_hz=1000.0),
             "calibrate": lambda: decoder.calibrate(recorded),
             "array": lambda: tfkfin.Decoder.from_preset("best").fit(emg_bad, recording.labels[:4000], rate_hz=2000.0),
             "fit": lambda: tfkfin.Decoder.from_preset("best").fit(recorded)}
    for name, door in doors.items():
        with pytest.raises(InputError, match="NaN or Inf|no amplifier|in volts"):
            door()
            pytest.fail(name)
    np.testing.assert_array_equal(session.stream(emg)["probabilities"], wanted)


def test_a_client_does_not_send_them():
    class Silent(Client):
        _predict = _metadata = _status = close = lambda *_: pytest.fail("it was sent")

    for value in ABSURD:
        with pytest.raises(InputError, match="NaN or Inf|no amplifier"):
            Silent(Target("http", "nowhere", "m")).predict(np.full((1, 8, 2), value))


def test_scikit_learn_estimators_refuse_them():
    from tfkfin.scikit import FINFeatures

    x = np.random.default_rng(0).standard_normal((4, 2, 600))
    x[1, 1, 5] = 1e20
    with pytest.raises(ValueError, match="no amplifier"):
        FINFeatures().fit(x)


def test_fit_samples_are_those_within_the_limit():
    assert samples.fit(np.array([0, -1e10, 1e10, *ABSURD])).tolist() == [True] * 3 + [False] * len(ABSURD)
    assert samples.checked(np.array([1e10, -1e10])).size == 2 and not samples.checked(np.empty(0)).size


# === LSL, by a library that says what a test wants ===

class Lost(Exception):
    pass


class Hostile:
    """Stands in for pylsl: streams that are described, break off and come back as a test says."""

    cf_string, util = 3, SimpleNamespace(LostError=Lost, TimeoutError=TimeoutError)

    def __init__(self, *lives, chunks=()):
        self.lives, self.chunks, self.life = list(lives), list(chunks), -1

    def resolve_streams(self, wait_time):
        self.life = min(self.life + 1, len(self.lives) - 1)
        return [self.info()]

    def info(self, timeout=0):
        told = {"name": "A", "type": "EMG", "rate": 2000.0, "channels": 4, "unit": "V"} | self.lives[self.life]
        node = SimpleNamespace(child=lambda _: node, child_value=lambda _: told["unit"],
                               next_sibling=lambda *_: node)
        return SimpleNamespace(name=lambda: told["name"], type=lambda: told["type"], desc=lambda: node,
                               nominal_srate=lambda: told["rate"], channel_count=lambda: told["channels"],
                               channel_format=lambda: 1)

    def StreamInlet(self, info, **_):
        return self

    open_stream = flush = lambda self, **_: None
    time_correction, local_clock = (lambda self, **_: 0.0), lambda self: 0.0

    def pull_sample(self, timeout):
        if not self.chunks:
            raise Lost
        self.rows, self.stamps = self.chunks.pop(0)
        if not len(self.rows):
            raise Lost
        return self.rows[0], self.stamps[0]

    def pull_chunk(self, timeout):
        return self.rows[1:], self.stamps[1:]


def opened(monkeypatch, *lives, chunks=(), name=""):
    monkeypatch.setattr(lsl, "required", lambda _: Hostile(*lives, chunks=chunks))
    return lsl.Lsl(name, find_s=0.0)


@pytest.mark.parametrize("rate", [1e-300, 1e-3, 1e300, float("inf"), -5.0])
def test_a_rate_that_no_device_has_is_one_line(monkeypatch, rate):
    with pytest.raises(InputError, match="stream A .EMG.: frequency is .* samples a second are needed"):
        opened(monkeypatch, {"rate": rate})


@pytest.mark.parametrize("change, said", [
    ({"channels": 5}, "channels 4, now 5"), ({"rate": 1000.0}, "rate 2000.0, now"),
    ({"unit": "mV"}, r"units \['V'.*, now \['mV'")])
def test_a_stream_that_comes_back_as_another_ends_the_session(monkeypatch, streaming, recording, change, said):
    chunks = [(recording.emg[:400].tolist(), (np.arange(400) / 2000).tolist()), ((), ())]
    source = opened(monkeypatch, {}, change, chunks=chunks)
    with pytest.raises(InputError, match=f"came back as another stream .*{said}"):
        Loop(Stream(streaming, 40), source, []).run(20.0)


def test_absurd_samples_and_stamps_over_lsl_end_nothing(monkeypatch, streaming, recording):
    emg, stamps = recording.emg[:4000].astype(float), np.arange(4000) / 2000
    for at, value in ((500, 3e38), (900, 1e300), (1300, np.nan), (1700, -np.inf)):
        emg[at] = value
    stamps[[600, 1000, 1400, 1800, 2200]] = np.nan, np.inf, 1e300, -1e300, 1e9
    stamps[2600:2640] = np.inf
    chunks = [(emg[i : i + 40].tolist(), stamps[i : i + 40].tolist()) for i in range(0, 4000, 40)]
    kept, source = Kept(), opened(monkeypatch, {"name": "A\x1b[2J\n"}, chunks=chunks)
    loop = Loop(Stream(streaming, 40), source, [kept])
    loop.run(1.9)
    assert loop.signal.filled == 4 and len(kept.made) + loop.timing.dropped > 90  # dropped where the machine is busy
    assert np.isfinite([d.probabilities for d in kept.made]).all()
    assert "\x1b" not in source.described and "\n" not in source.described and loop.signal.lost < 2000 * 3600 * 5


def test_a_long_gap_takes_no_memory(streaming, recording):
    class Gap(Replay):
        def __iter__(self):
            for number, chunk in enumerate(super().__iter__()):
                yield replace(chunk, lost=10**12 if number == 10 else 0)

    kept = Kept()
    Loop(Stream(streaming), Gap(spoiled(recording, 0.0), 0), [kept]).run()
    ends = [d.time_s for d in kept.made]
    assert ends[-1] > 1e12 / 2000 and all(d.filled == 0 for d in kept.made) and len(ends) > 100


# === Recordings of a button ===

def test_recordings_are_bounded_and_nothing_recorded_is_lost(monkeypatch, tmp_path):
    monkeypatch.setattr(calibration, "LONGEST_S", 1.0)
    monkeypatch.setattr(calibration, "MOST", 2)
    recorder, volts = calibration.Recorder(tmp_path / "r", 1, 1000.0, {}), np.ones((100, 2), np.float32)
    for _ in range(2):
        assert recorder.switch(True) == "" and recorder.switch(True) == "" and not recorder.full
        for i in range(50):
            recorder.samples(volts * i, np.zeros(100, int))
            assert recorder.full == (i >= 9)
        assert "recorded: " in recorder.switch(False)
    assert "2 recordings already" in recorder.switch(True) and not recorder.on
    for path in (tmp_path / "r").glob("*.npz"):
        assert np.load(path)["emg"].shape == (1000, 2)


def test_what_was_decided_is_in_the_file_whatever_comes_next(tmp_path, streaming, recording):
    from tfkfin.live.outputs import JsonLines

    lines, counts = tmp_path / "a.jsonl", []
    loop = Loop(Stream(streaming), Replay(recording, 0), [JsonLines(lines)])
    loop.between = lambda: counts.append((loop.timing.decided, lines.read_bytes().count(b"\n")))
    loop.run(2.0)
    assert counts[-1][0] > 10 and all(decided == written for decided, written in counts)
