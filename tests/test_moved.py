"""Names that the reference listed before the package was parted anew import from their old places, with a warning."""

import importlib
import sys

import pytest

from tfkfin.base import moved

NAMES = {  # docs/api.md of the version before
    "models.presets": "find card load new_bank changed", "models.fins": "Family fin bank fins_of",
    "models.heads": "Head kind new", "models.decision": "Decision", "models.live": "Live", "models.hub": "pull push",
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("module", "name"), [
    (module, name) for module, names in NAMES.items() for name in names.split()])
def test_an_old_name_is_the_new_one(module, name):
    old = getattr(importlib.import_module(f"tfkfin.{module}"), name)
    assert old is getattr(importlib.import_module(old.__module__), name)  # the same object, not a second copy
    assert not old.__module__.startswith("tfkfin.models")


@pytest.mark.parametrize("old", sorted(moved.HOMES))
def test_every_old_module_warns_and_is_the_new_one(old):
    for name in [name for name in sys.modules if name.startswith(f"tfkfin.{old}")]:
        del sys.modules[name]
    with pytest.warns(DeprecationWarning, match=f"tfkfin.{old} is tfkfin.{moved.HOMES[old]} now"):
        module = importlib.import_module(f"tfkfin.{old}")
    assert module is sys.modules[f"tfkfin.{moved.HOMES[old]}"]
    assert module.__spec__.name == module.__name__ == f"tfkfin.{moved.HOMES[old]}"
