import argparse
from pathlib import Path

import pytest

import tfkfin
from tfkfin import recipe
from tfkfin.base.errors import InputError
from tfkfin.recipe import Recipe

SHIPPED = sorted(Path("pipelines").glob("*.toml"))


def test_a_shipped_recipe_is_found_by_path_and_by_name_from_anywhere(tmp_path, monkeypatch):
    by_path = recipe.load("pipelines/demo.toml")
    monkeypatch.chdir(tmp_path)
    assert recipe.load("demo") == recipe.load("pipelines/demo.toml") == by_path
    assert by_path.source.kind == "synthetic"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_shipped_recipe_loads_and_survives_toml(path, tmp_path):
    first = recipe.load(path)
    copy = tmp_path / "copy.toml"
    copy.write_text(first.to_toml())
    assert recipe.load(copy) == first
    assert recipe.load(copy).digest == first.digest


@pytest.mark.parametrize(("name", "subjects", "pretrain", "pretrain_repetitions", "finetune"), [
    ("db2_within", range(1, 26), range(1, 26), (1, 3, 4), (6,)),
    ("db2_cross", range(26, 41), range(1, 26), (1, 3, 4), (1, 3, 4, 6)),
    ("db2_all", range(1, 41), range(1, 26), (1, 3, 4), (1, 3, 4, 6)),
])
def test_the_papers_splits(name, subjects, pretrain, pretrain_repetitions, finetune):
    split = recipe.load(name).split
    assert split.subjects == tuple(subjects)
    assert split.pretrain_subjects == tuple(pretrain)
    assert split.pretrain_repetitions == pretrain_repetitions
    assert split.finetune_repetitions == finetune
    assert split.train_repetitions == (1, 3, 4, 6)
    assert split.test_repetitions == (2, 5)


@pytest.mark.parametrize(("setting", "message"), [
    ("window.strid_ms=3", "unknown key 'window.strid_ms': did you mean 'window.stride_ms'"),
    ("windows.stride_ms=3", "did you mean 'window"),
    ("stride_ms=3", "did you mean 'window.stride_ms'"),
    ("window.length_ms=-1", "window.length_ms: .* greater than 0. Received: -1"),
    ("split.subjects=1-x", "not a list of numbers"),
    ("split.subjects=5-2", "not a list of numbers"),
    ("fin.family=lstm", "fin.family: there are bilstm, conv, dense. Received: 'lstm'"),
    ("seed.x=1", "seed: Input should be a valid integer"),
    ("nonsense", "--set takes key=value"),
])
def test_a_wrong_setting_is_one_clear_line(setting, message):
    with pytest.raises(InputError, match=message):
        recipe.load(None, dict([recipe.parse_setting(setting)]))


def test_a_test_repetition_never_trains():
    with pytest.raises(InputError, match=r"repetitions \[2\] are both in train_repetitions and in test"):
        recipe.load(None, {"split.train_repetitions": "1,2"})


def test_settings_are_read_as_users_write_them():
    text = ["split.train_repetitions=1,3", "split.test_repetitions=2", "split.subjects=1-3,7", "seed=5",
            "features.names=RMS,VAR", "fin.pretrained=", "window.stride_ms=50", "source.data=/some where/x"]
    got = recipe.load(None, dict(recipe.parse_setting(t) for t in text))
    assert got.split.train_repetitions == (1, 3)
    assert got.split.test_repetitions == (2,)
    assert got.split.subjects == (1, 2, 3, 7)
    assert (got.seed, got.features.names, got.fin.pretrained) == (5, ("RMS", "VAR"), "")
    assert (got.window.stride_ms, got.source.data) == (50, "/some where/x")


def test_digest_follows_options_and_not_places():
    base = Recipe()
    assert recipe.replaced(base, **{"source.data": "/elsewhere"}).digest == base.digest
    assert recipe.replaced(base, **{"window.stride_ms": 20}).digest != base.digest


def test_a_file_that_is_no_recipe(tmp_path):
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(InputError, match="is not a TOML recipe"):
        recipe.load(tmp_path / "bad.toml")
    with pytest.raises(InputError, match="no recipe 'demoo'; shipped are: .*demo"):
        recipe.load("demoo")


def test_recipes_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().seed = 3


@pytest.mark.parametrize("table, value", [
    ("source", {"data": "https://evil.example/x"}), ("source", {"data": "s3://a/b"}),
    ("source", {"data": "HTTP:/evil.example"}), ("fin", {"pretrained": "hf://a/b"})])
def test_no_recipe_of_a_stranger_chooses_a_host(table, value, tmp_path):
    """A command line may; so may the recipe of a run, which a command line has written."""
    from tfkfin.fit import run_folder

    (key, url), = value.items()
    path = tmp_path / "theirs.toml"
    path.write_text(f'[{table}]\n{key} = "{url}"\n')
    parser = argparse.ArgumentParser()
    run_folder.add_options(parser)
    with pytest.raises(InputError, match=f"theirs.toml: {table}.{key} names a host, .*--set {table}.{key}="):
        run_folder.resolve(parser.parse_args(["--pipeline", str(path)]))
    with pytest.raises(InputError, match="names a host"):
        tfkfin.Decoder.from_preset(path)
    found = run_folder.resolve(parser.parse_args(["--pipeline", str(path), "--set", f"{table}.{key}={url}"]))[0]
    assert getattr(getattr(found, table), key) == getattr(getattr(recipe.load(path), table), key) == url
    path.write_text('[source]\ndata = "C:/own/folder"\n')
    assert run_folder.resolve(parser.parse_args(["--pipeline", str(path)]))[0].source.data == "C:/own/folder"
