"""The interface of causal tasks: a decoder-only model continues a prompt with a response."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from unipeft_run.config.types import Count
from unipeft_run.data.tasks.base import Kind, TextTask
from unipeft_run.data.tasks.template import Template
from unipeft_run.data.text_encoder import check_length
from unipeft_run.errors import UserError

if TYPE_CHECKING:  # these take seconds to import, and unipeft score needs neither
    from transformers import PreTrainedTokenizerBase

    from unipeft_run.data.text_encoder import TextEncoder

Decision = Literal["generation", "likelihood"]
UNLIMITED = 2**31 - 1  # tokens


@dataclass(kw_only=True)
class CausalTask(TextTask):
    """A task from a prompt to a response, both made from an example by templates.

    Prompt and response are encoded separately, so that a prompt has the same tokens in training and
    generation. Control tokens written in `prompt_template` are encoded as such, those in the values
    of its fields as text. A prompt of more than `max_source_length` tokens loses its beginning, but
    not the start token; a response of more than `max_target_length` loses its end. A response that
    is not cut ends in the end token, which counts. `loss_on`: the tokens that the loss is averaged
    over.
    """

    prompt_template: str
    response_template: str
    loss_on: Literal["response", "all"] = "response"
    max_target_length: Count

    kind: ClassVar[Kind] = "causal"

    def __post_init__(self) -> None:
        super().__post_init__()
        for template, fields in zip(self._templates, self.template_fields, strict=True):
            template.check(fields)

    @property
    def decides_by(self) -> Decision:
        """How a response is decided: generated, or the most likely of several."""
        return "generation"

    @property
    def generates(self) -> bool:
        return self.decides_by == "generation"

    @property
    @abstractmethod
    def template_fields(self) -> tuple[Sequence[str], Sequence[str]]:
        """The fields that the template of prompts and that of responses may have."""

    @abstractmethod
    def fill_fields(self, batch: Mapping[str, list[Any]]) -> Mapping[str, list[str]]:
        """Return the values of the templates' fields for the examples of `batch`."""

    def inputs_of(self, encoded: Mapping[str, list[Any]]) -> list[Any]:
        """Return the token ids of each prompt."""
        pairs = zip(encoded["input_ids"], encoded["prompt_length"], strict=True)
        return [ids[:length] for ids, length in pairs]

    @cached_property
    def _templates(self) -> tuple[Template, Template]:
        prompt = Template(self.prompt_template, "task.prompt_template")
        return prompt, Template(self.response_template, "task.response_template")

    def _cache_key(self, train: bool) -> dict[str, Any]:
        lengths = self.max_source_length, self.max_target_length
        templates = self.prompt_template, self.response_template
        return {"lengths": lengths, "templates": templates, "control_tokens": "of prompts"}

    def _check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.eos_token_id is None:
            raise UserError("the backbone's tokenizer has no end token (eos_token)")
        check_length("task.max_source_length", self.max_source_length, 2)
        check_length("task.max_target_length", self.max_target_length, 2)
        _check_start(self._templates[0], tokenizer)

    def _tokenize(
        self, batch: Mapping[str, list[Any]], encoder: TextEncoder, train: bool
    ) -> dict[str, list[Any]]:
        fields = self.fill_fields(batch)
        prompt, response = self._templates
        prompts = prompt.map_literals(encoder.mark).fill(fields)
        if token := next(filter(None, map(encoder.find, response.literals)), None):
            raise UserError(
                f"task.response_template has the control token {token!r}, but a response is plain "
                "text: remove it (the end token is added)"
            )
        responses = response.fill(fields)
        starts = self.encode_prompts(prompts, encoder)
        ends = self.encode_responses(responses, encoder)
        return {
            "input_ids": [[*start, *end] for start, end in zip(starts, ends, strict=True)],
            "prompt_length": list(map(len, starts)),
        }

    def encode_prompts(self, texts: Sequence[str], encoder: TextEncoder) -> list[list[int]]:
        """Return the ids of `texts`, cut at the start, after the tokenizer's start token if any."""
        start = start_ids(encoder.tokenizer)
        room = self.max_source_length - len(start)
        rows = encoder.encode(texts, max_length=UNLIMITED, special=False)
        # a model cannot continue nothing
        empty = start or [int(encoder.tokenizer.eos_token_id)]
        return [[*start, *ids[-room:]] if ids else empty for ids in rows]

    def encode_responses(self, texts: Sequence[str], encoder: TextEncoder) -> list[list[int]]:
        """Return the ids of `texts` and the end token, cut at the end."""
        ending = int(encoder.tokenizer.eos_token_id)
        rows = encoder.encode(texts, max_length=UNLIMITED, special=False)
        return [[*ids, ending][: self.max_target_length] for ids in rows]


def _check_start(prompt: Template, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise UserError if the template begins with the start token, which is added to prompts."""
    start = str(tokenizer.bos_token)
    if start_ids(tokenizer) and prompt.literals and prompt.literals[0].startswith(start):
        raise UserError(
            f"task.prompt_template begins with {start!r}, but the start token is added to every "
            "prompt: remove it"
        )


def start_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return [the start token's id] if the tokenizer starts texts with it, as Llama's does."""
    bos, ids = tokenizer.bos_token_id, tokenizer("a")["input_ids"]
    return [int(bos)] if bos is not None and ids[0] == bos else []


def most_frequent(values: Sequence[Any]) -> Any:
    """Return the most frequent value; of several, the first."""
    return Counter(values).most_common(1)[0][0]
