"""The contract of heads, held by every registered one and by one with a memory that lies outside the package."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tfkfin import recipe as recipes
from tfkfin.base import registry
from tfkfin.base.errors import InputError
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.nets import fins, heads
from tfkfin.nets.forward import Forward
from tfkfin.nets.heads import Head
from tfkfin.nets.layers import ZScore
from tfkfin.nets.network import joined_head, network

rng = np.random.default_rng(23)
LENGTH, CHANNELS, NAMES, CLASSES, STRIDE = 40, 3, ("ENT", "RMS"), 3, 8


class NearestMean(Head):
    """Decides for the nearest class mean of the session, whose mean is taken from all its windows."""

    describes = True

    def __init__(self, classifier, describe=None, channels=0):
        super().__init__(classifier, describe, channels)
        self.rows = next(layer for layer in classifier.layers if layer.name == "rows")
        self.seen = []  # the windows of the session, and their labels

    @classmethod
    def new(cls, options, names, channels, described, classes):
        features = keras.Input((channels, len(names)), name="features")
        beside = keras.Input((described,), name="described")
        x = keras.layers.Concatenate()([keras.layers.Flatten()(features), beside])
        x = keras.layers.Dense(classes, name="rows")(ZScore(name="z_score")(x))
        return keras.Model([features, beside], keras.layers.Softmax()(x), name="classifier")

    def solve(self, x, labels, groups):
        self._decide_by(x.mean(axis=0), x.std(axis=0) + 1e-6, x, labels)

    def calibrate(self, x, labels, repetitions=None):
        self.seen = []
        shown = range(CLASSES) if labels is None else labels.tolist()
        report = {"known_sessions": 1, "unseen": sorted({*range(CLASSES)} - {*shown})}
        if labels is not None:
            self.update(x, labels)
            return report
        self.z_score.mean.assign(x.mean(axis=0))
        return report | {"moved": False}

    def update(self, x, labels):
        self.seen = [*self.seen, (x, labels)]
        x, labels = (np.concatenate(part) for part in zip(*self.seen, strict=True))
        self._decide_by(x.mean(axis=0), np.asarray(self.z_score.sd), x, labels)

    def resume(self):
        return ToySession(self), lambda x: np.ones(len(x), bool)

    def carry(self, session):
        self.z_score.mean.assign(session.mean)
        return not self.seen

    def copy(self):
        new = super().copy()
        new.seen = list(self.seen)
        return new

    def snapshot(self):
        return super().snapshot(), list(self.seen)

    def restore(self, snapshot):
        super().restore(snapshot[0])
        self.seen = snapshot[1]

    def _decide_by(self, mean, sd, x, labels):
        """-|z - m|^2 / 2 but for |z|^2, which all classes share."""
        z, absent = (x - mean) / sd, np.full(len(mean), 99.0)
        means = np.stack([z[labels == k].mean(axis=0) if k in labels else absent for k in range(CLASSES)])
        self.z_score.set(mean, sd)
        self.rows.set_weights([means.T, -(means**2).sum(axis=1) / 2])


class ToySession:
    """Centres by the mean of the windows before."""

    prior, moved = SimpleNamespace(classes=np.arange(CLASSES)), False

    def __init__(self, head):
        self.head, self.past, self.mean = head, [], np.asarray(head.z_score.mean)

    def probabilities(self, x):
        return np.asarray(self.head.decide((x - self.mean + np.asarray(self.head.z_score.mean)).astype(np.float32)),
                          np.float64)

    def append(self, x):
        self.past.append(x)

    def em_update(self):
        pass

    def recentre(self, latest):
        self.mean = np.concatenate(self.past).mean(axis=0) if self.past else self.mean


@pytest.fixture(params=[*registry.names("nets/heads"), "toy"])
def kind(request, monkeypatch):
    own = heads.kind
    monkeypatch.setattr(heads, "kind", lambda name: NearestMean if name == "toy" else own(name))
    return request.param


@pytest.fixture
def model(kind):
    keras.utils.set_random_seed(3)
    bank = fins.bank([fins.fin(name, LENGTH, "conv", units=12) for name in NAMES], CHANNELS)
    options = recipes.Classifier(copies=3, filters=(4, 4)).model_copy(update={"kind": kind, "lags": (1, 2)})
    made = network(bank, heads.new(options, NAMES, LENGTH, CHANNELS, CLASSES))
    Forward(made).parts.standardise.set(np.zeros(CHANNELS), np.full(CHANNELS, 2e-5))
    return made


@pytest.fixture
def decoder(kind, model):
    return BaseDecoder({"length": LENGTH, "channels": CHANNELS, "stride": STRIDE, "rate_hz": 2000.0, "head": kind,
                        "movements": [2, 5, 6]}, model)


def session(seed=0, gain=1.0, repetitions=2):
    """Windows (N, L, C) of three movements, each loud on a channel of its own; class indices, repetitions."""
    own = np.random.default_rng(seed)
    labels = np.tile(np.repeat(np.arange(CLASSES), 20), repetitions)
    loud = np.where(np.arange(CHANNELS) == labels[:, None], 4e-5, 1e-5) * gain
    return (loud[:, None] * own.normal(size=(len(labels), LENGTH, CHANNELS))).astype(np.float32), labels, np.repeat(
        np.arange(repetitions), 60)


def solved(decoder):
    windows, labels, repetitions = session()
    x = decoder.forward.windows(windows, ("inputs",))["inputs"]
    decoder.head.solve(x, labels, (repetitions % 2, repetitions))
    return x, labels


def test_head_inputs_are_what_its_classifier_decides_from(kind, model):
    forward, (windows, _, _) = Forward(model), session()
    head = heads.kind(kind).of(forward.parts)
    assert head.z_score in head.classifier.layers and (head.describe is not None) is type(head).describes
    answers, whole = forward.windows(windows), model(windows)
    np.testing.assert_allclose(head.decide(answers["inputs"]), whole["probabilities"], atol=1e-6)
    np.testing.assert_array_equal(head.probabilities(answers["inputs"]), answers["probabilities"])
    described = [np.asarray(head.describe(forward.parts.standardise(windows)))] if type(head).describes else []
    np.testing.assert_allclose(head.inputs(answers["features"], *described), answers["inputs"], rtol=1e-5, atol=1e-5)
    keras.Model(head.z_score.input, head.z_score.output)  # the layer that head inputs go into


def test_statistics_are_set_before_training(kind, decoder):
    if not decoder.head.prepare:
        pytest.skip("nothing to set")
    x = decoder.forward.windows(session()[0], ("inputs",))["inputs"]
    decoder.head.prepare(x)
    flat = x.reshape(-1, x.shape[-1])
    np.testing.assert_allclose(decoder.head.z_score.mean, flat.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(decoder.head.z_score.sd, flat.std(axis=0), rtol=1e-4)


def test_a_solved_head_decides_and_its_copy_is_its_own(kind, decoder):
    if not decoder.head.solve:
        pytest.skip("trained by gradients")
    x, labels = solved(decoder)
    before = decoder.head.probabilities(x)
    assert np.mean(before.argmax(axis=1) == labels) > 0.9
    copy = decoder.head.copy()
    np.testing.assert_array_equal(copy.probabilities(x), before)
    copy.solve(x, (labels + 1) % CLASSES, (0 * labels, 0 * labels))
    assert np.mean(copy.probabilities(x).argmax(axis=1) == labels) < 0.1
    np.testing.assert_array_equal(decoder.head.probabilities(x), before)


def test_sessions(kind, decoder, tmp_path):
    """Calibration, updates and what takes them back; online adaptation; nothing of it changes the decoder."""
    if not decoder.head.calibrate:
        with pytest.raises(InputError, match="keeps nothing of earlier sessions"):
            decoder.check_calibrates()
        return
    solved(decoder)
    windows, labels, repetitions = session(9, gain=3)
    movements, before = decoder.movements[labels], decoder(windows)["probabilities"]
    x = decoder.forward.windows(windows, ("inputs",))["inputs"]
    first = repetitions == 0
    new, report = decoder.calibrated(x[first], movements[first], repetitions[first])
    assert report["unseen"] == [] and report["known_sessions"] > 0
    assert new.forward.trunk is decoder.forward.trunk  # nothing is compiled anew
    assert np.mean(new(windows)["label"] == movements) > 0.9
    some, report = decoder.calibrated(x[labels > 0], movements[labels > 0])
    assert report["unseen"] == [2]
    blind, report = decoder.calibrated(x)
    assert report["moved"] in (True, False) and np.mean(blind(windows)["label"] == movements) > 0.8
    whole = decoder.calibrated(x, movements, repetitions)[0](windows)["probabilities"]
    half = new(windows)["probabilities"]
    for part in np.array_split(np.flatnonzero(~first), 3):
        new.update(windows[part], movements[part])
    np.testing.assert_allclose(new(windows)["probabilities"], whole, atol=1e-4)
    np.testing.assert_array_equal(new.revert()(windows)["probabilities"], half)
    new.save(tmp_path / "saved")
    model = Forward(BaseDecoder.load(tmp_path / "saved").model) if kind != "toy" else None
    if model:
        np.testing.assert_array_equal(model.windows(windows)["probabilities"], half)
    emg = np.concatenate(windows)
    online = decoder.session()
    answers = online.stream(emg)
    assert answers["probabilities"].shape == ((len(emg) - LENGTH) // STRIDE + 1, CLASSES)
    np.testing.assert_allclose(answers["probabilities"].sum(axis=1), 1, atol=1e-5)
    assert online.carried().card["carried"] == 1 and "carried" not in new.session().carried().card
    np.testing.assert_array_equal(decoder(windows)["probabilities"], before)


def test_a_head_that_lacks_a_part_is_refused():
    with pytest.raises(TypeError, match="`describes` needs `solve`"):
        type("Unsolved", (Head,), {"describes": True})
    with pytest.raises(TypeError, match="must have update, resume, carry"):
        type("Half", (Head,), {"calibrate": lambda self, x, labels, repetitions: {}})


def test_there_must_be_something_to_decide_from(kind):
    options = SimpleNamespace(kind=kind, describe=(), lags=(1,))
    with pytest.raises(InputError, match="nothing to decide from"):
        heads.new(options, (), LENGTH, CHANNELS, CLASSES)


def test_a_classifier_takes_what_it_names():
    """Features, descriptions or both, whatever their order."""
    both = {name: keras.Input((CHANNELS, 2) if name == "features" else (4,), name=name)
            for name in ("described", "features")}
    describe = keras.layers.GlobalAveragePooling1D(name="describe")
    describe = keras.Sequential([keras.Input((LENGTH, CHANNELS)), describe, keras.layers.Dense(4)], name="describe")
    x, windows = rng.normal(size=(5, CHANNELS, 2)), rng.normal(size=(5, LENGTH, CHANNELS))
    for names in (("described", "features"), ("features",), ("described",)):
        inputs = [both[name] for name in names]
        parts = [keras.layers.Flatten()(one) for one in inputs]
        y = keras.layers.Dense(2)(keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0])
        classifier = keras.Model(inputs if len(inputs) > 1 else inputs[0], y, name="classifier")
        head = joined_head(classifier, describe if "described" in names else None, LENGTH, CHANNELS, 2)
        given = [np.asarray(describe(windows)) if name == "described" else x for name in names]
        np.testing.assert_allclose(head([x, windows]), classifier(given if len(given) > 1 else given[0]), rtol=1e-4)
