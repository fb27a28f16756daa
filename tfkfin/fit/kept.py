"""What is relied on in files that were kept: whatever else is found there, they are damaged."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Kept(BaseModel):
    """A table of a ledger; more may be in it than is said here."""

    model_config = ConfigDict(strict=True, extra="allow")


class Spread(Kept):
    """As of `scores.spread`."""

    mean: float | None
    std: float | None
    per_subject: dict[str, float | None]


class Imitated(Kept):
    r2: float


class Stage(Kept):
    """What a stage left."""

    accuracy: Spread | None = None
    fin: dict[str, Imitated] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "Stage":
        if self.accuracy is None and self.fin is None:
            raise ValueError("neither accuracy nor fin")
        return self


class Item(Kept):
    """What a stage left of one subject."""

    accuracy: float
    confusion: list[list[int]] = []


class Results(Kept):
    """results.json of `tfkfin.fit.run` and `tfkfin.fit.units`."""

    stage: str
    protocol: str
    seconds: dict[str, float]
    fin: dict[str, Imitated] | None = None
    svm: Spread | None = None
    classifier: Spread | None = None
    accuracy: Spread | None = None
    execution: Spread | None = None
    dataset: dict[str, Any] | None = None


class Fingerprint(Kept):
    recordings: str


class Searched(Kept):
    """tuning.json."""

    complete: bool
    options: dict[str, Any]


class Failed(Kept):
    error: str


class Row(Kept):
    """What a fit of `tfkfin.fit.units` came to."""

    fin: dict[str, dict[str, float | None]] | None
    seconds: float
