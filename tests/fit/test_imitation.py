"""Where shipped FINs fail a run says so, and lets them learn first; a run goes on with the FINs that it began with."""

import json
import shutil

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

import tfkfin
from tfkfin import evaluate
from tfkfin import recipe as recipes
from tfkfin.base.errors import InputError
from tfkfin.base.files import shipped
from tfkfin.features import catalogue
from tfkfin.fit import metrics
from tfkfin.fit.run import open_run
from tfkfin.fit.stages import run_stage
from tfkfin.live.stream import load
from tfkfin.nets import fins
from tfkfin.pipeline.subject import Subject
from tfkfin.recordings import matfile, readers
from tfkfin.store import presets

FIRST = str(shipped("savedmodels") / "fin_conv" / "1")  # raw EMG was all that these learnt from
SMALL = {"source.kind": "recordings", "fin.family": "conv", "split.subjects": "1", "window.stride_ms": 50,
         "imitate.windows_per_epoch": 128, "imitate.validation_windows": 64, "imitate.test_windows": 64,
         "classify.epochs": 1, "finetune.epochs": 0}


@pytest.fixture(scope="module")
def envelopes(tiny_db2, tmp_path_factory):
    """The tiny recordings, rectified and smoothed, as some devices give them."""
    folder = tmp_path_factory.mktemp("envelopes")
    for path in tiny_db2.rglob("S1_*.mat"):
        content = matfile.load(path, tuple(matfile.shapes(path)))
        smooth = sosfiltfilt(butter(2, 5, fs=2000, output="sos"), np.abs(content["emg"]), axis=0)
        content["emg"] = np.maximum(smooth, 0).astype(np.float32)
        matfile.save(folder / path.relative_to(tiny_db2), content, "envelopes")
    return folder


@pytest.fixture(autouse=True)
def everything_told(caplog):
    caplog.set_level("INFO", logger="tfkfin")


def trained(folder, data, stage="finetune", **more):
    run = open_run(recipes.load("own", SMALL | {"source.data": str(data)} | more), folder)
    return run, run_stage(run, stage)


def test_fins_that_fail_learn_first(envelopes, tmp_path, caplog):
    kept, before = trained(tmp_path / "kept", envelopes, **{"imitate.epochs": 0, "fin.pretrained": FIRST})
    told = [one.getMessage() for one in caplog.records if "do not hold" in one.getMessage()]
    assert len(told) == 1 and "imitate.epochs=auto" in told[0]
    assert kept.decoder(1).card["imitates_badly"]["r2"] < 0.9
    caplog.clear()
    _, after = trained(tmp_path / "taught", envelopes, "imitate", **{"fin.pretrained": FIRST})
    assert any("are trained on them" in one.getMessage() for one in caplog.records)
    lowest = [min(one["r2"] for one in results["fin"].values()) for results in (before, after)]
    assert lowest[0] < 0.5 and lowest[1] > lowest[0] + 0.3


def test_evaluate_tells_where_fins_fail(envelopes, tiny_db2, tmp_path, caplog):
    for data, fails in ((envelopes, True), (tiny_db2, False)):
        caplog.clear()
        evaluate.main(["--fin", FIRST, "--data", str(data), "--subjects", "1", "--windows", "60",
                       "--json", str(tmp_path / f"{fails}.json")])
        assert any("do not hold" in one.getMessage() for one in caplog.records) == fails


def test_a_decoder_tells_where_its_fins_failed(envelopes, tmp_path, caplog):
    """When it is fitted, on its exported card, and when it decides a live signal."""
    decoder = tfkfin.Decoder.from_preset("best_fins", **{"fin.pretrained": FIRST, "window.train_stride_ms": 100})
    decoder.fit(tfkfin.read(envelopes)[0])
    assert any("do not hold" in one.getMessage() for one in caplog.records)
    assert any("FINs do not hold" in line for line in decoder.card["limits"])
    decoder.save(tmp_path)
    caplog.clear()
    load(tmp_path)
    assert any("FINs did not hold" in one.getMessage() for one in caplog.records)


def test_fins_that_hold_stay(tiny_db2, tmp_path, caplog):
    run, results = trained(tmp_path / "run", tiny_db2, "imitate")
    assert any("they stay" in one.getMessage() for one in caplog.records)
    assert all(one["r2"] > 0.9 for one in results["fin"].values())


def test_a_run_goes_on_with_the_fins_that_it_began_with(tiny_db2, tmp_path):
    began, _ = trained(tmp_path / "run", tiny_db2, "imitate")
    noted = json.loads((tmp_path / "run" / "fins.json").read_text())
    assert noted["version"] == 2
    (tmp_path / "run" / "fins.json").unlink()  # as runs of before the second version are
    shutil.rmtree(tmp_path / "run" / "imitate")
    (tmp_path / "run" / "results.json").unlink()
    again, old = trained(tmp_path / "run", tiny_db2, "imitate")
    assert again.fin.pretrained == FIRST != began.fin.pretrained
    _, named = trained(tmp_path / "named", tiny_db2, "imitate", **{"fin.pretrained": FIRST})
    assert old["fin"] == named["fin"]


def test_fins_that_were_changed_are_refused(tiny_db2, tmp_path):
    run, _ = trained(tmp_path / "run", tiny_db2, "imitate")
    noted = json.loads((tmp_path / "run" / "fins.json").read_text())
    (tmp_path / "run" / "fins.json").write_text(json.dumps(noted | {"sha256": "0" * 64}))
    with pytest.raises(InputError, match="version .* of the shipped FINs"):
        open_run(run.recipe, run.folder).fin


@pytest.fixture(scope="module")
def envelopes_of_people(real_sets):
    """Ninapro DB1: real envelopes."""
    found = [folder for folder in real_sets if folder.name == "ninapro_db1"]
    return found[0] if found else pytest.skip("no folder ninapro_db1 in TFKFIN_REAL_DATA")


def test_shipped_fins_hold_on_envelopes_of_a_person(envelopes_of_people):
    names = ("ENT", "RMS", "VAR", "SSI")
    subject = Subject.of([readers.read(readers.find(envelopes_of_people)[0])], recipes.Window(stride_ms=200))
    emg = subject.standardised()[subject.windows.starts[:, None] + np.arange(600)].astype(np.float32)[::2]
    true = catalogue.direct(emg, names)
    bank = fins.bank(fins.fins_of(presets.load("conv")), emg.shape[2])
    said = np.concatenate([np.asarray(bank(emg[i : i + 64])) for i in range(0, len(emg), 64)])
    floors = dict(zip(names, (0.97, 0.99, 0.98, 0.98), strict=True))
    for i, name in enumerate(names):
        assert metrics.r2(true[..., i], said[..., i]) > floors[name]


def test_the_papers_method_loses_nothing_on_envelopes_of_a_person(envelopes_of_people, tmp_path):
    run = open_run(recipes.load("db1", {"source.data": str(envelopes_of_people), "split.subjects": "1",
                                        "split.train_repetitions": "1,3,4,6", "split.test_repetitions": "2,5",
                                        "window.stride_ms": 200, "window.train_stride_ms": 50, "classify.epochs": 8,
                                        "imitate.test_windows": 64}), tmp_path / "run")
    results = run_stage(run, "finetune")
    of_head, of_both = results["classifier"]["mean"], results["accuracy"]["mean"]
    assert of_head > 0.55 and of_both > of_head - 0.06  # 0.21 with FINs that knew no envelopes


FORETOLD = {"window.train_stride_ms": 25, "finetune.epochs": 2, "finetune.windows_per_epoch": 0, "classify.epochs": 20,
            "classify.batch_size": 32, "finetune.batch_size": 2, "imitate.epochs": 0}


@pytest.mark.slow
def test_a_training_says_before_it_begins_how_long_it_takes(tiny_db2, tmp_path, caplog, monkeypatch):
    """Steps are slowed to a known time each; what was tried for the forecast changes no weight."""
    import time

    from tfkfin.fit import stages, training

    took, step = 0.2, training.Progress.on_train_batch_end

    def slow(self, batch, logs=None):
        time.sleep(took)
        step(self, batch, logs)

    monkeypatch.setattr(training.Progress, "on_train_batch_end", slow)
    monkeypatch.setattr(stages, "LONG_S", 0.0)
    told, _ = trained(tmp_path / "told", tiny_db2, **FORETOLD)
    lines = [one.getMessage() for one in caplog.records]
    said, = [i for i, line in enumerate(lines) if line.startswith("classify and finetune of 1 people: about ")]
    assert said < min(i for i, line in enumerate(lines) if "accuracy" in line)
    assert lines[said].split()[-3] == "s"
    seconds = float(lines[said].split()[-4])
    assert seconds / 2 < sum(told.seconds[name] for name in ("classify", "finetune")) < 2 * seconds
    monkeypatch.setattr(training.Progress, "on_train_batch_end", step)
    monkeypatch.setattr(stages, "_foretell", lambda *arguments: None)
    untold, _ = trained(tmp_path / "untold", tiny_db2, **FORETOLD)
    one, other = (run.decoder(1).model.get_weights() for run in (told, untold))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
