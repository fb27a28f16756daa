"""A FIN of two channels: learnt from synthetic signals alone, and what decoders see in place of correlations."""

import numpy as np
import pytest

from tfkfin import export
from tfkfin import recipe as recipes
from tfkfin.base.console import InputError
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.features import catalogue
from tfkfin.fit.metrics import r2
from tfkfin.fit.run import open_run
from tfkfin.fit.stages import run_stage
from tfkfin.nets import descriptions
from tfkfin.pipeline import batches, signals

OWN = {"window.length_ms": 100, "imitate.epochs": 6, "imitate.windows_per_epoch": 6400, "imitate.test_windows": 512,
       "imitate.validation_windows": 256, "imitate.batch_size": 64}


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A run of the shipped recipe, shorter, on windows of 200 samples."""
    run = open_run(recipes.load("fin_correlation", OWN), tmp_path_factory.mktemp("correlation") / "run")
    return run, run_stage(run, "imitate")


def test_it_imitates(learnt):
    run, results = learnt
    assert results["fin"]["COR"]["r2"] > 0.85  # 0.92 here; 0.98 by the whole recipe
    x = signals.windows(np.random.default_rng(77), 400, 200)  # not the signals of two channels that it learnt from
    x = np.stack([x[:200], 0.6 * x[:200] + 0.4 * x[200:]], axis=2)
    options = run.recipe.classifier.model_copy(update={
        "lags": (1,), "describe": ("imitated_correlations",), "correlation_fin": str(run.folder / "imitate")})
    said = np.asarray(descriptions.new(options, "told")(x))
    true = np.asarray(descriptions.new(options.model_copy(update={"describe": ("correlations",)}), "true")(x))
    assert said.shape == true.shape == (200, 4) and r2(true, said) > 0.8


def test_what_it_learns_from_is_wide():
    x = signals.pairs(np.random.default_rng(3), 2000, 200)
    assert x.shape == (2000, 200, 2) and np.isfinite(x).all()
    z = np.arctanh(np.clip([np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)) for a, b in x.transpose(0, 2, 1)],
                           -0.999, 0.999))
    assert np.quantile(z, 0.02) < -1 and np.quantile(z, 0.98) > 1.5 and np.mean(np.abs(z) < 0.3) > 0.1
    loud = np.log10(x.std(axis=1))
    assert loud.std() > 0.5 and np.std(loud[:, 0] - loud[:, 1]) > 0.5
    again, targets = batches.signal_batch(("COR",), 200, 2000.0, 32, 1, 2, 3)
    np.testing.assert_allclose(targets[:, 0, 0], [np.arctanh(np.clip(
        np.sum(w[:, 0] * w[:, 1]) / np.sqrt(np.sum(w[:, 0] ** 2) * np.sum(w[:, 1] ** 2)), -0.999, 0.999))
        for w in again.astype(float)], atol=1e-4)


def test_a_decoder_of_it_streams_as_it_decides_windows(learnt, tiny_db2, tmp_path):
    run, _ = learnt
    recipe = recipes.load("best", {
        "window.length_ms": 100, "features.names": ["RMS", "VAR"], "classifier.describe": ["imitated_correlations"],
        "classifier.correlation_fin": str(run.folder / "imitate"), "split.subjects": "1",
        "source.kind": "recordings", "source.data": str(tiny_db2)})
    made = open_run(recipe, tmp_path / "run")
    for stage in ("imitate", "classify", "finetune"):
        run_stage(made, stage)
    decoder = BaseDecoder.load(tmp_path / "run" / "finetune" / "S1")
    part = made.dataset.load(1, made.dataset.part("test"))
    starts, emg = part.windows.starts, part.emg[:900]
    found = decoder.over(part.emg, starts)["label"]
    assert np.mean(found == part.windows.movements) > 0.6  # of 3 movements
    streamed = decoder.stream(emg)["probabilities"]
    windows = np.stack([emg[s : s + decoder.length] for s in
                        range(0, len(emg) - decoder.length + 1, decoder.stride)])
    np.testing.assert_allclose(streamed, decoder(windows)["probabilities"], atol=1e-3)
    live = decoder.forward.live(decoder.stride)  # sums are kept, in NumPy
    answers = [live(part) for part in np.array_split(emg, 50)]
    kept = np.concatenate([answer["probabilities"] for answer in answers if answer])
    np.testing.assert_allclose(kept, streamed, atol=1e-3)


def test_it_is_no_model_by_itself_and_no_feature_of_one_channel(learnt):
    run, _ = learnt
    with pytest.raises(InputError, match="holds a FIN of two channels.*imitated_correlations"):
        export.finished(run.folder)
    for names in ("COR", "RMS, COR"):
        with pytest.raises(InputError, match="'COR' is of two channels"):
            catalogue.direct(np.zeros((1, 50, 2)), names)
    with pytest.raises(InputError, match="'COR' is of two channels"):
        batches.channels_of(("RMS", "COR"))
