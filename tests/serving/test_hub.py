"""Models pushed to and pulled from a stand-in for the Hugging Face Hub; cards whose figures are computed anew."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hub_server import hub

import tfkfin
from tfkfin import calibrate, verify
from tfkfin import models as models
from tfkfin import recipe as recipes
from tfkfin.base.console import InputError
from tfkfin.base.files import shipped
from tfkfin.export import export
from tfkfin.fit.run import open_run
from tfkfin.fit.stages import run_stage
from tfkfin.store import card as cards
from tfkfin.store import presets
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
    opened = open_run(recipes.load("best", settings), tmp_path_factory.mktemp("runs") / "best")
    run_stage(opened, "finetune")
    return export(opened.folder, 1, tmp_path_factory.mktemp("models") / "mine")


def test_pushed_and_pulled_it_is_the_same_also_without_a_network(server, tmp_path, monkeypatch):
    own = presets.find("fin_conv")
    assert push(own, NAME).startswith("http")
    files = server.commits["somebody/fin-conv"][-1]
    assert files[presets.README].startswith(b'---\nlicense: "apache-2.0"\nlibrary_name: "tfkfin"\n')
    got = pull(NAME)
    assert presets.checksums(got) == presets.checksums(own)
    monkeypatch.chdir(tmp_path)
    models.main(["pull", NAME])
    mine = tmp_path / "savedmodels" / "fin-conv" / "1"
    assert presets.card(mine)["name"] == "fin-conv" and presets.changed(mine) == []
    here, there = (dict(presets.card(version)["sha256"]) for version in (mine, own))
    assert here.pop(presets.README) != there.pop(presets.README) and here == there  # it has another name
    assert (mine / "README.md").read_text("utf-8").startswith("# fin-conv, version 1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    count = len(server.asked)
    assert pull(NAME) == got and presets.find(NAME) == got and len(server.asked) == count
    with pytest.raises(InputError, match="hf://somebody/other"):
        pull("hf://somebody/other")


def test_a_decoder_from_the_hub_decodes(server, decoder, tiny_db2):
    emg = tfkfin.read(tiny_db2)[0].emg[:3000]
    push(decoder, "hf://somebody/mine")
    assert str(tiny_db2).encode() not in server.commits["somebody/mine"][-1][presets.CARD]  # nor any other path
    there = tfkfin.Decoder.from_preset("hf://somebody/mine")
    np.testing.assert_array_equal(there.predict(emg), tfkfin.Decoder.from_preset(decoder).predict(emg))


def test_a_new_push_is_a_new_revision_without_what_the_old_one_had_more(server):
    own = presets.find("fin_conv")
    push(own, NAME)
    server.commits["somebody/fin-conv"][-1]["model.onnx"] = b"of an earlier version"
    push(own, NAME)
    first, second = (server.sha("somebody/fin-conv", number) for number in (1, 2))
    assert pull(NAME).name == second and presets.changed(pull(NAME)) == []
    del server.commits["somebody/fin-conv"][1]["model.onnx"]
    assert pull(f"{NAME}@{first}").name == first


@pytest.mark.parametrize("harm", ["saved_model.pb", presets.CARD])
def test_what_was_changed_on_the_way_is_refused(server, harm):
    push(presets.find("fin_conv"), NAME)
    files = server.commits["somebody/fin-conv"][-1]
    if harm == presets.CARD:
        files[harm] = json.dumps({"kind": "fins"}).encode()
    else:
        files[harm] = files[harm][:-1] + b"x"
    with pytest.raises(InputError, match="without checksums" if harm == presets.CARD else f"not as it .*: {harm}"):
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


def figures(found) -> dict:
    return {one.key: one for one in found}


def test_a_shipped_card_says_what_its_fins_do(tmp_path, capsys):
    models.main(["verify", "fin_conv", "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())["figures"]
    assert len(found) == 13 and all(one["right"] for one in found)
    assert "13 of 13 figures were computed anew" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.name for path in presets.models(shipped("savedmodels"))])
def test_every_shipped_card_says_what_its_fins_do(name):
    assert all(one.right for one in verify.verified(name))


def test_a_decoders_card_says_what_it_does_on_its_recordings(decoder, tiny_db2, tmp_path, monkeypatch):
    found = figures(verify.verified(decoder))
    known = {"parameters", "dataset.windows", "dataset.movements", "scores.accuracy", "scores.execution",
             "scores.fin.ENT.r2", "channel 1 in sd.mean_v"}
    assert all(one.right is not False for one in found.values())
    assert known - {"channel 1 in sd.mean_v"} <= {key for key, one in found.items() if one.right}
    assert found["scores.accuracy_over_subjects.mean"].why and found["fin_scores.ENT.r2"].why
    other = tmp_path / "other"
    shutil.copytree(tiny_db2, other)
    shutil.copy(next(other.rglob("S2_*.mat")), next(other.rglob("S1_*.mat")))  # another person of the same name
    elsewhere = figures(verify.verified(decoder, other))
    assert "other recordings" in elsewhere["scores.accuracy"].why and elsewhere["parameters"].right
    card = presets.card(decoder)
    lied = tmp_path / "lied"
    shutil.copytree(decoder, lied)
    cards.write(lied, card | {"scores": card["scores"] | {"accuracy": card["scores"]["accuracy"] + 0.01}})
    with pytest.raises(InputError, match="1 of .* figures are not as the card says: scores.accuracy"):
        verify.show("lied", verify.verified(lied))
    (lied / "saved_model.pb").write_bytes(b"")
    with pytest.raises(InputError, match="not as it was exported: saved_model.pb"):
        verify.verified(lied)
    moved = tmp_path / "moved"
    shutil.copytree(decoder, moved)
    cards.write(moved, card | {"recipe": card["recipe"] | {"source": card["recipe"]["source"] | {"data": "gone"}}})
    lost = figures(verify.verified(moved))
    assert "--data" in lost["scores.accuracy"].why and lost["parameters"].right


@pytest.mark.slow
def test_a_calibrated_decoders_card_too(decoder, tiny_db2, tmp_path):
    model = tmp_path / "model"
    calibrate.main([str(decoder), "--data", str(tiny_db2), "--subject", "2", "--to", str(model)])
    assert "--data" in figures(verify.verified(model))["scores.accuracy"].why
    found = figures(verify.verified(model, tiny_db2))
    assert found["scores.accuracy"].right and found["scores.execution"].right and found["calibration.windows"].right
    assert found["calibration.before.accuracy"].why


@pytest.mark.slow
def test_a_decoder_fitted_from_python_has_nothing_to_compare(tiny_db2, tmp_path):
    version = tfkfin.Decoder.from_preset("best").fit(tfkfin.read(tiny_db2)[0]).export(tmp_path / "mine")
    found = figures(verify.verified(version))
    assert found["parameters"].right and "in memory" in found["dataset.windows"].why


def test_the_citation_is_of_this_version():
    import yaml

    cited = yaml.safe_load(Path("CITATION.cff").read_text("utf-8"))
    assert cited["version"] == tfkfin.__version__ and cited["license"] == cards.LICENCE
