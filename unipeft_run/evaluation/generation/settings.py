"""Validate the decoding settings of a call of `generate` and look up the token ids they need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast

from transformers import GenerationConfig

from unipeft_run.config.schema import DecodingConfig, Rules
from unipeft_run.config.validation import check
from unipeft_run.errors import UserError

TOKENS = ("decoder_start_token_id", "bos_token_id", "pad_token_id", "forced_bos_token_id")
END_TOKENS = ("eos_token_id", "forced_eos_token_id")  # one id or a list
COPIED = (
    *("num_beams", "no_repeat_ngram_size"),
    *("length_penalty", "early_stopping", "rules"),
)


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one search.

    Lengths include the `prompt` tokens that every target starts with, padding included: the prompt
    of a decoder-only model, and otherwise the decoder start token. `eos`: the end tokens; without
    any, hypotheses end at `max_length` only. `forced_eos`: empty if none is forced.
    """

    num_beams: int
    max_length: int
    min_length: int
    no_repeat_ngram_size: int
    length_penalty: float
    early_stopping: bool
    rules: Rules
    prompt: int
    start: int | None
    eos: tuple[int, ...]
    pad: int
    forced_bos: int | None
    forced_eos: tuple[int, ...]

    @classmethod
    def read(
        cls, decoding: Mapping[str, Any], config: Any, rules: Rules, prompt: int | None = None
    ) -> Self:
        """Validate `decoding` and fill in defaults and the token ids of `config`.

        `prompt`: width of the prompts of a decoder-only model.
        """
        keys = {key: value for key, value in decoding.items() if key not in (*TOKENS, *END_TOKENS)}
        values = check(DecodingConfig, {"rules": rules, **keys}, "decoding")
        tokens = {name: _read_token(name, decoding, config) for name in TOKENS}
        ends = {name: _read_tokens(name, decoding, config) for name in END_TOKENS}
        if tokens["pad_token_id"] is None and ends["eos_token_id"]:  # as in transformers
            tokens["pad_token_id"] = ends["eos_token_id"][0]
        return cls(
            **values.model_dump(include=set(COPIED)),
            max_length=_find_longest(values, prompt),
            min_length=_find_shortest(values, prompt),
            prompt=1 if prompt is None else prompt,
            start=_require("decoder_start_token_id", tokens) if prompt is None else None,
            eos=ends["eos_token_id"],
            pad=_require("pad_token_id", tokens),
            forced_bos=_find_forced("bos", decoding, tokens, values.forced_bos),
            forced_eos=_find_forced("eos", decoding, ends, values.forced_eos) or (),
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
            eos_token_id=list(self.eos) or None,
            pad_token_id=self.pad,
            forced_bos_token_id=self.forced_bos,
            forced_eos_token_id=list(self.forced_eos) or None,
            **(beams if self.num_beams > 1 else {}),  # with one beam, transformers warns about them
        )


def _find_longest(values: DecodingConfig, prompt: int | None) -> int:
    """Return the maximum length. Raises UserError if the prompts leave no room for a token."""
    longest = values.find_longest(1 if prompt is None else prompt)
    if prompt is not None and longest <= prompt:
        raise UserError(
            f"decoding.max_length={longest}: includes the prompts, which have {prompt} tokens; "
            "give decoding.max_new_tokens instead"
        )
    return longest


def _find_shortest(values: DecodingConfig, prompt: int | None) -> int:
    """Return the minimum length; like `max_new_tokens`, it may leave out the prompts."""
    given = 0 if prompt is None or values.max_new_tokens is None else prompt
    return values.min_length + given


def _read_token(name: str, decoding: Mapping[str, Any], config: Any) -> int | None:
    """Return the token id `name`, if it is given."""
    token = _find(name, decoding, config)
    if token is not None:
        _check_token(name, token, config)
    return cast("int | None", token)


def _read_tokens(name: str, decoding: Mapping[str, Any], config: Any) -> tuple[int, ...]:
    """Return the token ids `name`: none, one or several, each once."""
    given = _find(name, decoding, config)
    tokens = tuple(given) if isinstance(given, list | tuple) else (given,) * (given is not None)
    for token in tokens:
        _check_token(name, token, config)
    return tuple(dict.fromkeys(tokens))


def _find(name: str, decoding: Mapping[str, Any], config: Any) -> Any:
    """Return the value of `name`. Forced tokens are never read from the config."""
    default = None if name.startswith("forced_") else getattr(config, name, None)
    return decoding.get(name, default)


def _check_token(name: str, token: Any, config: Any) -> None:
    whole = isinstance(token, int) and not isinstance(token, bool)
    if not (whole and 0 <= token < config.vocab_size):
        allowed = f"a token id from 0 to {config.vocab_size - 1}"
        raise ValueError(f"decoding.{name}={token!r}: must be {allowed}")


def _require(name: str, tokens: Mapping[str, int | None]) -> int:
    token = tokens[name]
    if token is None:
        raise ValueError(f"decoding.{name} is missing, and the model's config does not give it")
    return token


def _find_forced(
    kind: str, decoding: Mapping[str, Any], tokens: Mapping[str, T | None], forced: bool
) -> T | None:
    """Return the forced token or tokens, if any. An id given without its switch is forced."""
    switch, name = f"forced_{kind}", f"forced_{kind}_token_id"
    if name in decoding and switch not in decoding:
        return tokens[name]
    if not forced:
        return None
    found = (tokens[key] for key in (name, f"{kind}_token_id"))
    token = next((token for token in found if token not in (None, ())), None)
    if token is None and switch in decoding:
        raise ValueError(f"decoding.{switch}=true needs decoding.{kind}_token_id")
    return token
