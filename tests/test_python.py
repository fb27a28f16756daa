"""From Python in five lines: reading, fitting, predicting, streaming, saving, exporting, calibrating; scikit-learn."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import LeaveOneGroupOut, cross_val_score
from sklearn.pipeline import make_pipeline

import tfkfin
from tfkfin import calibrate, train
from tfkfin import recipe as recipes
from tfkfin.base.errors import InputError
from tfkfin.fit import scoring
from tfkfin.live.stream import Stream
from tfkfin.pipeline import splits, windows
from tfkfin.pipeline.dataset import open_dataset
from tfkfin.pipeline.subject import Subject, resampled
from tfkfin.recordings import readers, synthetic
from tfkfin.recordings.recording import Recording, RecordingFile
from tfkfin.serving.engines import Exported
from tfkfin.signal import resampling
from tfkfin.signal.condition import OUTPUTS
from tfkfin.store import card


def test_importing_it_loads_next_to_nothing():
    code = "import sys, tfkfin; print({'numpy', 'tensorflow', 'keras', 'sklearn'} & {*sys.modules}, dir(tfkfin))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.startswith("set()") and "FINClassifier" in done.stdout
    with pytest.raises(AttributeError, match="nothing"):
        tfkfin.nothing  # noqa: B018


@pytest.fixture(scope="module")
def people(tiny_db2) -> list[Recording]:
    return tfkfin.read(tiny_db2)


def test_read_is_what_readers_give(people, tiny_db2):
    first, second = (file.path for file in readers.find(tiny_db2))
    one = tfkfin.read(second)
    assert [person.path for person in people] == [first, second] and one.path == second
    np.testing.assert_array_equal(one.emg, people[1].emg)
    with pytest.raises(InputError, match="not there"):
        tfkfin.read(tiny_db2 / "missing")


def half(recording: Recording) -> np.ndarray:
    """Samples of repetitions 1, 3 and 5 and the rest beside them."""
    return recording.repetitions % 2 == 1


def trials(layout: str, seams: tuple[int, ...] = ()) -> Recording:
    """Six repetitions of two movements in turn at 100 Hz; rest opens each trial without a repetition, or follows it."""
    repetition, movement = np.repeat(np.arange(1, 7), 2), np.tile([1, 2], 6)
    if layout == "opens":
        labels = np.stack([0 * movement, movement], 1).ravel()
        numbers = np.stack([0 * repetition, repetition], 1).ravel()
        samples = np.tile([33, 50], 12)
    else:  # half of the rest still has the number of the movement before it, as in Ninapro's files
        labels = np.append(0, np.stack([movement, 0 * movement, 0 * movement], 1).ravel())
        numbers = np.append(0, np.stack([repetition, repetition, 0 * repetition], 1).ravel())
        samples = np.append(41, np.tile([50, 21, 25], 12))
    labels, numbers = (np.repeat(column, samples).astype(np.int16) for column in (labels, numbers))
    emg = np.random.default_rng(3).standard_normal((len(labels), 2)).astype(np.float32) * 1e-5
    return Recording(RecordingFile(Path(layout), 1), emg, labels, numbers, 100.0, seams=seams)


@pytest.mark.parametrize("rest", [False, True])
@pytest.mark.parametrize("wanted", [(1, 3), (2, 3), (6,)])
@pytest.mark.parametrize("made", [trials("opens"), trials("follows"), trials("opens", (83, 166, 332)),
                                  trials("follows", (137, 425))], ids=lambda made: f"{made.path}{len(made.seams)}")
def test_selected_repetitions_are_those_of_a_split(made, wanted, rest):
    """The windows, movements, repetitions and volts that a split trains on, cut by hand out of the whole recording."""
    window, split = recipes.Window(length_ms=150, stride_ms=50, rate_hz=0, rest=rest), recipes.Split()
    train = [s for s in splits.segments(made, split, rest) if s.repetition in wanted]
    cut = windows.starts(train, 15, 5)
    found = Subject.of([made.select(wanted)], window)
    assert len(cut) and sorted(set(found.windows.movements.tolist())) == ([0, 1, 2] if rest else [1, 2])
    for name in ("movements", "repetitions", "sessions"):
        np.testing.assert_array_equal(getattr(found.windows, name), getattr(cut, name))
    np.testing.assert_array_equal(found.volts(15), made.emg[cut.starts[:, None] + np.arange(15)])
    moving = np.concatenate([made.emg[s.start : s.stop] for s in train if s.movement])
    np.testing.assert_allclose(found.mean, moving.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(found.sd, moving.std(axis=0), rtol=1e-5)


def test_recordings_are_parted_by_session():
    made = trials("opens")
    assert made.select() is made and list(made.by_session()) == [1]
    days = made.by_session(2)
    assert list(days) == [1, 2, 3] and [day.file.session for day in days.values()] == [1, 2, 3]
    assert [np.unique(day.repetitions[day.labels > 0]).tolist() for day in days.values()] == [[1, 2], [3, 4], [5, 6]]
    np.testing.assert_array_equal(np.concatenate([day.emg for day in days.values()]), made.emg)
    apart = made.select([1, 2, 5])
    assert apart.seams == (4 * 83,) and len(apart.emg) == 6 * 83 and made.select(4).seams == ()
    np.testing.assert_array_equal(apart.emg[4 * 83 :], made.emg[8 * 83 : 10 * 83])
    with pytest.raises(InputError, match="none of the repetitions 7: it has 1-6"):
        made.select(7)


@pytest.fixture(scope="module")
def fitted(people):
    one = people[0]
    emg, labels = one.emg, np.where(half(one), one.labels, 0)
    return tfkfin.Decoder.from_preset("best_fins").fit(emg, labels, one.repetitions, one.rate_hz)


def test_a_fitted_decoder_knows_what_it_was_not_shown(fitted, people):
    one = people[0]
    held = np.flatnonzero(~half(one) & (one.labels > 0))
    movement = one.labels[held[0]]
    begin = held[0]
    stretch = one.emg[begin : begin + np.argmax(one.labels[begin:] != movement)]
    assert np.mean(fitted.predict(stretch) == movement) > 0.6  # of three
    windows = np.stack([stretch[:600], stretch[200:800]])
    np.testing.assert_array_equal(fitted.predict(windows), fitted(windows)["label"])
    assert set(fitted.stream(stretch)) == {"probabilities", "label", "features", *OUTPUTS}


def test_saved_exported_and_loaded_it_says_the_same(fitted, people, tmp_path):
    stretch = people[0].emg[:4000]
    fitted.save(str(tmp_path / "saved"))
    version = fitted.export(tmp_path / "model")
    assert version == tmp_path / "model" / "1" and "not scored" in (version / "README.md").read_text()
    for name in (tmp_path / "saved", tmp_path / "model", version):
        np.testing.assert_array_equal(tfkfin.Decoder.from_preset(name).predict(stretch), fitted.predict(stretch))
    with pytest.raises(InputError, match="cannot adapt online"):
        Exported(version, "xla").stream(stretch, adapt=True)


@pytest.mark.slow
def test_eigenvalues_go_to_onnx(people, tmp_path):
    """Of log-covariances, which ONNX has no operation for; two channels, as each pair is a rotation to convert."""
    emg = people[0].emg[:, :2]
    fitted = tfkfin.Decoder.from_preset("best_fins").fit(emg, people[0].labels, people[0].repetitions, 2000.0)
    windows = np.stack([emg[:600], emg[3000:3600]])
    exported = Exported(fitted.export(tmp_path / "model", "both"), "onnx")
    answers = exported(windows)
    np.testing.assert_allclose(answers["probabilities"], fitted(windows)["probabilities"], atol=1e-5)


def test_calibrated_it_is_another_and_the_old_one_stays(fitted, people):
    other = people[1]
    shown = other.repetitions == 1
    labels, before = np.where(shown, other.labels, 0), fitted.model.get_weights()
    new = fitted.calibrate(other.emg, labels, other.repetitions, other.rate_hz)
    assert new.card["calibration"]["repetitions"] == [1] and "calibrate anew" in new.card["limits"][0]
    assert all(np.array_equal(a, b) for a, b in zip(before, fitted.model.get_weights(), strict=True))
    at = np.flatnonzero((other.repetitions == 2) & (other.labels > 0))[::40]
    windows = np.stack([other.emg[i : i + 600] for i in at if (other.labels[i : i + 600] == other.labels[i]).all()])
    true = [other.labels[i] for i in at if (other.labels[i : i + 600] == other.labels[i]).all()]
    assert np.mean(new.predict(windows) == true) > np.mean(fitted.predict(windows) == true)


def held(recording, repetitions, length=600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where windows inside one movement begin, one third of a window apart, these windows, and their movements."""
    labels, wanted = recording.labels, np.isin(recording.repetitions, repetitions) & (recording.labels > 0)
    starts = np.array([i for i in range(0, len(labels) - length, length // 3)
                       if wanted[i : i + length].all() and (labels[i : i + length] == labels[i]).all()])
    return starts, np.stack([recording.emg[i : i + length] for i in starts]), labels[starts]


def test_updates_are_a_calibration_and_can_be_taken_back(fitted, people, tmp_path):
    other, decoder = people[1], fitted.with_head(fitted.head.copy())
    starts, windows, labels = held(other, (1, 2))
    before, card = decoder(windows)["probabilities"], decoder.card
    for part in np.array_split(np.arange(len(labels)), 5):
        decoder.update(1e3 * windows[part], labels[part], unit="mV")
    whole, _ = fitted.calibrated(fitted.inputs(other.emg, starts), labels)
    np.testing.assert_allclose(decoder(windows)["probabilities"], whole(windows)["probabilities"], atol=1e-3)
    assert decoder.card["updated"] == len(labels) and "updated" not in fitted.card
    version = decoder.export(tmp_path / "model")
    assert f"(before {len(labels)} more windows updated it)" in (version / "README.md").read_text()
    np.testing.assert_array_equal(decoder.revert()(windows)["probabilities"], before)
    assert decoder.card == card and decoder.revert() is decoder
    calibrated = fitted.calibrate(other, repetitions=1)
    kept, begin = calibrated(windows)["probabilities"], starts[-1]
    calibrated.update(other.emg[begin : begin + 1000], int(labels[-1]))  # one window every 100 samples
    assert calibrated.card["updated"] == 5 and not np.array_equal(calibrated(windows)["probabilities"], kept)
    np.testing.assert_array_equal(calibrated.revert()(windows)["probabilities"], kept)
    for labels, said in ((9, "none that the decoder knows"), ([1, 2], "`labels` must be one")):
        with pytest.raises(InputError, match=said):
            calibrated.update(windows[:3], labels)
    np.testing.assert_array_equal(calibrated(windows)["probabilities"], kept)


@pytest.mark.parametrize(("preset", "give", "said"), [
    ("best_fins", lambda r: (r.emg,), "rate_hz"),
    ("best_fins", lambda r: (r.emg, r.labels[:-1], None, 2000.0), "shapes"),
    ("best_fins", lambda r: (r.emg * np.nan, r.labels, None, 2000.0), "NaN"),
    ("best_fins", lambda r: (r.emg, np.minimum(r.labels, 1), None, 2000.0), "two movements"),
    ("best_fins", lambda r: (r.emg * 1e6, r.labels, None, 2000.0), "give its unit"),
    ("best_fins", lambda r: (r.emg, r.labels, None, 2000.0, "volt"), "one of V, mV, uV"),
    ("best_fins", lambda r: (r, None, None, 1000.0), "recordings are at"),
    ("best_fins", lambda r: (r, None, None, 0.0, "mV"), "in volts"),
    ("best_fins", lambda r: (r.emg, r.labels, None, -2000.0), "rate_hz"),
    ("best_fins", lambda r: (r.emg, r.labels, r.repetitions[1:], 2000.0), "groups"),
    ("best_fins", lambda r: (r.emg, r.labels + 0.5, None, 2000.0), "whole numbers"),
    ("best_fins", lambda r: (r.emg, r.labels.astype(str), None, 2000.0), "whole numbers"),
    ("best_fins", lambda r: (r.emg + 1j, r.labels, None, 2000.0), "real numbers"),
    ("best_fins", lambda r: ([r, replace(r, emg=r.emg[:, 1:])],), r"same channels. Received: \[3, 4\]"),
    ("best_fins", lambda r: ([],), "must hold a recording"),
])
def test_what_is_unfit_is_said(preset, give, said, people):
    with pytest.raises(InputError, match=said):
        tfkfin.Decoder.from_preset(preset).fit(*give(people[0]))


def turned_as_said(call, name: str, swapped: np.ndarray) -> np.ndarray:
    """What the call that the error message gives makes of an array whose axes are swapped."""
    with pytest.raises(InputError, match="turn it with") as raised:
        call(swapped)
    found = re.search(rf"np\.moveaxis\({name}, (\d), (\d)\)", str(raised.value))
    return np.moveaxis(swapped, *map(int, found.groups()))


@pytest.mark.parametrize("act", ["predict", "stream", "update", "session", "fit", "recording", "live"])
def test_swapped_axes_are_said_with_the_call_that_turns_them(act, fitted, people):
    one = people[0]
    signal, windows_ = one.emg[:4000], np.stack([one.emg[:600], one.emg[600:1200]])

    def fit(emg):
        return tfkfin.Decoder.from_preset("best_fins").fit(emg, one.labels, None, one.rate_hz)

    calls = {"predict": (fitted.predict, windows_, (1, 2)), "stream": (fitted.stream, signal, (0, 1)),
             "update": (lambda emg: fitted.update(emg, 1), windows_, (0, 2)), "fit": (fit, one.emg, (0, 1)),
             "session": (lambda emg: fitted.session().stream(emg), signal, (0, 1)),
             "recording": (lambda emg: fitted.predict(replace(one, emg=emg)), one.emg, (0, 1)),
             "live": (Stream(fitted), signal, (0, 1))}
    call, right, (source, target) = calls[act]
    name = {"fit": "data", "live": "volts"}.get(act, "emg")
    np.testing.assert_array_equal(turned_as_said(call, name, np.moveaxis(right, source, target)), right)


def test_windows_at_another_rate_are_turned_too(slow):
    recording, decoder, *_ = slow
    length = windows.samples(decoder.card["length_ms"], recording.rate_hz)
    right = recording.emg[:length][None]
    np.testing.assert_array_equal(turned_as_said(decoder.predict, "emg", np.moveaxis(right, 1, 2)), right)


def test_units_are_converted_and_never_mistaken(fitted, people):
    one = people[0]
    stretch, labels = one.emg[:4000], np.where(half(one), one.labels, 0)
    millivolts = tfkfin.Decoder.from_preset("best_fins").fit(1e3 * one.emg, labels, one.repetitions, one.rate_hz, "mV")
    np.testing.assert_allclose(millivolts.card["sd_v"], fitted.card["sd_v"], rtol=1e-5)
    np.testing.assert_array_equal(fitted.predict(1e6 * stretch, unit="uV"), fitted.predict(stretch, one.rate_hz))
    for emg in (1e3 * stretch, 1e6 * stretch[None, :600], stretch / 1e3):
        with pytest.raises(InputError, match="times as loud"):
            fitted.predict(emg)
    assert len(fitted.predict(0 * stretch)) and len(fitted.stream(stretch / 50, 100)["label"])  # silence, faint rest


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("what", ["predict", "stream", "session", "update", "calibrate", "fit", "scikit"])
def test_a_forked_process_waits_for_no_thread_that_it_lacks(what, fitted, people):
    one = people[0]
    windows = np.stack([one.emg[: fitted.length], one.emg[1 : 1 + fitted.length]])
    fitted.predict(windows)
    calls = {"predict": lambda: fitted.predict(windows), "stream": lambda: fitted.stream(one.emg[:4000]),
             "session": lambda: fitted.session().stream(one.emg[:4000]), "update": lambda: fitted.update(windows, 1),
             "calibrate": lambda: fitted.calibrate(one, repetitions=1),
             "fit": lambda: tfkfin.Decoder.from_preset("best").fit(one),
             "scikit": lambda: tfkfin.FINClassifier(features=("RMS",), family="dense").fit(
                 np.repeat(np.moveaxis(windows, 1, 2), 4, axis=0), np.repeat([1, 2], 4))}
    if not (child := os.fork()):
        signal.alarm(60)
        try:
            calls[what]()
        except InputError as error:
            os._exit(7 * ("forked" in str(error)))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.fixture(scope="module")
def slow(tmp_path_factory) -> tuple[Recording, tfkfin.Decoder]:
    """A person recorded at 1000 Hz, and a decoder of the recipe's 2000 Hz that was fitted on every other repetition."""
    folder = tmp_path_factory.mktemp("slow")
    synthetic.synthesize(folder, (1,), movements=3, channels=4, hold_s=0.8, rest_s=0.5, rate_hz=1000)
    one, = tfkfin.read(folder)
    labels = np.where(half(one), one.labels, 0)
    return one, tfkfin.Decoder.from_preset("best_fins").fit(replace(one, labels=labels))


def test_samples_are_at_the_rate_of_the_recordings(slow, tmp_path):
    one, decoder = slow
    assert decoder.card["rate_hz"] == 2000 and decoder.card["recorded_hz"] == [1000.0]
    at_rate = resampled(one, 2000.0)
    wanted = decoder.stream(at_rate.emg, rate_hz=2000.0)
    true = at_rate.labels[np.arange(len(wanted["label"])) * decoder.stride + decoder.length // 2]
    held = ~half(at_rate)[np.arange(len(wanted["label"])) * decoder.stride + decoder.length // 2] & (true > 0)
    assert np.mean(wanted["label"][held] == true[held]) > 0.75  # of three
    for given in ({"emg": one}, {"emg": one.emg}, {"emg": one.emg, "rate_hz": 1000.0}, {"emg": at_rate},
                  {"emg": 1e3 * one.emg, "unit": "mV", "rate_hz": 1000}):
        np.testing.assert_allclose(decoder.stream(**given)["probabilities"], wanted["probabilities"], atol=1e-5)
        np.testing.assert_array_equal(decoder.predict(**given), wanted["label"])
    adapted = decoder.stream(one.emg, rate_hz=1000.0, adapt=True)["probabilities"]
    for answers in (decoder.stream(one, adapt=True), decoder.session().stream(one.emg), decoder.session().stream(one)):
        np.testing.assert_allclose(answers["probabilities"], adapted, atol=1e-5)
    made = decoder.export(tmp_path / "model"), decoder.calibrate(one), decoder.session().carried()
    for other in (tfkfin.Decoder.from_preset(made[0]), *made[1:]):
        assert other.card["recorded_hz"] == [1000.0]
    assert decoder.calibrate(at_rate).card["recorded_hz"] == [1000.0, 2000.0]


def test_windows_are_at_the_rate_of_the_recordings(slow):
    one, decoder = slow
    starts, cut, labels = held(one, (2, 4), 300)
    right = np.mean(decoder.predict(cut) == labels)
    assert right > 0.75 > 0.1 + np.mean(decoder.predict(one.emg[starts[:, None] + np.arange(600)], 2000.0) == labels)
    at_once = np.stack([resampled(one, 2000.0).emg[2 * i : 2 * i + 600] for i in starts])
    inside = resampling.windows_at_rate(cut, 1000.0, 2000.0, 600)[:, 20:-20]
    np.testing.assert_allclose(inside, at_once[:, 20:-20], atol=1e-3 * at_once.std())  # edges have no neighbours
    np.testing.assert_array_equal(decoder.predict(at_once, 2000.0), decoder(at_once)["label"])
    odd = resampling.windows_at_rate(np.ones((2, 307, 4), np.float32), 1024.0, 2000.0, 600)  # 299.8 ms
    assert odd.shape == (2, 600, 4)
    np.testing.assert_allclose(odd, 1, atol=1e-2)
    updated = decoder.with_head(decoder.head.copy()).update(cut, labels)
    assert updated.card["updated"] == len(labels)
    own = updated.revert().update(one.select(2)).card["updated"]
    assert own == decoder.calibrate(one, repetitions=2).card["calibration"]["windows"]
    with pytest.raises(InputError, match=r"windows \(B, 300, 4\) at 1000 Hz"):
        decoder.predict(at_once)


def test_rates_that_nobody_gave(slow):
    one, decoder = slow
    several = tfkfin.Decoder(decoder.card | {"recorded_hz": [1000.0, 2000.0]}, decoder.model)
    for act in (several.predict, several.stream, several.session().stream, several.update):
        with pytest.raises(InputError, match="`rate_hz` must be given.*at 1000, 2000 Hz"):
            act(one.emg, 1) if act == several.update else act(one.emg)
    with pytest.raises(InputError, match="`labels` must be given"):
        decoder.update(one.emg)
    np.testing.assert_array_equal(several.predict(one), decoder.predict(one))
    old = tfkfin.Decoder({key: value for key, value in decoder.card.items() if key != "recorded_hz"}, decoder.model)
    with pytest.warns(UserWarning, match="taken to be at 2000 Hz") as warned:
        first = old.predict(one.emg)
        np.testing.assert_array_equal(first, old.predict(one.emg))
    warned = [one for one in warned if "`rate_hz`" in str(one.message)]
    assert len(warned) == 1 and len(first) == len(decoder.predict(one.emg, 2000.0))
    for given, said in (({"rate_hz": 500.0}, "its own rate, 1000 Hz"), ({"unit": "mV"}, "in volts")):
        with pytest.raises(InputError, match=said):
            decoder.predict(one, **given)
    for rate in (-1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="samples a second"):
            decoder.predict(one.emg, rate)


def test_runs_note_the_rate_of_their_recordings(slow):
    one, _ = slow
    recipe = recipes.load("best_fins", {"split.train_repetitions": [1, 3], "split.test_repetitions": [2]})
    data = open_dataset(recipe, one.path.parents[1])
    assert data.rate_hz == 2000 and data.recorded_hz == (1000.0,)
    about = card.about(recipe, data.rate_hz, 600, 100, (1, 2), np.zeros(4), np.ones(4), {}, data.recorded_hz)
    assert about["recorded_hz"] == [1000.0]


def test_settings_change_a_recipe(people, tmp_path):
    unfitted = tfkfin.Decoder.from_preset("best_fins", seed=3, classifier__describe="", **{"window.stride_ms": 100})
    assert unfitted.recipe.seed == 3 and unfitted.recipe.classifier.describe == ()
    assert unfitted.recipe.window.stride_ms == 100 and unfitted.recipe.fin.family == "conv"
    (tmp_path / "mine.toml").write_text(unfitted.recipe.to_toml())
    assert tfkfin.Decoder.from_preset(tmp_path / "mine.toml").recipe == unfitted.recipe
    for name, settings, said in (("best_fins", {"fin__units": -1}, "fin.units"),
                                 ("best_fins", {"fin.unit": 1}, "did you mean"),
                                 (tmp_path, {"seed": 1}, "is no recipe")):
        with pytest.raises(InputError, match=said):
            tfkfin.Decoder.from_preset(name, **settings)


def test_people_are_sessions_of_their_own(people):
    """Two people are as one person's two days; both then belong to what a calibration starts from."""
    both = tfkfin.Decoder.from_preset("best_fins").fit([one.select([1, 2]) for one in people])
    days = [replace(one.select([1, 2]), file=replace(one.file, subject=1, session=day))
            for day, one in enumerate(people, 1)]
    alone = tfkfin.Decoder.from_preset("best_fins").fit(days)
    for a, b in zip(both.model.get_weights(), alone.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert both.forward.trunk is alone.forward.trunk  # what was compiled for the one serves the other
    assert both.card["dataset"]["subjects"] == [1, 2] and "subjects 1, 2" in " ".join(both.card["limits"])
    moving = np.concatenate([one.emg[(one.labels > 0) & np.isin(one.repetitions, (1, 2))] for one in people])
    np.testing.assert_allclose(both.card["sd_v"], moving.std(axis=0), rtol=1e-5)
    assert both.calibrate(people[0], repetitions=3).card["calibration"]["known_sessions"] == 2
    with pytest.raises(InputError, match="one person"):
        both.calibrate(people)


SMALL = {"fin.family": "conv", "classify.epochs": 4, "finetune.windows_per_epoch": 48, "finetune.epochs": 2,
         "window.train_stride_ms": 25}


@pytest.fixture(scope="module")
def trained(people):
    """The paper's head and FINs, trained end to end on repetitions 1 and 3."""
    return tfkfin.Decoder.from_preset("own", **SMALL).fit(people[0].select([1, 3]))


def test_heads_trained_by_gradients_are_those_of_the_stages(trained, tiny_db2, tmp_path):
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    train.main(["--stage", "finetune", "--pipeline", "own", "--data", str(tiny_db2), "--subjects", "1", "--run",
                str(tmp_path / "run"), "--set", "split.train_repetitions=1,3", "--set", "split.test_repetitions=2",
                *settings])
    run = tfkfin.Decoder.load(tmp_path / "run" / "finetune" / "S1")
    for a, b in zip(run.model.get_weights(), trained.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert run.card["recorded_hz"] == trained.card["recorded_hz"] == [2000.0]
    assert run.card["rate_hz"] == trained.card["rate_hz"] and run.card["stride"] == trained.card["stride"]


def test_a_trained_head_is_calibrated_by_further_training(trained, people):
    other, weights = people[1], trained.model.get_weights()
    new = trained.calibrate(other, repetitions=[1, 2])
    report = new.card["calibration"]
    assert report["updates"] == 4 * -(-report["windows"] // 300) and report["unseen"] == []
    assert report["after"]["accuracy"] > report["before"]["accuracy"]
    for a, b in zip(weights, trained.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    _, cut, _ = held(other, (3,))
    np.testing.assert_array_equal(new(cut)["features"], trained(cut)["features"])  # FINs stay as they are
    assert np.abs(new(cut)["probabilities"] - trained(cut)["probabilities"]).max() > 0.05
    for act, said in ((lambda: trained.calibrate(other, labelled=False), "with labels only"),
                      (lambda: trained.session(), "keeps nothing"), (lambda: trained.update(cut, 1), "keeps nothing")):
        with pytest.raises(InputError, match=said):
            act()


@pytest.mark.parametrize(("change", "said"), [
    ({"repetitions": 9}, "no movement in repetitions 9: it has 1-6"), ({"repetitions": "all"}, "list of numbers"),
    ({"rate_hz": 500.0}, "recordings are at"),
])
def test_a_calibration_that_cannot_be_is_said(fitted, people, change, said):
    with pytest.raises(InputError, match=said):
        fitted.calibrate(people[1], **change)


def test_calibrated_as_the_command_does(fitted, people, tiny_db2, tmp_path):
    """One repetition is learnt from, the others are scored: the same decoder and figures as the command's."""
    fitted.export(tmp_path / "model")
    calibrate.main([str(tmp_path / "model"), "--data", str(tiny_db2), "--subject", "2", "--repetitions", "1"])
    there, here = tfkfin.Decoder.from_preset(tmp_path / "model" / "2"), fitted.calibrate(people[1])
    for a, b in zip(there.model.get_weights(), here.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for said in (there.card["calibration"], here.card["calibration"]):
        assert said["repetitions"] == [1] and said["after"]["accuracy"] > said["before"]["accuracy"]
    assert there.card["calibration"]["after"] == here.card["calibration"]["after"]
    every = fitted.calibrate(people[1], repetitions=None).card["calibration"]
    assert every["repetitions"] == [1, 2, 3, 4, 5, 6] and every["after"] is None


def test_what_is_not_fitted_says_so(fitted):
    unfitted = tfkfin.Decoder.from_preset("best_fins")
    with pytest.raises(InputError, match="fit it first"):
        unfitted.predict(np.zeros((1, 600, 4)))
    with pytest.raises(AttributeError, match="fit it first"):
        unfitted.card  # noqa: B018
    assert not hasattr(unfitted, "card") and hasattr(fitted, "card") and hasattr(unfitted, "recipe")
    assert "not fitted" in repr(unfitted) and unfitted.recipe.digest in repr(unfitted)
    assert repr(fitted) == (f"<tfkfin.Decoder: recipe {unfitted.recipe.digest}, head gaussian, 4 channels, 2000 Hz, "
                            "movements 1-3, FINs for ENT, RMS, VAR, SSI>")
    assert "no FINs" in repr(tfkfin.Decoder.from_preset("best"))
    for decoder in (unfitted, fitted):
        for name in {*dir(decoder), *vars(type(decoder)), "head", "forward", "nothing"}:
            hasattr(decoder, name)  # raises nothing


def test_a_list_of_one_recording_is_that_recording(people, tiny_db2, fitted):
    first = tfkfin.read(readers.find(tiny_db2)[0].path)
    monday, tuesday = tfkfin.read(tiny_db2)
    assert type(first) is type(tfkfin.read(tiny_db2)) and len(first) == 1 and monday.subject == first.subject
    assert first.rate_hz == 2000 and not hasattr(first, "nothing")
    np.testing.assert_array_equal(first.emg, monday.emg)
    np.testing.assert_array_equal(fitted.predict(first), fitted.predict(monday))
    assert not hasattr(people, "emg")
    with pytest.raises(AttributeError, match="2 recordings"):
        people.emg  # noqa: B018


def test_frames_and_lists_are_arrays(fitted, people):
    one = people[0]

    class Frame:  # as pandas and polars have them
        def __init__(self, values):
            self._values = values

        def __array__(self, dtype=None, copy=None):
            return self._values.astype(dtype or self._values.dtype)

        def __iter__(self):  # over names of columns
            return iter("abcd")

    labels, rate_hz = np.where(half(one), one.labels, 0), one.rate_hz
    wanted = tfkfin.Decoder.from_preset("best_fins").fit(one.emg, labels, None, rate_hz)
    for turn in (Frame, np.ndarray.tolist):
        again = tfkfin.Decoder.from_preset("best_fins").fit(turn(one.emg.astype(float)), turn(labels), None, rate_hz)
        np.testing.assert_allclose(again.card["sd_v"], wanted.card["sd_v"])
        np.testing.assert_array_equal(fitted.predict(turn(one.emg[:2000].astype(float)), rate_hz),
                                      fitted.predict(one.emg[:2000], rate_hz))
    with pytest.raises(InputError, match="`emg` is no array"):
        fitted.predict([[1.0, 2.0], [3.0]], rate_hz)


def test_score_is_that_of_evaluate(fitted, people, tiny_db2):
    stride_ms = 1000 * fitted.stride / 2000
    found = [fitted.score(one) for one in people]
    cases = scoring.model_cases(fitted, str(tiny_db2), None, (1,), None, stride_ms)
    wanted = scoring.evaluate("it", cases)[0]["accuracy"]
    np.testing.assert_allclose(found, list(wanted["per_subject"].values()))
    assert fitted.score(people) == pytest.approx(wanted["mean"]) and 0.5 < wanted["mean"] <= 1
    one = people[0]
    assert fitted.score(1e3 * one.emg, one.labels, one.rate_hz, "mV") == pytest.approx(found[0])
    _, cut, labels = held(one, (2, 4), 600)
    assert fitted.score(cut, labels, 2000.0) == np.mean(fitted.predict(cut, 2000.0) == labels)
    for labels, said in ((labels[1:], "labels"), (None, "labels")):
        with pytest.raises(InputError, match=said):
            fitted.score(cut, labels, 2000.0)


@pytest.mark.parametrize(("given", "key", "value"), [
    ({"length_ms": 200}, "window.length_ms", 200), ({"classifier__vote": 3}, "classifier.vote", 3),
    ({"window.stride_ms": 40}, "window.stride_ms", 40), ({"seed": 7}, "seed", 7)])
def test_options_of_a_recipe_are_keywords(given, key, value):
    assert attrgetter(key)(tfkfin.Decoder.from_preset("best", **given).recipe) == value


def test_executions_are_counted():
    from tfkfin.api import _recordings

    labels = np.array([0, 1, 1, 0, 2, 1, 1, 0, 1])
    (made,) = _recordings(np.zeros((9, 2), np.float32), labels, None, 100.0, "V")
    assert made.repetitions[labels > 0].tolist() == [1, 1, 1, 2, 2, 3]


def two_classes(count=40, seed=0):
    """Windows (N, C, L) of two classes that differ in loudness, and their labels."""
    rng, y = np.random.default_rng(seed), np.arange(count) % 2
    return rng.normal(size=(count, 3, 24)) * (1 + y)[:, None, None], np.array(["fist", "rest"])[y]


def test_in_pipelines_and_cross_validation():
    X, y = two_classes()
    groups = np.arange(len(y)) // 20
    for model in (make_pipeline(tfkfin.FINFeatures(("RMS", "VAR")), LinearDiscriminantAnalysis()),
                  tfkfin.FINClassifier(("RMS", "VAR"))):
        assert cross_val_score(clone(model), X, y, groups=groups, cv=LeaveOneGroupOut()).mean() > 0.8
    model = tfkfin.FINClassifier(("RMS", "VAR"), head="gaussian").fit(X, y, sessions=groups)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1, atol=1e-5)
    assert model.classes_.tolist() == ["fist", "rest"] and model.score(*two_classes(seed=1)) > 0.8


def test_features_are_the_shipped_fins(people):
    X = np.stack([people[0].emg[i : i + 600].T for i in range(0, 20000, 600)])
    made = tfkfin.FINFeatures(("RMS",)).fit(X)
    true = np.sqrt((((X - made.mean_[:, None]) / made.sd_[:, None]) ** 2).mean(axis=2))
    assert np.mean((made.transform(X) - true) ** 2) < 0.02 * true.var()  # R² above 0.98
    assert made.get_feature_names_out().tolist() == ["RMS_0", "RMS_1", "RMS_2", "RMS_3"]
    with pytest.raises(ValueError, match=r"must be \(N, 4, 600\)"):
        made.transform(X[:, :2])
