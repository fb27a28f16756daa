"""Feature imitation networks for surface EMG in TensorFlow and Keras 3.

    import tfkfin

    recording = tfkfin.read("DB2_s1/S1_E1_A1.mat")
    decoder = tfkfin.Decoder.from_preset("best").fit(recording)
    decoder.predict(recording.emg[:4000])          # one movement a stride
    decoder.save("mine")

`read`, `Decoder`, `FINFeatures` and `FINClassifier` are loaded when they are first asked for.
"""

import importlib
import sys

__version__ = "0.1.0"

_HOMES = {"read": "api", "Decoder": "api", "FINFeatures": "scikit", "FINClassifier": "scikit"}

__all__ = ["Decoder", "FINClassifier", "FINFeatures", "__version__", "read"]  # noqa: F822  loaded when asked for


def _say_interrupted(kind: type, error: BaseException, trace: object) -> None:
    """In place of a traceback while a command still loads; `console.run` speaks later."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("interrupted: nothing has been done yet\n")
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[:1] == ["-m"]:  # as python -m tfkfin... begins
    sys.excepthook = _say_interrupted


importlib.import_module("tfkfin.base.moved").install()  # old names of modules go on working


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"tfkfin.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
