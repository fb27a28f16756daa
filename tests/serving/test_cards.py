"""Cards that were sealed well and lie: one line with the file and the field, whoever reads them."""

import json
import shutil
from pathlib import Path

import pytest

from tfkfin import models
from tfkfin.base.console import run
from tfkfin.base.errors import InputError
from tfkfin.base.files import shipped
from tfkfin.decoder.decoder import BaseDecoder
from tfkfin.serving.engines import Exported
from tfkfin.store import card, folders, hub, presets, schema

GOLDEN = Path(__file__).parent / "golden" / "decoder" / "1"
FILTER = {"high_pass_hz": 20.0, "low_pass_hz": 0.0, "order": 2, "notch_hz": 50.0, "notches": 1, "notch_q": 30.0}
LIES = {
    "names": [["fist"], "fist", 3, {"1": 7}, {"1": ["a"]}, {"one": "fist"}, None, {"1": "x" * 200_000}],
    "rate_hz": ["2000", None, [2000.0], 0, -1.0, 1e300, 1e7, True, {}],
    "filter": [FILTER | {"order": 10**7}, FILTER | {"notches": 10**9}, FILTER | {"notch_q": 0.0},
               FILTER | {"notch_q": 1e9},
               FILTER | {"high_pass_hz": 1e9}, FILTER | {"low_pass_hz": "20"}, FILTER | {"more": 1}, "none", [1],
               FILTER | {"high_pass_hz": -1.0}],
    "scores": [None, [], "good", {"fin": None}, {"fin": {"RMS": 1.0}}, {"accuracy": "0.9"}, {"accuracy": 7.0}],
    "decision": [None, {"vote": 0}, {"vote": 10**9}, {"vote": "1"}, {"reject": 1.0}, {"reject": -1}, [1, 0.0]],
    "movements": [[], None, [1, 1, 2], ["1", "2", "5"], [1, 2.5, 5], {"1": 1}, [10**30, 2, 5], list(range(20_000))],
    "length": [0, -1, 1.5, "100", 10**30, None], "stride": [0, True, "1", 10**9], "channels": [0, 10**9, 3, "4"],
    "mean_v": [None, "0", [0.0], ["0"] * 4, [1e300] * 4], "sd_v": [[0.0] * 4, [-1.0] * 4, [1.0] * 3, None, [None] * 4],
    "features": ["RMS", None, [1], {"RMS": 1}], "limits": [None, "none", [1]],
    "parameters": ["many", -1, 1e9, None], "summary": [None, 3, ["a"], {}], "score": [7], "input": [None],
    "kind": [3, None],
    "head": [None, []], "family": [3, None], "recipe": [None, "best", []], "dataset": [7, {}, {"subjects": 3}, "db2"],
    "recorded_hz": ["2000", [0.0], None, [1e300]], "calibration": [None, []], "updated": [-1, "2"],
    "precision": [16],
}
CASES = [(field, lie) for field, lies in LIES.items() for lie in lies]


def lying(folder: Path, field: str, lie, source: Path = GOLDEN) -> Path:
    about = json.loads((source / folders.CARD).read_text()) | {field: lie}
    about = {key: value for key, value in about.items() if value != "MISSING"}
    folder.mkdir(parents=True)
    (folder / folders.CARD).write_text(json.dumps(folders.sealed(about)))
    (folder / folders.SAVED_MODEL).write_bytes(b"")
    return folder


@pytest.mark.parametrize("field, lie", CASES, ids=[f"{field}{i}" for i, (field, _) in enumerate(CASES)])
def test_the_file_and_the_field_are_named(field, lie, tmp_path):
    version = lying(tmp_path / "m" / "1", field, lie)
    for reader in (folders.card, folders.verify, folders.changed, folders.decoder_card):
        with pytest.raises(InputError) as told:
            reader(version)
        assert str(version / folders.CARD) in str(told.value) and field in str(told.value)
        assert len(str(told.value)) < len(str(version)) + 400 and "\n" not in str(told.value)


@pytest.mark.parametrize("field", schema.DECODING)
def test_what_a_decoder_needs_has_to_be_there(field, tmp_path):
    with pytest.raises(InputError, match=f"model_card.json is unfit: {field}: it is missing"):
        folders.card(lying(tmp_path / "m" / "1", field, "MISSING"))


@pytest.mark.parametrize("line", ["list {0}", "show {0}/m/1", "push {0}/m/1 hf://a/b"])
def test_commands_end_with_one_line(line, tmp_path, capsys):
    version = lying(tmp_path / "m" / "1", "names", ["fist"])
    shutil.copyfile(GOLDEN / folders.README, version / folders.README)
    with pytest.raises(SystemExit) as ended:
        run(models.main, line.format(tmp_path).split())
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.count("\n") == 1 and "names" in err and folders.CARD in err


@pytest.mark.parametrize("opened", [Exported, BaseDecoder.load, presets.load])
def test_nothing_is_loaded_by_such_a_card(opened, tmp_path):
    version = lying(tmp_path / "m" / "1", "filter", FILTER | {"order": 10**7})
    (version / "assets.extra").mkdir()
    for name in ("decoder.keras", "fins.keras"):
        (version / "assets.extra" / name).write_bytes(b"never read")
    with pytest.raises(InputError, match="filter"):
        opened(version)


def test_a_card_that_is_pulled_and_not_whole_is_one_line(tmp_path, monkeypatch):
    version = lying(tmp_path / "m" / "1", "limits", "MISSING")
    monkeypatch.setattr(hub, "pull", lambda name: version)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is not whole|not a whole copy"):
        models.pull("hf://a/b", None)
    assert not list(Path("savedmodels").glob("*/*/*"))


def test_cards_that_are_true_stay_as_they_are():
    for version in (GOLDEN, GOLDEN.with_name("2"), *(shipped("savedmodels") / f"fin_{f}" / "1" for f in (
            "conv", "dense", "bilstm"))):
        about = json.loads((version / folders.CARD).read_text())
        assert folders.card(version) == about
        assert card.readme(about).count("\n## ") == 3
