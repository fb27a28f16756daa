"""How like training an electrode's signal is: measures by hand, faults by their names, the same through every door."""

import json
import logging

import numpy as np
import pytest
import tensorflow as tf

import tfkfin
from tfkfin.base.errors import InputError
from tfkfin.live.measures import LASTS_S, FaultNotes
from tfkfin.live.stream import Stream
from tfkfin.nets.quality import Measures, judged, kept, learnt
from tfkfin.serving.engines import Exported
from tfkfin.signal.condition import FAULTS, OUTPUTS, wider
from tfkfin.signal.faults import spoilt

RATE, LENGTH, STRIDE, CHANNELS = 1000.0, 200, 50, 3
MEAN, SD = np.array([0.0, 1e-5, -2e-5]), np.array([1e-5, 2e-5, 5e-6])
rng = np.random.default_rng(8)
TOLD = {"offset": "offset", "hum": "hum", "dead": "flat", "electrode_lost": "hum", "coarse": "clipped"}


def emg(seconds, seed=0):
    """Noise below 300 Hz that swells and fades, in volts."""
    x = np.convolve(np.random.default_rng(seed).standard_normal(int(seconds * RATE) + 2), [0.3, 0.4, 0.3], "valid")
    x = x[:, None] * np.random.default_rng(seed + 1).uniform(0.5, 1.5, 3) + 0.1 * np.random.default_rng(
        seed + 2).standard_normal((len(x), 3))
    swell = 1.1 + np.sin(np.arange(len(x)) / 300)[:, None]
    return (MEAN + SD * x * swell).astype(np.float32)


def by_hand(x):
    """Of one channel's window (L,), from the definitions."""
    change, time = np.diff(x), np.arange(len(x)) / RATE
    tone = max(2 * np.abs(np.sum(x * np.exp(2j * np.pi * hz * time))) ** 2 / len(x) ** 2 for hz in (50, 60))
    return [x.mean(), np.log(x.std()), np.log(np.sqrt(np.mean(change**2)) / x.std()), min(1, tone / x.var()),
            np.mean(change == 0)]


def test_measures_are_their_definitions_streamed_too():
    x = ((emg(2) - MEAN) / SD + np.sin(2 * np.pi * 50 * np.arange(2000) / RATE)[:, None]).astype(np.float32)
    x[900:1500, 1] = x[900, 1]
    windows = np.stack([x[i : i + LENGTH] for i in range(0, 1801, STRIDE)])
    layer = Measures(RATE)
    found = layer(windows).numpy()
    for w, c in ((0, 0), (3, 2), (7, 1)):
        np.testing.assert_allclose(found[w, c], by_hand(windows[w, :, c].astype(float)), rtol=1e-4, atol=2e-4)
    for compiled in (False, True):
        streamed = layer.stream(tf.constant(x[None]), LENGTH, STRIDE, compiled)[0].numpy()
        moving = windows.std(axis=1) > 1e-3  # rounding alone is left of a constant's variance
        np.testing.assert_allclose(streamed[moving], found[moving], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(streamed[..., 4], found[..., 4], atol=1e-6)
    assert Measures(100.0)(windows).numpy()[..., 3].max() == 0  # no room for 50 Hz


def test_quality_is_a_half_one_half_width_beyond_the_range():
    ranges = {"low": [[-1, -5, -2, 0, 0]], "high": [[1, 5, 2, 0.4, 0.4]]}
    measures = np.float32([[[0, 0, 0, 0.2, 0]], [[2, 0, 0, 0.2, 0]], [[0, 0, -6, 0, 0]], [[3, 0, 0, 1.4, 0]]])
    found = judged(tf.constant(measures), ranges)
    np.testing.assert_allclose(found["quality"][:, 0], [1, 0.5, 0.25, 2.0**-5], rtol=1e-5)
    assert [FAULTS[int(f)] for f in found["fault"][:, 0]] == ["none", "none", "slow", "hum"]


def test_faults_are_told_by_their_names_and_a_clean_signal_has_none():
    def windows(x):
        return np.stack([x[i : i + LENGTH] for i in range(0, len(x) - LENGTH, STRIDE)])

    ranges = learnt([windows(emg(20))], MEAN, SD, RATE)
    layer, other = Measures(RATE), emg(20, seed=9)
    for name, what in ({"clean": "none"} | TOLD).items():
        x = next(spoilt(name, other, MEAN, SD, RATE))
        found = judged(layer(((windows(x) - MEAN) / SD).astype(np.float32)), ranges)
        said = np.asarray(found["fault"])[:, 0].astype(int)
        assert np.mean(said == FAULTS.index(what)) > (0.99 if name == "clean" else 0.9), (name, np.bincount(said))
        np.testing.assert_allclose(found["quality_overall"], np.min(found["quality"], axis=1))
    assert wider(ranges, ranges) == ranges | {"first": ranges}
    assert wider(wider(ranges, {"low": [[-9.0] * 5] * 3, "high": ranges["high"]}), ranges)["first"] == ranges


@pytest.fixture(scope="module")
def fitted(tiny_db2):
    recordings = tfkfin.read(tiny_db2)
    return tfkfin.Decoder.from_preset("best", length_ms=100).fit(recordings[0]), recordings[0]


def test_it_is_the_same_through_every_door(fitted, tmp_path):
    decoder, recording = fitted
    emg = recording.emg[: 30 * decoder.stride + decoder.length].copy()
    emg[1000:, 2] = 0
    answers = decoder.stream(emg, rate_hz=recording.rate_hz)
    assert set(OUTPUTS) < set(answers) and answers["quality"].shape == (31, 4) and answers["fault"].dtype == np.int64
    assert (answers["fault"][-8:, 2] == FAULTS.index("flat")).all() and (answers["quality_overall"][-8:] < 0.1).all()
    starts = np.arange(31) * decoder.stride
    windows = emg[starts[:, None] + np.arange(decoder.length)]
    version = decoder.export(tmp_path / "model", "both")
    others = {"windows": decoder(windows), "session": decoder.session().stream(emg, rate_hz=recording.rate_hz),
              **{engine: Exported(version, engine)(windows) for engine in ("savedmodel", "onnx")},
              "graph": {k: v[0].numpy() for k, v in tf.saved_model.load(str(version)).signatures["stream"](
                  emg=tf.constant(emg[None])).items()}}
    moving = windows.std(axis=1) > 1e-9
    for door, found in others.items():
        for name in OUTPUTS[::2]:
            np.testing.assert_allclose(found[name][moving], answers[name][moving], atol=2e-3, err_msg=door + name)
    live = Stream(decoder, rate_hz=recording.rate_hz)
    found = [live(emg[i : i + 37]) for i in range(0, len(emg), 37)]
    live = np.concatenate([one.quality["quality"] for one in found if one is not None])
    np.testing.assert_allclose(live[moving], answers["quality"][moving], atol=2e-3)


def test_what_is_wrong_is_said_once_and_what_to_do(fitted, caplog):
    decoder, recording = fitted
    decoder._warned_of_electrodes = False
    with caplog.at_level(logging.WARNING, "tfkfin"):
        decoder.predict(recording)
        assert "unlike" not in caplog.text
        for _ in range(2):
            decoder.predict(next(spoilt("dead", recording.emg, MEAN[[0] * 4], SD[[0] * 4], recording.rate_hz)),
                            recording.rate_hz)
    assert caplog.text.count("flat (1)") == caplog.text.count("calibrate") == 1


def test_live_says_it_when_it_has_lasted_and_when_it_has_passed():
    said = FaultNotes(0.05)
    flat, fine = np.array([0, FAULTS.index("flat")]), np.zeros(2, int)
    notes = [said(one) for one in [fine, flat, fine, *[flat] * 10, *[fine] * 40]]
    assert [note for note in notes if note] == ["electrode 2: flat", "electrode 2: as in training again"]
    assert notes.index("electrode 2: flat") <= 3 + LASTS_S / 0.05


def test_calibrating_widens_the_ranges_and_a_card_that_lies_is_refused(fitted, tmp_path):
    decoder, recording = fitted
    louder = tfkfin.read(recording.path)[0] if recording.path.is_file() else recording
    louder.emg[:] = 4 * louder.emg
    before, after = decoder.card["signal"], decoder.calibrate(louder, repetitions=None).card["signal"]
    assert (np.array(after["high"]) >= before["high"]).all() and np.array(after["high"])[0, 1] > before["high"][0][1]
    decoder.save(tmp_path / "saved")
    card = tmp_path / "saved" / "model_card.json"
    for lie in ({"low": [[0] * 5], "high": [[1] * 5]}, {"low": [[0] * 4] * 4, "high": [[1] * 4] * 4}, "wide"):
        card.write_text(json.dumps(decoder.card | {"signal": lie}))
        with pytest.raises(InputError, match="signal"):
            tfkfin.Decoder.from_preset(tmp_path / "saved")


def test_a_decoder_of_before_answers_as_before(fitted):
    decoder, recording = fitted
    older = tfkfin.Decoder({name: part for name, part in decoder.card.items() if name != "signal"}, decoder.model)
    found = older.predict(recording), older(recording.emg[None, : decoder.length])
    assert set(found[1]) == {"probabilities", "label", "features"}
    np.testing.assert_array_equal(found[0], decoder.predict(recording))


def test_electrodes_that_hum_or_are_far_too_loud_are_left_out_unless_half_are():
    x = (emg(4) - MEAN) / SD
    layer, ranges = Measures(RATE), learnt([np.stack([emg(20)[i : i + LENGTH] for i in range(0, 9000, STRIDE)])], MEAN,
                                           SD, RATE)
    limits, hum = np.float32([ranges["low"], ranges["high"]]), 3 * np.sin(2 * np.pi * 50 * np.arange(len(x)) / RATE)

    def left_out(x):
        windows = np.float32([x[i : i + LENGTH] for i in range(0, len(x) - LENGTH, STRIDE)])
        return 1 - np.asarray(kept(layer(windows), limits)).mean(axis=0)

    for change, wanted in ((0 * x, (0, 0, 0)), (hum[:, None] * [0, 1, 0], (0, 1, 0)), (x * [9999, 0, 0], (1, 0, 0)),
                           (x * [0, 0, -0.9999], (0, 0, 1)), (hum[:, None] * [0, 1, 1], (0, 0, 0)),
                           (5 + 0 * x, (0, 0, 0))):
        np.testing.assert_allclose(left_out(x + change), wanted, atol=0.05)
