"""A decoder that goes on learning from what it decides: in Python, live and offline, against what it is made of."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
from live_cases import played

from tfkfin import evaluate
from tfkfin import recipe as recipes
from tfkfin.base.errors import InputError
from tfkfin.decoder import session as sessions
from tfkfin.decoder.decision import Smoothed
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.live import __main__ as live
from tfkfin.live.offline import Offline, of_sessions
from tfkfin.live.stream import Stream
from tfkfin.nets.heads import gaussian
from tfkfin.pipeline.splits import Part
from tfkfin.sessions import online
from tfkfin.sessions.posterior import SessionPosterior
from tfkfin.sessions.prior import SessionPrior


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    monkeypatch.setattr(online, "BLOCK", 40)


def expected(decoder, emg, starts):
    """By the session's posterior alone, given head inputs: probabilities, and the session after them."""
    knowledge = decoder.head.knowledge
    prior = SessionPrior.from_state(knowledge.state, knowledge.memory.statistics)
    x = decoder.inputs(emg, starts).astype(np.float64)
    session = SessionPosterior(prior)
    return Smoothed(len(prior.classes))(online.stream(session, x, np.ones(len(x), bool))), session


def test_it_is_online_adaptation_over_the_stream(decoder, recording, monkeypatch):
    """All three kinds of decoders; whole, in two stretches, and sample by sample as a device gives them."""
    emg, weights = recording.emg[2000:14000], copy.deepcopy(decoder.head.classifier.get_weights())
    cut, starts = decoder.windows_of(emg, decoder.stride)
    wanted, session = expected(decoder, cut, starts)
    wanted = decoder.decision(wanted, decoder.movements)[1]
    answers = decoder.stream(emg, adapt=True)
    np.testing.assert_allclose(answers["probabilities"], wanted, atol=1e-4)
    assert np.abs(wanted - decoder.stream(emg)["probabilities"]).max() > 0.1
    two = decoder.session()
    kept = (len(starts) // 2) * decoder.stride
    if "filter" not in decoder.card:  # it begins anew with each stretch
        stretches = emg[: kept - decoder.stride + decoder.length], emg[kept:]
        parts = [two.stream(part)["probabilities"] for part in stretches]
        np.testing.assert_allclose(np.concatenate(parts), wanted, atol=1e-4)
        carried, after = two.carried().head.knowledge.state, session.next_prior().state()
        for name, value in after.items():
            np.testing.assert_allclose(carried[name], value, atol=2e-3, err_msg=name)
    monkeypatch.setattr(sessions, "LAG", 0)
    stream = Stream(decoder, adapt=True)
    made = [found for part in np.split(emg, range(37, len(emg), 37)) if (found := stream(part)) is not None]
    np.testing.assert_allclose(np.concatenate([m.probabilities for m in made]), wanted, atol=1e-4)
    for one, other in zip(weights, decoder.head.classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)  # the decoder is what it was


@pytest.mark.parametrize("unfit", [np.nan, np.inf, "channels", "short"])
def test_unfit_stretches_are_refused_and_teach_nothing(streaming, recording, unfit):
    emg, session = recording.emg[2000:8000].copy(), streaming.session()
    if isinstance(unfit, float):
        emg[3000, 1] = unfit
    with pytest.raises(InputError, match="`emg` must"):
        session.stream({"channels": emg[:, 1:], "short": emg[:100]}.get(unfit, emg))
    fine = recording.emg[2000:8000]
    np.testing.assert_array_equal(session.stream(fine)["label"], streaming.stream(fine, adapt=True)["label"])


def test_a_session_that_it_was_calibrated_for_is_not_carried(streaming, recording):
    calibrated = streaming.calibrate(recording, repetitions=1)
    session = calibrated.session()
    session.stream(recording.emg[2000:8000])
    assert "carried" not in session.carried().card
    assert streaming.session().carried().card["carried"] == 1


def test_windows_that_lie_closer_are_decided_and_not_learnt_from(streaming, recording):
    emg = recording.emg[2000:10000]
    session = streaming.session(streaming.stride // 4)
    often = session.stream(emg)["probabilities"]
    assert session._adaptation._count == -(-len(often) // 4)
    near = streaming.stream(emg, adapt=True)["probabilities"]
    agree = often[::4][: len(near)].argmax(axis=1) == near[: len(often[::4])].argmax(axis=1)
    assert agree.mean() > 0.9


def test_rest_is_not_learnt_from_where_it_is_no_movement(streaming):
    """Rest's loudness decides, or without it the quietest movements'."""
    head = streaming.head
    x, (channels, names) = np.zeros((3, head.z_score.mean.shape[0])), head.classifier.inputs[0].shape[1:]
    logged = head.log_scale.logged
    for row, level in zip(x, (-9.0, -3.0, 1.0), strict=True):
        row[: channels * names].reshape(channels, names)[:, logged] = level
    np.testing.assert_allclose(head.log_amplitude(x), [-9, -3, 1])
    assert gaussian.Memory(low=0, middle=1).threshold == -1
    assert gaussian.Memory(low=0, middle=1, rest=-8).threshold == -4
    assert gaussian.Memory().threshold == -np.inf


def test_sessions_are_carried_from_recording_to_recording(streaming, recording, monkeypatch):
    """Offline: the second session begins where the first went on to; a recording of the same session goes on."""
    monkeypatch.setattr(sessions, "LAG", 0)
    first = replace(recording, emg=recording.emg[:9000], labels=recording.labels[:9000],
                    repetitions=recording.repetitions[:9000])
    second = replace(first, file=replace(first.file, session=first.file.session + 1))
    for following, carried in ((second, True), (first, False)):
        made = []
        Offline(streaming, streaming.stride, made.append, adapt=True)([first, following])
        session = streaming.session()
        session.stream(first.emg)
        if carried:
            session = session.carried().session()
        # the filter over probabilities and the vote begin anew with a session, and go on with the same one
        expected = session.stream(following.emg)["probabilities"].max(axis=1)
        got = np.array([one["probability"] for one in made][len(made) // 2 :])
        np.testing.assert_allclose(got[3:], expected[3:], atol=1e-3)


def test_a_recording_of_several_sessions_is_parted(recording):
    """Repetitions 1 to 6 of each movement, two a session: three sessions, whole; or those that are scored."""
    split = recipes.Split(repetitions_per_session=2)
    pieces = list(of_sessions(recording, split))
    assert [piece.file.session for piece in pieces] == [1, 2, 3]
    assert sum(len(piece.labels) for piece in pieces) == len(recording.labels)
    for piece in pieces:
        moving = piece.labels > 0
        assert ((np.unique(piece.repetitions[moving]) - 1) // 2 + 1 == piece.file.session).all()
        own = (recording.labels > 0) & ((recording.repetitions - 1) // 2 + 1 == piece.file.session)
        np.testing.assert_array_equal(piece.emg[moving], recording.emg[own])
        jumps = np.flatnonzero(np.diff(np.flatnonzero(own)) > 1)  # of movements, of which a session has each
        assert len(piece.seams) == len(np.unique(piece.labels[moving])) - 1 and len(jumps)
    part = Part(sessions=(2, 3))
    assert [piece.file.session for piece in of_sessions(recording, split, part)] == [2, 3]
    (whole,) = of_sessions(recording, recipes.Split())
    assert whole.seams == recording.seams and np.array_equal(whole.emg, recording.emg)


def test_an_exported_graph_or_another_head_cannot(exported, streaming, recording, tmp_path):
    with pytest.raises(InputError, match="cannot adapt"):
        Stream(BaseDecoder(streaming.card, None, lambda emg: {}), adapt=True)
    with pytest.raises(InputError, match="keeps nothing of earlier sessions"):
        BaseDecoder(streaming.card | {"head": "linear"}, streaming.model).session()
    assert played(Stream(streaming, adapt=True), replace(recording, emg=recording.emg[:9000])).made


def test_the_command(exported, tiny_db2, tmp_path):
    out = tmp_path / "scores.json"
    evaluate.main([str(exported), "--data", str(tiny_db2), "--subjects", "1", "--stream", "--adapt", "--json",
                   str(out)])
    scores = json.loads(out.read_text())
    assert scores["adapt"] and 0.3 < scores["accuracy"]["mean"] <= 1
    with pytest.raises(InputError, match="--stream is missing"):
        evaluate.main([str(exported), "--data", str(tiny_db2), "--adapt"])


def test_what_a_live_session_learnt_becomes_a_version(exported, streaming, tiny_db2, tmp_path):
    to, out = tmp_path / "models" / "next", tmp_path / "out.json"
    command = ["--source", "replay", "--data", str(tiny_db2), "--subject", "2", "--speed", "0", "--seconds", "20",
               "--adapt", "--to", str(to), "--quiet", "--json", str(out)]
    live.main(["--model", str(exported), *command])
    said = json.loads(out.read_text())["adapted"]
    assert said == {"moved": False, "model": str(to / "1")}  # one session alone tells nothing of how sessions differ
    card = json.loads((to / "1" / "model_card.json").read_text())
    assert card["carried"] == 1 and "carried on from 1 sessions" in (to / "1" / "README.md").read_text()
    before, after = (d.head.knowledge.state for d in (streaming, BaseDecoder.load(to / "1")))
    assert not np.allclose(before["centre"], after["centre"]) and np.allclose(before["means"], after["means"])
    streaming.save(tmp_path / "saved")
    bare = json.loads((tmp_path / "saved" / "model_card.json").read_text())
    del bare["input"]
    (tmp_path / "saved" / "model_card.json").write_text(json.dumps(bare))
    with pytest.raises(InputError, match="is part of a run"):
        live.main(["--model", str(tmp_path / "saved"), *command])
