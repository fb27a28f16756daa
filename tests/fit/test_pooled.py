"""FINs that go on learning by episodes: what is drawn, the head that is solved; only training data steer it."""

import numpy as np
import pytest
import tensorflow as tf

from tfkfin import recipe as recipes
from tfkfin.base.errors import InputError
from tfkfin.base.files import read_json, shipped
from tfkfin.experiments.evaluation import Evaluation
from tfkfin.experiments.kinds.ladder import People
from tfkfin.export import export
from tfkfin.fit.run import open_run
from tfkfin.fit.stages import pooled, run_stage
from tfkfin.fit.stages.pooled import Episodes, augmented
from tfkfin.nets import solving
from tfkfin.pipeline import windows
from tfkfin.pipeline.subject import Subject
from tfkfin.recipe.options import Augment, Fin, Pooled
from tfkfin.recordings import matfile, readers
from tfkfin.recordings.recording import digests
from tfkfin.store import presets
from tfkfin.store.card import about

LENGTH, STRIDE = 20, 10
TEST = (2, 5)
TINY = {"source.kind": "recordings", "window.length_ms": 100, "window.stride_ms": 50, "features.names": "ENT,RMS",
        "split.subjects": "2", "split.pretrain_subjects": "1", "split.test_repetitions": TEST,
        "imitate.test_windows": 24, "pooled.episodes": 30, "pooled.look_every": 10, "pooled.validation_episodes": 4,
        "classifier.describe": "", "pooled.seconds": 0.6, "pooled.learning_rate": 0.01, "pooled.imitation_weight": 0.01,
        "augment.gain": 0, "fin.pretrained": str(shipped("savedmodels") / "fin_conv" / "1"), "fin.family": "conv"}


def person(number: int, looks: list[tuple[int, int]], movements: int = 3) -> Subject:
    """Each held movement's samples say whose, which session, repetition and movement they are of."""
    held = [(session, repetition, movement) for session, repetition in looks for movement in range(1, movements + 1)]
    emg = np.repeat([[number, *one] for one in held], 70, axis=0).astype(np.float32)
    segments = [windows.Segment(70 * i, 70 * (i + 1), movement, repetition, session)
                for i, (session, repetition, movement) in enumerate(held)]
    cut = windows.starts(segments, LENGTH, STRIDE)
    return Subject(number, emg, cut, np.zeros(4), np.ones(4), np.zeros((1, 3), int))


def drawn(episodes: Episodes, held: bool) -> list:
    """(whose, look solved on, look decided, same) of many episodes."""
    found = []
    for i in range(200):
        one = episodes.draw(np.random.default_rng(i), held)
        assert one.solved.shape == one.decided.shape == (2, episodes.samples, 4)
        np.testing.assert_array_equal(one.solved[:, :, 3], one.decided[:, :, 3])  # the same movements, in order
        assert np.ptp(one.solved, axis=1).max() == 0 == np.ptp(one.decided, axis=1).max()  # no stretch over two
        assert len(set(one.solved[:, 0, 3])) == 2
        (first, second) = (tuple(int(v) for v in x[0, 0, 1:3]) for x in (one.solved, one.decided))
        assert {*one.solved[:, 0, 0]} == {*one.decided[:, 0, 0]} and one.same == (first[0] == second[0])
        found.append((int(one.solved[0, 0, 0]), first, second, one.same))
    return found


def test_the_last_repetition_of_each_session_is_held_out():
    looks = [(1, 1), (1, 2), (1, 3), (2, 4), (2, 5)]
    episodes = Episodes([person(1, looks), person(2, looks[3:])], LENGTH, STRIDE, 45, Pooled(movements=2, between=0.5))
    assert episodes.samples == 40 and episodes.windows == 3 and episodes.holds_out
    training, held = drawn(episodes, False), drawn(episodes, True)
    assert {one[0] for one in training} == {1, 2} and {one[0] for one in held} == {1}
    assert not any((1, 3) in one[1:3] for one in training) and all(one[2] == (1, 3) != one[1] for one in held)
    assert len({one[1:3] for one in training if one[0] == 1}) == 12  # every ordered pair of the other four
    assert 0.4 < np.mean([one[3] for one in training if one[0] == 1]) < 0.6


def test_where_sessions_have_two_repetitions_the_last_person_is_held_out():
    looks = [(1, 1), (1, 3)]
    episodes = Episodes([person(1, looks), person(2, looks), person(3, looks[:1])], LENGTH, STRIDE, 45,
                        Pooled(movements=2))
    assert {one[0] for one in drawn(episodes, False)} == {1} and {one[0] for one in drawn(episodes, True)} == {2}
    alone = Episodes([person(1, looks)], LENGTH, STRIDE, 45, Pooled(movements=2))
    assert not alone.holds_out and len({one[1] for one in drawn(alone, False)}) == 2
    for nothing in ([person(1, looks[:1])], [person(1, looks, 1)]):
        with pytest.raises(InputError, match="two training repetitions"):
            Episodes(nothing, LENGTH, STRIDE, 45, Pooled())


def test_gains_belong_to_a_session_and_an_electrode_is_lost_for_both():
    looks = [(1, 1), (1, 2), (2, 4), (2, 5)]
    episodes = Episodes([person(5, looks)], LENGTH, STRIDE, 45, Pooled(movements=2))
    kinds = set()
    for i in range(40):
        one = episodes.draw(np.random.default_rng(i))
        changed = augmented(one, Augment(gain=0.5, dropout=0.5), np.random.default_rng(99 + i))
        gains = [np.unique(x[..., 0] / 5) for x in (changed.solved, changed.decided)]
        lost = [bool((x[..., 0] == 0).all()) for x in (changed.solved, changed.decided)]
        assert lost[0] == lost[1] and changed.same == one.same
        if not lost[0]:
            assert len(gains[0]) == len(gains[1]) == 1 and (gains[0] == gains[1]).all() == one.same
        kinds.add((one.same, lost[0]))
    assert len(kinds) == 4
    same = augmented(one, Augment(), np.random.default_rng(0))
    np.testing.assert_array_equal(same.decided, one.decided)
    warped = augmented(one, Augment(warp=0.1, noise=0.1), np.random.default_rng(0))
    assert warped.solved.shape == one.solved.shape and 0.01 < np.std(warped.solved - one.solved) < 0.1


def test_the_solved_head_has_the_covariance_of_scikit_learn_and_its_gradient_is_right():
    from sklearn.covariance import ledoit_wolf

    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(3), [7, 9, 8])
    x = rng.standard_normal((24, 5)) @ rng.standard_normal((5, 5)) + rng.standard_normal((3, 5))[labels]
    other = rng.standard_normal((40, 5))
    within = x - np.stack([x[labels == k].mean(axis=0) for k in labels])
    covariance, share = ledoit_wolf(within, assume_centered=True)
    assert 0.01 < share < 0.99
    means = np.stack([x[labels == k].mean(axis=0) for k in range(3)])
    apart = other[:, None] - means  # (40, 3, 5)
    expected = -0.5 * np.einsum("nkd,de,nke->nk", apart, np.linalg.inv(covariance), apart)  # Gaussians', unscaled
    expected -= expected[:, :1]
    classes = tf.one_hot(labels, 3, dtype=tf.float64)

    def loss(x):
        weights, bias = solving.discriminant(x, classes)
        return tf.reduce_sum(tf.nn.softmax(other @ weights + bias)[:, 0]), other @ weights + bias

    with tf.GradientTape() as tape:
        tape.watch(tensor := tf.constant(x))
        value, found = loss(tensor)
    np.testing.assert_allclose(found - found[:, :1], expected, rtol=1e-3, atol=1e-3)  # a ridge of 1e-6 beside
    gradient, step = tape.gradient(value, tensor).numpy(), 1e-6
    for i, j in ((0, 0), (9, 3), (23, 4)):
        near = [float(loss(tf.constant(x + sign * step * np.outer(np.eye(24)[i], np.eye(5)[j])))[0])
                for sign in (1, -1)]
        assert gradient[i, j] == pytest.approx((near[0] - near[1]) / (2 * step), rel=1e-4, abs=1e-6)


def test_z_scores_are_of_the_session():
    rng = np.random.default_rng(0)
    x, other = rng.normal(3, 2, (50, 2)), rng.normal(-1, 5, (60, 2))
    one, same = solving.z_scored(tf.constant(x), tf.constant(other), tf.constant(True))
    np.testing.assert_allclose(one, (x - x.mean(0)) / x.std(0), rtol=1e-5)
    np.testing.assert_allclose(same, (other - x.mean(0)) / x.std(0), rtol=1e-5)
    _, apart = solving.z_scored(tf.constant(x), tf.constant(other), tf.constant(False))
    np.testing.assert_allclose(apart, (other - other.mean(0)) / other.std(0), rtol=1e-5)


def ended(data, folder) -> tuple[list[np.ndarray], dict]:
    told = run_stage(open_run(recipes.load("pooled", TINY | {"source.data": str(data)}), folder), "pooled")
    return presets.load(folder / "pooled").get_weights(), told


def copied(source, folder, change):
    """The recordings of a folder with other signals: `change(label, repetition, emg, name)`, labels (T,)."""
    for path in sorted(source.rglob("*.mat")):
        content = matfile.load(path, tuple(matfile.shapes(path)))
        label, repetition = content["restimulus"][:, 0], content["rerepetition"][:, 0]
        content["emg"] = change(label, repetition, content["emg"], path.name).astype(np.float32)
        matfile.save(folder / path.relative_to(source), content, "test")
    return folder


@pytest.fixture(scope="module")
def coloured(tiny_db2, tmp_path_factory):
    """People whose movements are equally loud, and differ by their spectra: features that FINs imitate tell little."""
    def change(label, repetition, emg, name):
        x = np.random.default_rng(len(name)).standard_normal((len(label) + 2, emg.shape[1]))
        kinds = x[1:-1], x[1:-1], (x[1:-1] - x[:-2]) / np.sqrt(2), (x[2:] + x[1:-1] + x[:-2]) / np.sqrt(3)
        return 1e-5 * np.choose(label[:, None], kinds)

    return copied(tiny_db2, tmp_path_factory.mktemp("coloured"), change)


@pytest.fixture(scope="module")
def whole(coloured, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pooled") / "run"
    return *ended(coloured, folder), folder


def test_the_held_out_loss_falls_and_imitation_is_told_before_and_after(whole):
    _, results, _ = whole
    told = results["pooled"]
    assert told["after"]["loss"] < 0.3 * told["before"]["loss"]  # 0.24 -> 0.000001 was seen
    assert told["after"]["accuracy"] > told["before"]["accuracy"]
    assert set(results["fin"]) == set(results["fin_before"]) == {"ENT", "RMS"}
    assert results["fin"] != results["fin_before"]


def test_killed_and_started_again_it_ends_the_same(whole, coloured, tmp_path, monkeypatch):
    step = pooled.Learner.step

    def dies(learner, number):
        if number == 17:
            raise KeyboardInterrupt
        return step(learner, number)

    with monkeypatch.context() as patch:
        patch.setattr(pooled.Learner, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            ended(coloured, tmp_path / "run")
    weights, results = ended(coloured, tmp_path / "run")
    assert all(np.array_equal(a, b) for a, b in zip(weights, whole[0], strict=True))
    assert results["pooled"] == whole[1]["pooled"] and results["fin"] == whole[1]["fin"]


def test_nothing_that_is_tested_steers_it(whole, coloured, tmp_path):
    """Test repetitions, and all of a person who is tested alone, are noise that carries the label."""
    def poisoned(label, repetition, emg, name):
        tested = np.isin(repetition, TEST) & (label > 0) | (name == "S2_E1_A1.mat")
        noise = 3e-5 * np.random.default_rng(0).standard_normal(emg.shape)
        return np.where(tested[:, None], noise + 5e-5 * (label[:, None] == 1 + np.arange(emg.shape[1])), emg)

    copied(coloured, tmp_path / "data", poisoned)
    weights, results = ended(tmp_path / "data", tmp_path / "run")
    assert all(np.array_equal(a, b) for a, b in zip(weights, whole[0], strict=True))
    assert results["pooled"] == whole[1]["pooled"]
    assert results["fin"]["ENT"]["r2"] != whole[1]["fin"]["ENT"]["r2"]  # it was read where it is only reported


def test_its_fins_start_other_runs_with_any_number_of_channels_and_are_exported(whole, tmp_path):
    weights, _, folder = whole
    bank = presets.new_bank(Fin(family="conv", pretrained=str(folder / "pooled")), ("ENT", "RMS"), 200, 7)
    assert bank.output_shape == (None, 7, 2)
    assert all(np.array_equal(a, b) for a, b in zip(bank.get_weights(), weights, strict=True))
    version = export(folder, to=tmp_path / "fin_pooled")
    assert all(np.array_equal(a, b) for a, b in zip(presets.load(version).get_weights(), weights, strict=True))


def test_what_labels_taught_its_fins_is_not_tested(whole, coloured, tmp_path):
    """A run that would is refused, as is a ladder where a person whom they know counts as new."""
    folder = whole[2] / "pooled"
    known = digests(readers.read(readers.find(coloured, (1,))[0]))
    taught = sorted(known[r] for r in (1, 3, 4, 6))
    assert read_json(folder / "model_card.json")["learnt_from"] == taught

    def opened(pipeline, name, **split):
        settings = {"source.kind": "recordings", "source.data": str(coloured), "window.length_ms": 100,
                    "features.names": "ENT,RMS", "fin.family": "conv", "fin.pretrained": str(folder)}
        return open_run(recipes.load(pipeline, settings | {f"split.{key}": value for key, value in split.items()}),
                        tmp_path / name)

    with pytest.raises(InputError, match="subject 1 that are tested here taught the FINs"):
        opened("best_fins", "refused", subjects=1, train_repetitions="1,2", test_repetitions="3,5")
    assert not (tmp_path / "refused").exists()
    other = opened("best_fins", "other", subjects="1,2", train_repetitions="1,3", test_repetitions="2,5")
    assert about(other.recipe, 2000.0, 200, 100, [1], np.zeros(1), np.ones(1))["learnt_from"] == taught
    assert "taught" in Evaluation(other).started
    ladder = opened("ladder", "ladder", subjects="1,2", train_repetitions="1,3", test_repetitions="2")
    with pytest.raises(InputError, match="subject 1, who is tested as a new person"):
        People(Evaluation(ladder))
