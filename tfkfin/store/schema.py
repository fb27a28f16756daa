"""What is relied on in a model's card. Whoever changes a card can seal it anew, so that its digest tells nothing."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tfkfin.base.errors import InputError
from tfkfin.base.quoted import line
from tfkfin.base.samples import FASTEST_HZ
from tfkfin.recipe import Filter

TEXTS = ("name", "format", "created", "tfkfin", "run", "licence", "summary", "input", "score", "recipe_digest",
         "protocol", "precision", "card_sha256", "head", "family")
TABLES = ("recipe", "environment", "fin_scores", "calibration")
DECODING = ("rate_hz", "length", "stride", "channels", "features", "movements", "mean_v", "sd_v")  # what it takes
Text = Annotated[str, Field(max_length=100_000)]
Words = Annotated[list[Annotated[str, Field(max_length=10_000)]], Field(max_length=10_000)]
Whole = Annotated[int, Field(ge=1, le=10_000_000)]
Share = Annotated[float, Field(ge=0, le=1)]
R2 = Annotated[float, Field(allow_inf_nan=True)]  # NaN where a feature never varied
Hertz = Annotated[float, Field(gt=0, le=FASTEST_HZ)]
Volts = Annotated[float, Field(ge=-1e10, le=1e10)]
Five = Annotated[list[Annotated[float, Field(ge=-1e9, le=1e9)]], Field(min_length=5, max_length=5)]
Label = Annotated[int, Field(ge=-(2**15), lt=2**15)]


class CardTable(BaseModel):
    """A table that may hold more than is relied on; no number is read out of a text."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Vote(CardTable):
    vote: Annotated[int, Field(ge=1, le=10_000)] = 1
    reject: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Imitated(CardTable):
    r2: R2


class Poor(Imitated):
    feature: Text


class CardScores(CardTable):
    fin: dict[str, Imitated] = {}
    kinds: dict[str, dict[str, R2]] = {}
    protocol: Text = ""
    accuracy: Share | None = None
    execution: Share | None = None
    false_per_minute: Annotated[float, Field(ge=0)] | None = None


class CardData(CardTable):
    subjects: Annotated[list[int], Field(max_length=100_000)]
    channels: Whole
    rate_hz: Hertz
    movements: list[Label]
    windows: Annotated[int, Field(ge=0)]
    synthetic: bool


class Ranges(CardTable):
    """Of `tfkfin.nets.quality`: five measures of each channel."""

    low: Annotated[list[Five], Field(max_length=100_000)]
    high: Annotated[list[Five], Field(max_length=100_000)]
    first: "Ranges | None" = None  # before any calibration


class Card(CardTable):
    """A card; keys that another version of tfkfin doesn't write are left out."""

    kind: str = ""
    version: Annotated[int, Field(ge=0)] | Text = 1
    limits: Words = []
    scores: CardScores = CardScores()
    dataset: CardData | None = None
    features: Words = []
    parameters: Annotated[int, Field(ge=0)] = 0
    length: Whole = 1
    stride: Whole = 1
    channels: Annotated[int, Field(ge=1, le=100_000)] = 1
    rate_hz: Hertz = 1.0
    length_ms: Annotated[float, Field(gt=0)] = 1.0
    stride_ms: Annotated[float, Field(gt=0)] = 1.0
    recorded_hz: list[Hertz] = []
    signal: Ranges | None = None
    without: list[Whole] = []  # electrodes that are left out, counted from 1
    movements: Annotated[list[Label], Field(min_length=1, max_length=10_000)] | None = None
    learnt_from: Annotated[list[Annotated[str, Field(max_length=16)]], Field(max_length=1_000_000)] = []
    names: dict[Annotated[str, Field(pattern=r"^-?\d{1,5}$")], Text] = {}
    mean_v: list[Volts] | None = None
    sd_v: list[Annotated[float, Field(gt=0, le=1e10)]] | None = None
    filter: Filter | None = None
    decision: Vote = Vote()
    updated: Annotated[int, Field(ge=0)] = 0
    carried: Annotated[int, Field(ge=0)] = 0
    subject: int = 0
    imitates_badly: Poor | None = None
    synthetic: bool = False

    @model_validator(mode="after")
    def _agrees(self) -> "Card":
        more = self.model_extra or {}
        for kind, names, what in ((str, TEXTS, "text"), (dict, TABLES, "table")):
            if unfit := [name for name in names if not isinstance(more.get(name, kind()), kind)]:
                raise ValueError(f"{unfit[0]}: it is no {what}")
        there = self.model_dump(include=set(DECODING), exclude_unset=True, exclude_none=True)
        if missing := [name for name in DECODING if self.kind == "decoder" and name not in there]:
            raise ValueError(f"{missing[0]}: it is missing")
        if self.movements is not None and len(set(self.movements)) < len(self.movements):
            raise ValueError("movements: they must all differ")
        for name in ("mean_v", "sd_v"):
            values = getattr(self, name)
            if values is not None and "channels" in self.model_fields_set and len(values) != self.channels:
                raise ValueError(f"{name}: {len(values)} values for {self.channels} channels")
        ranges = (self.signal, self.signal.first) if self.signal else ()
        if {len(side) for one in ranges if one for side in (one.low, one.high)} - {self.channels}:
            raise ValueError(f"signal: it has not {self.channels} channels")
        if max(self.without, default=0) > self.channels:
            raise ValueError(f"without: there is no electrode {max(self.without)}")
        highest = max(self.filter.high_pass_hz, self.filter.low_pass_hz, self.filter.notch_hz) if self.filter else 0.0
        if highest >= self.rate_hz / 2 and highest:
            raise ValueError(f"filter: {highest:g} Hz do not lie below half of rate_hz, {self.rate_hz:g}")
        return self


def checked(card: dict, where: Path) -> dict:
    """A card, if what is relied on is there as it has to be.

    Raises:
        InputError: it is not; the message names the file, the field and what is wrong.
    """
    try:
        Card.model_validate(card)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        what = f"{field + ': ' if field else ''}{first['msg'].removeprefix('Value error, ')}"
        received = "" if not field else f". Received: {line(repr(first['input']), 60)}"
        raise InputError(f"{where} is unfit: {line(what, 200)}{received}: export the model anew") from None
    return card
