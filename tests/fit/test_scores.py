"""Scores of decisions: by hand, and against a whole recording decided as one stream."""

import numpy as np
import pytest

from tfkfin.decoder.decision import Decision
from tfkfin.fit.scoring import decide, mean_and_sd, mean_imitation, score, trained_on
from tfkfin.pipeline.subject import Subject
from tfkfin.pipeline.windows import Segment, Windows, starts

LABELS = (2, 7)


def test_a_rejected_decision_is_wrong():
    true, given = np.array([2, 2, 7, 7, 7]), np.array([2, -1, 7, 2, -1])
    windows = Windows(np.arange(5), true, np.ones(5, np.int16), segments=np.array([0, 0, 1, 1, 1]))
    scores = score(windows, given, LABELS, 0.05, 0.6)
    assert scores["accuracy"] == 0.4 and scores["confusion"] == [[1, 0], [1, 1]]
    assert scores["rejection"] == {"threshold": 0.6, "decided": 0.6, "accuracy": pytest.approx(2 / 3)}
    assert scores["execution"] == 0.0 and scores["false_per_minute"] is None  # ties, with and without a rejection
    assert "rejection" not in score(windows, given, LABELS, 0.05)
    assert score(windows, np.full(5, -1), LABELS, 0.05, 0.9)["rejection"]["accuracy"] is None


def test_means_are_over_those_who_have_one():
    assert mean_and_sd({3: 0.5, 4: None, 5: 0.7}) == {"mean": pytest.approx(0.6), "std": pytest.approx(0.1),
                                                 "per_subject": {"3": 0.5, "4": None, "5": 0.7}}
    assert mean_and_sd({3: None})["mean"] is None
    assert mean_imitation([{"RMS": {"r2": 0.5}}]) == {"RMS": {"r2": 0.5}}


@pytest.mark.parametrize("vote", [1, 2, 5])
def test_windows_are_decided_as_one_stream_decides_them(vote):
    """Two segments of a recording, kept with what lies before them; the second begins where the stream's grid does."""
    length, stride = 8, 4
    emg = np.random.default_rng(1).standard_normal((200, 2)).astype(np.float32)

    def probabilities(windows):
        p = 1 / (1 + np.exp(-windows.mean(axis=(1, 2)) * 9))
        return np.stack([p, 1 - p], 1).astype(np.float32)

    whole = np.stack([emg[s : s + length] for s in range(0, 200 - length + 1, stride)])
    stream, _ = Decision(vote, 0.55)(probabilities(whole), LABELS)
    segments, lead = [Segment(8, 60, 2, 1), Segment(100, 160, 7, 2)], (vote - 1) * stride
    kept, moved, stretches = [], [], []
    for s in segments:
        begin, at = max(0, s.start - lead), sum(map(len, kept))
        stretches.append((at, begin))
        moved.append(Segment(at + s.start - begin, at + s.stop - begin, s.movement, s.repetition))
        kept.append(emg[begin : s.stop])
    part = Subject(1, np.concatenate(kept), starts(moved, length, stride), np.zeros(2), np.ones(2),
                   np.array(stretches))
    every, segments, own = part.with_context(vote - 1, stride)
    labels = decide(probabilities(every.volts(length)), segments, Decision(vote, 0.55), LABELS)[own]
    np.testing.assert_array_equal(labels, stream[part.places // stride])
    assert len(labels) == 12 + 14


@pytest.mark.parametrize(("dataset", "kind", "split", "wanted"), [
    ({"train_repetitions": [1, 2], "finetune_repetitions": [3]}, "decoder", {}, {1, 2}),
    ({"train_repetitions": [1, 2], "pretrain_repetitions": [2]}, "fins", {}, {2}),
    ({"train_repetitions": [1, 2], "train_sessions": [5]}, "decoder", {}, {2}),  # repetition 2 of session 5 alone
    ({"train_repetitions": [1, 2], "train_sessions": [5]}, "decoder", {"repetitions_per_session": 4}, {1, 2}),
    (None, "fins", {}, set()),
])
def test_what_a_model_was_trained_on_is_known_by_repetition_and_session(dataset, kind, split, wanted):
    windows = Windows(np.arange(3), np.ones(3, np.int16), np.array([1, 2, 4], np.int16),
                      sessions=np.array([1, 5, 5], np.int16))
    card = {"kind": kind, "dataset": dataset, "recipe": {"split": split}}
    assert trained_on(card, windows) == wanted
