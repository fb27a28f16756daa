"""An exported decoder in this process, on the fastest engine that there is: volts in, movements out.

    decode = Exported("savedmodels/demo_s1")
    decode(emg)["label"]

savedmodel   the exported graph, as TF Serving runs it
native       the same weights in the Keras model, its Bi-LSTM compiled (`tfkfin.nets.bilstm.native`)
xla          the same in one XLA computation; FINs without recurrence only (see `_xla`)
onnx         model.onnx in ONNX Runtime, and stream.onnx for stretches
litert       model.tflite in LiteRT, one window after the other

All answer the same to 1e-5. Which is the fastest depends on the machine and on the FINs' family, so "auto" measures it.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tfkfin.base.console import InputError, log
from tfkfin.decoder.decision import Answers
from tfkfin.decoder.decoder import BATCH, BaseDecoder
from tfkfin.store import presets

ENGINES = ("native", "xla", "onnx", "litert", "savedmodel")
AGREE = 1e-4  # probabilities of two engines that differ by more are not of one model
TRIALS = 9  # timed calls an engine, one window each


class Exported(BaseDecoder):
    """A decoder from a model folder, answered by one of the engines; called and streamed as any `Decoder`.

    Args:
        model: a model folder (its newest version), a version folder, or the name of one in
            ./savedmodels.
        engine: "auto" times every engine that is there on a few windows and keeps the fastest; or one of `ENGINES`.

    Attributes:
        engine: the one that answers.
        milliseconds: engine -> median of one window's time, as measured here; empty unless "auto".

    Raises:
        InputError: no such model, FINs alone, an unknown engine, or one that cannot be had, and why.
    """

    def __init__(self, model: str | Path, engine: str = "auto"):
        if engine not in ("auto", *ENGINES):
            raise InputError(f"`engine` must be one of {('auto', *ENGINES)}. Received: engine={engine!r}")
        self.version = presets.find(model)
        card = presets.card(self.version)
        if card.get("kind") != "decoder":
            raise InputError(f"{self.version} holds {card.get('kind', 'something else')}, no decoder: "
                             "export a run of the stage finetune")
        presets.verify(self.version)
        super().__init__(card)
        self.milliseconds: dict[str, float] = {}
        if engine == "auto":
            self.engine, self._answer = self._fastest()
        else:
            self.engine, self._answer = engine, _LOADERS[engine](self.version, self.card)
        in_one = self.engine == "onnx" and (self.version / presets.ONNX_STREAM).is_file()
        in_one &= "filter" not in card  # which would begin anew in each piece of a stretch
        self._stream = _session(self.version / presets.ONNX_STREAM) if in_one else None

    def session(self, stride: int = 0, smooth: bool = True):
        raise InputError("an exported graph cannot adapt online: tfkfin.Decoder.from_preset of its folder can")

    def stream(self, emg: np.ndarray, stride: int = 0, *, adapt: bool = False) -> Answers:
        """As `Decoder.stream`; where the engine has a graph of its own for stretches, that decides."""
        emg = np.ascontiguousarray(emg, np.float32)
        if adapt or self._stream is None or stride not in (0, self.stride) or emg.shape[1:] != (self.channels,) \
                or len(emg) < self.length or not np.isfinite(emg).all():
            return super().stream(emg, stride, adapt=adapt)  # which also says what is unfit
        count, memory, parts = (len(emg) - self.length) // self.stride + 1, self.decision.memory, []
        for first in range(0, count, BATCH):  # memory is bounded; windows before have their say in the first decisions
            lead, last = min(memory, first), min(first + BATCH, count) - 1
            piece = emg[(first - lead) * self.stride : last * self.stride + self.length]
            parts.append({name: value[0, lead:] for name, value in self._stream(piece[None]).items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _fastest(self) -> tuple[str, Callable[[np.ndarray], Answers]]:
        there = {}
        for name in ENGINES:
            try:
                there[name] = _LOADERS[name](self.version, self.card)
            except InputError as error:
                log.debug("%s: %s", name, error)
        windows = noise(self, TRIALS)
        there = _agreeing(there, windows[:1])
        if not there:
            raise InputError(f"{self.version} has no engine here: install tensorflow, or onnxruntime for ONNX")
        spent = {name: [] for name in there}
        for window in windows:  # in turn, so that a busy machine disturbs all alike
            for name, answer in there.items():
                began = time.perf_counter()
                answer(window[None])
                spent[name].append(1e3 * (time.perf_counter() - began))
        self.milliseconds = {name: statistics.median(times) for name, times in spent.items()}
        best = min(there, key=self.milliseconds.get)
        log.debug("engine %s: %s", best, ", ".join(f"{n} {ms:.2f} ms" for n, ms in self.milliseconds.items()))
        return best, there[best]


def noise(decoder: BaseDecoder, count: int) -> np.ndarray:
    """Windows (count, L, C) of noise as large as the signal that the decoder was made for."""
    unit = np.random.default_rng(0).standard_normal((count, decoder.length, decoder.channels))
    return (np.asarray(decoder.card["mean_v"]) + np.asarray(decoder.card["sd_v"]) * unit).astype(np.float32)


def _agreeing(there: dict[str, Callable], windows: np.ndarray) -> dict[str, Callable]:
    """The engines that answer as the exported file does; each has then been called, so that none is timed cold."""
    answers = {name: answer(windows)["probabilities"] for name, answer in there.items()}
    file = next(name for name in ("savedmodel", "onnx", "litert", *answers) if name in answers)
    apart = {name: np.abs(answer - answers[file]).max() for name, answer in answers.items()}
    for name, difference in apart.items():
        if not difference <= AGREE:
            log.warning("warning: engine %s differs from %s by %.1e and is not used", name, file, difference)
    return {name: answer for name, answer in there.items() if apart[name] <= AGREE}


def _savedmodel(version: Path, card: dict) -> Callable[[np.ndarray], Answers]:
    import tensorflow as tf

    _needs_savedmodel(version)
    loaded = tf.saved_model.load(str(version))  # lives as long as the lambda, and must while a signature is called
    return lambda emg: _arrays(loaded.signatures["serving_default"](emg=tf.constant(emg)))


def _onnx(version: Path, card: dict) -> Callable[[np.ndarray], Answers]:
    if not (version / presets.ONNX).is_file():
        raise InputError(f"{version} has no {presets.ONNX}: python -m tfkfin.export --format both writes it")
    return _session(version / presets.ONNX)


def _litert(version: Path, card: dict) -> Callable[[np.ndarray], Answers]:
    if not (version / presets.LITERT).is_file():
        raise InputError(f"{version} has no {presets.LITERT}: python -m tfkfin.export --format litert writes it")
    from tfkfin.serving import litert_file

    return litert_file.session(version / presets.LITERT)


def _session(path: Path) -> Callable[[np.ndarray], Answers]:
    try:
        import onnxruntime
    except ImportError:
        raise InputError("the engine onnx needs onnxruntime: pip install 'tfkfin[edge]'") from None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda emg: dict(zip(names, session.run(None, {"emg": emg}), strict=True))


def _native(version: Path, card: dict) -> Callable[[np.ndarray], Answers]:
    from tfkfin.nets.bilstm import native

    if card["family"] == "bilstm":
        try:
            native.load()
        except native.NativeUnavailable as error:
            raise InputError(f"there is no engine native here: {error}") from None
    return _keras(version, card, "native", jit=False)


def _xla(version: Path, card: dict) -> Callable[[np.ndarray], Answers]:
    if card["family"] == "bilstm":
        # 600 steps compile for many seconds, anew for every batch size, and then take several times as long as native
        raise InputError("the engine xla is for FINs without recurrence, not for a Bi-LSTM's loop")
    answer = _keras(version, card, "keras", jit=True)

    def padded(emg: np.ndarray) -> Answers:  # every batch size is compiled for itself, so few are used
        rows = 1 << (len(emg) - 1).bit_length()
        filled = np.concatenate([emg, np.zeros((rows - len(emg), *emg.shape[1:]), np.float32)])
        return {name: value[: len(emg)] for name, value in answer(filled).items()}

    return padded


def _keras(version: Path, card: dict, engine: str, jit: bool) -> Callable[[np.ndarray], Answers]:
    """The Keras model of a version as a function, traced with a Bi-LSTM engine."""
    import tensorflow as tf

    from tfkfin.nets.bilstm import layer as recurrent

    _needs_savedmodel(version)
    model = BaseDecoder.load(version).model

    @tf.function(jit_compile=jit, autograph=False,
                 input_signature=[tf.TensorSpec((None, card["length"], card["channels"]), tf.float32)])
    def run(emg):
        with recurrent.engine(engine):
            return model(emg, training=False)

    return lambda emg: _arrays(run(tf.constant(emg)))


def _arrays(tensors: dict) -> Answers:
    return {name: value.numpy() for name, value in tensors.items()}


def _needs_savedmodel(version: Path) -> None:
    if not (version / presets.SAVED_MODEL).is_file():
        held = "ONNX" if (version / presets.ONNX).is_file() else "LiteRT"
        raise InputError(f"{version} holds {held} alone: python -m tfkfin.export --format both adds the SavedModel")


_LOADERS = {"native": _native, "xla": _xla, "onnx": _onnx, "litert": _litert,
            "savedmodel": _savedmodel}
