"""Models pushed to and pulled from a stand-in for the Hugging Face Hub; shipped cards say what their FINs do."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hub_server import hub

import tfkfin
from tfkfin import models as models
from tfkfin import recipe as recipes
from tfkfin.base.errors import InputError
from tfkfin.base.files import shipped
from tfkfin.export import export
from tfkfin.fit import metrics
from tfkfin.fit.run import Run, open_run
from tfkfin.fit.stages import imitate, run_stage
from tfkfin.store import card as cards
from tfkfin.store import folders, presets
from tfkfin.store.hub import named, pull, push

NAME = "hf://somebody/fin-conv"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The stand-in, asked instead of the Hub by a client with a cache and a token of its own."""
    import huggingface_hub.constants as constants

    with hub() as (held, url):
        monkeypatch.setenv("HF_ENDPOINT", url)
        monkeypatch.setenv("HF_TOKEN", "none")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_XET_CACHE", str(tmp_path / "xet"), raising=False)
        yield held


@pytest.fixture(scope="module")
def decoder(tiny_db2, tmp_path_factory):
    """A version folder of subject 1's decoder of a small run, made for `tiny_db2`."""
    settings = {"source.kind": "recordings", "source.data": str(tiny_db2), "window.length_ms": 100,
                "window.stride_ms": 40, "fin.family": "conv", "split.subjects": "1", "classifier.vote": 2}
    opened = open_run(recipes.load("best_fins", settings), tmp_path_factory.mktemp("runs") / "best")
    run_stage(opened, "finetune")
    return export(opened.folder, 1, tmp_path_factory.mktemp("models") / "mine")


def test_pushed_and_pulled_it_is_the_same_also_without_a_network(server, tmp_path, monkeypatch):
    own = presets.find("fin_conv")
    assert push(own, NAME).startswith("http")
    files = server.commits["somebody/fin-conv"][-1]
    assert files[folders.README].startswith(b'---\nlicense: "apache-2.0"\nlibrary_name: "tfkfin"\n')
    got = pull(NAME)
    assert folders.checksums(got) == folders.checksums(own)
    monkeypatch.chdir(tmp_path)
    models.main(["pull", NAME])
    mine = tmp_path / "savedmodels" / "fin-conv" / "1"
    assert folders.card(mine)["name"] == "fin-conv" and folders.changed(mine) == []
    here, there = (dict(folders.card(version)["sha256"]) for version in (mine, own))
    assert here.pop(folders.README) != there.pop(folders.README) and here == there  # it has another name
    assert (mine / "README.md").read_text("utf-8").startswith("# fin-conv, version 1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    count = len(server.asked)
    assert pull(NAME) == got and presets.find(NAME) == got and len(server.asked) == count
    with pytest.raises(InputError, match="hf://somebody/other"):
        pull("hf://somebody/other")


def test_a_decoder_from_the_hub_decodes(server, decoder, tiny_db2):
    emg = tfkfin.read(tiny_db2)[0].emg[:3000]
    push(decoder, "hf://somebody/mine")
    assert str(tiny_db2).encode() not in server.commits["somebody/mine"][-1][folders.CARD]  # nor any other path
    there = tfkfin.Decoder.from_preset("hf://somebody/mine")
    np.testing.assert_array_equal(there.predict(emg), tfkfin.Decoder.from_preset(decoder).predict(emg))


def test_a_new_push_is_a_new_revision_without_what_the_old_one_had_more(server):
    own = presets.find("fin_conv")
    push(own, NAME)
    server.commits["somebody/fin-conv"][-1]["model.onnx"] = b"of an earlier version"
    push(own, NAME)
    first, second = (server.sha("somebody/fin-conv", number) for number in (1, 2))
    assert pull(NAME).name == second and folders.changed(pull(NAME)) == []
    del server.commits["somebody/fin-conv"][1]["model.onnx"]
    assert pull(f"{NAME}@{first}").name == first


@pytest.mark.parametrize("harm", ["saved_model.pb", folders.CARD])
def test_what_was_changed_on_the_way_is_refused(server, harm):
    push(presets.find("fin_conv"), NAME)
    files = server.commits["somebody/fin-conv"][-1]
    if harm == folders.CARD:
        files[harm] = json.dumps({"kind": "fins"}).encode()
    else:
        files[harm] = files[harm][:-1] + b"x"
    with pytest.raises(InputError, match="without checksums" if harm == folders.CARD else f"not as it .*: {harm}"):
        pull(NAME)


def test_what_is_unfit_is_said_before_anything_is_sent(server, tmp_path):
    own = tmp_path / "changed"
    shutil.copytree(presets.find("fin_conv"), own)
    (own / "more").write_text("more")
    for version, name, said in ((own, NAME, "not as it was exported: more"), (own, "hf://nobody", "hf://user/name"),
                                (presets.find("fin_conv"), f"{NAME}@v1", "names none")):
        with pytest.raises(InputError, match=said):
            push(version, name)
    assert not server.asked
    assert named("hf://a/b@v1.0") == ("a/b", "v1.0")
    server.commits["somebody/else"] = [{"weights.bin": b"1"}]
    with pytest.raises(InputError, match="no model of tfkfin"):
        pull("hf://somebody/else")


@pytest.mark.parametrize("name", [
    pytest.param(path.name, marks=() if path.name == "fin_conv" else pytest.mark.slow)
    for path in folders.models(shipped("savedmodels"))])
def test_every_shipped_card_says_what_its_fins_do(name, tmp_path):
    version = presets.find(name)
    card = folders.card(version)
    bank = presets.load(version)
    assert bank.count_params() == card["parameters"]
    if "kinds" not in card["scores"]:
        pytest.skip("scored on the signals of an earlier version of tfkfin, which are made no more")
    run = Run(tmp_path, recipes.Recipe.model_validate(card["recipe"]))
    emg, true = imitate.sample(run, "test", run.recipe.imitate.test_windows)
    found = metrics.imitation(true, np.asarray(bank(emg)), tuple(card["features"]))
    for feature, scores in card["scores"]["fin"].items():
        for key, limit in {"r2": 0.002, "paper_r2": 0.005, "paper_map": 0.5}.items():  # machines round otherwise
            assert found[feature][key] == pytest.approx(scores[key], abs=limit)


def test_what_verified_cards_is_named():
    with pytest.raises(InputError, match="models verify was removed.*evaluate"):
        models.main(["verify", "fin_conv"])


def test_the_citation_is_of_this_version():
    import yaml

    cited = yaml.safe_load(Path("CITATION.cff").read_text("utf-8"))
    assert cited["version"] == tfkfin.__version__ and cited["license"] == cards.LICENCE
