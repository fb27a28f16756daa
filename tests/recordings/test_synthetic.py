"""Synthetic recordings: laid out as DB2's, repeatable, like recorded signals, and neither trivial nor hopeless."""

import numpy as np
import pytest
from scipy.io import loadmat, whosmat
from scipy.stats import entropy, kurtosis
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from tfkfin.base.errors import InputError
from tfkfin.pipeline import windows
from tfkfin.pipeline.subject import ChannelStatistics
from tfkfin.recordings import matfile, readers, synthetic
from tfkfin.recordings.recording import flat_channels

TINY = {"movements": 2, "repetitions": 2, "channels": 3, "hold_s": 0.5, "rest_s": 0.4}
TRAIN, TEST = (1, 3, 4, 6), (2, 5)


def test_layout_is_that_of_db2(tmp_path):
    (path,) = synthetic.synthesize(tmp_path, (3,), extras=True, **TINY)
    assert path == tmp_path / "DB2_s3" / "S3_E1_A1.mat" and b"SYNTHETIC" in path.read_bytes()[:116]
    shapes = {name: (shape[1], kind) for name, shape, kind in whosmat(path)}
    assert shapes["emg"] == (3, "single") and shapes["acc"][0] == 36 and shapes["glove"][0] == 22
    assert shapes["inclin"][0] == 2 and all(shapes[name] == (1, "uint8") for name in (
        "stimulus", "restimulus", "repetition", "rerepetition"))
    found = loadmat(path)
    assert (found["subject"], found["exercise"], found["synthetic"], found["frequency"]) == (3, 1, 1, 2000)
    assert len({len(found[name]) for name in ("emg", "stimulus", "rerepetition", "acc", "glove", "inclin")}) == 1


def test_equal_seeds_give_equal_bytes_whoever_else_is_made(tmp_path):
    alone = synthetic.synthesize(tmp_path / "alone", (2,), seed=5, **TINY)[0]
    among = synthetic.synthesize(tmp_path / "among", (1, 2, 3), seed=5, **TINY)
    other = synthetic.synthesize(tmp_path / "other", (2,), seed=6, **TINY)[0]
    assert alone.read_bytes() == among[1].read_bytes()
    assert alone.read_bytes() != other.read_bytes() != among[0].read_bytes()


def test_v73_holds_the_same_arrays(tmp_path):
    paths = [synthetic.synthesize(tmp_path / str(v73), (1,), v73=v73, **TINY)[0] for v73 in (False, True)]
    assert paths[1].read_bytes()[512:516] == b"\x89HDF"
    old, new = (readers.read(readers.find(path.parent)[0]) for path in paths)
    for name in ("emg", "labels", "repetitions"):
        np.testing.assert_array_equal(getattr(old, name), getattr(new, name))
    assert old.synthetic and new.synthetic and old.notes == new.notes == ()


def test_nothing_is_overwritten_and_nothing_half_written_stays(tmp_path, monkeypatch):
    (path,) = synthetic.synthesize(tmp_path, (2,), **TINY)
    before = path.read_bytes()
    with pytest.raises(InputError, match="S2_E1_A1.mat is there already"):
        synthetic.synthesize(tmp_path, (1, 2), **TINY)
    assert path.read_bytes() == before and not (tmp_path / "DB2_s1").exists()

    def fail(path, *_):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(matfile, "_save_v5", fail)
    with pytest.raises(OSError, match="disk full"):
        synthetic.synthesize(tmp_path, (1,), **TINY)
    assert list((tmp_path / "DB2_s1").iterdir()) == []


@pytest.mark.parametrize("session", [{"movements": 0}, {"channels": 0}, {"rate_hz": 5}, {"hold_s": -1}])
def test_impossible_sessions(tmp_path, session):
    with pytest.raises(InputError, match=f"{next(iter(session))} is "):
        synthetic.synthesize(tmp_path, (1,), **session)


@pytest.mark.parametrize("session", [{"channels": 1}, {"channels": 10}, {"channels": 16, "rate_hz": 200.0},
                                     {"rate_hz": 2148.1481}, {"rate_hz": 1000.0, "movements": 1, "repetitions": 1}])
def test_any_size_reads_back(tmp_path, session):
    synthetic.synthesize(tmp_path, (1,), **(TINY | session))
    recording = readers.read(readers.find(tmp_path)[0])
    asked = TINY | session
    assert (recording.num_channels, recording.rate_hz) == (asked["channels"], asked.get("rate_hz", 2000.0))
    pairs = {(s.movement, s.repetition) for s in windows.segments(recording.labels, recording.repetitions)}
    assert pairs == {(m + 1, r + 1) for m in range(asked["movements"]) for r in range(asked["repetitions"])}
    assert flat_channels(recording) == () and recording.emg.std(axis=0).min() > 1e-7


def test_labels_have_the_traps_of_the_real_ones(tiny_db2):
    found = loadmat(readers.find(tiny_db2)[0].path)
    cue, label, repetition = (found[name][:, 0].astype(int) for name in ("stimulus", "restimulus", "rerepetition"))
    assert set(repetition[label == 0].tolist()) == set(range(7))  # non-zero in rest
    onsets = [np.flatnonzero(np.diff((column > 0).astype(int)) == 1) for column in (cue, label)]
    lag = (onsets[1] - onsets[0]) / 2000
    assert len(lag) == 18 and (lag >= 0.19).all() and (lag <= 1.2).all() and lag.std() > 0.01  # s
    for movement in (1, 2, 3):
        assert set(repetition[label == movement].tolist()) == set(range(1, 7))


def test_signal_is_like_surface_emg(tiny_db2):
    recording = readers.read(readers.find(tiny_db2)[0])
    active = recording.emg[recording.labels > 0].astype(np.float64)
    power = np.abs(np.fft.rfft(active - active.mean(axis=0), axis=0)) ** 2
    hertz = np.fft.rfftfreq(len(active), 1 / 2000)
    assert power[(hertz > 18) & (hertz < 460)].sum() / power.sum() > 0.9
    assert 80 < hertz[np.searchsorted(np.cumsum(power.sum(axis=1)), power.sum() / 2)] < 200  # median frequency
    assert 2e-6 < active.std() < 2e-4 and np.abs(active).max() < 5e-3  # V
    assert (kurtosis(active) > 0.3).all()  # more peaked than Gaussian noise, whose excess is 0
    assert (recording.emg[recording.labels == 0].std(axis=0) < active.std(axis=0)).all()
    different = np.corrcoef(active.T)[~np.eye(4, dtype=bool)]
    assert np.abs(different).max() < 0.9 and np.abs(different).max() > 0.02  # neighbours hear the same muscles


def features(recording):
    """The paper's four features (N, 4C), by their definitions, after standardising as the paper does."""
    cut = windows.segments(recording.labels, recording.repetitions)
    mean, sd = ChannelStatistics.of(recording.emg, [s for s in cut if s.repetition in TRAIN]).mean_and_sd()
    every = windows.starts(cut, 600, 120)
    x = (((recording.emg - mean) / sd)[every.starts[:, None] + np.arange(600)])  # (N, 600, C)
    softmax = np.exp(x - x.max(axis=1, keepdims=True))
    parts = entropy(softmax, axis=1), np.sqrt((x**2).mean(axis=1)), x.var(axis=1), (x**2).sum(axis=1)
    return np.concatenate(parts, axis=1), every


def test_hard_within_a_subject_and_harder_across(tmp_path):
    """An SVM with a Gaussian kernel. Measured for seeds 1, 2, 3: 65, 72, 71 % within, 29, 22, 38 % across.

    Chance is 12.5 %. Bounds are those that the recipe promises, wide enough for another FFT's rounding.
    """
    synthetic.synthesize(tmp_path, (1, 2, 3, 4), movements=8, hold_s=1.5, rest_s=0.6)
    table = []
    for file in readers.find(tmp_path):
        values, every = features(readers.read(file))
        train = np.isin(every.repetitions, TRAIN)
        scaled = StandardScaler().fit(values[train]).transform(values)
        table.append((scaled, every.movements, train))
    within = [SVC().fit(x[train], y[train]).score(x[~train], y[~train]) for x, y, train in table]
    across = []
    for left_out, (x, y, train) in enumerate(table):
        others = [row for i, row in enumerate(table) if i != left_out]
        model = SVC().fit(np.concatenate([row[0] for row in others]), np.concatenate([row[1] for row in others]))
        across.append(model.score(x[~train], y[~train]))
    assert 0.55 < np.mean(within) < 0.90
    assert np.mean(across) < 0.45 and np.mean(across) < np.mean(within) - 0.2
