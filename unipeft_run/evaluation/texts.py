"""Token ids that start and end generated texts, and decoding token ids into texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from transformers import PreTrainedTokenizerBase

from unipeft_run.data.tasks.languages import language_code_id
from unipeft_run.data.tasks.sequence import SequenceTask

References = Literal["raw", "reference_code"]
DecoderStart = int | Literal["rotate"] | None  # as in Collator


def generation_token_ids(
    task: SequenceTask, tokenizer: PreTrainedTokenizerBase, decoder_start: DecoderStart
) -> dict[str, int | None]:
    """Return the token ids for `generate`, from the tokenizer."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    ids = {name: getattr(tokenizer, name) for name in names}
    if not isinstance(decoder_start, int):
        code = language_code_id(tokenizer, task.language_codes[1])
        # a target without a language code ends with </s>, which the rotation moves to the front
        decoder_start = int(tokenizer.eos_token_id if code is None else code)
    return {**ids, "decoder_start_token_id": decoder_start}


def decode_texts(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[Sequence[int]], references: References
) -> list[str]:
    """Return the text of each row of `tokens`, without special tokens.

    `reference_code`: join punctuation to the preceding word, as the paper's code does.
    """
    texts = tokenizer.batch_decode(
        tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    if references == "reference_code":
        texts = [tokenizer.clean_up_tokenization(text) for text in texts]
    return [text.strip() for text in texts]
