"""Packages that are imported when they are needed: those of the extras, and TensorFlow."""

import importlib
from types import ModuleType

from tfkfin.base.console import quiet_start
from tfkfin.base.errors import InputError


def required(package: str, extra: str = "live", needs: str = "") -> ModuleType:
    """A package of an extra, imported; `needs` says what needs it.

    Raises:
        InputError: it is not installed.
    """
    try:
        module = importlib.import_module(package)
        if package == "pylsl" and hasattr(module, "set_config_content"):  # its library logs that it starts
            module.set_config_content("[log]\nlevel = -2\n")
        return module
    except (ImportError, RuntimeError) as error:  # RuntimeError: the library that pylsl needs is missing
        raise InputError(f"{needs or f'this needs {package} ({error})'}: pip install 'tfkfin[{extra}]'") from None


def load_tensorflow() -> None:
    """Loads TensorFlow, quietly; libraries that it loads late are loaded too."""
    with quiet_start():
        import tensorflow as tf

        tf.zeros(1)
