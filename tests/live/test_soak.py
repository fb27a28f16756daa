"""A long session: every window is decided, and memory stays. TFKFIN_SOAK_S: how long, seconds; an hour is the claim.

    TFKFIN_SOAK_S=3600 python -m pytest -n 0 -s -m slow tests/live/test_soak.py
"""

import os
from pathlib import Path

import pytest
from live_cases import fitted

from tfkfin.live.loop import Loop
from tfkfin.live.sources.replay import Replay
from tfkfin.live.sources.synthetic import person
from tfkfin.live.stream import Stream

SECONDS = float(os.environ.get("TFKFIN_SOAK_S", 180))
HOUR_S, LOOKS = 3600, 20


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
def test_a_long_session_loses_no_decision_and_grows_no_memory():
    """12 channels at 2 kHz, the shipped conv FINs, a decision every 10 ms."""
    made = person(1, 3, 12, 2000.0)
    decoder = fitted([made], {"fin.family": "conv", "fin.pretrained": "auto", "fin.units": 32, "window.length_ms": 300,
                              "window.stride_ms": 10})
    loop, memory = Loop(Stream(decoder), Replay(made, 1.0, endless=True), first=True), []

    def between():
        if loop.signal.received >= (len(memory) + 1) * SECONDS / LOOKS * 2000:
            memory.append(resident_mb())

    loop.between = between
    loop.run(SECONDS)
    found = loop.summary()
    timing, signal = found["timing"], found["signal"]
    windows = (signal["received"] - 600) // 20 + 1
    total = {name: round(ms, 2) for name, ms in timing["total"].items()}
    print(f"{SECONDS:g} s, priority {found['priority']}: {windows} windows, {timing['decisions']} decisions, "
          f"{timing['dropped']} dropped, {timing['missed']} missed; {signal['lost']} samples lost; {total}; MB from "
          f"{memory[0]:.1f} to {memory[-1]:.1f}: {[round(mb, 1) for mb in memory]}; {signal['notes']}")
    assert timing["decisions"] + timing["dropped"] == windows and signal["lost"] == 0
    assert timing["dropped"] <= (0 if SECONDS >= HOUR_S else 0.02 * windows)  # in a short one, of a busy machine
    assert memory[-1] - memory[LOOKS // 5] < 5 and len(memory) >= LOOKS - 1
    assert found["scores"]["accuracy"] > 0.8
