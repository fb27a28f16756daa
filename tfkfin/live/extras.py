"""Packages of the extra `live`, imported when they are needed."""

import importlib
from types import ModuleType

from tfkfin.base.errors import InputError


def required(package: str) -> ModuleType:
    """A package of the extra `live`, imported.

    Raises:
        InputError: it is not installed.
    """
    try:
        module = importlib.import_module(package)
        if package == "pylsl" and hasattr(module, "set_config_content"):  # its library logs that it starts
            module.set_config_content("[log]\nlevel = -2\n")
        return module
    except (ImportError, RuntimeError) as error:  # RuntimeError: the library that pylsl needs is missing
        raise InputError(f"this needs {package} ({error}): pip install 'tfkfin[live]'") from None
