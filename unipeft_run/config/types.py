"""Types of configuration values, used in `schema.py` and in the constructors of forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MOST = 10**9
Count = Annotated[int, Field(ge=1, le=MOST)]
CountOrZero = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
MethodName = Annotated[str, Field(pattern=r"^(peft/)?\w[\w.-]*$")]
Names = Annotated[tuple[str, ...], Field(strict=False)]  # a YAML list, made immutable
Channels = Annotated[
    tuple[NotNegative, NotNegative, NotNegative], Field(strict=False)
]  # of red, green and blue
Range = Annotated[tuple[Positive, Positive], Field(strict=False)]  # lower and upper bound


def one_or_many(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return the texts of a `StringOrList`."""
    return (value,) if isinstance(value, str) else tuple(value)


def _as_texts(values: object) -> object:
    """Turn the numbers and truth values of a list into text, as in labels=[1,2] or [true,false]."""
    return [_as_text(value) for value in values] if isinstance(values, list | tuple) else values


def _as_text(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else _as_texts(value)


Words = Annotated[tuple[str, ...], Field(strict=False), BeforeValidator(_as_texts)]
StringOrList = Annotated[tuple[str, ...], Field(strict=False), BeforeValidator(_as_list)]


class Section(BaseModel):
    """One section of the configuration: immutable, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)
