"""Every option of a recipe: a frozen, validated field with its unit and default; and which of them decide its digest.

`tfkfin.recipe` reads them from TOML and from the command line. Bounds refuse values that would ask for work that nobody
wants.

A run folder belongs to one digest. A new option at its default leaves the digest as it was before there was the option,
so that runs of earlier versions go on. Options of the versions before that rule are part of every digest: they are
listed in in_every_digest.toml, once and for all.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_serializer, model_validator

from tfkfin.base import registry
from tfkfin.base.console import parse_numbers
from tfkfin.base.files import read_toml
from tfkfin.recipe.removed import without_removed

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Width = Annotated[int, Field(ge=1, le=4096)]  # units, filters
Few = Annotated[int, Field(ge=1, le=1000)]
Rate = Annotated[float, Field(ge=0, le=1e6)]  # samples a second
Milliseconds = Annotated[float, Field(gt=0, le=60_000)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy and Keras take


def _numbers(text: Any) -> Any:
    """Numbers from text or one number; what is neither is left to validation."""
    if isinstance(text, str):
        return parse_numbers(text) if text.strip() else ()
    return (text,) if isinstance(text, int) else text


def _split_commas(text: Any) -> Any:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text


def kind_of(room: str) -> AfterValidator:
    """Text that names a registered kind of a room, such as "nets/heads"."""
    def known(name: str) -> str:
        if name not in (there := registry.names(room)):
            raise ValueError(f"there are {', '.join(there)}")
        return name

    return AfterValidator(known)


def each_of(check: AfterValidator) -> AfterValidator:
    return AfterValidator(lambda values: tuple(check.func(value) for value in values))


Numbers = Annotated[tuple[Annotated[int, Field(ge=0, lt=10**9)], ...], BeforeValidator(_numbers)]
Names = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]


class Section(BaseModel):
    """A frozen table of options; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class Synthetic(Section):
    """Size of the embedded synthetic Ninapro DB2 (`source.kind = "synthetic"`)."""

    subjects: Count = 2  # how many, numbered from 1
    movements: Count = 8  # besides rest
    repetitions: Count = 6  # of each movement
    channels: Count = 12  # electrodes around the forearm
    rate_hz: Positive = 2000.0  # samples a second
    hold_s: Positive = 1.5  # seconds a movement is held
    rest_s: Positive = 0.6  # seconds of rest between
    seed: Seed = 1  # of the signals; equal seeds make equal recordings


class DataSource(Section):
    """Where recordings come from."""

    kind: Literal["recordings", "synthetic", "signals"] = "synthetic"  # signals: endless windows for FINs alone
    data: str = ""  # folder of .mat files; `--data` sets it
    exercise: Annotated[Numbers, Field(min_length=1)] = (1,)  # the k of S{n}_E{k}_A1.mat; exercise B is 1 in DB2, DB3,
    # DB7; 1-3: together, movements numbered through
    rate_hz: Rate = 0.0  # samples a second of Ninapro files that do not say it; 0: what the files say
    note: str = ""  # about these people, shown with every table of the ladder: whether they served development, say
    synthetic: Synthetic = Synthetic()

    @field_serializer("exercise")
    def _one_as_it_is(self, exercise: tuple[int, ...]) -> Any:
        return exercise[0] if len(exercise) == 1 else list(exercise)


class Window(Section):
    """The sliding window; samples follow from the rate."""

    length_ms: Milliseconds = 300.0  # 600 samples at 2 kHz
    stride_ms: Milliseconds = 10.0  # 20 samples at 2 kHz
    train_stride_ms: float = Field(0.0, ge=0, le=60_000)  # between training windows; 0: stride_ms
    rate_hz: Rate = 2000.0  # recordings at another rate are resampled to it; 0 keeps their own
    rest: bool = False  # rest as one more class; its label in the files is 0


class Filter(Section):
    """A causal filter before the windows, at their rate: offsets and hum break FINs. All 0: nothing is filtered."""

    high_pass_hz: float = Field(0.0, ge=0)  # Butterworth; 0: none
    low_pass_hz: float = Field(0.0, ge=0)  # 0: none; with high_pass_hz a band-pass
    order: int = Field(2, ge=1, le=20)  # of the Butterworth, to each side
    notch_hz: float = Field(0.0, ge=0)  # of the mains; 0: none
    notches: int = Field(1, ge=1, le=100)  # at notch_hz and its multiples, as far as the rate goes
    notch_q: float = Field(30.0, gt=0, le=10_000)  # notch_hz over the width of the notch

    @model_validator(mode="after")
    def _is_a_band(self) -> "Filter":
        if self.low_pass_hz and self.high_pass_hz >= self.low_pass_hz:
            raise ValueError(f"high_pass_hz must be below low_pass_hz. Received: {self.high_pass_hz:g} and "
                             f"{self.low_pass_hz:g}")
        return self

    @property
    def active(self) -> bool:
        return bool(self.high_pass_hz or self.low_pass_hz or self.notch_hz)


class Features(Section):
    """Closed-form features: the classifier's inputs and the FINs' targets."""

    names: Names = ("ENT", "RMS", "VAR", "SSI")  # of the catalogue, in this order; empty: no FINs


class Split(Section):
    """Subjects, repetitions and sessions of training and test; an empty list means the default in its comment."""

    subjects: Numbers = ()  # trained and tested one by one; empty: all there are
    train_repetitions: Numbers = ()  # empty: all but the test repetitions; between sessions: all
    test_repetitions: Numbers = (2, 5)  # where test_sessions are given: of these, all by default
    train_sessions: Numbers = ()  # days, or what else separates the files; empty: all
    test_sessions: Numbers = ()  # empty: all
    repetitions_per_session: int = Field(0, ge=0, le=9999)  # of a session; 0: sessions as files name them
    pretrain_subjects: Numbers = ()  # whose windows the FINs imitate; empty: `subjects`
    pretrain_repetitions: Numbers = ()  # empty: `train_repetitions`
    finetune_repetitions: Numbers = ()  # empty: `train_repetitions`

    @model_validator(mode="before")
    @classmethod
    def _whole_sessions(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("test_sessions") and "test_repetitions" not in values:
            values = values | {"test_repetitions": ()}
        return values

    @model_validator(mode="after")
    def _no_leak(self) -> "Split":
        if self.between_sessions:
            return self
        for name in ("train_repetitions", "pretrain_repetitions", "finetune_repetitions"):
            if shared := sorted(set(getattr(self, name)) & set(self.test_repetitions)):
                raise ValueError(f"repetitions {shared} are both in {name} and in test_repetitions")
        if not self.test_repetitions:
            both = sorted(set(self.train_sessions) & set(self.test_sessions))
            raise ValueError(f"sessions {both} are both in train_sessions and in test_sessions" if both else
                             "test_repetitions is empty")
        return self

    @property
    def between_sessions(self) -> bool:
        """Whether training and test are split by sessions alone."""
        return bool(self.train_sessions and self.test_sessions) and not {*self.train_sessions} & {*self.test_sessions}


class Batches(Section):
    """The input pipeline."""

    recordings_in_flight: Few = 2  # recordings whose windows are mixed at any time
    prefetch: Few = 2  # batches made ahead


class Fin(Section):
    """The feature imitation networks, shared by all channels."""

    family: Annotated[str, kind_of("nets/fins")] = "bilstm"  # bilstm: the paper's; conv is faster and streams
    units: Width = 32  # of a layer; of each direction of a Bi-LSTM
    layers: int = Field(0, ge=0, le=64)  # 0: the family's own: 3, conv 2
    readout: Literal["both", "reverse"] = "both"  # final states of both directions (paper) or the reverse (code)
    start: Literal["long_memory", "keras"] = "long_memory"  # how random weights of a Bi-LSTM are drawn
    pretrained: str = "auto"  # "auto": shipped FINs; a model's name; RUN/pooled; "": random weights
    _version: int = 2  # of the families' networks: no option, a run goes on with that which it began with

    @property
    def version(self) -> int:
        return self._version

    def of_version(self, version: int) -> "Fin":
        new = self.model_copy()
        new._version = version
        return new


class Classifier(Section):
    """From features to movements: augmentation and Conv2D/BN/PReLU, or a linear discriminant."""

    kind: Annotated[str, kind_of("nets/heads")] = "conv"  # conv: the paper's
    describe: Annotated[Names, each_of(kind_of("nets/descriptions"))] = ("correlations",)  # inputs of solved heads
    lags: tuple[Count, ...] = (1, 2, 3, 4, 6, 8)  # of autocorrelations, in samples
    lost_electrode: bool = False  # what a flat, humming or far too loud electrode would say is estimated from the
    # others, new offsets are subtracted; up to 16 electrodes, heads linear and gaussian, where electrodes are mixed
    forces: bool = False  # training windows also count at 0.25 to 1.5 times their amplitude; head gaussian
    vote: Few = 1  # a decision averages the probabilities of the last so many windows
    reject: float = Field(0.0, ge=0, lt=1)  # a decision less probable than this has the label -1 and counts as wrong
    filters: tuple[Width, ...] = (64, 32)  # of the blocks before the last, which has one filter a movement
    copies: Few = 12  # of each feature: the first is exact, the others are noisy
    noise: float = Field(0.01, ge=0)  # sd of the copies' noise, in z-scored units
    dropout: float = Field(0.3, ge=0, lt=1)  # after the first block


class Augment(Section):
    """Random changes of raw signals in the stages finetune and pooled; 0 is none. See `tfkfin.nets.augment`."""

    gain: float = Field(0.0, ge=0)  # sd of each channel's log amplitude
    shift: float = Field(0.0, ge=0, le=0.5)  # greatest share of signal from the neighbouring electrode
    noise: float = Field(0.0, ge=0)  # sd, in sd of the signal
    warp: float = Field(0.0, ge=0, lt=0.5)  # greatest relative change of speed
    dropout: float = Field(0.0, ge=0, lt=1)  # probability that a channel is silent


class Imitate(Section):
    """Stage 1: trains FINs to give the features of windows of all pre-training subjects, channels pooled."""

    epochs: Annotated[int, Field(ge=0, le=1_000_000)] | Literal["auto"] = 1  # 0 keeps the pretrained weights as they
    # are; "auto" does where FINs hold on training windows of all (R² 0.9), and else trains them for up to 20 epochs
    windows_per_epoch: int = Field(256, ge=0, le=100_000_000)  # 0: every window once
    batch_size: Count = 16  # windows
    learning_rate: Positive = 1e-3  # of the optimiser Adam, at the start
    weight_decay: float = Field(2e-5, ge=0)  # decoupled from the gradient, as in AdamW
    clip_norm: Positive = 1.0  # a gradient of a larger norm is scaled down to it
    patience: Count = 3  # it stops after so many epochs without a better validation loss
    schedule: Literal["constant", "cosine"] = "constant"  # of the learning rate; cosine: it falls to 0
    validation_windows: Count = 64  # on which the loss is validated after each epoch
    test_windows: Count = 128  # on which R² is reported, spread evenly over the subjects' test repetitions


class Classify(Section):
    """Stage 2: trains the head on true features, subject by subject."""

    epochs: Count = 30  # passes over all training windows
    batch_size: Count = 300  # windows
    learning_rate: Positive = 1e-2  # at the start
    weight_decay: float = Field(3e-5, ge=0)  # decoupled from the gradient, as in AdamW
    schedule: Literal["constant", "cosine"] = "constant"  # of the learning rate; cosine: it falls to 0


class Finetune(Section):
    """Stage 3: trains FINs and head together, subject by subject."""

    epochs: int = Field(2, ge=0, le=1_000_000)  # 0: nothing is trained end to end; solved heads are solved
    windows_per_epoch: int = Field(256, ge=0, le=100_000_000)  # 0: every window once
    batch_size: Count = 32  # windows
    fin_learning_rate: float = Field(1e-3, ge=0)  # 0 freezes the FINs
    fin_weight_decay: float = Field(2e-5, ge=0)  # of the FINs
    head_learning_rate: Positive = 1e-2  # at the start
    head_weight_decay: float = Field(2e-4, ge=0)  # of the head
    imitation_weight: float = Field(0.0, ge=0)  # of the imitation loss that is added to the cross-entropy
    freeze_norm: bool = False  # keep the BatchNorm statistics of the stage classify: those of small batches are noisy
    schedule: Literal["constant", "cosine"] = "constant"  # of both learning rates; cosine: they fall to 0


class Pooled(Section):
    """The stage `pooled`: trains FINs so that a head solved on one repetition decides another; see [augment]."""

    episodes: int = Field(400, ge=0, le=10_000_000)  # steps; each draws a person and two repetitions
    movements: Few = 12  # of an episode, at most
    seconds: float = Field(0.9, gt=0, le=60)  # of a movement's signal in an episode, from each of the two repetitions
    stride_ms: Milliseconds = 75.0  # between windows
    between: float = Field(0.7, ge=0, le=1)  # share of episodes with repetitions of two sessions
    learning_rate: Positive = 5e-4  # the first; it falls to 0 along half a cosine
    weight_decay: float = Field(0.0, ge=0)  # decoupled from the gradient, as in AdamW
    clip_norm: Positive = 1.0  # a gradient of a larger norm is scaled down to it
    imitation_weight: float = Field(1.0, ge=0)  # of the imitation loss; small weights let FINs drift
    look_every: Count = 50  # episodes between validations on held-out training repetitions, and checkpoints
    validation_episodes: Count = 24  # of a validation; always the same ones


class Launch(Section):
    """Where and how many fits run at once (`--launcher`). Of these only `threads` may change results."""

    workers: int = Field(0, ge=0)  # fits at a time; 0: as many as cores and memory allow
    threads: Count = 1  # of a fit; another number may change the last digits of sums
    gpus: float = Field(0.0, ge=0)  # of a fit; ray and slurm. local gives each worker one of those that are there
    memory_gb: Positive = 2.0  # of a fit
    retries: int = Field(3, ge=0)  # times that a fit whose process was killed is started again
    address: str = Field("", pattern=r"^[\w.:/\[\]-]*$")  # of a Ray cluster, as ray://host:10001 or auto; "": one here
    partition: str = Field("", pattern=r"^[\w.,+-]*$")  # of Slurm, or some of them, as in a,b
    minutes: Count = 240  # limit of a Slurm job; a job that reaches it is queued again and goes on
    fits_per_job: int = Field(0, ge=0)  # one after another in a Slurm job; 0: as few as the largest array allows


class Recipe(Section):
    """One experiment."""

    protocol: Literal["honest", "paper"] = "honest"  # of experiments; paper: as its authors judge, optimistic
    seed: Seed = 7  # of weights, batches and augmentation
    source: DataSource = DataSource()
    window: Window = Window()
    filter: Filter = Filter()
    features: Features = Features()
    split: Split = Split()
    batches: Batches = Batches()
    fin: Fin = Fin()
    classifier: Classifier = Classifier()
    augment: Augment = Augment()
    imitate: Imitate = Imitate()
    classify: Classify = Classify()
    finetune: Finetune = Finetune()
    pooled: Pooled = Pooled()
    launch: Launch = Launch()
    tune: dict[str, list[Any]] = {}  # recipe field -> values to try, for `python -m tfkfin.tune`

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, values: Any) -> Any:
        return without_removed(values)

    @model_validator(mode="after")
    def _augmented_windows_have_other_features(self) -> "Recipe":
        if self.finetune.imitation_weight and any(self.augment.model_dump().values()):
            raise ValueError("finetune.imitation_weight compares with features of the windows as recorded, so it "
                             "cannot go with [augment]: set one of them to 0")
        return self

    @property
    def digest(self) -> str:
        """Hex digest of all that decides the result; where the data lie and where fits run does not."""
        unused = {"filter": not self.filter.active, "pooled": self.pooled == Pooled()}
        options = _deciding(self, self.model_dump(mode="json", exclude={name for name in unused if unused[name]}))
        return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]

    def to_toml(self) -> str:
        return tomli_w.dumps(self.model_dump(mode="json"))


_NEVER = ("source.data", "source.note", "launch")  # places and notes decide nothing


def _deciding(section: Section, dumped: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Of the values of a section those that decide the result."""
    always, usual, found = _in_every_digest().get(prefix.rstrip("."), ()), type(section)(), {}
    for name, value in dumped.items():
        own = getattr(section, name)
        if prefix + name in _NEVER:
            continue
        if isinstance(own, Section):
            if part := _deciding(own, value, f"{prefix}{name}."):
                found[name] = part
        elif name in always or own != getattr(usual, name):
            found[name] = value
    return found


@cache
def _in_every_digest() -> dict[str, list[str]]:
    return read_toml(Path(__file__).with_name("in_every_digest.toml"))
