"""tfkfin from Python: recordings in memory, and decoders that are fitted, used, calibrated, saved and exported."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np
from numpy.typing import ArrayLike

from tfkfin import recipe as recipes
from tfkfin.base import axes
from tfkfin.base.console import format_numbers, parse_numbers
from tfkfin.base.errors import InputError, Missing
from tfkfin.base.files import shipped
from tfkfin.base.samples import checked
from tfkfin.decoder import decoder
from tfkfin.decoder.decision import Answers
from tfkfin.decoder.session import AdaptiveSession
from tfkfin.fit import calibration, scoring
from tfkfin.pipeline import windows
from tfkfin.recordings import readers, sheet
from tfkfin.recordings.recording import LARGEST_V, OWN_UNIT_HZ, Recording, RecordingFile, Recordings, count_repetitions
from tfkfin.signal import resampling
from tfkfin.store import presets

Unit = Literal["V", "mV", "uV"]
Data = Recording | Sequence[Recording] | ArrayLike
Samples = Recording | Recordings | ArrayLike
LOUDER, FAINTER = 100.0, 1 / 500  # times the fitted amplitude: muscles do not reach so far, wrong units do


def read(path: str | Path) -> Recordings:
    """The recordings of a folder, in order of subject and session, or the one of a file.

    Args:
        path: a file of a format that `tfkfin.recordings.readers` knows, or a folder or URL of such files.

    Returns:
        A list of recordings: `emg` (T, C) float32 volts, `labels` (T,) with 0 for rest, `repetitions` (T,), `rate_hz`,
        as in the file. A list of one may be used as the recording itself.

    Raises:
        InputError: no such file, or not of these formats.
    """
    if Path(path).is_file():
        found = [file for file in readers.find(Path(path).parent) if any(part.samefile(path) for part in file.signals)]
        if not found:
            raise InputError(f"{path} has no name by which a reader finds recordings: give the folder that it lies in")
        return Recordings([readers.read(found[0])])
    return Recordings(readers.read(file) for file in readers.find(path))


class Decoder(decoder.BaseDecoder):
    """Volts in, movements out: made by `from_preset`, fitted to recordings, used window by window or as a stream.

    `predict`, `stream`, `update` and `session` take recordings, or samples at any rate. `decoder(windows)` takes
    windows (B, L, C) at the decoder's own rate, `card["rate_hz"]`, and answers with "probabilities" (B, G), "label"
    (B,) and the imitated "features" (B, C, F). See `tfkfin.decoder.decoder` for attributes.
    """

    recipe: recipes.Recipe | None = None  # None once it is fitted
    _warned = False  # whether it has warned that its card lacks the rate of its recordings

    @classmethod
    def from_preset(cls, name: str | Path, **settings: Any) -> Self:
        """A decoder by name.

        Args:
            name: a recipe, such as "best", or a TOML file of one, to be fitted; or a folder that `save` or an export
                made, the name of a model in ./savedmodels, or hf://user/name on the Hugging Face Hub, which is fitted
                already.
            settings: options of the recipe and their values, as `--set` takes them: by their name, `length_ms=200`,
                or, where several options have it, with their table: `classifier__batch_size=64`.

        Raises:
            InputError: none of these, an unknown key or an unfit value, or settings of a decoder that is fitted.
        """
        ours = (shipped("pipelines") / f"{name}.toml").is_file() and not Path(name).is_dir()
        if ours or Path(name).suffix == ".toml":
            new = cls.__new__(cls)
            new.recipe = recipes.load(str(name), {_key(option): value for option, value in settings.items()}, own=False)
            return new
        if settings:
            raise InputError(f"{name} is no recipe, and a decoder that is fitted has its settings. Received: "
                             f"{', '.join(settings)}")
        return cls.load(Path(name) if (Path(name) / decoder.FILE).is_file() else presets.find(name))

    def __getattr__(self, name: str) -> Any:
        if name in ("card", "model", "length", "channels", "stride", "movements", "decision"):
            raise Missing("this decoder is not fitted yet: fit it first")
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def __repr__(self) -> str:
        if self.recipe is not None:
            return (f"<tfkfin.Decoder: recipe {self.recipe.digest}, head {self.recipe.classifier.kind}, "
                    f"{_fins(self.recipe.features.names)}, not fitted>")
        get, numbers = self.card.get, format_numbers(self.movements.tolist())
        movements = ", ".join(map(str, self.named(self.movements))) if get("names") else numbers
        return (f"<tfkfin.Decoder: recipe {get('recipe_digest')}, head {get('head')}, {self.channels} channels, "
                f"{get('rate_hz', 0):g} Hz, movements {movements}, {_fins(get('features', ()))}>")

    def fit(self, data: Data, labels: ArrayLike | None = None, groups: ArrayLike | None = None,
            rate_hz: float = 0.0, unit: Unit = "V") -> Self:
        """Fits the recipe to every window inside one movement of what it is given.

        Solved heads (gaussian, linear) are solved in closed form, with each session of each person as a session of its
        own. The head `conv` is trained by gradients: on true features, by `classify.epochs` x ceil(N /
        `classify.batch_size`) updates for N windows, then FINs and head end to end, by `finetune.epochs` x ceil(M /
        `finetune.batch_size`) updates, where M is `finetune.windows_per_epoch`, but N if that is fewer or it is 0. All
        random numbers follow from the recipe's `seed`. FINs start from the weights that `fin.pretrained` names; the
        stage `imitate` is not run.

        Args:
            data: recordings of one person or of several, or a signal (T, C). Volts are standardised by all movements.
            labels: with a signal: the movement of each sample (T,), 0 for rest.
            groups: with a signal: the repetition of each sample (T,); by default executions are counted.
            rate_hz: of the signal; the recipe's `window.rate_hz`, where it has one, is what it is resampled to.
            unit: of the signal.

        Returns:
            This decoder.

        Raises:
            InputError: fewer than two movements, recordings of unlike channels, or a signal that is not in its unit.
        """
        if self.recipe is None:
            raise InputError("this decoder is fitted already: calibrate it, or fit one from a recipe such as "
                             "Decoder.from_preset(\"best\")")
        from tfkfin.fit import trainers

        recordings = _recordings(data, labels, groups, rate_hz, unit)
        decoder.BaseDecoder.__init__(self, *trainers.fit(self.recipe, recordings))
        self.recipe = None
        return self

    def predict(self, emg: Samples, rate_hz: float = 0.0, unit: Unit = "V") -> np.ndarray:
        """Movements as in the files: (B,) of windows (B, L, C), or, causally, one a stride of a signal (T, C).

        Args:
            emg: a `Recording`, which brings its own rate and unit; or a signal (T, C); or windows (B, L, C), where L is
                `card["length_ms"]` at `rate_hz`. What is at another rate than the decoder's is resampled, without
                a delay: live, decisions come 10 samples of the lower rate later.
            rate_hz: of a signal or windows; 0: the one rate of the recordings that the decoder was fitted on
                (`card["recorded_hz"]`).
            unit: of a signal or windows.

        Raises:
            InputError: another shape, NaN, Inf or what no amplifier gives, amplitudes that show another unit, or no
                `rate_hz` where the decoder was fitted on recordings at several rates.
        """
        samples = self._samples(emg, rate_hz, unit)
        return self.warned(super().stream(samples) if samples.ndim == 2 else self(samples))["label"]

    def stream(self, emg: Samples, stride: int = 0, rate_hz: float = 0.0, unit: Unit = "V",
               *, adapt: bool = False) -> Answers:
        """As `predict` of a signal (T, C), with "probabilities" (W, G) and "features" (W, C, F) beside "label" (W,).

        Window w covers [w stride, w stride + L) at the decoder's rate, across a recording's seams too.

        Args:
            stride: samples at the decoder's rate between decisions; 0: the decoder's own.
            emg, rate_hz, unit: as of `predict`.
            adapt: online adaptation without labels; the decoder itself does not change. `session` continues it.

        Raises:
            InputError: as of `predict`, or a signal that is shorter than one window.
        """
        if adapt:
            return self.session(stride).stream(emg, rate_hz, unit)
        return self.warned(super().stream(self._samples(emg, rate_hz, unit), stride))

    def session(self, stride: int = 0, smooth: bool = True) -> "OnlineSession":
        """Begins a session with online adaptation, or continues the one that this decoder was calibrated for.

        Args:
            stride: samples at the decoder's rate between windows; 0: the decoder's own.
            smooth: False decides each window by itself; the adaptation is the same.

        Raises:
            InputError: the decoder's head keeps nothing of sessions.
        """
        return OnlineSession(self, stride, smooth=smooth)

    def calibrate(self, data: Data, labels: ArrayLike | None = None, groups: ArrayLike | None = None,
                  rate_hz: float = 0.0, unit: Unit = "V", *, labelled: bool = True,
                  repetitions: int | str | Iterable[int] | None = 1,
                  movements: int | str | Iterable[int] | None = None) -> Self:
        """A new decoder, calibrated for a session or a person, as `python -m tfkfin.calibrate` makes it.

        `card["calibration"]` of the new decoder has the scores `before` and `after` on the other repetitions. A head
        that keeps session statistics (gaussian) is calibrated in closed form. A head that is trained by gradients
        (conv) is trained further, on the FINs as they are, by `classify.epochs` x ceil(N / `classify.batch_size`)
        updates for N windows.

        Args:
            data, labels, groups, rate_hz, unit: as of `fit`, of one person; another rate than the decoder's is
                resampled.
            labelled: False uses where movements are and not which they are.
            repetitions: calibrated on: a number, numbers, or text such as "1,3"; None: all, so that none is left to
                score.
            movements: calibrated on, likewise; None: all that are there. The recall of the others is scored too.

        Raises:
            InputError: a head that can be calibrated neither way (linear), or not without labels (conv), other
                channels, no such repetition, a movement that is none of the decoder's, or a signal that is not in its
                unit.
        """
        recordings = _recordings(data, labels, groups, rate_hz, unit)
        if len(people := {one.subject for one in recordings}) > 1:
            raise InputError(f"`data` must be of one person. Received: subjects {sorted(people)}")
        subject = scoring.windows_of(self.card, recordings, labelled=labelled)
        chosen, among = (() if numbers is None else _numbers(numbers) for numbers in (repetitions, movements))
        self._check_amplitude(subject.emg)
        return calibration.calibrate(self, subject, chosen, labelled=labelled, movements=among)[0]

    def score(self, data: Data, labels: ArrayLike | None = None, rate_hz: float = 0.0, unit: Unit = "V") -> float:
        """Accuracy of decisions, from 0 to 1: the share of windows that are decided right.

        Args:
            data: recordings or a signal (T, C), whose windows inside one movement are decided in order of time, as
                `tfkfin.evaluate` does; of several people the mean. Repetitions that it was calibrated on do not count,
                unless there are no others. Or windows (B, L, C), decided one by one.
            labels: with a signal (T,), with windows (B,); `rate_hz` and `unit` as of `predict`.

        Raises:
            InputError: as of `predict`, or labels that do not fit.
        """
        if not _are_recordings(data):
            data, rate_hz = _array("data", data), self._rate_of_samples(rate_hz)
            if data.ndim == 3:
                decided, true = self.predict(data, rate_hz, unit), np.asarray(labels)
                if decided.shape != true.shape:
                    raise InputError(f"`labels` must be ({len(decided)},). Received: shape {true.shape}")
                return float(np.mean(decided == true))
        people: dict[int, list[Recording]] = {}
        for one in _recordings(data, labels, None, rate_hz, unit):
            people.setdefault(one.subject, []).append(one)
        return float(np.mean([self._accuracy(recordings, unit) for recordings in people.values()]))

    def _accuracy(self, recordings: list[Recording], unit: Unit) -> float:
        subject, where = scoring.windows_of(self.card, recordings), str(recordings[0].path)
        scoring.check(self.card, subject, where, "decoder")
        if not len(subject.windows):
            raise InputError(f"{where} has no window inside one movement")
        self._check_amplitude(subject.emg, unit)
        case = scoring.Case(self, scoring.unlearnt(self.card, subject)[0], self.stride, False)
        return float(scoring.judged(case)[0]["accuracy"])

    def update(self, emg: Samples, labels: ArrayLike | None = None, rate_hz: float = 0.0, unit: Unit = "V") -> Self:
        """Adds labelled windows to the session, in place: the same as a calibration on all of its windows so far.

        The head is solved in closed form, with its statistics of earlier sessions; windows of the last calibration
        count too. `card["updated"]` counts windows; the scores in the card are from before. `revert` undoes all
        updates.

        Args:
            emg: windows (B, L, C), or a recording or signal (T, C), of which the windows at the decoder's stride are
                meant.
            labels: movements of the windows (B,), as in the files, or one of them all; None: those of a recording, of
                which the windows inside one movement are meant.
            rate_hz, unit: as of `predict`.

        Raises:
            InputError: as of `predict`, samples without labels, a movement that is none of the decoder's, or its head
                keeps nothing of sessions.
        """
        samples = self._samples(emg, rate_hz, unit)
        if labels is not None:
            return super().update(samples, np.asarray(labels))
        emg = emg.only() if isinstance(emg, Recordings) else emg
        if not isinstance(emg, Recording):
            raise InputError("`labels` must be given with samples; a recording has its own")
        subject = scoring.windows_of(self.card, [emg])
        super().update(subject.volts(self.length), subject.windows.movements)
        self.card = self.card | {"learnt_from": scoring.taught(self.card, subject)}
        return self

    def export(self, to: str | Path, format: Literal["savedmodel", "onnx", "both"] = "savedmodel") -> Path:
        """Writes a new version into a model folder, as `python -m tfkfin.export` does; returns the version folder."""
        from tfkfin.serving import version

        return version.publish(self.card, self.model, Path(to), format)

    def _samples(self, emg: Samples, rate_hz: float, unit: Unit) -> np.ndarray:
        """A signal (T, C) or windows (B, L, C), float32 volts at the decoder's rate."""
        emg = emg.only() if isinstance(emg, Recordings) else emg
        if isinstance(emg, Recording):
            if rate_hz not in (0, emg.rate_hz) or unit != "V":
                raise InputError(f"a recording has its own rate, {emg.rate_hz:g} Hz, and is in volts: leave `rate_hz` "
                                 f"and `unit` out. Received: rate_hz={rate_hz:g}, unit={unit!r}")
            _check_axes(emg)
            samples, rate = emg.emg, emg.rate_hz
        else:
            samples, rate = _volts(emg, unit), self._rate_of_samples(rate_hz)
        checked(samples)
        if samples.ndim == 2:
            axes.signal("emg", samples.shape, self.channels)
        self._check_amplitude(samples, unit)
        wanted = self.card["rate_hz"]
        if samples.ndim == 2:
            return resampling.signal_at_rate(samples, rate, wanted)
        if samples.ndim != 3 or rate == wanted:
            return samples
        length = windows.samples(self.card.get("length_ms", 1000 * self.length / wanted), rate)
        axes.windows("emg", samples.shape, length, self.channels, f" at {rate:g} Hz")
        return resampling.windows_at_rate(samples, rate, wanted, self.length)

    def _rate_of_samples(self, rate_hz: float) -> float:
        """The rate in Hz of samples that are given with this `rate_hz`."""
        if rate_hz:
            if not 0 < rate_hz < np.inf:
                raise InputError(f"`rate_hz` must be samples a second. Received: rate_hz={rate_hz:g}")
            return float(rate_hz)
        recorded = self.card.get("recorded_hz", ())
        if len(recorded) > 1:
            raise InputError(f"`rate_hz` must be given with samples: this decoder was fitted on recordings at "
                             f"{', '.join(f'{rate:g}' for rate in recorded)} Hz")
        if not recorded and not self._warned:
            self._warned = True
            warnings.warn(f"this decoder's card does not say at which rate its recordings were made: samples without "
                          f"`rate_hz` are taken to be at {self.card['rate_hz']:g} Hz", stacklevel=4)
        return float(recorded[0] if recorded else self.card["rate_hz"])

    def _check_amplitude(self, emg: np.ndarray, unit: Unit = "V") -> None:
        """Raises InputError if a signal or windows (..., C) cannot be in the unit of the fitted recordings."""
        if emg.shape[-1:] == (self.channels,) and emg.size and np.isfinite(emg).all():
            mean, sd = (np.asarray(self.card[name]) for name in ("mean_v", "sd_v"))
            ratio = np.median(np.sqrt(np.mean(((emg - mean) / sd).reshape(-1, self.channels) ** 2, axis=0)))
            if ratio > LOUDER or 0 < np.median(np.abs(emg)) and ratio < FAINTER:
                raise InputError(f"`emg` is {ratio:.2g} times as loud as what the decoder was fitted to: it is not in "
                                 f"{unit}, or the recordings were not (give unit=\"V\", \"mV\" or \"uV\")")


class OnlineSession(AdaptiveSession):
    """A session with online adaptation, made by `Decoder.session`: the next signals of one session, in order of time.

    The decoder itself does not change: discard the session to undo it, or call `carried` to keep a part of it.
    """

    def stream(self, emg: Samples, rate_hz: float = 0.0, unit: Unit = "V") -> Answers:
        """As `Decoder.stream`, of the next signal (T, C) of this session.

        Raises:
            InputError: as of `Decoder.stream`; then the session is as it was.
        """
        return self.decoder.warned(super().stream(self.decoder._samples(emg, rate_hz, unit)))

    def carried(self) -> Decoder:
        """A new decoder whose prior for the next session has moved a part of the way to this session.

        `card["carried"]` counts such sessions; the scores in the card are from before. A decoder that was calibrated
        for this session stays as it is.
        """
        return cast(Decoder, super().carried())


def _recordings(data: Data, labels: ArrayLike | None, groups: ArrayLike | None, rate_hz: float, unit: Unit
                ) -> list[Recording]:
    if _are_recordings(data):
        every = [data] if isinstance(data, Recording) else cast(Sequence[Recording], data)
        if not (found := [one for part in every for one in (part if isinstance(part, Recordings) else [part])]):
            raise InputError("`data` must hold a recording. Received: none")
        for one in found:
            _check_axes(one)
        if len(channels := {recording.num_channels for recording in found}) > 1:
            raise InputError("`data` must be of recordings with the same channels. Received: "
                             f"{sorted(channels)} channels")
        if rate_hz and (others := {recording.rate_hz for recording in found} - {rate_hz}):
            raise InputError(f"`rate_hz` is {rate_hz:g}, and the recordings are at {sorted(others)} Hz: leave it out")
        if unit != "V":
            raise InputError(f"recordings are in volts: `unit` is for arrays. Received: unit={unit!r}")
        for recording in found:
            checked(recording.emg, f"{recording.path.name}: emg")
        return found
    if labels is None or not 0 < rate_hz < np.inf:
        raise InputError("`labels` (T,) and `rate_hz`, in samples a second, must be given with a signal (T, C)")
    data, labels = _array("data", data), np.asarray(labels)
    if data.ndim != 2 or labels.shape != data.shape[:1] or not labels.size:
        raise InputError(f"`data` must be (T, C) and `labels` (T,). Received: shapes {data.shape}, {labels.shape}"
                         f"{axes.turned('data', data.shape, {'T': labels.size, 'C': 0})}")
    labels = _whole("labels", labels)
    counted = count_repetitions(labels) if groups is None else _whole("groups", np.asarray(groups))
    if counted.shape != labels.shape:
        raise InputError(f"`groups` must be (T,) as `labels`. Received: shapes {counted.shape}, {labels.shape}")
    volts = _volts(data, unit)
    checked(volts, "data")
    if rate_hz > OWN_UNIT_HZ and (peak := np.abs(volts).max(initial=0)) > LARGEST_V:
        raise InputError(f"`data` reaches {peak:.3g} V, and surface EMG is below {LARGEST_V:g} V: give its unit, "
                         "as in unit=\"mV\" or unit=\"uV\"")
    return [Recording(RecordingFile(Path("array"), 1), volts, labels, counted, float(rate_hz))]


def _check_axes(recording: Recording) -> None:
    shape, count = recording.emg.shape, len(recording.labels)
    if len(shape) != 2 or shape[0] != count:
        raise InputError(f"{recording.path}: `emg` must be ({count}, C), as many samples as `labels`. Received: shape "
                         f"{shape}{axes.turned('emg', shape, {'T': count, 'C': 0})}")


def _whole(name: str, values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        if values.dtype.kind not in "biuf" or not np.array_equal(values, values.astype(np.int16)):
            raise InputError(f"`{name}` must be whole numbers below 32768. Received: {values.dtype}")
    return values.astype(np.int16)


def _array(name: str, values: Any) -> np.ndarray:
    try:  # data frames and lists of lists are arrays too
        return np.asarray(values)
    except ValueError as error:
        raise InputError(f"`{name}` is no array: {str(error)[:150]}") from None


def _are_recordings(data: Any) -> bool:
    return isinstance(data, Recording) or isinstance(data, Sequence) and {*map(type, data)} <= {Recording, Recordings}


def _fins(features: Iterable[str]) -> str:
    return f"FINs for {', '.join(features)}" if list(features) else "no FINs"


def _key(option: str) -> str:
    """The dotted key of a recipe's option: by its table, or by its name alone where one option has it."""
    keys = [key for key in recipes.fields() if key.rpartition(".")[2] == option]
    return keys[0] if len(keys) == 1 else option.replace("__", ".")


def _volts(emg: Any, unit: Unit) -> np.ndarray:
    if unit not in sheet.UNITS:
        raise InputError(f"`unit` must be one of {', '.join(sheet.UNITS)}. Received: unit={unit!r}")
    emg = _array("emg", emg)
    if emg.dtype.kind not in "biuf":
        raise InputError(f"`emg` must be real numbers. Received: {emg.dtype}")
    return emg.astype(np.float32, copy=False) if unit == "V" else (emg * sheet.UNITS[unit]).astype(np.float32)


def _numbers(repetitions: int | str | Iterable[int]) -> tuple[int, ...]:
    if isinstance(repetitions, int | str):
        return parse_numbers(str(repetitions))
    return tuple(int(number) for number in repetitions)
