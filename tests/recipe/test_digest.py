"""Digests: a run folder belongs to one, so that they stay what they were; options that were removed."""

import json
import shutil
from pathlib import Path

import pytest

from tfkfin import recipe as recipes
from tfkfin.base.errors import InputError
from tfkfin.fit.run import open_run
from tfkfin.recipe import Recipe, removed
from tfkfin.recipe.options import Fin, Section

# The shipped recipes of version 0.1.0 and their digests by its code: its run folders are found by these.
OLD = json.loads(Path(__file__).with_name("recipes_0_1_0.json").read_text("utf-8"))
ASKED = [  # over the default recipe
    ({"filter.notch_hz": 50}, "3695dbf20776"),
    ({"pooled.episodes": 3}, "6a9f39456ad7"),
    ({"split.train_sessions": "1", "split.test_sessions": "2"}, "09c827069834"),
    ({"fin.units": 8}, "5156410a6476"),
    ({"source.exercise": "1,2"}, "8a14da811aa2"),
    ({"source.data": "x", "launch.workers": 3}, "a198cfb5491f"),
]


class Further(Section):
    """A table that no recipe has."""

    depth: int = 3


class WiderFin(Fin):
    gates: int = 1


class Later(Recipe):
    """The recipe of a later version: an option more in a table, one at the top, and a table of options."""

    fin: WiderFin = WiderFin()
    wind: str = "none"
    further: Further = Further()


@pytest.mark.parametrize("name", OLD)
def test_digests_are_what_they_were(name):
    assert recipes.load(settings=OLD[name]["options"]).digest == OLD[name]["digest"]


@pytest.mark.parametrize(("asked", "digest"), ASKED)
def test_digests_of_other_values_too(asked, digest):
    assert recipes.load(None, asked).digest == digest


def test_a_further_option_at_its_default_changes_no_digest():
    for path in sorted(Path("pipelines").glob("*.toml")):
        shipped = recipes.load(path)
        assert Later.model_validate(shipped.model_dump(mode="json")).digest == shipped.digest
    digests = {Later.model_validate(asked).digest for asked in (
        {}, {"fin": {"gates": 2}}, {"fin": {"gates": 3}}, {"wind": "strong"}, {"further": {"depth": 4}})}
    assert len(digests) == 5 and Recipe().digest in digests


@pytest.mark.parametrize("key", removed.OPTIONS)
def test_a_removed_option_at_its_old_default_is_accepted(key, tmp_path):
    default, _ = removed.OPTIONS[key]
    assert recipes.load("demo", {key: default}) == recipes.load("demo")
    table, name = key.split(".")
    open_run(recipes.load("demo"), tmp_path / "run")
    noted = tmp_path / "run" / "recipe.toml"
    text, value = noted.read_text("utf-8"), {False: "false", "": '""'}[default]
    noted.write_text(text.replace(f"[{table}]\n", f"[{table}]\n{name} = {value}\n"), "utf-8")
    assert noted.read_text("utf-8") != text and recipes.load(noted).digest == recipes.load("demo").digest
    assert open_run(recipes.load("demo"), tmp_path / "run").recipe == recipes.load(noted)


@pytest.mark.parametrize("key", removed.OPTIONS)
def test_a_removed_option_with_another_value_says_what_to_use(key, tmp_path):
    default, instead = removed.OPTIONS[key]
    other = True if default is False else "x"
    with pytest.raises(InputError) as said:
        recipes.load("best_fins", {key: other})
    assert str(said.value) == f"--set: {key} was removed: {instead}"
    table, name = key.split(".")
    file = tmp_path / "own.toml"
    file.write_text(f"[{table}]\n{name} = {str(other).lower() if other is True else repr(other)}\n")
    with pytest.raises(InputError, match=f"own.toml: {key} was removed: "):
        recipes.load(file, {"seed": 3})


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in removed.VALUES.items() for value in values])
def test_a_removed_value_says_what_to_use(key, value):
    for given in ([value], f"other, {value}"):
        with pytest.raises(InputError, match=f"--set: {key}={value} was removed: use "):
            recipes.load("best_fins", {key: given})


@pytest.mark.parametrize("name", removed.RECIPES)
def test_a_removed_recipe_says_what_to_use(name, tmp_path):
    for given in (name, f"pipelines/{name}.toml"):
        with pytest.raises(InputError, match=f"the recipe {name} was removed: "):
            recipes.load(given)
    own = tmp_path / f"{name}.toml"
    shutil.copy(Path("pipelines/demo.toml"), own)
    assert recipes.load(own) == recipes.load("demo")
    with pytest.raises(InputError, match="no recipe"):
        recipes.load(tmp_path / "other" / f"{name}.toml")


def test_what_is_no_recipe_stays_a_clear_error():
    for given in (3, {"fin": 3}, {"fin": {"shared": [1]}}, {"features": {"names": {"COR": 1}}},
                  {"features": {"names": 7}}):
        with pytest.raises(ValueError):
            Recipe.model_validate(given)
