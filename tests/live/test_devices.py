"""Sources that are devices: an LSL outlet in another process, BrainFlow's synthetic board; what is lost is seen."""

import subprocess
import sys
import time

import numpy as np
import pytest
from live_cases import Kept

from tfkfin.console import InputError
from tfkfin.live.loop import Loop
from tfkfin.live.outputs import Markers
from tfkfin.live.sources import chosen, scale
from tfkfin.live.sources._gaps import Gaps, counted
from tfkfin.live.sources.brainflow import Board
from tfkfin.live.sources.lsl import Lsl
from tfkfin.live.stream import Stream

OUTLET = """
import sys, time
import numpy as np, pylsl
name, path, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
emg = np.load(path)
info = pylsl.StreamInfo(name, "EMG", emg.shape[1], 2000, pylsl.cf_float32)
channels = info.desc().append_child("channels")
for c in range(emg.shape[1]):
    channels.append_child("channel").append_child_value("unit", "microvolts")
outlet = pylsl.StreamOutlet(info)
began = time.perf_counter()
for i in range(0, int(seconds * 2000), 20):
    time.sleep(max(0, began + i / 2000 - time.perf_counter()))
    rows = np.arange(i, i + 20) % len(emg)
    outlet.push_chunk((1e6 * emg[rows]).astype(np.float32).tolist())
"""


def outlet(name, path, seconds) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", OUTLET, name, str(path), str(seconds)], stderr=subprocess.DEVNULL)


def test_a_stream_of_another_process_is_decided_and_survives_its_end(streaming, recording, tmp_path):
    import pylsl

    path, name = tmp_path / "emg.npy", f"test-{time.time_ns()}"
    np.save(path, recording.emg)
    stream, kept = Stream(streaming, 40), Kept()
    with outlet(name, path, 60) as sender:
        source = Lsl(name, (2, 1, 3, 4), find_s=30)
        assert source.rate_hz == 2000 and source.channels == 4
        loop, seen, again = Loop(stream, source, [kept, Markers(name + "-out", [0, 1, 2, 3], 50)]), [], []
        taken = stream._repaired
        stream._repaired = lambda volts: (seen.append(volts), taken(volts))[1]
        inlet = pylsl.StreamInlet(pylsl.resolve_byprop("name", name + "-out", timeout=10)[0])
        inlet.open_stream(timeout=5)

        def between():
            count = loop.signal.received
            if count > 3000 and not again:
                sender.kill()
                again.append(outlet(name, path, 60))
            if again and any("found again" in note for note in kept.notes) and len(kept.notes) > 2:
                loop.stop()

        loop.between = between
        loop.run(45.0)
        again[0].kill()
        again[0].wait()
    whole = np.concatenate(seen[: next(i for i in range(len(seen)) if sum(map(len, seen[: i + 1])) >= 2000)])
    swapped = (1e6 * recording.emg).astype("f4")[:, [1, 0, 2, 3]] * np.float32(1e-6)
    place = np.flatnonzero((swapped == whole[0]).all(axis=1))[0]
    np.testing.assert_array_equal(whole, swapped[place : place + len(whole)])  # every sample, once, in order
    assert any("found again" in note for note in kept.notes) and loop.summary()["signal"]["stalls"] >= 1
    marks, _ = inlet.pull_chunk(timeout=2.0, max_samples=len(kept.made))
    assert [int(mark) for mark, in marks] == kept.labels.tolist()[: len(marks)] and len(marks) > 20


def test_the_synthetic_board_is_resampled_and_decided(streaming):
    source = Board("synthetic", channels=(1, 2, 3, 4))
    assert source.rate_hz == 250
    kept, stream = Kept(), Stream(streaming, 40, 250)
    loop = Loop(stream, source, [kept])
    loop.run(1.5)
    found = loop.summary()
    assert found["signal"]["lost"] == 0 and found["timing"]["decisions"] + found["timing"]["dropped"] >= 65
    assert 0 <= found["timing"]["acquisition"]["p50_ms"] < 100
    again = Board("SYNTHETIC_BOARD")  # the board was let go
    again.close()
    assert again.channels == 16


@pytest.mark.parametrize("jitter, lost", [(0.0, 1), (0.001, 1000), (0.03, 1000)])
def test_gaps_are_seen_by_stamps(jitter, lost):
    """Chunks of 10 at 1 kHz, stamped as they are sent: the last of each is late by chance."""
    rng = np.random.default_rng(4)
    gaps, found, sent = Gaps(1000), [], 0
    for chunk in range(300):
        first = chunk * 10 + (lost if chunk >= 200 else 0)
        stamps = (first + np.arange(10)) / 1000 + jitter * rng.random()
        for part, missing in gaps(stamps):
            sent += part.stop - part.start
            found += [(chunk, missing)] if missing else []
    assert sent == 3000 and [chunk for chunk, _ in found] == [200]
    assert abs(found[0][1] - lost) <= 2 * jitter * 1000


def test_gaps_are_counted_by_numbers():
    assert counted(np.array([254.0, 255, 0, 3]), 250).tolist() == [3, 0, 0, 2]
    assert counted(np.array([7.0, 7, 8]), None).tolist() == [0, 0, 0]


def test_what_devices_lack_is_said():
    with pytest.raises(InputError, match="no LSL stream nowhere: there are"):
        Lsl("nowhere", find_s=0.5)
    with pytest.raises(InputError, match="BrainFlow has no board 'none'"):
        Board("none")
    with pytest.raises(InputError, match="no parameter 'colour'"):
        Board("synthetic", {"colour": "red"})
    with pytest.raises(InputError, match="no channel 9"):
        chosen((1, 9), 8, "it")
    with pytest.raises(InputError, match="give --unit"):
        scale("", "it")
    assert scale("µV", "it") == scale("microvolts", "it") == 1e-6 and scale("mV", "it") == 1e-3
