"""The page: what it makes of datagrams, its document, its buttons, and its process, which ends with the session."""

import os
import socket
import time

import numpy as np
import pytest
import requests
from bokeh.document import Document
from live_cases import Kept

from tfkfin.console import InputError
from tfkfin.features import catalogue
from tfkfin.filtering import filtered as through
from tfkfin.filtering import sections
from tfkfin.live.calibration import Cue
from tfkfin.live.feed import Feed
from tfkfin.live.loop import Loop
from tfkfin.live.page.state import State, posture
from tfkfin.live.page.view import View
from tfkfin.live.sources.replay import Replay
from tfkfin.live.stream import Stream


@pytest.fixture(scope="module")
def about(filtered):
    names = ("rate_hz", "length", "channels", "features", "movements", "mean_v", "sd_v", "filter")
    called = {"0": "rest", "1": "fist", "2": "open", "3": "3"}
    return {name: filtered.card[name] for name in names} | {"source_hz": 2000.0, "names": called, "port": 0}


class Datagrams(Feed):
    """A feed without a process."""

    def __init__(self, to):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._to, self._samples, self._times, self._notes = to, [], [], []
        self._made, self._cue, self._due = None, None, 0.0

    def close(self):
        self._send()
        self._socket.close()


@pytest.fixture(scope="module")
def shown(about, filtered, recording):
    """A state that has seen three seconds of a session, and the session's last decision."""
    state, kept = State(about), Kept()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        there.bind(("127.0.0.1", 0))
        there.settimeout(1.0)
        feed = Datagrams(there.getsockname())
        feed.cue(Cue(2, 1, 0.0, 5.0, 0))
        feed.note("something happened")
        loop = Loop(Stream(filtered), Replay(recording, 0), [kept, feed])
        loop.between = lambda: state.take(there.recv(65536)) if feed._due > 0 and not feed._samples else None
        loop.run(3.0)
        state.take(there.recv(65536))
    return state, kept.made[-1]


def test_the_state_has_what_was_sent(shown, about, recording):
    state, last = shown
    np.testing.assert_array_equal(state.raw[-state._seen :], recording.emg[: state._seen])
    assert state.last["window"] == last.window and state.counts.sum() == last.window + 1
    assert state.notes == type(state.notes)(["something happened"], 5) and state.decisions[-1][2] == 2
    seen = through(recording.emg[:6000], sections(about["filter"], 2000.0))[-200:]
    x = ((seen - about["mean_v"]) / about["sd_v"])[None].astype("f4")
    np.testing.assert_allclose(state.true_features(), catalogue.direct(x, about["features"], 2000.0)[0], rtol=1e-4)


def test_electrodes_are_judged(about):
    state, rng = State(about), np.random.default_rng(0)
    t = np.arange(6000) / 2000
    emg = 1e-5 * rng.standard_normal((6000, 4)).astype("f4")
    emg[:, 1] = 3e-6
    emg[:, 2] = np.clip(emg[:, 2], -4e-6, 4e-6)
    emg[:, 3] += 2e-5 * np.sin(2 * np.pi * 50 * t)
    state._add(emg)
    assert state.quality() == ["good", "flat", "clipped", "hum 50 Hz"]


def test_a_view_shows_it_and_its_buttons_send(shown):
    state, last = shown
    sent, document = [], Document()
    view = View(document, state, sent.append)
    for _ in range(6):
        view.update()
    assert len(view.signals.data["t"]) == len(state.extremes) > 500
    np.testing.assert_allclose(view.bars.data["p"], last.probabilities, atol=1e-5)
    assert view.course.data["decided"][-1] == last.label and sum(view.bins.data["top"]) == state.counts.sum()
    assert "please: <b>open</b> for 2 s, then rest" in view.words.text and "something happened" in view.told.text
    for button in (view.pausing, view.pausing, view.recording, view.recording):
        view._press(button, *{view.pausing: ("Pause", "Go on"), view.recording: ("Record", "Stop recording")}[button])
    assert sent == ["pause", "go on", "record", "stop recording"]


def test_a_hand_is_curled_as_the_movement_is_called():
    assert posture(3, "Close Hand", 1.0) == (1.0,) * 5 and posture(1, "Open hand", 1.0) == (0.0,) * 5
    assert posture(4, "Pointer", 1.0)[1] == 0 and posture(-1, "rejected", 1.0) == posture(0, "rest", 0.0)
    assert len({posture(label, str(label), 1.0) for label in range(1, 18)}) == 17
    weak, strong = posture(3, "fist", 0.0), posture(3, "fist", 1.0)
    assert all(a < b for a, b in zip(weak, strong, strict=True))


def test_the_page_is_a_process_that_ends_with_the_session(about):
    feed = Feed(about)
    assert "tfkfin live" in requests.get(feed.url, timeout=30).text and feed.commands() == []
    pid = feed.pid
    with pytest.raises(InputError, match="is port .* free"):
        Feed(about | {"names": {}}, int(feed.url.rpartition(":")[2].strip("/")))
    feed.close()
    end = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}")
