"""Types of configuration values, used in `schema.py` and in the constructors of forms."""

from __future__ import annotations

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


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


StringOrList = Annotated[tuple[str, ...], Field(strict=False), BeforeValidator(_one_or_many)]


class Section(BaseModel):
    """One section of the configuration: immutable, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)
