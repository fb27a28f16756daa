"""The recipe: every option of the pipeline and its staged fit, once, with its unit and default.

A recipe is TOML in `pipelines/`, read strictly: an unknown key is an error that names the nearest known one.
`Recipe()` is the demo, so that a user of the wheel alone has the same defaults as one of the repository.
"""

import difflib
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from tfkfin.console import InputError

PACKAGE = Path(__file__).resolve().parent


def parse_numbers(text: Any) -> Any:
    """Whole numbers from `"1-3,7"`, `7` or a list -> `(1, 2, 3, 7)`; what is no such text is left to validation."""
    if isinstance(text, int):
        return (text,)
    if not isinstance(text, str):
        return text
    numbers = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, _, last = part.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()) or (last and int(last) < int(first)):
            raise ValueError(f"expected whole numbers such as 1-25 or 1,3,4. Received: {text!r}")
        numbers += range(int(first), int(last or first) + 1)
    return tuple(numbers)


def _split_commas(text: Any) -> Any:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text


Numbers = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(parse_numbers)]
Names = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A frozen table of options; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Synthetic(Section):
    """Size of the embedded synthetic Ninapro DB2 (`source.kind = "synthetic"`)."""

    subjects: Count = 2
    movements: Count = 8
    repetitions: Count = 6
    channels: Count = 12
    rate_hz: Positive = 2000.0
    hold_s: Positive = 1.5  # seconds a movement is held
    rest_s: Positive = 0.6  # seconds of rest between
    seed: int = 1


class Source(Section):
    """Where recordings come from."""

    kind: Literal["recordings", "synthetic", "signals"] = "synthetic"  # signals: endless windows for FINs alone
    data: str = ""  # folder of .mat files; `--data` sets it
    exercise: Count = 1  # the k of S{n}_E{k}_A1.mat; exercise B is E1 in DB2, DB3, DB7
    synthetic: Synthetic = Synthetic()


class Window(Section):
    """The sliding window; samples follow from the rate."""

    length_ms: Positive = 300.0  # 600 samples at 2 kHz
    stride_ms: Positive = 10.0  # 20 samples at 2 kHz
    rate_hz: float = Field(2000.0, ge=0)  # recordings at another rate are resampled to it; 0 keeps their own
    rest: bool = False  # rest as one more class, label 0 in the files


class Features(Section):
    """Closed-form features: the classifier's inputs and the FINs' targets."""

    names: Names = ("ENT", "RMS", "VAR", "SSI")


class Split(Section):
    """Who and which repetitions; an empty list means the default its comment names."""

    subjects: Numbers = ()  # trained and tested one by one; empty: all there are
    train_repetitions: Numbers = ()  # empty: all that are not test repetitions
    test_repetitions: Numbers = (2, 5)
    pretrain_subjects: Numbers = ()  # whose windows the FINs imitate; empty: `subjects`
    pretrain_repetitions: Numbers = ()  # empty: `train_repetitions`
    finetune_repetitions: Numbers = ()  # empty: `train_repetitions`

    @model_validator(mode="after")
    def _no_leak(self) -> "Split":
        for name in ("train_repetitions", "pretrain_repetitions", "finetune_repetitions"):
            if shared := sorted(set(getattr(self, name)) & set(self.test_repetitions)):
                raise ValueError(f"repetitions {shared} are both in {name} and in test_repetitions")
        if not self.test_repetitions:
            raise ValueError("test_repetitions is empty")
        return self


class Batches(Section):
    """The streaming pipeline."""

    recordings_in_flight: Count = 2  # recordings whose windows are mixed at any time
    prefetch: Count = 2  # batches made ahead


class Fin(Section):
    """The feature imitation networks, one a feature, shared by all channels."""

    family: Literal["bilstm", "conv", "dense"] = "bilstm"
    units: Count = 32
    layers: int = Field(0, ge=0)  # 0: the family's own: 3, conv 2
    readout: Literal["both", "reverse"] = "both"  # final states read: both directions (paper) or the reverse one (code)
    start: Literal["long_memory", "keras"] = "long_memory"  # random weights of a Bi-LSTM that starts from scratch
    pretrained: str = "auto"  # FINs to start from: "auto" the shipped ones of the family, a name or folder, "" random


class Classifier(Section):
    """From features to movements: augmentation and Conv2D/BN/PReLU, or a linear discriminant."""

    kind: Literal["conv", "linear"] = "conv"  # conv: the paper's
    lags: tuple[Count, ...] = (1, 2, 3, 4, 6, 8)  # linear: autocorrelations it sees beside the features, in samples
    vote: Count = 1  # decisions averaged: the last so many windows of the movement
    filters: tuple[Count, ...] = (64, 32)  # of the blocks before the last, which has one filter a movement
    copies: Count = 12  # row 0 is the feature itself, the others its noisy shadows
    noise: float = Field(0.01, ge=0)  # sd of the shadows' noise, in z-scored units
    dropout: float = Field(0.3, ge=0, lt=1)  # after the first block


class Imitate(Section):
    """Stage 1: FINs learn the features from windows of all pre-training subjects, channels pooled."""

    epochs: int = Field(1, ge=0)  # 0 keeps the pretrained weights as they are
    windows_per_epoch: int = Field(256, ge=0)  # 0: every window once
    batch_size: Count = 16  # windows
    learning_rate: Positive = 1e-3
    weight_decay: float = Field(2e-5, ge=0)
    clip_norm: Positive = 1.0
    patience: Count = 3  # epochs without a better validation loss before it stops
    schedule: Literal["constant", "cosine"] = "constant"
    validation_windows: Count = 64
    test_windows: Count = 128  # on which R² is reported, spread evenly over the subjects' test repetitions


class Classify(Section):
    """Stage 2: the head learns movements from true features, subject by subject."""

    epochs: Count = 30
    batch_size: Count = 300
    learning_rate: Positive = 1e-2
    weight_decay: float = Field(3e-5, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"


class Finetune(Section):
    """Stage 3: FINs and head together, subject by subject."""

    epochs: int = Field(2, ge=0)
    windows_per_epoch: int = Field(256, ge=0)  # 0: every window once
    batch_size: Count = 32
    fin_learning_rate: float = Field(1e-3, ge=0)  # 0 freezes the FINs
    fin_weight_decay: float = Field(2e-5, ge=0)
    head_learning_rate: Positive = 1e-2
    head_weight_decay: float = Field(2e-4, ge=0)
    imitation_weight: float = Field(0.0, ge=0)  # of the imitation loss kept beside the cross-entropy
    schedule: Literal["constant", "cosine"] = "constant"


class Recipe(Section):
    """One experiment. The defaults are the demo: `pipelines/demo.toml`."""

    protocol: Literal["honest", "paper"] = "honest"
    seed: int = 7
    source: Source = Source()
    window: Window = Window()
    features: Features = Features()
    split: Split = Split()
    batches: Batches = Batches()
    fin: Fin = Fin()
    classifier: Classifier = Classifier()
    imitate: Imitate = Imitate()
    classify: Classify = Classify()
    finetune: Finetune = Finetune()
    tune: dict[str, list[Any]] = {}  # recipe field -> values to try, for `python -m tfkfin.tune`

    @property
    def digest(self) -> str:
        """Hex digest of all that decides the result; where the data lie on this machine does not."""
        options = self.model_dump(mode="json")
        options["source"].pop("data")
        return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]

    def to_toml(self) -> str:
        return tomli_w.dumps(self.model_dump(mode="json"))

    def replace(self, **settings: Any) -> "Recipe":
        """A copy with dotted keys set: `recipe.replace(**{"window.stride_ms": 50})`."""
        return _validated(_merged(self.model_dump(mode="json"), settings), "settings")


def shipped(kind: str) -> Path:
    """The folder `pipelines` or `savedmodels`: beside the package in a checkout, inside it in a wheel."""
    inside = PACKAGE / kind
    return inside if inside.is_dir() else PACKAGE.parent / kind


def load(pipeline: str | Path | None = None, settings: dict[str, Any] | None = None) -> Recipe:
    """Reads a recipe from a TOML file, or a shipped one by name, and applies dotted `settings` over it.

    Raises:
        InputError: no such file, not TOML, an unknown key (the nearest is named) or an unfit value.
    """
    options, where = {}, "the default recipe"
    if pipeline is not None:
        path = _find(pipeline)
        where = str(path)
        try:
            options = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not a TOML recipe: {error}") from None
    return _validated(_merged(options, settings or {}), where)


def parse_setting(text: str) -> tuple[str, Any]:
    """`key=value` of a command line -> (key, value); the value is TOML where it can be, otherwise text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set takes key=value, such as window.stride_ms=50. Received: {text!r}")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def _find(pipeline: str | Path) -> Path:
    path = Path(pipeline)
    candidates = [path, shipped("pipelines") / path.name, shipped("pipelines") / f"{path.name}.toml"]
    for candidate in candidates if len(path.parts) == 1 or path.parts[0] == "pipelines" else candidates[:1]:
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(p.stem for p in shipped("pipelines").glob("*.toml")))
    raise InputError(f"no recipe {str(pipeline)!r}; shipped are: {known}")


def _merged(options: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    options = json.loads(json.dumps(options, default=str))
    for key, value in settings.items():
        *tables, name = key.split(".")
        if tables[:1] == ["tune"]:
            tables, name = ["tune"], key.removeprefix("tune.")
        table = options
        for part in tables:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise InputError(f"{key!r}: {part!r} is a value, not a table")
        table[name] = value
    return options


def _validated(options: dict[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(options)
    except ValidationError as error:
        raise InputError(f"{where}: " + "; ".join(_explain(e) for e in error.errors())) from None


def fields(section: type[BaseModel] = Recipe, prefix: str = "") -> dict[str, Any]:
    """Every dotted key of a recipe with its default."""
    found = {}
    for name, field in section.model_fields.items():
        if isinstance(field.default, BaseModel):
            found |= fields(type(field.default), f"{prefix}{name}.")
        else:
            found[prefix + name] = field.default
    return found


def _explain(error: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in error["loc"] if not isinstance(part, int))
    if error["type"] == "extra_forbidden":
        known = list(fields()) + list(Recipe.model_fields)
        tails = {name.rpartition(".")[2]: name for name in known}
        near = difflib.get_close_matches(key, known, 1, 0.5)
        near = near or [tails[t] for t in difflib.get_close_matches(key.rpartition(".")[2], tails, 1, 0.5)]
        return f"unknown key {key!r}" + (f": did you mean {near[0]!r}?" if near else "")
    message = error["msg"].removeprefix("Value error, ")
    received = "" if "Received" in message or isinstance(error["input"], dict) else f". Received: {error['input']!r}"
    return f"{key}: {message}{received}"
