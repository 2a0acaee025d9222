"""Validate the decoding settings of a call of `generate` and look up the token ids they need."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from typing import Any, Self, cast

from transformers import GenerationConfig

from unipeft_run.evaluation.decoding import RULES, Decoding, Rules

TOKENS = (
    *("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"),
    *("forced_bos_token_id", "forced_eos_token_id"),
)
DEFAULTS = {field.name: field.default for field in fields(Decoding)}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


POSITIVE = ("an integer of at least 1", lambda value: _is_whole(value) and value >= 1)
NOT_NEGATIVE = ("an integer of at least 0", lambda value: _is_whole(value) and value >= 0)
SWITCH = ("true or false", lambda value: isinstance(value, bool))
ALLOWED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "num_beams": POSITIVE,
    "max_length": POSITIVE,
    "min_length": NOT_NEGATIVE,
    "no_repeat_ngram_size": NOT_NEGATIVE,
    "length_penalty": ("a finite number", _is_finite),
    "early_stopping": SWITCH,
    "forced_bos": SWITCH,
    "forced_eos": SWITCH,
    "rules": (" or ".join(RULES), lambda value: value in RULES),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one search.

    Lengths include the decoder start token. If `eos` is None, hypotheses end at `max_length` only.
    """

    num_beams: int
    max_length: int
    min_length: int
    no_repeat_ngram_size: int
    length_penalty: float
    early_stopping: bool
    rules: Rules
    start: int
    eos: int | None
    pad: int
    forced_bos: int | None
    forced_eos: int | None

    @classmethod
    def read(cls, decoding: Mapping[str, Any], config: Any, rules: Rules) -> Self:
        """Validate `decoding` and fill in defaults and the token ids of `config`."""
        for key in decoding:
            _check_key(key)
        values = {**DEFAULTS, "rules": rules, **decoding}
        values["rules"] = str(values["rules"])
        for key, (allowed, holds) in ALLOWED.items():
            if values[key] is MISSING:
                raise ValueError(f"decoding.{key} is missing; it must be {allowed}")
            if not holds(values[key]):
                raise ValueError(f"decoding.{key}={values[key]!r}: must be {allowed}")
        tokens = {name: _read_token(name, decoding, config) for name in TOKENS}
        return cls(
            **{key: values[key] for key in ALLOWED if not key.startswith("forced_")},
            start=_require("decoder_start_token_id", tokens),
            eos=tokens["eos_token_id"],
            pad=_require("pad_token_id", tokens),
            forced_bos=_find_forced("bos", decoding, tokens, values),
            forced_eos=_find_forced("eos", decoding, tokens, values),
        )

    def to_generation_config(self) -> GenerationConfig:
        """Convert the settings for transformers' `generate`."""
        beams: dict[str, Any] = {
            "length_penalty": self.length_penalty,
            "early_stopping": self.early_stopping,
        }
        return GenerationConfig(
            num_beams=self.num_beams,
            max_length=self.max_length,
            min_length=self.min_length,
            no_repeat_ngram_size=self.no_repeat_ngram_size,
            do_sample=False,
            use_cache=True,
            decoder_start_token_id=self.start,
            eos_token_id=self.eos,
            pad_token_id=self.pad,
            forced_bos_token_id=self.forced_bos,
            forced_eos_token_id=self.forced_eos,
            **(beams if self.num_beams > 1 else {}),  # with one beam, transformers warns about them
        )


def _check_key(key: str) -> None:
    known = [*ALLOWED, *TOKENS]
    if key not in known:
        close = get_close_matches(key, known, 1)
        hint = f" Did you mean {close[0]!r}?" if close else f" Known keys: {', '.join(known)}."
        raise ValueError(f"decoding has no key {key!r}.{hint}")


def _read_token(name: str, decoding: Mapping[str, Any], config: Any) -> int | None:
    """Return the token id `name`. Forced tokens are never read from the config."""
    default = None if name.startswith("forced_") else getattr(config, name, None)
    token = decoding.get(name, default)
    if token is not None and not (_is_whole(token) and 0 <= token < config.vocab_size):
        allowed = f"a token id from 0 to {config.vocab_size - 1}"
        raise ValueError(f"decoding.{name}={token!r}: must be {allowed}")
    return cast("int | None", token)


def _require(name: str, tokens: Mapping[str, int | None]) -> int:
    token = tokens[name]
    if token is None:
        raise ValueError(f"decoding.{name} is missing, and the model's config does not give it")
    return token


def _find_forced(
    kind: str,
    decoding: Mapping[str, Any],
    tokens: Mapping[str, int | None],
    values: Mapping[str, Any],
) -> int | None:
    """Return the id of the forced token, or None. An id given without its switch is forced."""
    switch, name = f"forced_{kind}", f"forced_{kind}_token_id"
    if name in decoding and switch not in decoding:
        return tokens[name]
    if not values[switch]:
        return None
    forced = tokens[name]
    if forced is None:
        forced = tokens[f"{kind}_token_id"]
        if forced is None and switch in decoding:
            raise ValueError(f"decoding.{switch}=true needs decoding.{kind}_token_id")
    return forced
