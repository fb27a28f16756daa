"""Kinds of numbers that options are, each with its bounds: what is beyond them asks for no work that anybody wants."""

from typing import Annotated

from pydantic import Field

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Width = Annotated[int, Field(ge=1, le=4096)]  # units, filters
Few = Annotated[int, Field(ge=1, le=1000)]
Rate = Annotated[float, Field(ge=0, le=1e6)]  # samples a second
Milliseconds = Annotated[float, Field(gt=0, le=60_000)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy and Keras take
