"""The page: what it makes of datagrams, its document, its buttons, and its process, which ends with the session."""

import os
import re
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from bokeh.document import Document
from live_cases import Kept

from tfkfin import read
from tfkfin.base.errors import InputError
from tfkfin.features import catalogue
from tfkfin.live import calibration, session
from tfkfin.live.calibration import Cue
from tfkfin.live.loop import Loop
from tfkfin.live.outputs import Feed, LiveDecision
from tfkfin.live.page import State, View
from tfkfin.live.sources.replay import Replay
from tfkfin.live.stream import Stream
from tfkfin.signal.condition import FAULTS
from tfkfin.signal.filtering import filtered as through
from tfkfin.signal.filtering import sections


@pytest.fixture(scope="module")
def about(filtered):
    names = ("rate_hz", "length", "channels", "features", "movements", "mean_v", "sd_v", "filter")
    called = {"0": "rest", "1": "fist", "2": "open", "3": "3"}
    return {name: filtered.card[name] for name in names} | {"source_hz": 2000.0, "names": called, "port": 0}


class Datagrams(Feed):
    """A feed without a process."""

    def __init__(self, to):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.prepare(to)

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
        there.setblocking(False)

        def take():
            with suppress(BlockingIOError):  # on a busy machine a chunk of decisions takes longer than a frame
                while True:
                    state.take(there.recv(65536))

        feed = Datagrams(there.getsockname())
        feed.cue(Cue(2, 1, 0.0, 5.0, 0))
        feed.note("something happened")
        loop = Loop(Stream(filtered), Replay(recording, 0), [kept, feed])
        loop.between = take
        loop.run(3.0)
        take()
    return state, kept.made[-1]


def test_late_decisions_and_names_of_channels_reach_the_page(about):
    from tfkfin.live.measures import Timing
    from tfkfin.live.sources import LiveSource

    class Device(LiveSource):
        channel_names = ("FCR", "ECR", "a very long name of an electrode", "FDS")

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        feed, timing, state = Datagrams(there.getsockname()), Timing(0.05), State(about)
        feed.begin(Device(), timing)
        timing.missed, timing.dropped = 3, 1
        feed._decision = LiveDecision(1, 0.1, 1, 0.9, np.full(4, 0.25), np.zeros((4, 4)), 0.5, None, 0)
        feed.close()
        state.take(there.recv(65536))
    view = View(Document(), state, print)
    view.update()
    assert "3 late, 1 dropped" in view.status.text
    labels = [text.split("  ")[0] for text in view.plot.yaxis[0].major_label_overrides.values()]
    assert labels == ["FCR", "ECR", "a very lo…f an electrode", "FDS"]


def test_the_state_has_what_was_sent(shown, about, recording):
    state, last = shown
    np.testing.assert_array_equal(state.raw[-state._count :], recording.emg[: state._count])
    assert state.last["window"] == last.window and state.counts.sum() == last.window + 1
    assert state.notes == type(state.notes)(["something happened"], 5) and state.decisions[-1][2] == 2
    seen = through(recording.emg[:6000], sections(about["filter"], 2000.0))[-200:]
    x = ((seen - about["mean_v"]) / about["sd_v"])[None].astype("f4")
    np.testing.assert_allclose(state.true_features(), catalogue.direct(x, about["features"], 2000.0)[0], rtol=1e-4)


def test_a_decoder_without_fins_is_shown(about, recording):
    state = State(about | {"features": []})
    view = View(Document(), state, print)
    state._add(recording.emg[:4000])
    state.last = {"label": 1, "session": {}, "probabilities": [0.25] * 4, "probability": 0.25, "cue": None,
                  "time_s": 2.0, "speed": 0.0, "true": None, "features": np.empty((4, 0)).tolist()}
    for _ in range(6):
        view.update()
    assert len(view.signals.data["t"]) == len(state.extremes) and not view.imitated


def test_every_electrode_keeps_to_its_lane(about):
    """From rest to strong movements and back, with electrodes that differ a thousandfold, offsets and a spike."""
    state, rng = State(about), np.random.default_rng(0)
    view = View(Document(), state, print)
    sizes, offsets, drawn = np.array([1e-6, 1e-5, 1e-4, 1e-3]), np.array([0.0, 0.1, -0.2, 1e-3]), {}
    for second, force in enumerate((0.1, 0.1, 0.1, 30.0, 30.0, 30.0, 0.1, 0.1, 0.1, 0.1)):
        for part in np.split((force * sizes * rng.standard_normal((2000, 4)) + offsets).astype("f4"), 20):
            state._add(part)
            view._show_signals()
            lanes = np.array([view.signals.data[f"c{c}"] for c in range(4)])
            assert (np.abs(lanes - np.arange(4)[:, None]) <= 0.481).all(), second
        state.raw[-1, 1] = 0.4
        view._show_quality()
        lanes = np.array([view.signals.data[f"c{c}"] for c in range(4)])
        points = np.array([v for _, v in state.extremes])  # all of them in the present scale
        wanted = np.clip((view._middle - points) / (2 * view._reach), -0.48, 0.48).T + np.arange(4)[:, None]
        np.testing.assert_allclose(lanes, wanted, atol=6e-4)
        drawn[second] = np.ptp(lanes[:, -100:], axis=1)
    for second in (2, 5, 9):  # once the three seconds shown are of one kind, every lane is used and none is full
        assert (drawn[second] > 0.3).all() and (drawn[second] < 0.97).all()
    labels = view.plot.yaxis[0].major_label_overrides
    said = [float(text.split("±")[1].split()[0]) for text in labels.values()]
    assert labels[0].startswith("1  good  ±") and "4 good" in view.plot.title.text
    assert view.plot.y_range.start > view.plot.y_range.end  # the first electrode above, and a positive peak upwards
    np.testing.assert_allclose(said, 1e6 * view._reach, rtol=0.01)
    assert 1.5e6 * 0.1 * 1e-3 < said[3] < 6e6 * 0.1 * 1e-3


def test_electrodes_are_judged(about):
    state, rng = State(about), np.random.default_rng(0)
    t = np.arange(6000) / 2000
    emg = 1e-5 * rng.standard_normal((6000, 4)).astype("f4")
    emg[:, 1] = 3e-6
    emg[:, 2] = np.clip(emg[:, 2], -4e-6, 4e-6)
    emg[:, 3] += 2e-5 * np.sin(2 * np.pi * 50 * t)
    state._add(emg)
    assert state.quality() == ["good", "flat", "clipped", "hum 50 Hz"]
    state.last = {"fault": [FAULTS.index("offset"), 0, 0, FAULTS.index("slow")]}
    assert state.quality() == ["offset", "flat", "clipped", "hum 50 Hz"]  # decisions know training, and windows alone


def test_a_view_shows_it_and_its_buttons_send(shown):
    state, last = shown
    sent, document = [], Document()
    state.last["session"] = {"progress": {"at": 2, "of": 3, "next": 3}, "calibration": "asking", "late": 4}
    view = View(document, state, sent.append)
    for _ in range(6):
        view.update()
    assert len(view.signals.data["t"]) == len(state.extremes) > 500
    np.testing.assert_allclose(view.bars.data["p"], last.probabilities, atol=1e-5)
    assert view.course.data["decided"][-1] == last.label == view.about["movements"].index(last.label)
    assert sum(view.bins.data["top"]) == state.counts.sum() and "something happened" in view.notes.text
    assert 'please, 2 of 3' in view.cards.text and '<div class="name">open</div>' in view.cards.text
    assert '>2</div>' in view.cards.text and "then" in view.cards.text and "<b>3</b>" in view.cards.text
    assert "calibrating: 2 of 3" in view.status.text and '<span class="chip alarm">4 late' in view.status.text
    assert view.force.visible and not view.latency.visible
    assert view.ramp.data == {"t": [0, 5.0], "force": [0.3, 1.0]}
    assert view.own.data["force"][-1] == pytest.approx(last.force, abs=1e-4)
    view._show_force({"movement": 0, "following": 3, "start_s": 2.5, "stop_s": 4.0})
    assert view.ramp.data["force"] == [0, 0] and min(view.own.data["t"]) >= 0
    view._show_force(None)
    assert not view.force.visible and view.latency.visible
    for doing in ({}, {"paused": True, "recording": True}, {"calibration": ""}, {"calibration": "asking"}):
        view._show_buttons(doing)
        for button in (view.pausing, view.recording, view.calibrating):
            if button.visible and not button.disabled:
                view._press(button)
    assert sent == ["pause", "record", "start", "stop recording", "pause", "record", "calibrate", "record",
                    "stop calibrating"]


def words(about, **changes) -> str:
    """The status and the cards at a decision for "fist", and what of it changes."""
    view = View(Document(), State(about), print)
    last = {"label": 1, "session": {}, "probability": 0.75, "cue": None, "time_s": 2.0, "speed": 0.0, "true": None}
    view._show_words(last | changes)
    return f"{view.status.text}\n{view.cards.text}"


def test_what_is_decided_stands_beside_what_is_asked_for_or_done(about):
    assert words(about).count("<svg") == 1 and "<h2>done" not in words(about)
    assert words(about, true=2).count("<svg") == 2 and "card same" not in words(about, true=2)
    assert words(about, true=1).count("card same") == 2
    nobody_knows = words(about, label=3, true=-1)
    assert "<svg" not in nobody_knows and '<div class="plain">3</div>' in nobody_knows
    assert '<div class="plain">rejected</div>' in words(about, label=-1)
    named = words(about | {"names": {"1": "<script>$$x$$", "2": "b"}})
    assert "<script>" not in named and "$$" not in named and "&lt;script&gt;" in named
    cue, session = {"start_s": 1.0, "stop_s": 3.5}, {"calibration": "asking", "progress": {"at": 1, "of": 2, "next": 2}}
    rest = words(about, cue=cue | {"movement": 0, "following": 1}, session=session)
    assert "please rest, 1 of 2" in rest and ">2</div>" in rest and "<b>fist</b>" in rest
    assert "then it is solved" in words(about, cue=cue | {"movement": 0, "following": None}, session=session)


def test_a_calibration_ends_with_its_result_against_the_decoder_before(about):
    result = {"after": 0.92, "before": 0.61, "chance": 0.25, "trusted": False, "replaced": False}
    ready = words(about, session={"calibration": "ready", "result": result})
    told = ("92 %", "61 %", "25 %", "width: 92.0%", "were the cues followed?")
    assert [ready.count(text) for text in told] == [1] * 5
    kept = words(about, session={"calibration": "", "result": result})
    assert "old decoder kept: 92 % right, before 61 %" in kept
    taken = words(about, session={"calibration": "", "result": result | {"replaced": True, "after": None}})
    assert "calibrated: unknown right, before 61 %" in taken
    assert "not calibrated here" in words(about, session={"calibration": "", "result": {}})
    assert "calibra" not in words(about, session={"calibration": None})
    assert "● recording 1:05" in words(about, session={"recording": True, "recorded_s": 65.4})


def test_a_decision_is_drawn_where_it_differs_from_the_truth(about):
    state = State(about)
    view = View(Document(), state, print)
    state.decisions.extend([(1.0, 1, 1, 0.5), (1.1, 2, 1, 0.5), (1.2, -1, None, 0.5), (9.0, 3, 7, 0.5)])
    view._show_course()
    drawn = view.course.data
    assert drawn["begin"] == [0.5, 1.0, 1.1, 8.5] and drawn["decided"] == [1, 2, -1, 3]
    assert drawn["asked"][:2] == [1, 1] and np.isnan(drawn["asked"][2:]).all()  # 7: the decoder does not know it
    right, wrong = drawn["colour"][:2]
    assert right != wrong and drawn["colour"][2:] == [right, wrong] and view.course_plot.y_range.start == -1.5


def test_the_rate_of_decisions_is_counted_over_two_seconds(about, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("tfkfin.live.state.time.monotonic", lambda: now[0])
    state = State(about)
    for _ in range(100):
        now[0] += 0.05
        state._sent.append((now[0], 2))
    assert state.rate_hz == pytest.approx(40, abs=1)
    now[0] += 5
    assert state.rate_hz == 0


def test_the_page_is_a_process_that_ends_with_the_session(about):
    feed = Feed(about)
    assert "tfkfin live" in requests.get(feed.url, timeout=30).text and feed.commands() == []
    pid = feed.pid
    with pytest.raises(InputError, match="is port .* free"):
        Feed(about | {"names": {}}, urlsplit(feed.url).port)
    feed.close()
    end = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}")


def until(condition, page, what: str) -> None:
    """Waits, generously, while the browser goes on."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, f"{what} did not come about"
        page.wait_for_timeout(50)


@contextmanager
def opened(browser, loop, folder, calibrating=None):
    """A session with its page in a browser: (page, press a button, wait for a button)."""
    obey = session.open_page(loop, 0, folder, 4, calibrating)
    loop.between = lambda: [calibrating and calibrating.between(), obey()]
    url = next(output.url for output in loop.outputs if isinstance(output, Feed))
    page, errors = browser.new_page(viewport={"width": 1400, "height": 1100}), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_default_timeout(120_000)
    running = threading.Thread(target=loop.run)
    running.start()
    try:
        page.goto(url)

        def button(name):
            return page.get_by_role("button", name=name, exact=True)

        yield page, lambda name: button(name).click(), lambda name: button(name).wait_for()
    finally:
        page.close()  # before its server ends: Bokeh's client then tries to connect anew, and complains
        loop.stop()
        running.join(60)
    assert not errors


def test_a_browser_pauses_starts_and_records(browser, filtered, recording, tmp_path):
    kept = Kept()
    loop = Loop(Stream(filtered), Replay(recording, 1.0, endless=True), [kept])
    with opened(browser, loop, tmp_path / "kept") as (page, press, there):
        press("Pause")
        there("Start")
        page.get_by_text("paused").wait_for()
        made, came = len(kept.made), loop.signal.received
        until(lambda: loop.signal.received > came + 1000, page, "signal while paused")
        assert loop.paused and len(kept.made) == made
        press("Start")
        there("Pause")
        until(lambda: len(kept.made) > made + 10, page, "decisions after the pause")
        press("Record")
        there("Stop recording")
        came = loop.signal.received
        until(lambda: loop.signal.received > came + 1000, page, "signal while recording")
        press("Stop recording")
        page.get_by_text("recorded: ").wait_for()
        assert page.evaluate("Bokeh.documents[0].get_model_by_name('electrode 1').data_source.data.t.length") > 100
    one, = read(tmp_path / "kept")
    place = np.flatnonzero((recording.emg == one.emg[0]).all(axis=1))[0]
    again = np.resize(recording.emg, (place + len(one.emg), 4))[place:]
    np.testing.assert_array_equal(one.emg, again)
    assert one.subject == 4 and len(one.emg) > 1000


class Device(Replay):
    """A recording of which nobody says what is done."""

    def __iter__(self):
        return (replace(chunk, labels=None) for chunk in super().__iter__())


@pytest.mark.slow
def test_a_browser_begins_a_calibration_and_shows_what_is_asked_for(browser, filtered, recording, tmp_path):
    asked = calibration.cues([0, 1, 2, 3], hold_s=4.0, rest_s=1.0)  # long enough to stop it on a busy machine
    loop = Loop(Stream(filtered), calibration.Cued(Device(recording, 1.0, endless=True), asked, False))
    doing = calibration.Calibration(loop, filtered, tmp_path / "days", 4)
    with opened(browser, loop, tmp_path / "kept", doing) as (page, press, there):
        press("Calibrate")
        there("Stop calibrating")
        page.get_by_text(re.compile("please.* of 3")).wait_for()  # any cue: a busy page may be late for the first
        press("Stop calibrating")
        there("Calibrate")
        page.get_by_text(re.compile("please.* of 3")).wait_for(state="hidden")
        assert not doing.wanted and not (tmp_path / "days").exists()
        press("Calibrate")
        page.get_by_text(re.compile("please.* of 3")).wait_for()
        assert page.get_by_role("button", name="Pause", exact=True).is_disabled()
        page.get_by_text("calibrated on").wait_for()
        there("Calibrate")
    one, = read(tmp_path / "days")  # what was stopped left nothing
    edges = np.flatnonzero(np.diff(one.labels, prepend=0)) / one.rate_hz
    np.testing.assert_allclose(edges, [1.0, 5.0, 6.0, 10.0, 11.0, 15.0], atol=2e-3)
    assert doing.failed is None and loop.stream.decoder is doing.made and len(one.emg) >= 16 * 2000
