"""How text is generated: every setting stated, none taken from a model's own files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from transformers import GenerationConfig, GenerationMixin, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Beam search (greedy for one beam) of a sequence-to-sequence model.

    Lengths are in tokens and count the decoder's start. `no_repeat_ngram_size` 0: repetitions are
    free. `forced_bos`: <s> is the first token; `forced_eos`: </s> is the last at `max_length`.
    """

    num_beams: int
    max_length: int
    min_length: int = 0
    no_repeat_ngram_size: int = 0
    length_penalty: float = 1.0
    early_stopping: bool = False
    forced_bos: bool = False
    forced_eos: bool = True

    def config(self, tokenizer: PreTrainedTokenizerBase, decoder_start: int) -> GenerationConfig:
        """The settings with the ids of `tokenizer`; targets start with `decoder_start`."""
        settings = asdict(self)
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        forced = {
            "forced_bos_token_id": bos if settings.pop("forced_bos") else None,
            "forced_eos_token_id": eos if settings.pop("forced_eos") else None,
        }
        if self.num_beams == 1:  # meaningless there, and transformers warns about them
            del settings["length_penalty"], settings["early_stopping"]
        return GenerationConfig(
            **settings,
            **forced,
            do_sample=False,
            use_cache=True,
            bos_token_id=bos,
            eos_token_id=eos,
            pad_token_id=tokenizer.pad_token_id,
            decoder_start_token_id=decoder_start,
        )

    @property
    def signature(self) -> str:
        return "|".join(f"{name}:{value}" for name, value in asdict(self).items())


@contextmanager
def only(config: GenerationConfig, model: GenerationMixin) -> Iterator[None]:
    """Let `generate` fill what `config` leaves open from `config`, not from the model's own."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own
