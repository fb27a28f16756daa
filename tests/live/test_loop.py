"""The loop with a clock: stamps, what is late, what is lost, and where decisions go."""

import json
import socket
import time
from dataclasses import replace

import numpy as np
import pytest
from live_cases import Kept, Slow

from tfkfin.base.errors import InputError
from tfkfin.live import outputs
from tfkfin.live.loop import Loop
from tfkfin.live.sources import Chunk, LiveSource
from tfkfin.live.sources.replay import Replay
from tfkfin.live.stream import Stream


class Given(LiveSource):
    """Chunks as given, each as long as it lasts; a number among them is a pause in seconds."""

    def __init__(self, items, rate_hz=2000.0, channels=4):
        self.items, self.rate_hz, self.channels = items, rate_hz, channels

    def __iter__(self):
        for item in self.items:
            if isinstance(item, Chunk):
                time.sleep(len(item.samples) / self.rate_hz)
                yield replace(item, received=time.perf_counter())
            elif isinstance(item, Exception):
                raise item
            else:
                end = time.perf_counter() + item
                while time.perf_counter() < end:
                    time.sleep(0.02)
                    yield None


def run(stream, source) -> tuple[Kept, Loop]:
    kept = Kept()
    loop = Loop(stream, source, [kept])
    loop.run()
    return kept, loop


@pytest.fixture(scope="module")
def stream(streaming):
    return Stream(streaming, 40)


def test_a_recording_in_real_time_is_decided_as_at_once(stream, recording):
    part = replace(recording, emg=recording.emg[:6000], labels=recording.labels[:6000])
    stream.restart(0, 0)
    expected = run(stream, Replay(part, 0))[0]
    stream.restart(0, 0)
    began = time.perf_counter()
    kept, loop = run(stream, Replay(part, 4.0))
    assert time.perf_counter() - began > 0.7
    found = loop.summary()
    timing = found["timing"]
    assert timing["decisions"] + timing["dropped"] == len(expected.made) == 146
    for made in kept.made:
        np.testing.assert_array_equal(made.features, expected.made[made.window].features)
    if not timing["dropped"]:  # a vote is among what was decided
        assert kept.labels.tolist() == expected.labels.tolist()
    assert timing["total"]["p50_ms"] >= timing["inference"]["p50_ms"] > 0
    assert timing["acquisition"]["p50_ms"] < 2000 and found["signal"]["received"] == 6000
    assert found["delay"] == {"window_ms": 100.0, "middle_ms": pytest.approx(70.0)}


def test_what_cannot_be_kept_is_dropped_in_whole_strides_newest_kept(streaming, recording):
    slow = Stream(streaming, 20)
    every = slow(recording.emg[:4000])
    slow.restart(0, 0)
    slow.network = Slow(slow.network, 0.05)
    kept, loop = run(slow, Replay(replace(recording, emg=recording.emg[:4000], labels=recording.labels[:4000])))
    timing = loop.summary()["timing"]
    assert timing["dropped"] > 100 and timing["decisions"] + timing["dropped"] == len(every)
    for made in kept.made:
        np.testing.assert_array_equal(made.features, every.features[made.window])
    assert kept.made[-1].window >= len(every) - 20  # what was decided was new
    assert timing["wait"]["p95_ms"] < 2000 and any("dropped" in note for note in kept.notes)
    assert loop.summary()["smallest_stride_ms"] > 50


def test_lost_samples_stalls_and_reconnects_are_shown_and_survived(stream, recording):
    emg = recording.emg[2000:8000]
    parts = [Chunk(emg[i : i + 100], 0.0) for i in range(0, 6000, 100)]
    items = [*parts[:10], replace(parts[12], lost=200), *parts[13:20], 0.8, *parts[20:30],
             replace(parts[40], lost=1000, note="connected again"), *parts[41:]]
    stream.restart(0, 0)
    kept, loop = run(stream, Given(items))
    found = loop.summary()["signal"]
    assert (found["lost"], found["gaps"], found["received"]) == (1200, 2, 4800) and found["stalls"] >= 1
    said = [note.split()[0] for note in kept.notes if "dropped" not in note]  # of a busy machine
    assert [word for word in said if word not in ("no", "samples")] == ["200", "connected", "1000"]
    assert said.index("200") < said.index("no") < said.index("samples")
    windows = {made.window: made for made in kept.made}
    held = emg.copy()
    held[1000:1200] = emg[999]
    stream.restart(0, 0)
    expected = stream(held[:3000])
    before, (first, *_) = [n for n in windows if n < len(expected)], [n for n in windows if n >= len(expected)]
    for number in before:
        np.testing.assert_array_equal(windows[number].features, expected.features[number])
        assert windows[number].filled == np.isin(np.arange(40 * number, 40 * number + 200), np.arange(1000, 1200)).sum()
    stream.restart(0, 0)
    after, later = stream(emg[4000:]), first - len(expected)
    np.testing.assert_array_equal(windows[first].features, after.features[later])  # from what came after the gap alone
    assert windows[first].time_s == (4200 + 40 * later) / 2000 and len(before) > 10


def test_a_source_that_fails_is_an_error(stream, recording):
    stream.restart(0, 0)
    with pytest.raises(InputError, match="the device is gone"):
        run(stream, Given([Chunk(recording.emg[:400], 0.0), InputError("the device is gone")]))


def test_a_pause_forgets_the_signal(stream, recording):
    stream.restart(0, 0)
    kept = Kept()
    loop = Loop(stream, Replay(recording, 0), [kept])
    loop.between = lambda: loop.pause(4000 <= loop._count < 8000)
    loop.run(6.0)
    times = np.array([made.time_s for made in kept.made])
    assert not ((times > 4200 / 2000) & (times < 8200 / 2000)).any() and times.max() == pytest.approx(6.0, abs=0.02)


def test_outputs_say_the_same(stream, recording, tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        there.settimeout(5)
        address = f"127.0.0.1:{there.getsockname()[1]}"
        kept, made = Kept(), [outputs.Udp(address), outputs.Udp(address, True), outputs.JsonLines(tmp_path / "d.jsonl")]
        stream.restart(0, 0)
        part = replace(recording, emg=recording.emg[:1000], labels=recording.labels[:1000])
        Loop(stream, Replay(part, 0), [kept, *made]).run()
        datagrams = [there.recv(4096).decode() for _ in range(2 * len(kept.made))]
    lines = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    assert [line["label"] for line in lines] == kept.labels.tolist() and len(lines) == 21
    assert datagrams[::2] == [f"{one.label} {one.speed:.4f}" for one in kept.made]
    assert [json.loads(one)["window"] for one in datagrams[1::2]] == list(range(21))
    with pytest.raises(InputError, match="never overwritten"):
        outputs.JsonLines(tmp_path / "d.jsonl")
    for unfit in ("localhost", "localhost:x", ":5", "localhost:0"):
        with pytest.raises(InputError, match="HOST:PORT"):
            outputs.Udp(unfit)
