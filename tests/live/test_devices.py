"""Sources that are devices: an LSL outlet in another process, BrainFlow's synthetic board; what is lost is seen."""

import time

import numpy as np
import pytest
from live_cases import Kept, outlet

from tfkfin.base.errors import InputError
from tfkfin.live.loop import Loop
from tfkfin.live.outputs import LslMarkers
from tfkfin.live.sources import channel_indices, volts_per
from tfkfin.live.sources.brainflow import BrainFlowBoard, number_gaps
from tfkfin.live.sources.lsl import Lsl, StampGaps
from tfkfin.live.stream import Stream


def test_a_stream_of_another_process_is_decided_and_survives_its_end(streaming, recording, tmp_path):
    import pylsl

    path, name = tmp_path / "emg.npy", f"test-{time.time_ns()}"
    np.save(path, recording.emg)
    stream, kept = Stream(streaming, 40), Kept()
    with outlet(name, path, 60) as sender:
        source = Lsl(name, (2, 1, 3, 4), find_s=30)
        assert source.rate_hz == 2000 and source.channels == 4
        loop, seen, again = Loop(stream, source, [kept, LslMarkers(name + "-out", [0, 1, 2, 3], 50)]), [], []
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


class Inlet:
    """An inlet that has one sample."""

    def __init__(self, values):
        self.flush, self.time_correction = lambda: None, lambda timeout: 0.0
        self.pull_sample, self.pull_chunk = lambda timeout: (values, 1.0), lambda timeout: ([], [])


@pytest.mark.parametrize(("units", "values", "channels", "volts"), [
    (["V", "microvolts", "microvolts"], [5, 50, 40], (3, 2), [4e-5, 5e-5]),  # a trigger first
    (["seconds", "none", "uV", "mV"], [1, 1, 50, 2], (3, 4), [5e-5, 2e-3]),  # a counter first, unlike electrodes
    (["mV"] * 3, [1, 2, 3], (), [1e-3, 2e-3, 3e-3]),
    (["uV", "seconds", "uV"], [50, 1, 50], (), "channel 2 of the LSL stream.*'seconds'.*--unit"),
    (["uV", None, "uV"], [50, 1, 50], (1, 2), "channel 2 of the LSL stream.*--unit"),
    (["uV"], [50, 40], (), "channel 2 of the LSL stream.*--unit"),  # describes its first channel alone
])
def test_each_channel_of_a_stream_has_its_own_unit(monkeypatch, units, values, channels, volts):
    import pylsl

    info = pylsl.StreamInfo("units", "EMG", len(values), 500.0, "float32", "units")
    described = info.desc().append_child("channels")
    for unit in units:
        channel = described.append_child("channel")
        if unit:
            channel.append_child_value("unit", unit)
            channel.append_child_value("label", f"muscle {unit}")
    monkeypatch.setattr(Lsl, "_find", lambda self, seconds: (Inlet(values), info))
    if isinstance(volts, str):
        with pytest.raises(InputError, match=volts):
            Lsl("units", channels)
        assert next(iter(Lsl("units", channels, "mV"))).samples[0, 0] == np.float32(values[0] * 1e-3)
    else:
        np.testing.assert_allclose(next(iter(Lsl("units", channels))).samples, [volts], rtol=1e-6)
        shown = channels or range(1, len(units) + 1)
        assert list(Lsl("units", channels).channel_names) == [f"muscle {units[i - 1]}" for i in shown]


def test_the_synthetic_board_is_resampled_and_decided(streaming):
    source = BrainFlowBoard("synthetic", channels=(1, 2, 3, 4))
    assert source.rate_hz == 250
    kept, stream = Kept(), Stream(streaming, 40, 250)
    loop = Loop(stream, source, [kept])
    loop.run(1.5)
    found = loop.summary()
    assert found["signal"]["lost"] == 0 and found["timing"]["decisions"] + found["timing"]["dropped"] >= 65
    assert 0 <= found["timing"]["acquisition"]["p50_ms"] < 100
    again = BrainFlowBoard("SYNTHETIC_BOARD")  # the board was let go
    again.close()
    assert again.channels == 16


def test_what_brainflow_recorded_is_played(tmp_path):
    """Its playback board gives what its file says, at the file's rate; numbers that it lacks are lost samples."""
    from brainflow.board_shim import BoardShim
    from brainflow.data_filter import DataFilter

    emg, count = np.random.default_rng(5).normal(0, 50, (16, 2000)).round(6), np.arange(2000)
    numbers = np.where(count < 1900, count, count + 7)
    rows = np.zeros((BoardShim.get_num_rows(-1), 2000))
    rows[BoardShim.get_emg_channels(-1)], rows[BoardShim.get_package_num_channel(-1)] = emg, numbers % 256
    rows[BoardShim.get_timestamp_channel(-1)] = 1.7e9 + numbers / 1000  # faster than it was
    DataFilter.write_file(rows, str(tmp_path / "kept.csv"), "w")
    source = BrainFlowBoard("playback_file", {"file": str(tmp_path / "kept.csv"), "master_board": "synthetic"}, (2, 1))
    assert (source.rate_hz, source.channels) == (250, 2)
    chunks, whole = [], 0
    for chunk in source:
        if chunk is not None:
            if chunk.begins:  # its end, and once more
                break
            chunks.append(chunk)
            whole += len(chunk.samples)
    source.close()
    came = np.concatenate([chunk.samples for chunk in chunks])
    np.testing.assert_allclose(came, 1e-6 * emg[[1, 0], -whole:].T, rtol=1e-5, atol=1e-10)
    assert whole > 100 and [chunk.lost for chunk in chunks if chunk.lost] == [7] and "restarted" in chunk.note


@pytest.mark.parametrize("jitter, lost", [(0.0, 1), (0.001, 1000), (0.03, 1000)])
def test_gaps_are_seen_by_stamps(jitter, lost):
    """Chunks of 10 at 1 kHz, stamped as they are sent: the last of each is late by chance."""
    rng = np.random.default_rng(4)
    gaps, found, sent = StampGaps(1000), [], 0
    for chunk in range(300):
        first = chunk * 10 + (lost if chunk >= 200 else 0)
        stamps = (first + np.arange(10)) / 1000 + jitter * rng.random()
        missing = gaps(stamps)
        sent += len(missing)
        found += [(chunk, int(count)) for count in missing if count]
    assert sent == 3000 and [chunk for chunk, _ in found] == [200]
    assert abs(found[0][1] - lost) <= 2 * jitter * 1000


def test_gaps_are_counted_by_numbers():
    assert number_gaps(np.array([254.0, 255, 0, 3]), 250).tolist() == [3, 0, 0, 2]
    assert number_gaps(np.array([7.0, 7, 8]), None).tolist() == [0, 0, 0]


def test_what_devices_lack_is_said():
    with pytest.raises(InputError, match="no LSL stream nowhere: there are"):
        Lsl("nowhere", find_s=0.5)
    with pytest.raises(InputError, match="BrainFlow has no board 'none'"):
        BrainFlowBoard("none")
    with pytest.raises(InputError, match="no parameter 'colour'"):
        BrainFlowBoard("synthetic", {"colour": "red"})
    with pytest.raises(InputError, match="no channel 9"):
        channel_indices((1, 9), 8, "it")
    with pytest.raises(InputError, match="give --unit"):
        volts_per("", "it")
    assert volts_per("µV", "it") == volts_per("microvolts", "it") == 1e-6 and volts_per("mV", "it") == 1e-3
