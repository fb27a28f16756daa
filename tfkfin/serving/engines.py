"""An exported decoder in this process, on the fastest engine that is available: volts in, movements out.

    decode = Exported("savedmodels/demo_s1")
    decode(emg)["label"]

savedmodel   the exported graph, as TF Serving runs it
native       the same weights in the Keras model, its Bi-LSTM computed by a C kernel (`tfkfin.nets.bilstm.native`)
xla          the same in one XLA computation; only for FINs without recurrence (see `_xla`)
onnx         model.onnx in ONNX Runtime, and stream.onnx for longer signals
litert       model.tflite in LiteRT, one window after the other

Their answers agree to 1e-5. Which engine is the fastest depends on the machine and the family of the FINs, so "auto"
measures it.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from tfkfin.base import machine
from tfkfin.base.console import log
from tfkfin.base.errors import InputError, refused_as
from tfkfin.base.extras import required
from tfkfin.decoder.decision import Answers
from tfkfin.decoder.decoder import BATCH, BaseDecoder
from tfkfin.store import folders, presets

ENGINES = ("native", "xla", "onnx", "litert", "savedmodel")
AGREE = 1e-4  # engines whose probabilities differ by more do not compute the same model
TRIALS = 9  # timed calls of each engine, one window each


class Exported(BaseDecoder):
    """A decoder from a model folder, computed by one of the engines; it is called and streams as any `Decoder`.

    Args:
        model: a model folder (its newest version), a version folder, or the name of a model in ./savedmodels.
        engine: one of `ENGINES`, or "auto", which times every available engine on a few windows and takes the fastest.

    Attributes:
        engine: the engine in use.
        milliseconds: engine -> median time of one window, as measured here; empty unless "auto".

    Raises:
        InputError: no such model, a model of FINs alone, an unknown engine, or one that is not available, and why.
    """

    def __init__(self, model: str | Path, engine: str = "auto"):
        if engine not in ("auto", *ENGINES):
            raise InputError(f"`engine` must be one of {('auto', *ENGINES)}. Received: engine={engine!r}")
        self.version = presets.find(model)
        card = folders.decoder_card(self.version)
        folders.verify(self.version)
        super().__init__(card)
        self.milliseconds: dict[str, float] = {}
        if engine == "auto":
            self.engine, self._answer = self._fastest()
        else:
            self.engine, self._answer = engine, _LOADERS[engine](self.version, self.card)
        # The pieces of a long signal are answered one by one, and a filter would start anew in each.
        one_graph = self.engine == "onnx" and (self.version / folders.ONNX_STREAM).is_file() and "filter" not in card
        self._stream = _onnx_session(self.version / folders.ONNX_STREAM) if one_graph else None

    def session(self, stride: int = 0, smooth: bool = True):
        raise InputError("an exported graph cannot adapt online: tfkfin.Decoder.from_preset of its folder can")

    def stream(self, emg: np.ndarray, stride: int = 0, *, adapt: bool = False) -> Answers:
        """As `Decoder.stream`. Where the engine has a graph for whole signals, that graph decides."""
        machine.one_process()
        emg = np.ascontiguousarray(emg, np.float32)
        if adapt or self._stream is None or stride not in (0, self.stride) or emg.shape[1:] != (self.channels,) \
                or len(emg) < self.length or not np.isfinite(emg).all():
            return super().stream(emg, stride, adapt=adapt)  # which also raises the errors
        count, memory, parts = (len(emg) - self.length) // self.stride + 1, self.decision.memory, []
        for first in range(0, count, BATCH):  # memory stays bounded; the first votes of a piece need windows before it
            lead, last = min(memory, first), min(first + BATCH, count) - 1
            piece = emg[(first - lead) * self.stride : last * self.stride + self.length]
            parts.append({name: value[0, lead:] for name, value in self._stream(piece[None]).items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _fastest(self) -> tuple[str, Callable[[np.ndarray], Answers]]:
        available = {}
        for name in ENGINES:
            with suppress(InputError):
                available[name] = _LOADERS[name](self.version, self.card)
        windows = noise(self, TRIALS)
        available = _agreeing(available, windows[:1]) if available else {}
        if not available:
            raise InputError(f"{self.version} has no engine here: install tensorflow, or onnxruntime for ONNX")
        spent = {name: [] for name in available}
        for window in windows:  # engines take turns, so that a busy machine slows all of them alike
            for name, answer in available.items():
                start = time.perf_counter()
                answer(window[None])
                spent[name].append(1e3 * (time.perf_counter() - start))
        self.milliseconds = {name: statistics.median(times) for name, times in spent.items()}
        best = min(available, key=self.milliseconds.get)
        return best, available[best]


def noise(decoder: BaseDecoder, count: int) -> np.ndarray:
    """Windows (count, L, C) of noise with the mean and sd that the decoder standardises signals by."""
    unit = np.random.default_rng(0).standard_normal((count, decoder.length, decoder.channels))
    return (np.asarray(decoder.card["mean_v"]) + np.asarray(decoder.card["sd_v"]) * unit).astype(np.float32)


def _agreeing(available: dict[str, Callable], windows: np.ndarray) -> dict[str, Callable]:
    """The engines that answer as the exported file does. Each has then been called once, so none is timed cold."""
    answers = {name: answer(windows)["probabilities"] for name, answer in available.items()}
    file = next(name for name in ("savedmodel", "onnx", "litert", *answers) if name in answers)
    differences = {name: np.abs(answer - answers[file]).max() for name, answer in answers.items()}
    for name, difference in differences.items():
        if not difference <= AGREE:
            log.warning("warning: engine %s differs from %s by %.1e and is not used", name, file, difference)
    return {name: answer for name, answer in available.items() if differences[name] <= AGREE}


def _savedmodel(version: Path, card: dict) -> Callable[[np.ndarray], Answers]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(_with_savedmodel(version)))  # a signature needs it, so the lambda keeps it alive
    return lambda emg: _arrays(loaded.signatures["serving_default"](emg=tf.constant(emg)))


def _onnx(version: Path, card: dict) -> Callable[[np.ndarray], Answers]:
    return _onnx_session(_file(version, folders.ONNX, "both"))


def _litert(version: Path, card: dict) -> Callable[[np.ndarray], Answers]:
    path = _file(version, folders.LITERT, "litert")
    interpreter = required("ai_edge_litert.interpreter", "edge", "the engine litert needs ai-edge-litert")
    run = interpreter.Interpreter(model_path=str(path)).get_signature_runner("serving_default")

    def answer(emg: np.ndarray) -> Answers:
        each = [{name: value.copy() for name, value in run(emg=window[None]).items()} for window in emg]
        return {name: np.concatenate([one[name] for one in each]) for name in each[0]}

    return answer


def _file(version: Path, name: str, format: str) -> Path:
    if not (version / name).is_file():
        raise InputError(f"{version} has no {name}: python -m tfkfin.export --format {format} writes it")
    return version / name


def _onnx_session(path: Path) -> Callable[[np.ndarray], Answers]:
    onnxruntime = required("onnxruntime", "edge", "the engine onnx needs onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda emg: dict(zip(names, session.run(None, {"emg": emg}), strict=True))


def _native(version: Path, card: dict) -> Callable[[np.ndarray], Answers]:
    from tfkfin.nets.bilstm import native

    if card["family"] == "bilstm":
        with refused_as("the engine native is not available here", native.NativeUnavailable):
            native.load()
    return _keras(version, card, "native", jit=False)


def _xla(version: Path, card: dict) -> Callable[[np.ndarray], Answers]:
    if card["family"] == "bilstm":
        # 600 steps take many seconds to compile, for every batch size again, and then run several times slower than
        # native.
        raise InputError("the engine xla is for FINs without recurrence, not for a Bi-LSTM's loop")
    answer = _keras(version, card, "keras", jit=True)

    def padded(emg: np.ndarray) -> Answers:  # XLA compiles every batch size separately, so only powers of 2 are used
        rows = 1 << (len(emg) - 1).bit_length()
        filled = np.concatenate([emg, np.zeros((rows - len(emg), *emg.shape[1:]), np.float32)])
        return {name: value[: len(emg)] for name, value in answer(filled).items()}

    return padded


def _keras(version: Path, card: dict, engine: str, jit: bool) -> Callable[[np.ndarray], Answers]:
    """The Keras model of a version as a function, traced with an engine for the Bi-LSTM."""
    import tensorflow as tf

    from tfkfin.nets.bilstm import layer as recurrent

    model = BaseDecoder.load(_with_savedmodel(version)).model

    @tf.function(jit_compile=jit, autograph=False,
                 input_signature=[tf.TensorSpec((None, card["length"], card["channels"]), tf.float32)])
    def run(emg):
        with recurrent.engine(engine):
            return model(emg, training=False)

    return lambda emg: _arrays(run(tf.constant(emg)))


def _arrays(tensors: dict) -> Answers:
    return {name: value.numpy() for name, value in tensors.items()}


def _with_savedmodel(version: Path) -> Path:
    """The version folder, if it holds a SavedModel, and so the Keras model too."""
    if not (version / folders.SAVED_MODEL).is_file():
        held = "ONNX" if (version / folders.ONNX).is_file() else "LiteRT"
        raise InputError(f"{version} holds {held} alone: python -m tfkfin.export --format both adds the SavedModel")
    return version


_LOADERS = {"native": _native, "xla": _xla, "onnx": _onnx, "litert": _litert, "savedmodel": _savedmodel}
