"""tfkfin from Python: recordings in memory, and decoders that are fitted, used, calibrated, saved and exported."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfkfin import recipe as recipes
from tfkfin.console import InputError
from tfkfin.files import shipped
from tfkfin.models import decoder, presets
from tfkfin.pipeline import dataset
from tfkfin.recordings import readers
from tfkfin.recordings.recording import Recording, RecordingFile
from tfkfin.serving import card


def read(path: str | Path) -> Recording | list[Recording]:
    """A recording, or all of a folder in order of subject and session.

    Args:
        path: a file of a format that `tfkfin.recordings.readers` knows, or a folder or URL of such files.

    Returns:
        `emg` (T, C) float32 volts, `labels` (T,) with 0 for rest, `repetitions` (T,), `rate_hz`, as in the file.

    Raises:
        InputError: no such file, or not of these formats.
    """
    if Path(path).is_file():
        found = [file for file in readers.find(Path(path).parent) if file.path.samefile(path)]
        if not found:
            raise InputError(f"{path} is no recording that is known by its name: give the folder it lies in")
        return readers.read(found[0])
    return [readers.read(file) for file in readers.find(path)]


class Decoder(decoder.Decoder):
    """Volts in, movements out: made by `from_preset`, fitted to a person, used window by window or as a stream.

    Windows are (B, L, C) volts at `card["rate_hz"]`; `decoder(windows)` answers with "probabilities" (B, G), "label"
    (B,) and the imitated "features" (B, C, F). See `tfkfin.models.decoder` for attributes.
    """

    @classmethod
    def from_preset(cls, name: str | Path) -> "Decoder":
        """A decoder by name.

        Args:
            name: a recipe whose head is solved, such as "best", to be fitted; or a folder that `save` or
                an export made, or the name of a model in ./savedmodels, which is fitted already.

        Raises:
            InputError: none of these.
        """
        if (Path(name) / decoder.FILE).is_file():
            return cls.load(Path(name))
        if Path(name).is_dir() or not (shipped("pipelines") / f"{name}.toml").is_file():
            return cls.load(presets.find(name))
        new = cls.__new__(cls)
        new.recipe, new.card, new.model = recipes.load(str(name)), None, None
        return new

    def __getattr__(self, name: str):
        if name in ("length", "channels", "stride", "movements", "decision"):
            raise InputError("this decoder has learnt nothing yet: fit it first")
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def fit(self, data: Recording | Sequence[Recording] | np.ndarray, labels: np.ndarray | None = None,
            groups: np.ndarray | None = None, rate_hz: float = 0.0) -> "Decoder":
        """Learns movements, in closed form, from every window inside one movement of what it is given.

        Args:
            data: recordings of one person, or volts (T, C).
            labels: with volts: the movement of each sample (T,), 0 for rest.
            groups: with volts: the repetition of each sample (T,); by default each movement's executions are counted.
            rate_hz: of the volts.

        Returns:
            This decoder.

        Raises:
            InputError: a recipe whose head is trained by gradients, or data without movements.
        """
        recipe = getattr(self, "recipe", None)
        if recipe is None:
            raise InputError("this decoder is fitted already: calibrate it, or fit one from a recipe such as "
                             "Decoder.from_preset(\"best\")")
        from tfkfin.models import heads
        from tfkfin.models.over_recording import over_recording
        from tfkfin.models.streaming import stream_seen

        kind, names = heads.kind(recipe.classifier.kind), recipe.features.names
        if kind.solve is None:
            raise InputError(f"this recipe's head, {recipe.classifier.kind}, is trained: use python -m tfkfin.train")
        recordings = _recordings(data, labels, groups, rate_hz)
        subject, rate = dataset.joined(recordings, recipe.window)
        movements = np.unique(subject.windows.movements)
        if len(movements) < 2:
            raise InputError(f"`data` must hold windows of two movements or more. Received: {movements.tolist()}")
        length = round(recipe.window.length_ms * rate / 1000)
        bank = presets.new_bank(recipe.fin, names, length, subject.emg.shape[1])
        head = heads.new(recipe.classifier, names, length, subject.emg.shape[1], len(movements))
        model = decoder.network(bank, head)
        model.get_layer("standardise").set(subject.mean, subject.sd)
        seen = over_recording(model, stream_seen)(subject.emg, subject.windows.starts)
        groups = subject.windows.sessions, subject.windows.repetitions
        kind.solve(head.get_layer("classifier"), seen, np.searchsorted(movements, subject.windows.movements), groups)
        stride = round(recipe.window.stride_ms * rate / 1000)
        own = decoder.about(recipe, rate, length, stride, movements, subject.mean, subject.sd)
        self.__init__(card.of_fitted(own, len(subject.windows), subject.number,
                                     any(recording.synthetic for recording in recordings), model.count_params()), model)
        return self

    def predict(self, emg: np.ndarray) -> np.ndarray:
        """Movements as in the files: (B,) of windows (B, L, C), or, causally, one a stride of a stretch (T, C)."""
        return (self.stream(emg) if np.ndim(emg) == 2 else self(emg))["label"]

    def calibrate(self, data: Recording | Sequence[Recording] | np.ndarray, labels: np.ndarray | None = None,
                  groups: np.ndarray | None = None, rate_hz: float = 0.0, labelled: bool = True) -> "Decoder":
        """A new decoder for the session or person of what it is given, which is one repetition or more.

        Args:
            data, labels, groups, rate_hz: as of `fit`; another rate than the decoder's is resampled.
            labelled: False uses where movements are and not which they are.

        Raises:
            InputError: this decoder keeps nothing of sessions (the recipe `best` does), or a movement that it does
                not know.
        """
        about = self.card
        window = recipes.Window(length_ms=1000 * self.length / about["rate_hz"], stride_ms=about["stride_ms"],
                                rate_hz=about["rate_hz"], rest=0 in self.movements)
        subject, _ = dataset.joined(_recordings(data, labels, groups, rate_hz), window)
        new, said = self.calibrated(self.seen(subject.emg, subject.windows.starts),
                                    subject.windows.movements if labelled else None)
        said |= {"subject": subject.number, "session": None, "labelled": labelled, "after": None,
                 "repetitions": np.unique(subject.windows.repetitions).tolist()}
        return type(self)(card.of_calibrated(about, said), new.model)

    def export(self, to: str | Path, format: str = "savedmodel") -> Path:
        """Writes a new version into a model folder, as `python -m tfkfin.export` does; returns the version folder."""
        from tfkfin.serving import layout, version

        model = Path(to)
        with layout.new_version(model) as (folder, number):
            about = self.card | {"name": model.name, "version": number, "format": format}
            version.write_decoder(folder, decoder.Decoder(about, self.model), about)
        return model / str(number)


def _recordings(data, labels, groups, rate_hz: float) -> list[Recording]:
    if isinstance(data, Recording):
        return [data]
    if not isinstance(data, np.ndarray):
        people = {recording.subject for recording in data}
        if len(people) != 1:
            raise InputError(f"`data` must be of one person. Received: subjects {sorted(people)}")
        return list(data)
    if labels is None or not rate_hz:
        raise InputError("`labels` (T,) and `rate_hz` must be given with volts (T, C)")
    labels = np.asarray(labels, np.int16)
    if data.ndim != 2 or labels.shape != data.shape[:1]:
        raise InputError(f"`data` must be (T, C) and `labels` (T,). Received: shapes {data.shape}, {labels.shape}")
    if not np.isfinite(data).all():
        raise InputError("`data` holds NaN or Inf, where volts are expected")
    counted = _executions(labels) if groups is None else np.asarray(groups, np.int16)
    return [Recording(RecordingFile(Path("array"), 1), data.astype(np.float32), labels, counted, float(rate_hz))]


def _executions(labels: np.ndarray) -> np.ndarray:
    """Which execution of its movement each sample belongs to (T,), from 1."""
    edges = np.flatnonzero(np.diff(labels, prepend=labels[0] - 1))
    found, counts = np.zeros(len(labels), np.int16), {}
    for begin, end in zip(edges, [*edges[1:], len(labels)], strict=True):
        movement = int(labels[begin])
        counts[movement] = counts.get(movement, 0) + 1
        found[begin:end] = counts[movement]
    return found
