"""A long session: every window is decided or said to be dropped, and memory stays. TFKFIN_SOAK_S: how long, seconds."""

import os
from pathlib import Path

import pytest
from live_cases import fitted

from tfkfin.live.loop import Loop
from tfkfin.live.sources.replay import Replay
from tfkfin.live.sources.synthetic import person
from tfkfin.live.stream import Stream

SECONDS = float(os.environ.get("TFKFIN_SOAK_S", 40))


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
def test_a_long_session_loses_no_window_and_grows_no_memory():
    """12 channels at 2 kHz, the shipped conv FINs, a decision every 10 ms."""
    made = person(1, 3, 12, 2000.0)
    decoder = fitted([made], {"fin.family": "conv", "fin.pretrained": "auto", "fin.units": 32, "window.length_ms": 300,
                              "window.stride_ms": 10})
    loop, memory = Loop(Stream(decoder), Replay(made, 1.0, endless=True)), []

    def between():
        if loop.signal.received >= (len(memory) + 1) * SECONDS / 10 * 2000:
            memory.append(resident_mb())

    loop.between = between
    loop.run(SECONDS)
    found = loop.summary()
    print(f"{SECONDS:g} s: {found['timing']}, MB {[round(mb, 1) for mb in memory]}")
    windows = (found["signal"]["received"] - 600) // 20 + 1
    assert found["timing"]["decisions"] + found["timing"]["dropped"] == windows
    assert found["timing"]["dropped"] < 0.02 * windows and found["signal"]["lost"] == 0
    assert memory[-1] - memory[2] < 5 and len(memory) >= 9
    assert found["scores"]["accuracy"] > 0.8
