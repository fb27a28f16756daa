"""Old names of modules: importing one gives the module that took its place, with a DeprecationWarning."""

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from types import ModuleType

HOMES = {
    **{name: f"base.{name}" for name in ("answers", "bounded", "console", "files", "machine", "registry")},
    "filtering": "signal.filtering", "recordings.resampling": "signal.resampling",
    **{f"models.{name}": f"nets.{name}" for name in (
        "layers", "fins", "heads", "descriptions", "bilstm", "streaming", "saving")},
    "models.live": "nets.one_stride",
    **{f"models.{name}": f"decoder.{name}" for name in ("decision", "decoder")},
    "models.presets": "store.presets", "models.hub": "store.hub",
    "serving.card": "store.card", "serving.layout": "store.folders", "store.layout": "store.folders",
    **{f"serving.client.{name}": "serving.client" for name in ("base", "rest", "rpc")},
}


class Moved(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules by their old names, and modules inside packages that have moved."""

    def find_spec(self, fullname, path=None, target=None):
        return importlib.machinery.ModuleSpec(fullname, self) if _home(fullname) else None

    def create_module(self, spec) -> ModuleType:
        home = _home(spec.name)
        warnings.warn(f"{spec.name} is {home} now", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(home)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has set one of the old name


def _home(fullname: str) -> str | None:
    package, _, name = fullname.partition(".")
    return next((f"tfkfin.{new}{name[len(old):]}" for old, new in HOMES.items()
                 if package == "tfkfin" and f"{name}.".startswith(f"{old}.")), None)


def install() -> None:
    if not any(isinstance(finder, Moved) for finder in sys.meta_path):
        sys.meta_path.insert(0, Moved())  # before the finder that would load a moved package's files a second time
