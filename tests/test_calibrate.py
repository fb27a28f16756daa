"""`python -m tfkfin.calibrate`: a decoder goes on to recordings that it has not seen, and nothing else moves it."""

import json
import shutil

import numpy as np
import pytest

import tfkfin
from tfkfin import calibrate
from tfkfin import recipe as recipes
from tfkfin.base.errors import InputError
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.fit import run_folder
from tfkfin.fit.calibration import calibrate as calibrated
from tfkfin.fit.calibration import files_of
from tfkfin.fit.run import open_run
from tfkfin.fit.scoring import windows_of
from tfkfin.fit.stages import run_stage
from tfkfin.recordings import matfile, readers

SETTINGS = {"source.kind": "recordings", "window.length_ms": 100, "window.stride_ms": 40, "split.subjects": "1",
            "fin.family": "dense", "fin.pretrained": "", "split.train_repetitions": "1,3,4,6",
            "split.test_repetitions": "2,5", "classifier.vote": 2}


@pytest.fixture(scope="module")
def trained(tiny_db2, tmp_path_factory):
    """A run of subject 1 with the recipe `best_fins`."""
    recipe = recipes.load("best_fins", SETTINGS | {"source.data": str(tiny_db2)})
    opened = open_run(recipe, tmp_path_factory.mktemp("runs") / "best")
    run_stage(opened, "finetune")
    return opened.folder


def weights(version) -> list[np.ndarray]:
    return BaseDecoder.load(version).model.get_weights()


def command(*words) -> None:
    calibrate.main([str(word) for word in words])


def test_another_person_is_decoded_after_one_repetition(trained, tiny_db2, tmp_path):
    model, said = tmp_path / "models" / "mine", tmp_path / "said.json"
    command(trained, "--data", tiny_db2, "--subject", 2, "--to", model, "--json", said)
    scores = json.loads(said.read_text())
    assert scores["after"]["accuracy"] > max(0.45, scores["before"]["accuracy"] + 0.1)  # a third is chance
    card = json.loads((model / "1" / "model_card.json").read_text())
    assert card["calibration"]["repetitions"] == [1] and card["scores"]["accuracy"] == scores["after"]["accuracy"]
    assert "subject 2" in card["limits"][0] and not any("subject 1 " in line for line in card["limits"])
    first = weights(model / "1")
    command(model, "--data", tiny_db2, "--subject", 2, "--unlabelled")
    command(model / "2", "--data", tiny_db2, "--subject", 2)  # what lies between leaves no trace
    limits = json.loads((model / "3" / "model_card.json").read_text())["limits"]
    assert limits == card["limits"]  # nor in what is said of it
    assert sorted(path.name for path in model.iterdir() if path.is_dir()) == ["1", "2", "3"]
    assert all(np.array_equal(a, b) for a, b in zip(first, weights(model / "3"), strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, weights(model / "2"), strict=True))


@pytest.mark.slow
def test_several_people_are_done_as_one_after_another(trained, tiny_db2, tmp_path):
    command(trained, "--data", tiny_db2, "--subjects", "1,2", "--to", tmp_path / "all", "--set", "launch.memory_gb=1")
    for person in (1, 2):
        command(trained, "--data", tiny_db2, "--subject", person, "--to", tmp_path / f"s{person}", "--json",
                tmp_path / f"s{person}.json")
        one, many = (json.loads((folder / f"s{person}.json").read_text()) for folder in (tmp_path, tmp_path / "all"))
        assert one["after"]["accuracy"] == many["after"]["accuracy"] and one["subject"] == many["subject"] == person
    before = (tmp_path / "all" / "s1.json").stat().st_mtime_ns
    command(trained, "--data", tiny_db2, "--subjects", "1,2", "--to", tmp_path / "all")
    assert (tmp_path / "all" / "s1.json").stat().st_mtime_ns == before and not (tmp_path / "all" / "s1" / "2").exists()
    with pytest.raises(InputError, match="--subjects wants --to DIR"):
        command(trained, "--data", tiny_db2, "--subjects", "1,2")


def test_other_repetitions_steer_nothing(trained, tiny_db2, tmp_path):
    """Noise in place of every repetition but the first: the same weights, and scores at chance."""
    folder = tmp_path / "noise"
    folder.mkdir()
    for path in tiny_db2.rglob("S2_*.mat"):
        content = matfile.load(path, tuple(matfile.shapes(path)))
        others = np.ravel(content["rerepetition"]) > 1
        emg = content["emg"] = np.array(content["emg"])
        emg[others] = np.random.default_rng(0).normal(0, emg.std(), emg[others].shape)
        matfile.save(folder / path.name, content, "noise")
    kept = []
    for data in (tiny_db2, folder):
        source, card, _ = run_folder.find_decoder(trained)
        subject = windows_of(card, map(readers.read, files_of(data, card, 2)))
        new, report = calibrated(BaseDecoder(card, BaseDecoder.load(source).model), subject, (1,))
        kept.append((new.model.get_weights(), report["after"]["accuracy"]))
    (clean, right), (noise, wrong) = kept
    assert all(np.array_equal(a, b) for a, b in zip(clean, noise, strict=True))
    assert right > 0.45 > wrong


@pytest.mark.parametrize("words", [(), ("--unlabelled",)])
def test_what_it_does_to_movements_that_it_was_not_shown_is_told(trained, tiny_db2, tmp_path, words):
    """Recall counted here from each decoder's own decisions; the version before stays as it was."""
    model, said = tmp_path / "mine", tmp_path / "said.json"
    command(trained, "--data", tiny_db2, "--subject", 2, "--to", model)
    kept = {path: path.read_bytes() for path in (model / "1").rglob("*") if path.is_file()}
    command(model, "--data", tiny_db2, "--subject", 2, "--movements", "1,3", "--json", said, *words)
    scores, card = json.loads(said.read_text()), json.loads((model / "2" / "model_card.json").read_text())
    assert {path: path.read_bytes() for path in kept} == kept
    for version, when in (("1", "before"), ("2", "after")):
        decoder = BaseDecoder.load(model / version)
        subject = windows_of(decoder.card, map(readers.read, files_of(tiny_db2, decoder.card, 2)))
        subject, stretches, own = subject.with_context(decoder.decision.memory, decoder.stride)
        there, right, rest = subject.windows.movements, {}, own & (subject.windows.repetitions > 1)
        found = decoder.over(subject.emg, subject.windows.starts)["probabilities"]
        for rows in stretches:
            labels, _ = decoder.decision(found[rows], decoder.movements)
            for true, label in zip(there[rows][rest[rows]].tolist(), labels[rest[rows]].tolist(), strict=True):
                right.setdefault(true, []).append(true == label)
        assert scores[when]["recall_seen"] == pytest.approx((np.mean(right[1]) + np.mean(right[3])) / 2, abs=1e-3)
        assert scores[when]["recall_unseen"] == pytest.approx(np.mean(right[2]), abs=1e-3)
    told = f"{100 * scores['before']['recall_unseen']:.1f} % of their windows"
    assert any(told in line for line in card["limits"]) and card["calibration"]["movements"] == [1, 3]
    assert card["calibration"]["after"]["recall_unseen"] == scores["after"]["recall_unseen"]
    command(model, "--data", tiny_db2, "--subject", 2)  # all movements again: nothing of this is left in what is said
    assert not any(told in line for line in json.loads((model / "3" / "model_card.json").read_text())["limits"])


@pytest.mark.parametrize("words, said", [
    (("--subject", 2, "--movements", "9"), "no movement 9 in repetitions 1, but 1-3"),
    (("--subject", 2, "--repetitions", 9), "no movement in repetitions 9"),
    (("--subject", 2, "--from-subject", 7), "has no fine-tuned model of subject 7"),
    (("--subject", 9), "9"),
])
def test_what_is_unfit_is_said_and_leaves_nothing(trained, tiny_db2, tmp_path, words, said):
    with pytest.raises(InputError, match=said):
        command(trained, "--data", tiny_db2, "--to", tmp_path / "model", *words)
    assert not (tmp_path / "model").exists()


def test_among_many_it_is_for_the_decoders_own_person(trained, tiny_db2):
    card = run_folder.find_decoder(trained)[1]
    assert {file.subject for file in files_of(tiny_db2, card)} == {1}
    with pytest.raises(InputError, match="choose one with --subject"):
        files_of(tiny_db2, card | {"subject": 7})


def test_a_decoder_that_remembers_nothing_says_what_to_do(trained, tiny_db2, tmp_path):
    other = tmp_path / "S1"
    shutil.copytree(trained / "finetune" / "S1", other)
    decoder = BaseDecoder.load(other)
    inputs = decoder.inputs(np.random.default_rng(0).normal(size=(2000, 4)), np.array([0]))
    with pytest.raises(InputError, match="movements .* none that the decoder knows"):
        decoder.calibrated(inputs, np.array([77]))
    decoder.card["head"] = "linear"
    with pytest.raises(InputError, match="classifier.kind=gaussian"):
        decoder.calibrated(inputs)


def test_a_decoder_inside_a_run_folder_is_calibrated_from_python(trained, tiny_db2):
    decoder = tfkfin.Decoder.from_preset(trained / "finetune" / "S1")
    new = decoder.calibrate(tfkfin.read(tiny_db2)[1])
    limits = new.card["limits"]
    assert limits[0].startswith("Made for subject 2") and not any("subject 1" in line for line in limits)
    assert any(line.startswith("Trained on synthetic recordings") for line in limits)
