"""Schemas of the JSON files in run folders: a file that does not match its schema is reported as damaged."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Entry(BaseModel):
    """A ledger's entry; it may have more keys than its schema names."""

    model_config = ConfigDict(strict=True, extra="allow")


class OverSubjects(Entry):
    """As of `scoring.mean_and_sd`."""

    mean: float | None
    std: float | None
    per_subject: dict[str, float | None]


class Imitation(Entry):
    r2: float


class StageScores(Entry):
    """<stage>/stage.json."""

    accuracy: OverSubjects | None = None
    fin: dict[str, Imitation] | None = None

    @model_validator(mode="after")
    def _has_scores(self) -> "StageScores":
        if self.accuracy is None and self.fin is None:
            raise ValueError("neither accuracy nor fin")
        return self


class SubjectScores(Entry):
    """<stage>/S<n>.json."""

    accuracy: float
    confusion: list[list[int]] = []


def of_item(item: str) -> type[Entry]:
    """Of <stage>/<item>.json."""
    return StageScores if item == "stage" else SubjectScores


class Results(Entry):
    """results.json of `tfkfin.fit.run` and `tfkfin.fit.units`."""

    stage: str
    protocol: str
    seconds: dict[str, float]
    fin: dict[str, Imitation] | None = None
    svm: OverSubjects | None = None
    classifier: OverSubjects | None = None
    accuracy: OverSubjects | None = None
    execution: OverSubjects | None = None
    dataset: dict[str, Any] | None = None


class Fingerprint(Entry):
    """fingerprint.json."""

    recordings: str


class SearchState(Entry):
    """tuning.json."""

    complete: bool
    options: dict[str, Any]


class FailedTrial(Entry):
    error: str


class FitRow(Entry):
    """What a fit of `tfkfin.fit.units` has scored."""

    fin: dict[str, dict[str, float | None]] | None
    seconds: float
