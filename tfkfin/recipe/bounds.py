"""Types of options with their bounds; values beyond them would ask for work that nobody wants."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from tfkfin.base import registry
from tfkfin.base.console import parse_numbers

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


Numbers = Annotated[tuple[Annotated[int, Field(ge=0, le=9999)], ...], BeforeValidator(_numbers)]
Names = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]


class Section(BaseModel):
    """A frozen table of options; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
