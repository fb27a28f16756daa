"""Decoders whose head takes descriptions alone, without FINs, or FINs alone: they can all that others can."""

import json

import numpy as np
import pytest

import tfkfin
from tfkfin import train
from tfkfin.decoder import session as sessions
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.live.stream import Stream
from tfkfin.recordings import readers
from tfkfin.serving.engines import Exported

CASES = {"descriptions": {"features.names": "", "classifier.describe": "correlations"},
         "FINs": {"classifier.describe": ""}}
SMALL = {"window.length_ms": 60, "window.stride_ms": 20, "fin.pretrained": "", "fin.units": 3}


@pytest.fixture(scope="module")
def people(tiny_db2):
    return tfkfin.read(tiny_db2)


@pytest.fixture(scope="module", params=CASES)
def decoder(request, people):
    return tfkfin.Decoder.from_preset("best_fins", **SMALL, **CASES[request.param]).fit(people[0])


def test_it_decodes_adapts_and_is_calibrated(decoder, people, monkeypatch):
    """Streamed as cut, live as streamed; features are (.., C, 0) where there are no FINs."""
    monkeypatch.setattr(sessions, "LAG", 0)
    emg, count = people[1].emg[4000:9000], len(decoder.card["features"])
    answers = decoder.stream(emg)
    assert answers["features"].shape[1:] == (4, count)
    starts = np.arange(0, len(emg) - decoder.length + 1, decoder.stride)
    cut = decoder(emg[starts[:, None] + np.arange(decoder.length)])
    for name in ("probabilities", "features"):
        np.testing.assert_allclose(answers[name], cut[name], rtol=1e-5, atol=2e-5)
    for adapt in (False, True):
        stream, wanted = Stream(decoder, adapt=adapt), decoder.stream(emg, adapt=adapt)
        made = [found for part in np.split(emg, range(777, len(emg), 777)) if (found := stream(part)) is not None]
        np.testing.assert_allclose(np.concatenate([m.probabilities for m in made]), wanted["probabilities"], atol=1e-4)
        assert made[0].features.shape[1:] == (4, count)
    new = decoder.calibrate(people[1], repetitions=1)
    scores = new.card["calibration"]
    assert scores["after"]["accuracy"] > 0.4 and new.forward.trunk is decoder.forward.trunk


def test_it_is_saved_and_exported(decoder, people, tmp_path):
    emg = people[1].emg[4000:7000]
    wanted = decoder.stream(emg)
    decoder.save(tmp_path / "saved")
    version = decoder.export(tmp_path / "model", "both")
    for other in (tfkfin.Decoder.load(tmp_path / "saved"), Exported(version, "savedmodel"), Exported(version, "onnx")):
        answers = other.stream(emg)
        assert answers["features"].shape == wanted["features"].shape
        np.testing.assert_allclose(answers["probabilities"], wanted["probabilities"], atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_run_fine_tunes_it(case, tiny_db2, tmp_path):
    settings = SMALL | CASES[case] | ({"classifier.describe": "log_covariance"} if case == "descriptions" else {}) | {
        "split.subjects": "1", "split.test_repetitions": 2, "finetune.epochs": 0}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    train.main(["--stage", "finetune", "--pipeline", "best_fins", "--data", str(tiny_db2), "--run",
                str(tmp_path / "run"), *words])
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    made = BaseDecoder.load(tmp_path / "run" / "finetune" / "S1")
    assert results["accuracy"]["mean"] > 0.5 and sorted(results["fin_finetuned"]) == sorted(made.card["features"])
    emg = readers.read(readers.find(tiny_db2)[0]).emg[:3000]
    assert made.stream(emg)["features"].shape[2] == len(made.card["features"])
